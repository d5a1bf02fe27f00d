//! People with keys: each person of the tests has one, the same in every run, and a folder that accepts keys knows all of
//! them.

use std::{fs, path::Path};

use mandate_domain::{
    Address, PersonId, RequestId, RunChain, Statement, Verdict, canonical,
    proof::{DecisionSaid, InstructionKind, InstructionSaid, SigningKey, StartSaid},
};
use serde_json::{Map, Value, json};

/// The people of the example, and somebody who is in no group.
pub const PEOPLE: [&str; 5] =
    ["ana@acme.example", "bo@acme.example", "eve@acme.example", "kim@acme.example", "mallory@acme.example"];

/// What the example accepts.
pub(crate) const CLAIMS: &str = "accept = [\"claimed\"]";

/// The key of a person. It is no secret: its random bytes are the digest of their name.
#[must_use]
pub fn key_of(person: &str) -> SigningKey {
    let digest = canonical::sha256(person.as_bytes());
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest.as_str()[index * 2..index * 2 + 2], 16).expect("a hexadecimal digit");
    }
    SigningKey::from_random(&bytes)
}

/// Lets an operating folder accept keys, those of [`PEOPLE`], and puts each into `keys/<person>.pem`.
pub fn accept_keys(folder: &Path) {
    let keys = PEOPLE.map(|person| format!("\"{person}\" = [\"{}\"]\n", key_of(person).public_key())).concat();
    let file = folder.join("mandate.toml");
    let text = fs::read_to_string(&file).expect("mandate.toml");
    assert!(text.contains(CLAIMS), "the folder does not accept claims");
    let text = text.replace(CLAIMS, "accept = [\"key\"]") + &format!("\n[identity.keys]\n{keys}");
    fs::write(file, text).expect("mandate.toml");
    fs::create_dir_all(folder.join("keys")).expect("a folder");
    for person in PEOPLE {
        fs::write(key_file(folder, person), key_of(person).to_pem().expect("PEM").as_bytes()).expect("the key");
    }
}

/// Where a person's private key stands.
#[must_use]
pub fn key_file(folder: &Path, person: &str) -> std::path::PathBuf {
    folder.join("keys").join(format!("{person}.pem"))
}

fn person(text: &str) -> PersonId {
    PersonId::parse(text).expect("a person")
}

/// A signature over a statement, by whoever has the key of `signer`, in the name of `by`.
#[must_use]
pub fn sign(statement: &Statement, by: &str, signer: &str) -> String {
    key_of(signer).sign(&statement.bytes(&person(by)).expect("canonical")).to_string()
}

/// What a person decides.
#[derive(Debug, Clone, Copy)]
pub struct SaysOf<'a> {
    /// The request.
    pub request: &'a str,
    /// Its digest.
    pub digest: &'a Address,
    /// What they say.
    pub verdict: Verdict,
    /// Their words.
    pub comment: Option<&'a str>,
    /// Other arguments.
    pub arguments: Option<&'a Map<String, Value>>,
}

impl SaysOf<'_> {
    /// The statement that is signed.
    #[must_use]
    pub fn statement(&self) -> Statement {
        let request = RequestId::parse(self.request).expect("a request id");
        let (request_digest, verdict) = (self.digest, self.verdict);
        let said = DecisionSaid {
            request: &request,
            request_digest,
            verdict,
            comment: self.comment,
            arguments: self.arguments,
        };
        Statement::decision(&said).expect("canonical")
    }

    /// The payload of a signal `approve` or `reject`, signed by `by`.
    #[must_use]
    pub fn signed(&self, by: &str) -> Value {
        let mut payload = json!({ "request_id": self.request, "by": by, "signature": sign(&self.statement(), by, by) });
        if let Some(comment) = self.comment {
            payload["comment"] = comment.into();
        }
        if let Some(arguments) = self.arguments {
            payload["arguments"] = Value::Object(arguments.clone());
        }
        payload
    }
}

/// The statement of an instruction.
#[must_use]
pub fn instruction(
    run: &RunChain,
    message_id: &str,
    kind: InstructionKind,
    about: Option<&str>,
    text: Option<&str>,
) -> Statement {
    Statement::instruction(&InstructionSaid { run, message_id, kind, about, text }).expect("canonical")
}

/// The statement of a start.
#[must_use]
pub fn start(agent: &str, prompt: &str, on_behalf_of: &str, workflow_id: &str) -> Statement {
    let agent = agent.parse().expect("an agent");
    let said = StartSaid { agent: &agent, prompt, on_behalf_of: &person(on_behalf_of), workflow_id };
    Statement::start(&said).expect("canonical")
}
