//! What a person puts their name to, and what they send to show that it was them.
//!
//! A [`Statement`] says the whole of what a person decided, instructed or started. A signature covers the statement and
//! the person in it; a token of an identity provider carries the statement's [`Statement::nonce`]. Either is good for
//! this one thing and for no other, so whoever reads it in a history can do nothing with it.
//!
//! Which ways an organisation accepts, and which keys are whose, is configuration; nothing here decides that.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Address, AgentName, Digest, PersonId, RequestId, RunChain, Verdict,
    canonical::{self, CanonicalError},
};

mod keys;

pub use keys::{ParseKeyError, PublicKey, Signature, SignatureRefused, SigningKey};

/// Longest signature, in characters: 64 bytes in base64.
pub const SIGNATURE_CHARS_MAX: usize = 88;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// What a person sends beside a message to show that it is theirs. Nothing in it is checked yet.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// An Ed25519 signature over the bytes of the statement, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// A compact JWT whose `nonce` is the statement's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Evidence that is not even looked at. Send one thing, within its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckEvidenceError {
    /// It would have to be said which of them counts.
    #[error("a signature and a token exclude each other")]
    Both,
    /// A signature has one length.
    #[error("the signature is longer than {SIGNATURE_CHARS_MAX} characters")]
    LongSignature,
    /// It stands in Temporal's history for years.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    LongToken,
}

impl Evidence {
    /// Nothing: the message alone.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What is used up when it counts: the same for whatever proves the same. Of a token that is the signed part alone,
    /// since an ECDSA signature has a twin that anybody can compute; of a signature its bytes, since Ed25519 is verified
    /// strictly and has none. Nothing for evidence that cannot be read.
    #[must_use]
    pub fn once(&self) -> Option<Digest> {
        if let Some(signature) = &self.signature {
            return signature.parse().ok().map(|signature: Signature| canonical::sha256(signature.as_bytes()));
        }
        let token = self.token.as_ref()?;
        let signed = token.rsplit_once('.').map_or(token.as_str(), |(signed, _)| signed);
        Some(canonical::sha256(signed.as_bytes()))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.signature.is_none() && self.token.is_none()
    }

    /// Refuses what is too long, or too much.
    ///
    /// # Errors
    /// [`CheckEvidenceError`] naming the bound.
    pub fn check(&self) -> Result<(), CheckEvidenceError> {
        if self.signature.as_ref().is_some_and(|signature| signature.len() > SIGNATURE_CHARS_MAX) {
            return Err(CheckEvidenceError::LongSignature);
        }
        if self.token.as_ref().is_some_and(|token| token.len() > TOKEN_BYTES_MAX) {
            return Err(CheckEvidenceError::LongToken);
        }
        if self.signature.is_some() && self.token.is_some() { Err(CheckEvidenceError::Both) } else { Ok(()) }
    }
}

impl fmt::Debug for Evidence {
    /// A token may still be good somewhere else, so it is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|token| format!("a token of {} bytes", token.len()));
        f.debug_struct("Evidence").field("signature", &self.signature).field("token", &token).finish()
    }
}

/// A decision about a request.
#[derive(Debug, Clone, Copy)]
pub struct DecisionSaid<'a> {
    /// The request.
    pub request: &'a RequestId,
    /// The whole keyed digest that the request's id begins with.
    pub request_digest: &'a Address,
    /// What was decided.
    pub verdict: Verdict,
    /// Their words.
    pub comment: Option<&'a str>,
    /// The arguments that are put in place of the model's.
    pub arguments: Option<&'a Map<String, Value>>,
}

/// An instruction to a run.
#[derive(Debug, Clone, Copy)]
pub struct InstructionSaid<'a> {
    /// The run.
    pub run: &'a RunChain,
    /// Chosen by the sender: the same instruction a second time is a second message.
    pub message_id: &'a str,
    /// Which instruction.
    pub kind: InstructionKind,
    /// What it is about: a question, a call.
    pub about: Option<&'a str>,
    /// Their words.
    pub text: Option<&'a str>,
}

/// The instructions that people give to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionKind {
    /// Answers a question of the agent.
    Answer,
    /// Says what became of a call.
    Resolve,
    /// Tells the agent something.
    Steer,
    /// Lets it wait.
    Pause,
    /// Lets it go on.
    Resume,
    /// Ends it.
    Halt,
}

impl InstructionKind {
    /// The word in statements, records and policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Resolve => "resolve",
            Self::Steer => "steer",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Halt => "halt",
        }
    }
}

/// The start of a run.
#[derive(Debug, Clone, Copy)]
pub struct StartSaid<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// What it is asked.
    pub prompt: &'a str,
    /// The person it acts for.
    pub on_behalf_of: &'a PersonId,
    /// The workflow id that the run gets.
    pub workflow_id: &'a str,
}

/// What somebody says, whole and in one form. Who says it is added when it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    said: Map<String, Value>,
    nonce: String,
}

#[derive(Serialize)]
struct Decision<'a> {
    mandate: &'static str,
    request: &'a RequestId,
    request_digest: &'a Address,
    verdict: Verdict,
    comment: Option<&'a str>,
    arguments: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct Instruction<'a> {
    mandate: &'static str,
    workflow_id: &'a str,
    first_run_id: &'a str,
    message_id: &'a str,
    kind: InstructionKind,
    about: Option<&'a str>,
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Start<'a> {
    mandate: &'static str,
    agent: &'a AgentName,
    prompt: &'a str,
    on_behalf_of: &'a PersonId,
    workflow_id: &'a str,
}

impl Statement {
    /// What an approver says: `decision/1`. Its nonce is the digest of the request.
    ///
    /// # Errors
    /// [`CanonicalError`] when the arguments have no canonical form.
    pub fn decision(said: &DecisionSaid<'_>) -> Result<Self, CanonicalError> {
        let DecisionSaid { request, request_digest, verdict, comment, arguments } = *said;
        let decision = Decision { mandate: "decision/1", request, request_digest, verdict, comment, arguments };
        Self::of(&decision, Some(request_digest.as_str()))
    }

    /// What a person tells a run: `instruction/1`. Its nonce is the digest of the statement without the person.
    ///
    /// # Errors
    /// As [`canonical::to_canonical`]; texts alone always have a canonical form.
    pub fn instruction(said: &InstructionSaid<'_>) -> Result<Self, CanonicalError> {
        let InstructionSaid { run, message_id, kind, about, text } = *said;
        let (workflow_id, first_run_id) = (run.workflow_id.as_str(), run.first_run_id.as_str());
        let mandate = "instruction/1";
        Self::of(&Instruction { mandate, workflow_id, first_run_id, message_id, kind, about, text }, None)
    }

    /// What a starter says: `start/1`. Its nonce is the digest of the statement without the person.
    ///
    /// # Errors
    /// As [`canonical::to_canonical`]; texts alone always have a canonical form.
    pub fn start(said: &StartSaid<'_>) -> Result<Self, CanonicalError> {
        let StartSaid { agent, prompt, on_behalf_of, workflow_id } = *said;
        Self::of(&Start { mandate: "start/1", agent, prompt, on_behalf_of, workflow_id }, None)
    }

    fn of(said: &impl Serialize, nonce: Option<&str>) -> Result<Self, CanonicalError> {
        let digest = canonical::digest(said)?;
        let nonce = nonce.unwrap_or(digest.as_str()).to_owned();
        match serde_json::to_value(said) {
            Ok(Value::Object(said)) => Ok(Self { said, nonce }),
            Ok(_) => Err(CanonicalError::NotJson("a statement is an object".to_owned())),
            Err(error) => Err(CanonicalError::NotJson(error.to_string())),
        }
    }

    /// What `by` signs: the statement with the person in it, as canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// As [`canonical::to_canonical`]; a statement that could be made always has a canonical form.
    pub fn bytes(&self, by: &PersonId) -> Result<Vec<u8>, CanonicalError> {
        let mut said = self.said.clone();
        said.insert("by".to_owned(), Value::String(by.as_str().to_owned()));
        canonical::to_canonical(&said)
    }

    /// What the `nonce` of a token has to be: 64 lower-case hexadecimal digits, the same whoever says it, so that it is
    /// known before a token is asked for.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// SHA-256 of what `by` signs: one text for people and programs that sign elsewhere.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn digest(&self, by: &PersonId) -> Result<Digest, CanonicalError> {
        Ok(canonical::sha256(&self.bytes(by)?))
    }
}

#[cfg(test)]
mod tests;
