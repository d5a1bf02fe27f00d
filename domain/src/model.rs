//! Models: what is said to one, what it answers, and what that used.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Address, ToolCallId, compensation::UndoSummary};

/// One message of a transcript, in the order in which the model reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// The agent's instructions.
    System {
        /// The text.
        text: String,
    },
    /// What a person asked.
    User {
        /// The text.
        text: String,
    },
    /// What the model answered.
    Assistant {
        /// Its text, if it wrote any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// The calls it proposed; the id of each is its turn and its position here.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<ProposedCall>,
    },
    /// The one result of one call.
    Tool {
        /// The call it answers.
        call: ToolCallId,
        /// The text that the model reads.
        text: String,
        /// Whether it reports a failure or a refusal.
        is_error: bool,
    },
}

/// A tool call as the model wrote it: nothing in it is checked yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposedCall {
    /// The tool it names. It may not exist.
    pub tool: String,
    /// The arguments.
    pub arguments: Arguments,
    /// The provider's own id, which goes back to the provider with the result and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
}

/// Arguments as the model wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arguments {
    /// A JSON object.
    Object(serde_json::Map<String, Value>),
    /// Anything else, as text. The model gets an error result that it can correct.
    Malformed(String),
}

/// A tool as it is offered to the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferedTool {
    /// Name in the registry.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    pub input_schema: Value,
}

/// One question to a model: everything it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The transcript.
    pub messages: Vec<Message>,
    /// The tools it may call.
    pub tools: Vec<OfferedTool>,
}

/// One answer of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReply {
    /// Its text, if it wrote any.
    pub text: Option<String>,
    /// The calls it proposes.
    pub calls: Vec<ProposedCall>,
    /// What it used.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// The provider's id of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
}

/// Tokens used. Input includes what was read from a cache; output includes reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Part of the input that came from a cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// Part of the output that was reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
    /// Cost in millionths of the configured currency; zero where no price is configured.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micros: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
pub(crate) fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Usage {
    /// Both sums, saturating: a provider's absurd number must not wrap a budget round to zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
        }
    }

    /// Input and output together.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Content that stands in the store: its address, its size, and as much of it as history may carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Where it stands.
    pub address: Address,
    /// Size of the whole text in bytes.
    pub bytes: u64,
    /// The whole text, when it is small enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Otherwise its beginning, at most [`Content::PREVIEW_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

impl Content {
    /// Longest preview of text that is not inline.
    pub const PREVIEW_BYTES_MAX: usize = 200;

    /// Describes `text`, inline up to `inline_max_bytes`.
    #[must_use]
    pub fn describe(address: Address, text: &str, inline_max_bytes: usize) -> Self {
        let inline = text.len() <= inline_max_bytes;
        let cut = (0..=Self::PREVIEW_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        Self {
            address,
            bytes: text.len() as u64,
            text: inline.then(|| text.to_owned()),
            preview: if inline { None } else { cut.and_then(|end| text.get(..end)).map(str::to_owned) },
        }
    }

    /// Describes content of which nothing may be shown here, and says so.
    #[must_use]
    pub fn withheld(address: Address, bytes: u64, notice: String) -> Self {
        Self { address, bytes, text: None, preview: Some(notice) }
    }

    /// What there is to show: the text or its beginning.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.text.as_deref().or(self.preview.as_deref()).unwrap_or_default()
    }
}

/// What one model call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTurn {
    /// Address of the transcript that ends with this reply.
    pub transcript: Address,
    /// The reply's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Content>,
    /// The calls it proposes, in order. None: the text is the final answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallSummary>,
    /// What it used.
    pub usage: Usage,
}

/// A proposed call as history shows it. The arguments stand in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSummary {
    /// The tool that the model named, cut to 64 bytes. Foreign text.
    pub tool: String,
    /// Address of the canonical arguments.
    pub arguments: Address,
    /// Longest time the tool may take, in seconds, from its registered definition; absent for an unknown tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    /// Whether its result is the run's final answer (`submit_answer`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submits_answer: bool,
    /// How it would be undone, where the agent wants that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSummary>,
}
