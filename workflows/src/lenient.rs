//! Inputs that people write by hand: decoded inside the workflow, so that bad text is answered instead of failing the
//! workflow task again and again (a typed signal whose payload does not decode does just that).

use mandate_domain::{
    AgentTask, ApprovalDecision, Evidence, INLINE_ONCE_BYTES_MAX, Instruction, ParseIdError, PersonId, RequestId,
    Resolution, Sender, SentInstruction, ToolCallId, Verdict, canonical, render,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use temporalio_common::{
    data_converters::{PayloadConversionError, SerializationContext, TemporalDeserializable, TemporalSerializable},
    protos::temporal::api::common::v1::Payload,
};

use crate::{reconcile::Reconciliation, snapshot::Snapshot};

/// Longest comment of a person, in bytes. A longer one is refused, not cut: a decision is recorded as it was sent.
pub const COMMENT_BYTES_MAX: usize = 1024;

/// Longest answer, instruction or set of changed arguments, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Longest message id, in bytes.
const MESSAGE_ID_BYTES_MAX: usize = 64;

/// Longest reason that a refusal repeats, in characters.
const REASON_CHARS_MAX: usize = 300;

/// What the update `decide` says.
#[derive(Debug, Clone)]
pub enum Decided {
    /// A decision about a request.
    Request(ApprovalDecision),
    /// A person's word on a call whose outcome nobody knows.
    Word(SentInstruction),
}

/// Whatever was sent, undecoded.
#[derive(Debug, Clone, Default)]
pub struct Lenient(Vec<Payload>);

impl TemporalDeserializable for Lenient {
    fn from_payload(_: &SerializationContext<'_>, payload: Payload) -> Result<Self, PayloadConversionError> {
        Ok(Self(vec![payload]))
    }

    fn from_payloads(_: &SerializationContext<'_>, payloads: Vec<Payload>) -> Result<Self, PayloadConversionError> {
        Ok(Self(payloads))
    }
}

impl TemporalSerializable for Lenient {
    fn to_payloads(&self, _: &SerializationContext<'_>) -> Result<Vec<Payload>, PayloadConversionError> {
        Ok(self.0.clone())
    }
}

impl Lenient {
    /// JSON as one payload.
    #[must_use]
    pub fn json(text: Vec<u8>) -> Self {
        let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
        Self(vec![Payload { metadata, data: text, ..Payload::default() }])
    }

    /// Where a comparison of runs goes on; from the beginning without an input, or with one that says nothing.
    pub(crate) fn reconciliation(&self) -> Reconciliation {
        let payload = self.0.first().map(|payload| payload.data.as_slice()).unwrap_or_default();
        serde_json::from_slice(payload).unwrap_or_default()
    }

    fn decode<T: DeserializeOwned>(&self, expected: &str) -> Result<T, String> {
        let [payload] = &self.0[..] else {
            return Err(format!("expected one JSON input, got {}; write it as {expected}", self.0.len()));
        };
        serde_json::from_slice(&payload.data).map_err(|error| {
            let why: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
            format!("{}; write it as {expected}", render::escape_line(&why))
        })
    }

    /// What the workflow was started or continued with.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence that shows the right form.
    pub fn start(&self) -> Result<Start, String> {
        #[derive(Deserialize)]
        struct Continued {
            #[serde(rename = "continue")]
            snapshot: Option<serde_json::Value>,
        }
        if let [payload] = &self.0[..]
            && let Ok(Continued { snapshot: Some(snapshot) }) = serde_json::from_slice(&payload.data)
        {
            let snapshot =
                serde_json::from_value(snapshot).map_err(|error| format!("the snapshot cannot be read: {error}"))?;
            return Ok(Start::Continued(Box::new(snapshot)));
        }
        let task: AgentTask = self.decode(TASK_FORM)?;
        if task.prompt.len() > INLINE_ONCE_BYTES_MAX {
            let bytes = task.prompt.len();
            return Err(format!("`prompt` has {bytes} bytes; at most {INLINE_ONCE_BYTES_MAX} fit a start input"));
        }
        if task.prompt.trim().is_empty() {
            return Err("`prompt` is empty".to_owned());
        }
        Ok(Start::Task(Box::new(task)))
    }

    /// A decision about a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decision(&self, verdict: Verdict) -> Result<ApprovalDecision, String> {
        let sent: SentDecision = self.decode(DECISION_FORM)?;
        sent.check(verdict)
    }

    /// A decision whose verdict stands in the payload: the input of the update `decide`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decide(&self) -> Result<ApprovalDecision, String> {
        let sent: SentUpdate = self.decode(DECIDE_FORM)?;
        let SentUpdate { verdict, request_id, by, comment, arguments, signature, token } = sent;
        SentDecision { request_id, arguments, by, comment, signature, token }.check(verdict)
    }

    /// What the update `decide` says: a decision about a request, or what became of a call.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decided(&self) -> Result<Decided, String> {
        let payload = self.0.first().map(|payload| payload.data.as_slice()).unwrap_or_default();
        let resolves =
            serde_json::from_slice::<Map<String, Value>>(payload).is_ok_and(|sent| sent.contains_key("resolution"));
        if resolves { self.resolution().map(Decided::Word) } else { self.decide().map(Decided::Request) }
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn answer(&self) -> Result<SentInstruction, String> {
        let sent: SentAnswer = self.decode(ANSWER_FORM)?;
        let SentAnswer { question_id, text, by, comment, message_id, signature, token } = sent;
        let question = question_id.parse().map_err(|error: ParseIdError| error.to_string())?;
        let instruction = Instruction::Answer { question, text: checked_text(text)? };
        Ok(SentInstruction { instruction, sender: sender(by, comment, message_id, signature, token)? })
    }

    /// What became of a call.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn resolution(&self) -> Result<SentInstruction, String> {
        let sent: SentResolution = self.decode(RESOLVE_FORM)?;
        let SentResolution { call, resolution, by, comment, message_id, signature, token } = sent;
        let call = call.parse::<ToolCallId>().map_err(|error| error.to_string())?;
        let instruction = Instruction::Resolve { call, resolution };
        Ok(SentInstruction { instruction, sender: sender(by, comment, message_id, signature, token)? })
    }

    /// A further instruction.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn steer(&self) -> Result<SentInstruction, String> {
        let sent: SentText = self.decode(STEER_FORM)?;
        let SentText { text, by, comment, message_id, signature, token } = sent;
        let instruction = Instruction::Steer { text: checked_text(text)? };
        Ok(SentInstruction { instruction, sender: sender(by, comment, message_id, signature, token)? })
    }

    /// Pause or resume. An empty input is taken where the server itself says who sends it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plain(&self, instruction: Instruction) -> Result<SentInstruction, String> {
        let sent = if self.is_empty() { SentPlain::default() } else { self.decode(PLAIN_FORM)? };
        let SentPlain { by, comment, message_id, signature, token } = sent;
        Ok(SentInstruction { instruction, sender: sender(by, comment, message_id, signature, token)? })
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|payload| payload.data.is_empty())
    }

    /// A wish that the run stops. Whatever was sent is taken: stopping must be easy.
    #[must_use]
    pub fn halt(&self) -> Sender {
        let sent: SentPlain = self.decode(PLAIN_FORM).unwrap_or_default();
        let by = sent.by.and_then(|by| PersonId::parse(by).ok()).filter(|by| by.as_str() != "YOUR-ID");
        let comment = sent.comment.map(|text| text.chars().take(200).collect());
        let evidence = Evidence { signature: sent.signature, token: sent.token };
        let evidence = if evidence.check().is_ok() { evidence } else { Evidence::none() };
        let message_id = sent.message_id.filter(|id| id.len() <= MESSAGE_ID_BYTES_MAX);
        Sender { by, comment, message_id, evidence }
    }
}

const TASK_FORM: &str = r#"{"agent":"tenant/unit/agent","prompt":"…","on_behalf_of":"person"}"#;
const DECISION_FORM: &str = r#"{"request_id":"r1-7f3a9c","by":"your id","comment":"optional"}"#;
const DECIDE_FORM: &str = r#"{"request_id":"r1-7f3a9c","verdict":"approve","by":"your id","comment":"optional"}"#;
const ANSWER_FORM: &str = r#"{"question_id":"q1-7f3a9c","text":"your answer","by":"your id"}"#;
const RESOLVE_FORM: &str = r#"{"call":"t1.0","resolution":"happened","by":"your id"}"#;
const STEER_FORM: &str = r#"{"text":"what the agent is to do","by":"your id"}"#;
const PLAIN_FORM: &str = r#"{"by":"your id","comment":"why"}"#;

/// What a workflow begins with.
#[derive(Debug)]
pub enum Start {
    /// A task from a caller.
    Task(Box<AgentTask>),
    /// The state of the execution before.
    Continued(Box<Snapshot>),
}

/// Makes the struct of a message: its own fields, and what every message may say of who sends it. Serde cannot refuse
/// unknown fields of a flattened struct, so these are written into each.
macro_rules! sent {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($field: $kind,)*
            by: Option<String>,
            comment: Option<String>,
            signature: Option<String>,
            token: Option<String>,
        }
    };
}

sent!(SentDecision { request_id: String, arguments: Option<Map<String, Value>>, });
sent!(SentUpdate { request_id: String, verdict: Verdict, arguments: Option<Map<String, Value>>, });
sent!(SentAnswer { question_id: String, text: String, message_id: Option<String>, });
sent!(SentResolution { call: String, resolution: Resolution, message_id: Option<String>, });
sent!(SentText { text: String, message_id: Option<String>, });
sent!(
    #[derive(Default)]
    SentPlain { message_id: Option<String>, }
);

impl SentDecision {
    fn check(self, verdict: Verdict) -> Result<ApprovalDecision, String> {
        let request = RequestId::parse(self.request_id).map_err(|error: ParseIdError| error.to_string())?;
        let Sender { by, comment, evidence, .. } = sender(self.by, self.comment, None, self.signature, self.token)?;
        if self.arguments.is_some() && verdict == Verdict::Reject {
            return Err("`arguments` are for an approval: they are put in place of the agent's".to_owned());
        }
        let bytes = self.arguments.as_ref().map_or(0, |arguments| Value::Object(arguments.clone()).to_string().len());
        if bytes > TEXT_BYTES_MAX {
            return Err(format!("`arguments` have {bytes} bytes; at most {TEXT_BYTES_MAX} are taken"));
        }
        if let Some(Err(error)) = self.arguments.as_ref().map(canonical::to_canonical) {
            return Err(format!("`arguments` have no canonical form: {error}"));
        }
        Ok(ApprovalDecision { request, verdict, by, comment, arguments: self.arguments, evidence })
    }
}

/// What a message says of who sends it.
fn sender(
    by: Option<String>,
    comment: Option<String>,
    message_id: Option<String>,
    signature: Option<String>,
    token: Option<String>,
) -> Result<Sender, String> {
    let evidence = Evidence { signature, token };
    evidence.check().map_err(|error| error.to_string())?;
    if message_id.as_ref().is_some_and(|id| id.len() > MESSAGE_ID_BYTES_MAX) {
        return Err(format!("`message_id` is longer than {MESSAGE_ID_BYTES_MAX} bytes"));
    }
    Ok(Sender { by: by.map(person).transpose()?, comment: checked_comment(comment)?, message_id, evidence })
}

fn checked_text(text: String) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("`text` is empty".to_owned());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("`text` has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    if text.trim() == "YOUR ANSWER" {
        return Err("write your own words in place of YOUR ANSWER".to_owned());
    }
    Ok(text)
}

fn person(text: String) -> Result<PersonId, String> {
    let person = PersonId::parse(text).map_err(|error| format!("`by`: {error}"))?;
    if person.as_str() == "YOUR-ID" {
        return Err("write your own id in place of YOUR-ID".to_owned());
    }
    Ok(person)
}

fn checked_comment(comment: Option<String>) -> Result<Option<String>, String> {
    match comment {
        Some(text) if text.len() > COMMENT_BYTES_MAX => {
            Err(format!("`comment` has {} bytes; at most {COMMENT_BYTES_MAX} are taken", text.len()))
        }
        comment => Ok(comment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(text: &str) -> Result<ApprovalDecision, String> {
        Lenient::json(text.into()).decision(Verdict::Approve)
    }

    #[test]
    fn a_bad_decision_says_what_is_wrong_and_shows_the_form() {
        assert!(decision(r#"{"request_id":"r1-7f3a9c","by":"bo"}"#).is_ok());
        let wrong = [
            ("\"garbage\"", "invalid type"),
            ("", "EOF"),
            (r#"{"by":"bo"}"#, "request_id"),
            (r#"{"request_id":"r1-7f3a9c","by":""}"#, "by"),
            (r#"{"request_id":"r1-7f3a9c","signature":"x","token":"y"}"#, "exclude each other"),
            (r#"{"request_id":"nonsense","by":"bo"}"#, "request id"),
            (r#"{"request_id":"r1-7f3a9c","by":"YOUR-ID"}"#, "YOUR-ID"),
            (r#"{"request_id":"r1-7f3a9c","by":"bo","coment":"x"}"#, "coment"),
        ];
        for (text, expected) in wrong {
            let error = decision(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let long = format!(r#"{{"request_id":"r1-7f3a9c","by":"bo","comment":"{}"}}"#, "x".repeat(1025));
        assert!(decision(&long).unwrap_err().contains("1025 bytes"));
        assert!(Lenient::default().decision(Verdict::Approve).unwrap_err().contains("expected one JSON input, got 0"));
    }

    #[test]
    fn a_bad_task_says_what_is_wrong() {
        let start = |text: String| Lenient::json(text.into_bytes()).start().map(|_| ()).unwrap_err();
        assert!(start("{}".into()).contains("agent"));
        assert!(start(r#"{"agent":"refunds","prompt":"x","on_behalf_of":"ana"}"#.into()).contains("tenant/unit/agent"));
        let long = format!(r#"{{"agent":"a/b/c","on_behalf_of":"ana","prompt":"{}"}}"#, "x".repeat(9000));
        assert!(start(long).contains("9000 bytes"));
        assert!(start(r#"{"agent":"a/b/c","prompt":" ","on_behalf_of":"ana"}"#.into()).contains("empty"));
    }

    #[test]
    fn halting_takes_anything() {
        let by = |text: &[u8]| Lenient::json(text.to_vec()).halt().by.map(|by| by.to_string());
        assert_eq!(by(b"garbage"), None);
        assert_eq!(by(br#"{"by":"YOUR-ID"}"#), None);
        assert_eq!(by(br#"{"by":"op"}"#).as_deref(), Some("op"));
    }

    #[test]
    fn changed_arguments_belong_to_an_approval_and_are_bounded() {
        let text = r#"{"request_id":"r1-7f3a9c","by":"bo","arguments":{"amount_cents":40000}}"#;
        assert_eq!(decision(text).unwrap().arguments.unwrap()["amount_cents"], 40_000);
        let reject = Lenient::json(text.into()).decision(Verdict::Reject).unwrap_err();
        assert!(reject.contains("approval"), "{reject}");
        let long = format!(r#"{{"request_id":"r1-7f3a9c","by":"bo","arguments":{{"note":"{}"}}}}"#, "x".repeat(5000));
        assert!(decision(&long).unwrap_err().contains("at most 4096"));
    }

    #[test]
    fn an_answer_and_a_pause_say_who_sends_them() {
        let answer = |text: &str| Lenient::json(text.into()).answer();
        let sent = answer(r#"{"question_id":"q1-7f3a9c","text":"yes","by":"bo","message_id":"m1"}"#).unwrap();
        assert_eq!((sent.instruction.text(), sent.sender.message_id.as_deref()), (Some("yes"), Some("m1")));
        assert!(answer(r#"{"question_id":"r1-7f3a9c","text":"yes"}"#).unwrap_err().contains("q1-7f3a9c"));
        assert!(answer(r#"{"question_id":"q1-7f3a9c","text":" "}"#).unwrap_err().contains("empty"));
        assert!(Lenient::default().plain(Instruction::Pause).unwrap().sender.by.is_none());
        assert!(Lenient::json(b"7".to_vec()).plain(Instruction::Pause).is_err());
    }
}
