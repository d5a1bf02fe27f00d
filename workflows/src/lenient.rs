//! Inputs that people write by hand: decoded inside the workflow, so that bad text is answered instead of failing the
//! workflow task again and again (a typed signal whose payload does not decode does just that).

use mandate_domain::{
    AgentTask, ApprovalDecision, INLINE_ONCE_BYTES_MAX, ParseIdError, PersonId, RequestId, Resolution, ToolCallId,
    Verdict,
    agent_run::{HaltRequest, ResolveCall},
    render,
};
use serde::{Deserialize, de::DeserializeOwned};
use temporalio_common::{
    data_converters::{PayloadConversionError, SerializationContext, TemporalDeserializable, TemporalSerializable},
    protos::temporal::api::common::v1::Payload,
};

use crate::snapshot::Snapshot;

/// Longest comment of a person, in bytes. A longer one is refused, not cut: a decision is recorded as it was sent.
pub const COMMENT_BYTES_MAX: usize = 1024;

/// Longest reason that a refusal repeats, in characters.
const REASON_CHARS_MAX: usize = 300;

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
        let SentUpdate { verdict, request_id, by, comment } = sent;
        SentDecision { request_id, by, comment }.check(verdict)
    }

    /// What became of a call.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn resolution(&self) -> Result<ResolveCall, String> {
        let sent: SentResolution = self.decode(RESOLVE_FORM)?;
        let call = sent.call.parse::<ToolCallId>().map_err(|error| error.to_string())?;
        let (by, comment) = (person(sent.by)?, checked_comment(sent.comment)?);
        Ok(ResolveCall { call, resolution: sent.resolution, by, comment })
    }

    /// A wish that the run stops. An empty input is taken too: stopping must be easy.
    #[must_use]
    pub fn halt(&self) -> HaltRequest {
        #[derive(Deserialize)]
        struct Sent {
            by: Option<String>,
            comment: Option<String>,
        }
        let sent = self.decode(HALT_FORM).unwrap_or(Sent { by: None, comment: None });
        let by = sent.by.and_then(|by| PersonId::parse(by).ok()).unwrap_or_else(unnamed);
        HaltRequest { by, comment: sent.comment.map(|text| text.chars().take(200).collect()) }
    }
}

const TASK_FORM: &str = r#"{"agent":"tenant/unit/agent","prompt":"…","on_behalf_of":"person"}"#;
const DECISION_FORM: &str = r#"{"request_id":"r1-7f3a9c","by":"your id","comment":"optional"}"#;
const DECIDE_FORM: &str = r#"{"request_id":"r1-7f3a9c","verdict":"approve","by":"your id","comment":"optional"}"#;
const RESOLVE_FORM: &str = r#"{"call":"t1.0","resolution":"happened","by":"your id"}"#;
const HALT_FORM: &str = r#"{"by":"your id","comment":"why"}"#;

/// What a workflow begins with.
#[derive(Debug)]
pub enum Start {
    /// A task from a caller.
    Task(Box<AgentTask>),
    /// The state of the execution before.
    Continued(Box<Snapshot>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentDecision {
    request_id: String,
    by: String,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentUpdate {
    request_id: String,
    verdict: Verdict,
    by: String,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentResolution {
    call: String,
    resolution: Resolution,
    by: String,
    comment: Option<String>,
}

impl SentDecision {
    fn check(self, verdict: Verdict) -> Result<ApprovalDecision, String> {
        let request = RequestId::parse(self.request_id).map_err(|error: ParseIdError| error.to_string())?;
        let (by, comment) = (person(self.by)?, checked_comment(self.comment)?);
        Ok(ApprovalDecision { request, verdict, by, comment })
    }
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

#[expect(clippy::expect_used, reason = "a constant that satisfies the rule")]
fn unnamed() -> PersonId {
    PersonId::parse("unnamed").expect("not empty, short, no control characters")
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
            (r#"{"request_id":"r1-7f3a9c"}"#, "by"),
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
        assert_eq!(Lenient::json(b"garbage".to_vec()).halt().by.as_str(), "unnamed");
        assert_eq!(Lenient::json(br#"{"by":"op"}"#.to_vec()).halt().by.as_str(), "op");
    }
}
