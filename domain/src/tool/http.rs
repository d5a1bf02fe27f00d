//! HTTP tools: how the arguments of a call become a method, a path, a query and a body.
//!
//! A template is RFC 6570, level 1. What a model writes fills in what a template leaves open and nothing else: no value
//! can name another host, add, remove or climb a segment of the path, or begin a query or a fragment. This holds for
//! servers that decode before they route, too: a value in a path that could be taken for a way is refused, not encoded.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ServerName;

mod template;

pub use template::{ParseTemplateError, PathTemplate};

/// Largest answer that is read unless the tool says otherwise, in bytes.
pub const ANSWER_BYTES: u64 = 1 << 20;
/// Largest answer that a tool may ask for, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Longest path and query of one call, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// A request to a server, as the registry describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// The configured server, which knows the host.
    pub server: ServerName,
    /// The method.
    pub method: HttpMethod,
    /// The path below the server's base URL, with `{placeholders}` for arguments.
    pub path: PathTemplate,
    /// Where the arguments go that the path does not name.
    pub arguments: ArgumentsIn,
    /// Largest answer, in bytes.
    pub answer_bytes_max: u64,
}

/// The methods that a tool may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Reads.
    Get,
    /// Whatever the server makes of it.
    Post,
    /// Replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl HttpMethod {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// As it is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a body means something (RFC 9110, section 9.3).
    #[must_use]
    pub fn takes_body(self) -> bool {
        match self {
            Self::Post | Self::Put | Self::Patch => true,
            Self::Get | Self::Delete => false,
        }
    }
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No tool may have this method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of the methods GET, POST, PUT, PATCH, DELETE")]
pub struct UnknownMethod(String);

impl FromStr for HttpMethod {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or_else(|| UnknownMethod(text.to_owned()))
    }
}

/// Where the arguments go that the path does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgumentsIn {
    /// One JSON object.
    Body,
    /// Names and values in the query; a list is its name several times.
    Query,
}

/// What is sent, below the server's base URL.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTarget {
    /// Path and query, encoded. Begins with a slash.
    pub path_and_query: String,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
}

/// The arguments fit the schema and can still not be sent. The model corrects them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillTemplateError {
    /// A value that is no text, number or truth value.
    #[error("argument `{0}` must be a text, a number or a truth value: it is a part of the URL")]
    NotScalar(String),
    /// A value that is not there.
    #[error("argument `{0}` is missing: it is a part of the URL")]
    Missing(String),
    /// A value that a server might take for a way through its paths.
    #[error(
        "argument `{0}` cannot be a part of a path: it is empty, `.`, begins with `..`, or holds a slash, a backslash or a control character"
    )]
    NotASegment(String),
    /// A value in the query that is neither scalar nor a list of scalars.
    #[error("argument `{0}` cannot be a part of a query: only texts, numbers, truth values and lists of these can")]
    NotAQueryValue(String),
    /// The template has a value of this name.
    #[error("argument `{0}` has the name of a value that the URL states itself")]
    Stated(String),
    /// It would be too long.
    #[error("the arguments make a URL of {bytes} bytes, and {TARGET_BYTES_MAX} is the most")]
    TooLong {
        /// How long.
        bytes: usize,
    },
}

impl HttpRequest {
    /// What a call with these arguments sends.
    ///
    /// # Errors
    /// [`FillTemplateError`]: nothing is sent, and the model reads why.
    pub fn target(&self, arguments: &Map<String, Value>) -> Result<HttpTarget, FillTemplateError> {
        let (path, mut query) = self.path.fill(arguments)?;
        let named: Vec<&str> = self.path.placeholders().collect();
        let rest = arguments.iter().filter(|(name, _)| !named.contains(&name.as_str()));
        let body = match self.arguments {
            ArgumentsIn::Body => {
                let rest: Map<String, Value> = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
                Some(Value::Object(rest))
            }
            ArgumentsIn::Query => {
                for (name, value) in rest {
                    if self.path.states(name) {
                        return Err(FillTemplateError::Stated(name.clone()));
                    }
                    query.extend(pairs(name, value)?);
                }
                None
            }
        };
        let path_and_query = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
        match path_and_query.len() {
            bytes if bytes > TARGET_BYTES_MAX => Err(FillTemplateError::TooLong { bytes }),
            _ => Ok(HttpTarget { path_and_query, body }),
        }
    }
}

/// An argument as parts of a query: none for null, several for a list.
fn pairs(name: &str, value: &Value) -> Result<Vec<String>, FillTemplateError> {
    let pair = |value: &Value| {
        let text = scalar(value).ok_or_else(|| FillTemplateError::NotAQueryValue(name.to_owned()))?;
        Ok(format!("{}={}", encode(name), encode(&text)))
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(pair).collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Ok(vec![pair(value)?]),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Simple string expansion (RFC 6570, section 3.2.2): everything but unreserved characters is percent-encoded.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The value of `Idempotency-Key`: the key as a string of structured fields (RFC 9651), as the IETF's draft asks. What
/// such a string cannot hold is percent-encoded, and so is the percent sign, so that two keys never become one.
#[must_use]
pub fn key_as_sent(key: &str) -> String {
    let mut sent = String::with_capacity(key.len());
    for byte in key.bytes() {
        if matches!(byte, 0x20..=0x7e) && !matches!(byte, b'%' | b'"' | b'\\') {
            sent.push(char::from(byte));
        } else {
            let _ = write!(sent, "%{byte:02X}");
        }
    }
    sent
}

#[cfg(test)]
mod tests;
