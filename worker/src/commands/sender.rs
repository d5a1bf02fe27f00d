//! Who sends a message, and what shows that it was them.
//!
//! The run says which ways count, and one that it does not accept is refused here, before anything is sent. A key signs
//! the statement of exactly this message; a token carries the statement's nonce. Where the Temporal server itself stamps
//! on a message who sent it, nothing is added, and the message has to go as a signal: the event of an update does not
//! carry that.

use std::time::Duration;

use anyhow::Context as _;
use mandate_activities::catalog::SecretRef;
use mandate_domain::{Evidence, PersonId, Proof, Statement, proof::SigningKey};
use mandate_workflows::lenient::{COMMENT_BYTES_MAX, TEXT_BYTES_MAX};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use super::key;
use crate::{
    cli::SenderOptions,
    output::{self, UsageError},
};

/// Where a program that supplies a token reads the nonce.
const NONCE: &str = "MANDATE_NONCE";
/// How long that program may take: somebody may have to log in.
const TOKEN_WITHIN: Duration = Duration::from_mins(2);

/// Who sends a message.
pub(super) struct Sender {
    by: Option<PersonId>,
    comment: Option<String>,
    way: Way,
}

/// What shows that it was them.
enum Way {
    /// Their word.
    Claimed,
    /// A signature.
    Key(PersonId, Box<SigningKey>),
    /// A token.
    Jwt(SecretRef),
    /// The Temporal server.
    Principal,
}

impl Sender {
    /// Takes what was typed, if it is accepted.
    ///
    /// # Errors
    /// [`UsageError`] that names what is accepted; when the key cannot be read.
    pub(super) fn new(options: SenderOptions, accepts: &[Proof]) -> anyhow::Result<Self> {
        if let Some(bytes) = options.comment.as_ref().map(String::len).filter(|bytes| *bytes > COMMENT_BYTES_MAX) {
            return Err(
                UsageError(format!("--comment has {bytes} bytes; at most {COMMENT_BYTES_MAX} are taken")).into()
            );
        }
        let chosen = chosen(&options, accepts)?;
        let SenderOptions { by, proof, comment } = options;
        let way = match (chosen, proof.key, proof.token, &by) {
            (Proof::Key, Some(file), _, Some(by)) => Way::Key(by.clone(), Box::new(key::read_signing_key(&file)?)),
            (Proof::Jwt, _, Some(token), _) => Way::Jwt(token),
            (Proof::Principal, ..) => Way::Principal,
            (Proof::Key | Proof::Jwt | Proof::Claimed, ..) => Way::Claimed,
        };
        Ok(Self { by, comment, way })
    }

    /// Their words.
    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Whether the Temporal server has to say who it is, which it does of signals only.
    pub(super) fn is_known_by_the_server(&self) -> bool {
        matches!(self.way, Way::Principal)
    }

    /// Makes what is to be proved, if anything is, before the person is asked: whoever keeps a token in a file has to
    /// know the nonce that it must carry.
    ///
    /// # Errors
    /// When the statement cannot be made.
    pub(super) fn ready(&self, statement: impl FnOnce() -> anyhow::Result<Statement>) -> anyhow::Result<Ready<'_>> {
        let statement = match &self.way {
            Way::Claimed | Way::Principal => None,
            Way::Key(..) | Way::Jwt(_) => Some(statement()?),
        };
        if let (Way::Jwt(SecretRef::Env(_) | SecretRef::File(_)), Some(statement)) = (&self.way, &statement) {
            output::note(format_args!("The token has to carry the nonce {}", statement.nonce()));
        }
        Ok(Ready { sender: self, statement })
    }
}

/// A sender and what is to be proved.
pub(super) struct Ready<'a> {
    sender: &'a Sender,
    statement: Option<Statement>,
}

impl Ready<'_> {
    /// What is sent beside the message. A token is asked for now.
    ///
    /// # Errors
    /// When the token cannot be had or is too long.
    pub(super) async fn evidence(&self) -> anyhow::Result<Evidence> {
        let Some(statement) = &self.statement else { return Ok(Evidence::none()) };
        let evidence = match &self.sender.way {
            Way::Claimed | Way::Principal => Evidence::none(),
            Way::Key(by, key) => Evidence { signature: Some(key.sign(&statement.bytes(by)?).to_string()), token: None },
            Way::Jwt(reference) => {
                let token = reference.resolve_with(&[(NONCE, statement.nonce())], TOKEN_WITHIN).await?;
                Evidence { signature: None, token: Some(token.expose_secret().trim().to_owned()) }
            }
        };
        evidence.check()?;
        Ok(evidence)
    }

    /// The whole message: what is said, and who says it.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub(super) async fn message(&self, said: Map<String, Value>) -> anyhow::Result<Value> {
        let Evidence { signature, token } = self.evidence().await?;
        let by = self.sender.by.as_ref().map(|by| by.as_str().to_owned());
        let comment = self.sender.comment.clone();
        let beside = [("by", by), ("comment", comment), ("signature", signature), ("token", token)];
        let beside = beside.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::String(text?))));
        Ok(Value::Object(said.into_iter().chain(beside).collect()))
    }
}

/// The way that was typed, if it is accepted. A run of an older worker says nothing of ways: it takes people's word.
fn chosen(options: &SenderOptions, accepts: &[Proof]) -> Result<Proof, UsageError> {
    let accepts = if accepts.is_empty() { &[Proof::Claimed] } else { accepts };
    let accepted = |way: Proof| accepts.contains(&way);
    let wrong = |text: &str| Err(UsageError(text.to_owned()));
    let refused = |what: &str| Err(UsageError(format!("{what} is not accepted here; what is: {}", words(accepts))));
    match (&options.proof.key, &options.proof.token) {
        (Some(_), _) if !accepted(Proof::Key) => refused("a signature (--key)"),
        (Some(_), _) if options.by.is_none() => wrong("--key signs in somebody's name: add --by PERSON"),
        (Some(_), _) => Ok(Proof::Key),
        (None, Some(_)) if accepted(Proof::Jwt) => Ok(Proof::Jwt),
        (None, Some(_)) => refused("a token (--token)"),
        (None, None) if accepted(Proof::Principal) => Ok(Proof::Principal),
        (None, None) if !accepted(Proof::Claimed) => refused("a message without a proof of who sends it"),
        (None, None) if options.by.is_none() => wrong("say who you are: add --by PERSON"),
        (None, None) => Ok(Proof::Claimed),
    }
}

/// The ways, each with what to type.
fn words(accepts: &[Proof]) -> String {
    let word = |way: &Proof| match way {
        Proof::Claimed => "your word (--by PERSON)",
        Proof::Key => "a signature (--by PERSON --key FILE)",
        Proof::Jwt => "a token (--token REF)",
        Proof::Principal => "your own access to Temporal (nothing to add)",
    };
    accepts.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Makes one message differ from an equal one before it, so that nobody can send it a second time.
///
/// # Errors
/// When the operating system gives no random numbers.
pub(super) fn message_id() -> anyhow::Result<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).context("no random numbers from the operating system")?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}

/// Checks a text before it is sent: the run would refuse it for the same reasons.
///
/// # Errors
/// [`UsageError`] when it is empty or too long.
pub(super) fn check_text(text: &str) -> Result<(), UsageError> {
    let bytes = text.len();
    if text.trim().is_empty() {
        Err(UsageError("the text is empty".to_owned()))
    } else if bytes > TEXT_BYTES_MAX {
        Err(UsageError(format!("the text has {bytes} bytes; at most {TEXT_BYTES_MAX} are taken")))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use mandate_domain::{
        RunChain,
        proof::{InstructionKind, InstructionSaid},
    };
    use serde_json::json;

    use super::*;
    use crate::cli::ProofOptions;

    fn person() -> PersonId {
        PersonId::parse("bo@acme.example").unwrap()
    }

    fn options(by: Option<PersonId>, key: Option<&Path>, token: Option<&str>) -> SenderOptions {
        let token = token.map(|token| token.parse().unwrap());
        SenderOptions { by, proof: ProofOptions { key: key.map(Path::to_owned), token }, comment: Some("seen".into()) }
    }

    fn check(typed: &SenderOptions, accepts: &[Proof], expected: Result<Proof, &str>) {
        match (chosen(typed, accepts), expected) {
            (Ok(way), Ok(expected)) => assert_eq!(way, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (way, expected) => panic!("{way:?}, {expected:?}"),
        }
    }

    #[test]
    fn a_way_that_is_not_accepted_is_refused_with_those_that_are() {
        let nothing = options(None, None, None);
        let named = options(Some(person()), None, None);
        let (pem, by) = (Path::new("bo.pem"), Some(person()));
        let (signed, brings) = (options(by.clone(), Some(pem), None), options(None, None, Some("env:T")));
        check(&named, &[], Ok(Proof::Claimed));
        check(&named, &[Proof::Claimed], Ok(Proof::Claimed));
        check(&nothing, &[Proof::Claimed], Err("add --by PERSON"));
        check(&named, &[Proof::Key, Proof::Jwt], Err("what is: a signature (--by PERSON --key FILE), a token"));
        check(&nothing, &[Proof::Claimed, Proof::Principal], Ok(Proof::Principal));
        check(&named, &[Proof::Principal], Ok(Proof::Principal));
        check(&signed, &[Proof::Claimed, Proof::Key], Ok(Proof::Key));
        check(&signed, &[Proof::Principal], Err("a signature (--key) is not accepted here; what is: your own access"));
        check(&options(None, Some(pem), None), &[Proof::Key], Err("add --by PERSON"));
        check(&brings, &[Proof::Jwt], Ok(Proof::Jwt));
        check(&brings, &[Proof::Claimed], Err("a token (--token) is not accepted here; what is: your word"));
    }

    fn statement() -> anyhow::Result<Statement> {
        let run = RunChain { workflow_id: "refund-o1".into(), first_run_id: "run-1".into() };
        let said =
            InstructionSaid { run: &run, message_id: "m1", kind: InstructionKind::Pause, about: None, text: None };
        Ok(Statement::instruction(&said)?)
    }

    async fn sent(typed: SenderOptions, accepts: &[Proof]) -> Value {
        let sender = Sender::new(typed, accepts).unwrap();
        let said = json!({ "message_id": "m1" }).as_object().cloned().unwrap();
        sender.ready(statement).unwrap().message(said).await.unwrap()
    }

    #[tokio::test]
    async fn a_key_signs_exactly_this_message() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("bo.pem"), SigningKey::from_random(&[7; 32]));
        fs::write(&file, key.to_pem().unwrap().as_bytes()).unwrap();
        let message = sent(options(Some(person()), Some(&file), None), &[Proof::Key]).await;
        let signature = message["signature"].as_str().unwrap().parse().unwrap();
        let signed = statement().unwrap().bytes(&person()).unwrap();
        assert_eq!(key.public_key().verify(&signed, &signature), Ok(()));
        assert_eq!((&message["by"], &message["comment"]), (&"bo@acme.example".into(), &"seen".into()));
        assert_eq!((&message["message_id"], message.get("token")), (&"m1".into(), None));
    }

    #[tokio::test]
    async fn a_program_that_brings_a_token_gets_the_nonce() {
        let message = sent(options(None, None, Some("exec:printenv MANDATE_NONCE")), &[Proof::Jwt]).await;
        let nonce = statement().unwrap().nonce().to_owned();
        assert_eq!(message, json!({ "message_id": "m1", "comment": "seen", "token": nonce }));
    }

    #[tokio::test]
    async fn nothing_is_added_where_the_server_knows_the_sender() {
        let message = sent(options(None, None, None), &[Proof::Principal]).await;
        assert_eq!(message, json!({ "message_id": "m1", "comment": "seen" }));
    }

    #[test]
    fn what_the_run_would_refuse_is_refused_before() {
        let long = SenderOptions { comment: Some("x".repeat(1025)), ..options(Some(person()), None, None) };
        let error = Sender::new(long, &[Proof::Claimed]).err().unwrap().to_string();
        assert!(error.contains("1025 bytes; at most 1024"), "{error}");
        let missing = options(Some(person()), Some(Path::new("/nowhere/bo.pem")), None);
        let error = Sender::new(missing, &[Proof::Key]).err().unwrap().to_string();
        assert!(error.contains("/nowhere/bo.pem"), "{error}");
        assert!(check_text(" ").is_err() && check_text(&"x".repeat(4097)).is_err());
        assert!(check_text(&"x".repeat(4096)).is_ok());
    }

    #[test]
    fn two_message_ids_are_two() {
        let (one, other) = (message_id().unwrap(), message_id().unwrap());
        assert!(one != other && one.len() == 32, "{one} {other}");
    }
}
