//! Tools: how the registry describes one, and what a call of one comes to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    ApprovalRequest, Content, Digest, FieldClasses, PersonId, PolicyId, Question, ServerName, ToolName, canonical,
    compensation::Undo, policy,
};

pub mod arguments;
pub mod http;

/// A tool as the registry describes it. The registry is the organisation's own word: a server's annotations are hints
/// from an untrusted party and never make a tool less restricted than this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the four hints of MCP, under MCP's names")]
pub struct ToolDefinition {
    /// Name in the registry.
    pub name: ToolName,
    /// What it does: what the model is told.
    pub description: String,
    /// The person or team that answers for it.
    pub owner: PersonId,
    /// It changes nothing (MCP `readOnlyHint`).
    pub read_only: bool,
    /// It may destroy or overwrite (MCP `destructiveHint`).
    pub destructive: bool,
    /// A second call with the same idempotency key changes nothing more (MCP `idempotentHint`).
    pub idempotent: bool,
    /// It reaches beyond the organisation (MCP `openWorldHint`).
    pub open_world: bool,
    /// A tool that says whether a call of this one happened: it gets `{"idempotency_key": "…"}` and answers
    /// `{"happened": true|false, "result": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ToolName>,
    /// Seconds after which a call that was sent has surely either happened or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_within_secs: Option<u64>,
    /// How a call of it is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
    /// Longest time one call may take, in seconds.
    pub timeout_secs: u64,
    /// What one call costs, in millionths of the organisation's currency.
    #[serde(default, skip_serializing_if = "crate::model::is_zero")]
    pub cost_micros: u64,
    /// Required integer arguments whose sums policies may limit, such as `amount_cents`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<String>,
    /// The classes of what is in the arguments.
    #[serde(default, skip_serializing_if = "FieldClasses::is_empty")]
    pub argument_classes: FieldClasses,
    /// The classes of what is in the results.
    #[serde(default, skip_serializing_if = "FieldClasses::is_empty")]
    pub result_classes: FieldClasses,
    /// JSON Schema of the arguments. The tool server's own schema must allow the same.
    pub input_schema: Value,
    /// How it is reached.
    pub reach: ToolReach,
}

/// How a tool is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolReach {
    /// A tool of an MCP server.
    Mcp {
        /// The configured server.
        server: ServerName,
        /// The tool's name there.
        tool: String,
    },
    /// A request to an HTTP server.
    Http(http::HttpRequest),
    /// Part of the worker itself.
    Builtin {
        /// Which one.
        tool: BuiltinTool,
    },
}

/// The tools that are part of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuiltinTool {
    /// `{}` → the time of the worker's clock, `{"utc": "2026-11-21T09:52:00Z"}`.
    CurrentTime,
    /// `{"call": "t1.0", "page": 1}` → a page of the stored result of an earlier call of the same run, as it may be shown.
    ReadResult,
    /// `{"answer": "…", "confidence_percent": 80}` → the answer, with which the run ends.
    SubmitAnswer,
    /// `{"question": "…", "context": "…", "options": ["…"]}` → what a person answers.
    AskHuman,
}

impl BuiltinTool {
    /// All of them, by the name that the registry uses.
    pub const ALL: [(&str, Self); 4] = [
        ("current_time", Self::CurrentTime),
        ("read_result", Self::ReadResult),
        ("submit_answer", Self::SubmitAnswer),
        ("ask_human", Self::AskHuman),
    ];

    /// JSON Schema of its arguments.
    #[must_use]
    pub fn input_schema(self) -> Value {
        match self {
            Self::CurrentTime => json!({ "type": "object", "additionalProperties": false }),
            Self::ReadResult => json!({
                "type": "object",
                "required": ["call"],
                "additionalProperties": false,
                "properties": {
                    "call": { "type": "string", "description": "Id of an earlier call of this run: `t1.0` is the first call of the first turn." },
                    "page": { "type": "integer", "minimum": 1, "description": "Which page; the first is 1." },
                },
            }),
            Self::SubmitAnswer => json!({
                "type": "object",
                "required": ["answer"],
                "additionalProperties": false,
                "properties": {
                    "answer": { "type": "string", "minLength": 1, "description": "The final answer, as the person who asked will read it." },
                    "confidence_percent": { "type": "integer", "minimum": 0, "maximum": 100, "description": "How sure you are that the answer is right." },
                },
            }),
            Self::AskHuman => json!({
                "type": "object",
                "required": ["question"],
                "additionalProperties": false,
                "properties": {
                    "question": { "type": "string", "minLength": 1, "maxLength": 1000, "description": "One clear question." },
                    "context": { "type": "string", "maxLength": 2000, "description": "What the person has to know to answer it." },
                    "options": {
                        "type": "array", "maxItems": 10, "items": { "type": "string", "minLength": 1, "maxLength": 200 },
                        "description": "The answers to choose from, if there are some.",
                    },
                },
            }),
        }
    }
}

impl ToolReach {
    /// The built-in tool, if it is one.
    #[must_use]
    pub fn builtin(&self) -> Option<BuiltinTool> {
        match self {
            Self::Builtin { tool } => Some(*tool),
            Self::Mcp { .. } | Self::Http(_) => None,
        }
    }

    /// The configured server that it is reached by; none for a part of the worker.
    #[must_use]
    pub fn server(&self) -> Option<&ServerName> {
        match self {
            Self::Mcp { server, .. } => Some(server),
            Self::Http(request) => Some(&request.server),
            Self::Builtin { .. } => None,
        }
    }
}

/// What may be done about a call that was sent and not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Call it again with the same key: it changes nothing, or nothing more.
    CallAgain,
    /// Ask the check tool. "It did not happen" counts only after `send_by` + `settles_within_secs`; without a stated
    /// bound only "it happened" counts.
    Check {
        /// The check tool.
        with: ToolName,
        /// The stated bound.
        settles_within_secs: Option<u64>,
    },
    /// Nothing may be done without a person.
    AskPerson,
}

impl ToolDefinition {
    /// The digest that a run is pinned to.
    ///
    /// # Errors
    /// When the input schema has no canonical form.
    pub fn digest(&self) -> Result<Digest, canonical::CanonicalError> {
        canonical::digest(self)
    }

    /// The amounts of a call, by name. What is no integer counts as the largest: no limit lets it pass.
    #[must_use]
    pub fn amounts_of(&self, arguments: &serde_json::Map<String, Value>) -> BTreeMap<String, i64> {
        let amount = |name: &String| {
            let value = arguments.get(name).unwrap_or(&Value::Null);
            (name.clone(), policy::shape::long(value, name).unwrap_or(i64::MAX))
        };
        self.amounts.iter().map(amount).collect()
    }

    /// What keeps arguments that fit the schema from being sent. The model reads it.
    ///
    /// # Errors
    /// [`http::FillTemplateError`], of HTTP tools alone.
    pub fn check_sendable(&self, arguments: &serde_json::Map<String, Value>) -> Result<(), http::FillTemplateError> {
        match &self.reach {
            ToolReach::Http(request) => request.target(arguments).map(drop),
            ToolReach::Mcp { .. } | ToolReach::Builtin { .. } => Ok(()),
        }
    }

    /// The idempotency key of a call in the form in which its server gets it.
    #[must_use]
    pub fn key_as_sent(&self, key: String) -> String {
        match self.reach {
            ToolReach::Http(_) => http::key_as_sent(&key),
            ToolReach::Mcp { .. } | ToolReach::Builtin { .. } => key,
        }
    }

    /// Whether a call of it is a question to people: asked again, it is the same question.
    #[must_use]
    pub fn asks_people(&self) -> bool {
        self.reach.builtin() == Some(BuiltinTool::AskHuman)
    }

    /// What may be done about a call that was sent and not answered.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match &self.check {
            _ if self.read_only || self.idempotent || self.asks_people() => Recovery::CallAgain,
            Some(with) => Recovery::Check { with: with.clone(), settles_within_secs: self.settles_within_secs },
            None => Recovery::AskPerson,
        }
    }
}

/// What one `call_tool` came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ToolCallOutcome {
    /// The tool answered. The answer may report an error: the model reads it.
    Returned {
        /// What the model reads.
        result: Content,
        /// MCP `isError`.
        is_error: bool,
    },
    /// Nothing was performed, and the model reads why.
    Refused {
        /// What the model reads.
        result: Content,
        /// Why.
        refusal: Refusal,
    },
    /// Nothing was performed: people have to decide first.
    ApprovalRequired {
        /// One request a gate.
        requests: Vec<ApprovalRequest>,
    },
    /// A person has been asked, and has to answer first.
    AnswerRequired {
        /// The question.
        question: Question,
    },
    /// It was sent, or may have been, and nobody knows what came of it.
    OutcomeUnknown {
        /// What is known.
        reason: String,
    },
    /// Nothing is recorded about the call: it was not performed. Only a look-up answers so.
    NotPerformed,
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// The policies that decided, if policy did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyId>,
    /// In a sentence. The model reads it.
    pub reason: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Policy denies it.
    Denied,
    /// A person rejected it.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// The tool was not offered to this agent.
    ToolNotOffered,
    /// The arguments break the tool's schema.
    InvalidArguments,
    /// The tool's definition is no longer the one the run is pinned to.
    ToolChanged,
    /// The run ended before it was performed.
    RunEnded,
    /// An approver changed its arguments: a revision of it is judged in its place.
    Revised,
    /// A person said that it did not happen, or that the run goes on without it.
    ResolvedByPerson,
}
