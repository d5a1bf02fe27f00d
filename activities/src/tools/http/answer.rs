//! What an answer means. The status says whether the server did what was asked; where it leaves that open, nobody here
//! guesses.

use mandate_domain::ToolName;
use reqwest::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};
use serde_json::Value;

use crate::{
    egress::retry_after::retry_after,
    tools::{CallToolError, ToolAnswer, answer::error, blot::Secrets},
};

/// As much of a server's words about an error as the model reads, in characters.
const ERROR_CHARS_MAX: usize = 2000;

/// As much as arrived of a body.
pub(super) enum Body {
    Whole(Vec<u8>),
    /// Longer than what is read.
    Cut {
        bytes: Vec<u8>,
        most: usize,
    },
    Broken {
        bytes: Vec<u8>,
        reason: String,
    },
}

/// An answer.
pub(super) struct Arrived {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// What was sent as secrets: a server that repeats one does not tell it to the model.
    secrets: Secrets,
}

/// What a body is made of.
enum Kind {
    Json,
    Text,
    Other(String),
}

impl Arrived {
    pub(super) fn new(status: StatusCode, headers: HeaderMap, body: Body, sent: &HeaderMap) -> Self {
        let secrets = Secrets::in_headers(sent);
        Self { status, headers, body, secrets }
    }

    fn kind(&self) -> Kind {
        if let Some(encoding) = self.headers.get(CONTENT_ENCODING) {
            return Kind::Other(format!("encoding `{}`", plain(&String::from_utf8_lossy(encoding.as_bytes()))));
        }
        let stated = self.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let stated = stated.unwrap_or_default();
        let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Kind::Json,
            "" => Kind::Other("no content type".to_owned()),
            text if text.starts_with("text/") => Kind::Text,
            json if json.starts_with("application/") && json.ends_with("+json") => Kind::Json,
            other => Kind::Other(format!("content type `{}`", plain(other))),
        }
    }

    fn text(&self, bytes: &[u8]) -> String {
        self.secrets.blotted(String::from_utf8_lossy(bytes).into_owned())
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '`').take(80).collect()
}

/// What the server may know of a call before it is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The tool changes nothing, whatever it answers.
    pub(super) reads: bool,
    /// It may have had this call before, under the same key.
    pub(super) again: bool,
    /// An attempt before this one changed something, or may have.
    pub(super) repeats: bool,
}

/// What the call came to.
pub(super) fn judge(tool: &ToolName, arrived: &Arrived, asked: Asked) -> Result<ToolAnswer, CallToolError> {
    let status = arrived.status.as_u16();
    let wait = || retry_after(&arrived.headers, jiff::Timestamp::now());
    let unavailable = || CallToolError::Unavailable { tool: tool.to_string(), status, retry_after: wait() };
    match status {
        200..=299 => success(tool, arrived),
        300..=399 if asked.reads => {
            Ok(error(format!("error: the server answered with a redirect (status {status}), which is not followed")))
        }
        300..=399 => Err(CallToolError::unknown(
            tool,
            format!("the server answered with a redirect (status {status}), which is not followed"),
        )),
        // Too early (RFC 8470) and too many requests (RFC 6585): both are said before anything is done.
        425 | 429 => Err(CallToolError::Declined { tool: tool.to_string(), status, retry_after: wait() }),
        // The call before this one is still under way, as the draft on idempotency keys says it; or it conflicts with what
        // that one did.
        409 if asked.again => Err(unavailable()),
        // It refuses this attempt, and says nothing of the one before it.
        400..=499 if asked.repeats => Err(unavailable()),
        // A timeout: some servers say it of work that they had begun.
        408 | 500..=599 => Err(unavailable()),
        400..=499 => Ok(refused(arrived)),
        _ => Err(CallToolError::unknown(tool, format!("the server answered with status {status}, which says nothing"))),
    }
}

fn success(tool: &ToolName, arrived: &Arrived) -> Result<ToolAnswer, CallToolError> {
    let status = arrived.status.as_u16();
    let bytes = match &arrived.body {
        Body::Whole(bytes) => bytes,
        Body::Cut { most, .. } => {
            return Ok(left_out(tool, status, &format!("its answer is over the limit of {most} bytes")));
        }
        Body::Broken { reason, .. } => {
            let reason = format!("the answer began with status {status}, and did not arrive whole: {reason}");
            return Err(CallToolError::unknown(tool, reason));
        }
    };
    if bytes.is_empty() {
        let text = format!("done: the server answered with status {status} and nothing else");
        return Ok(ToolAnswer { text, structured: None, is_error: false });
    }
    Ok(match arrived.kind() {
        Kind::Text => ToolAnswer { text: arrived.text(bytes), structured: None, is_error: false },
        Kind::Json => match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                let value = arrived.secrets.blotted_value(value);
                ToolAnswer { text: value.to_string(), structured: Some(value), is_error: false }
            }
            Err(_) => left_out(tool, status, "its answer is not the JSON that it says it is"),
        },
        Kind::Other(named) => {
            left_out(tool, status, &format!("its answer has {named}, which is neither JSON nor text"))
        }
    })
}

/// The status says that it was done, and the model cannot read what came of it.
fn left_out(tool: &ToolName, status: u16, why: &str) -> ToolAnswer {
    let text = format!("tool `{tool}` was performed (status {status}); {why}, and was left out");
    ToolAnswer { text, structured: None, is_error: false }
}

/// The server refused, and the model reads why.
fn refused(arrived: &Arrived) -> ToolAnswer {
    let (Body::Whole(bytes) | Body::Cut { bytes, .. } | Body::Broken { bytes, .. }) = &arrived.body;
    let words = match arrived.kind() {
        Kind::Json | Kind::Text => arrived.text(bytes),
        Kind::Other(_) => String::new(),
    };
    let words: String = words.trim().chars().take(ERROR_CHARS_MAX).collect();
    let colon = if words.is_empty() { "" } else { ": " };
    error(format!("error: the server refused the call with status {}{colon}{words}", arrived.status.as_u16()))
}
