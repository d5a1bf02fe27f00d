//! A model that answers from a file: for examples, tests and trying out policies without a provider.
//!
//! It keeps no state. Where it stands in a conversation follows from the transcript alone, so that a repeated request
//! gets the same reply, on any worker.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use mandate_domain::{Arguments, Message, ModelReply, ModelRequest, ProposedCall, Usage};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::{ModelError, ModelProvider, may_send};
use crate::governed::RecordedPermit;

/// Most times that one reply may be repeated.
const REPEAT_MAX: u32 = 1000;

/// A script that cannot be used. Fix the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadScriptError {
    /// It cannot be read.
    #[error("cannot read script `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is not valid.
    #[error("script `{path}`, line {line}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A checked script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    conversation: Vec<Conversation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    when: Option<String>,
    reply: Vec<Spanned<Reply>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    when: Option<String>,
    repeat: Option<u32>,
    text: Option<String>,
    #[serde(default)]
    calls: Vec<Call>,
    tool: Option<String>,
    malformed: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl Script {
    /// Reads and checks a script.
    pub(super) fn read(path: &Path) -> Result<Self, LoadScriptError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| LoadScriptError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, reason)| LoadScriptError::Invalid { path: path.to_owned(), line, reason })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let script: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            (line_of(text, start), error.message().replace('\n', ", "))
        })?;
        for reply in script.conversation.iter().flat_map(|conversation| &conversation.reply) {
            if let Some(reason) = reply.get_ref().fault() {
                return Err((line_of(text, reply.span().start), reason));
            }
        }
        Ok(script)
    }

    fn reply_to(&self, request: &ModelRequest) -> Result<ModelReply, ModelError> {
        let refused = |reason: &str| ModelError::Refused { reason: reason.to_owned() };
        let asked = request.messages.iter().find_map(|message| match message {
            Message::User { text } => Some(text.as_str()),
            Message::System { .. } | Message::Assistant { .. } | Message::Tool { .. } => None,
        });
        let conversation = self
            .conversation
            .iter()
            .find(|conversation| applies(conversation.when.as_deref(), &[asked.unwrap_or_default()]))
            .ok_or_else(|| refused("the script has no conversation for what is asked"))?;
        let (reply, turn) = conversation
            .next(&request.messages)
            .ok_or_else(|| refused("the script has no reply left in this conversation"))?;
        let text = reply.text.as_deref().map(|text| numbered(text, turn));
        let calls = reply.proposed(turn);
        let usage = Usage {
            input_tokens: tokens(&serde_json::to_string(request).unwrap_or_default()),
            output_tokens: tokens(text.as_deref().unwrap_or_default())
                .saturating_add(calls.iter().map(|call| tokens(&written(call))).sum()),
            ..Usage::default()
        };
        Ok(ModelReply { text, calls, usage, model: "scripted".to_owned(), response_id: None })
    }
}

impl ModelProvider for Script {
    fn complete<'a>(
        &'a self,
        permit: &'a RecordedPermit,
        request: &'a ModelRequest,
    ) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(async move {
            may_send(permit)?;
            self.reply_to(request)
        })
    }
}

impl Conversation {
    /// The reply to a transcript and its turn, found by walking the replies that the transcript already holds.
    fn next(&self, messages: &[Message]) -> Option<(&Reply, u32)> {
        let mut replies = self.reply.iter().map(Spanned::get_ref).flat_map(Reply::repeated);
        let mut turn = 1;
        let mut results = Vec::new();
        for message in messages {
            match message {
                Message::Assistant { .. } => {
                    replies.find(|reply| applies(reply.when.as_deref(), &results))?;
                    results.clear();
                    turn += 1;
                }
                Message::Tool { text, .. } => results.push(text.as_str()),
                Message::System { .. } | Message::User { .. } => {}
            }
        }
        replies.find(|reply| applies(reply.when.as_deref(), &results)).map(|reply| (reply, turn))
    }
}

impl Reply {
    fn fault(&self) -> Option<String> {
        let says_nothing = self.text.is_none() && self.calls.is_empty() && self.malformed.is_none();
        if says_nothing {
            Some("the reply has no `text`, no `calls` and no `malformed`".to_owned())
        } else if self.malformed.is_some() != self.tool.is_some() {
            Some("`malformed` and `tool` go together".to_owned())
        } else if self.repeat.is_some_and(|times| !(1..=REPEAT_MAX).contains(&times)) {
            Some(format!("`repeat` is not between 1 and {REPEAT_MAX}"))
        } else {
            None
        }
    }

    fn repeated(&self) -> impl Iterator<Item = &Self> {
        (0..self.repeat.unwrap_or(1)).map(move |_| self)
    }

    fn proposed(&self, turn: u32) -> Vec<ProposedCall> {
        let well_formed = self.calls.iter().map(|call| {
            let arguments = call.arguments.iter().map(|(name, value)| (name.clone(), numbered_value(value, turn)));
            (call.tool.clone(), Arguments::Object(arguments.collect()))
        });
        let malformed = self.tool.iter().zip(&self.malformed);
        let malformed = malformed.map(|(tool, text)| (tool.clone(), Arguments::Malformed(numbered(text, turn))));
        well_formed
            .chain(malformed)
            .map(|(tool, arguments)| ProposedCall { tool, arguments, provider_id: None })
            .collect()
    }
}

fn applies(when: Option<&str>, texts: &[&str]) -> bool {
    when.is_none_or(|when| {
        let when = when.to_lowercase();
        texts.iter().any(|text| text.to_lowercase().contains(&when))
    })
}

fn numbered(text: &str, turn: u32) -> String {
    text.replace("{n}", &turn.to_string())
}

fn numbered_value(value: &Value, turn: u32) -> Value {
    match value {
        Value::String(text) => Value::String(numbered(text, turn)),
        Value::Array(items) => items.iter().map(|item| numbered_value(item, turn)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), numbered_value(value, turn))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn written(call: &ProposedCall) -> String {
    serde_json::to_string(call).unwrap_or_default()
}

// Four characters a token: close enough for budgets to be seen at work, and the same every time.
fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests;
