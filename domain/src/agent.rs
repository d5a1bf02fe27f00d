//! What a run is asked and what it answers: the agent as configured, the task, the limits, the result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Address, AgentName, ChainHead, Content, Digest, Evidence, ModelName, PersonId, Proof, RunChain, StoreId,
    ToolCallId, ToolName, Usage,
    compensation::{CompensateOn, UndoneCall},
};

/// Largest prompt that a start input may carry, in bytes. The same bound holds for a final answer shown inline.
pub const INLINE_ONCE_BYTES_MAX: usize = 8 * 1024;

/// What a run is asked: the input of the workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentTask {
    /// Full name of the agent, `tenant/unit/agent`.
    pub agent: AgentName,
    /// What it is asked, at most [`INLINE_ONCE_BYTES_MAX`] bytes.
    pub prompt: String,
    /// The person it acts for.
    pub on_behalf_of: PersonId,
    /// Who starts it, if it is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<PersonId>,
    /// What proves the person it acts for: over agent, prompt, person and workflow id ([`crate::Statement::start`]).
    #[serde(default, skip_serializing_if = "Evidence::is_none")]
    pub proof: Evidence,
    /// What proves who starts it, if it is somebody else: over the same.
    #[serde(default, skip_serializing_if = "Evidence::is_none")]
    pub started_by_proof: Evidence,
}

/// An agent as its files define it, after the hierarchy of configuration was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentDefinition {
    /// Full name.
    pub name: AgentName,
    /// What it is for, in a sentence.
    pub purpose: String,
    /// The person or team that answers for it.
    pub owner: PersonId,
    /// Systems of record it reaches.
    pub connected_systems: Vec<String>,
    /// What it remembers between runs.
    pub memory: String,
    /// What it may do, in words. Policy decides; this is for people.
    pub permission_scope: String,
    /// Whom to turn to when it cannot go on.
    pub escalation_path: String,
    /// The configured model it uses.
    pub model: ModelName,
    /// The tools that are offered to the model. A call of any other is refused.
    pub tools: Vec<ToolName>,
    /// The system message.
    pub instructions: String,
    /// Bounds of one run.
    pub limits: RunLimits,
    /// The kinds of end at which what its calls did is undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compensate: Vec<CompensateOn>,
}

/// Bounds of one run. Each stop names the bound it hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunLimits {
    /// Model calls of one run.
    pub turns_max: u32,
    /// Tool calls of one run, counted when proposed.
    pub tool_calls_max: u32,
    /// Tool calls of one turn. A reply with more stops the run before any of them is performed.
    pub parallel_calls_max: u32,
    /// Input and output tokens of one run together.
    pub tokens_max: u64,
    /// Longest time one approval request may wait, whatever its policy says, in seconds.
    pub approval_wait_max_secs: u64,
    /// How long an outage before an effect is retried, in seconds. Then the run ends with `unavailable`.
    pub outage_max_secs: u64,
    /// A worker that sends no heartbeat for so long is taken for dead, in seconds. The first activity of a run, which reads
    /// this, has the default.
    pub heartbeat_timeout_secs: u64,
    /// Longest time one tool call may take, in seconds; a tool's own timeout may only be shorter.
    pub tool_timeout_max_secs: u64,
    /// Longest time one model call may take, in seconds.
    pub model_timeout_secs: u64,
    /// Results and replies up to this size are inline in history; above it a reference and a preview.
    pub inline_max_bytes: u32,
    /// Results up to this size are given to the model whole. Of a larger one it gets the beginning; `read_result` has the
    /// rest.
    pub result_max_bytes: u32,
    /// Turns after which the run continues as new, if the server does not suggest it before.
    pub turns_per_execution_max: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            turns_max: 50,
            tool_calls_max: 200,
            parallel_calls_max: 16,
            tokens_max: 2_000_000,
            approval_wait_max_secs: 7 * 24 * 3600,
            outage_max_secs: 24 * 3600,
            heartbeat_timeout_secs: 5,
            tool_timeout_max_secs: 300,
            model_timeout_secs: 300,
            inline_max_bytes: 1024,
            result_max_bytes: 64 * 1024,
            turns_per_execution_max: 300,
        }
    }
}

/// What a run holds on to from its first moment, whatever changes around it. Digests, so that it is small in history;
/// the content stands in the store under the same digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPins {
    /// The store that holds this run. A worker with another store refuses it.
    pub store: StoreId,
    /// Digest over the whole agent definition: its version.
    pub agent_version: Digest,
    /// Digest of the instructions alone.
    pub instructions: Digest,
    /// The configured model.
    pub model: ModelName,
    /// Each offered tool with the digest of its definition.
    pub tools: BTreeMap<ToolName, Digest>,
    /// The policy bundle that was in force when the run opened. Each decision names its own.
    pub bundle: Digest,
}

/// What `open_run` found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedRun {
    /// The audit chain that later activities continue.
    pub run: RunChain,
    /// What the run holds on to.
    pub pins: RunPins,
    /// Bounds of the run.
    pub limits: RunLimits,
    /// Address of the transcript so far: system message and prompt.
    pub transcript: Address,
    /// Who started it, if it was somebody else than the person it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starter: Option<PersonId>,
    /// How that somebody else was proved.
    #[serde(default = "claimed", skip_serializing_if = "is_claimed")]
    pub starter_proof: Proof,
    /// How the person it acts for was proved.
    #[serde(default = "claimed", skip_serializing_if = "is_claimed")]
    pub proof: Proof,
    /// The ways of proof that count for what people tell the run.
    #[serde(default = "claims_alone", skip_serializing_if = "is_claims_alone")]
    pub accepts: Vec<Proof>,
    /// Whether a webhook is told of requests and questions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notifies: bool,
    /// Id of the Temporal namespace that it runs in, where the server says so: elsewhere nobody knows of it, and that
    /// means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_id: Option<String>,
    /// The kinds of end at which what its calls did is undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compensate: Vec<CompensateOn>,
}

fn claimed() -> Proof {
    Proof::Claimed
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_claimed(proof: &Proof) -> bool {
    *proof == Proof::Claimed
}

fn claims_alone() -> Vec<Proof> {
    vec![Proof::Claimed]
}

fn is_claims_alone(accepts: &[Proof]) -> bool {
    accepts == [Proof::Claimed]
}

/// The state that a Temporal user sees and searches for as `MandateState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunState {
    /// A model or tool call is under way.
    Running,
    /// At least one call waits for a person's decision, and nothing else is under way.
    AwaitingApproval,
    /// A question waits for a person's answer.
    AwaitingAnswer,
    /// A call may or may not have happened, and a person has to say which.
    OutcomeUnknown,
    /// An operator paused the run.
    Paused,
    /// The agent gave its final answer. Terminal.
    Completed,
    /// A person or a bound stopped the run. Terminal.
    Stopped,
    /// The run could not go on. Terminal.
    Failed,
    /// The workflow execution was cancelled. Terminal.
    Cancelled,
}

impl RunState {
    /// The text of the search attribute.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::AwaitingAnswer => "AwaitingAnswer",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::Paused => "Paused",
            Self::Completed => "Completed",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Stopped | Self::Failed | Self::Cancelled => true,
            Self::Running | Self::AwaitingApproval | Self::AwaitingAnswer | Self::OutcomeUnknown | Self::Paused => {
                false
            }
        }
    }
}

/// Why a run ended other than by a final answer: the value of `MandateFailure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// An operator halted it.
    Halted,
    /// Nobody decided about a request in time, and its gate stops the run then.
    ApprovalExpired,
    /// The workflow execution was cancelled.
    Cancelled,
    /// `turns_max` was reached.
    TurnsExhausted,
    /// `tool_calls_max` was reached.
    ToolCallsExhausted,
    /// `tokens_max` was reached.
    TokensExhausted,
    /// Store, tool server or provider stayed away for `outage_max_secs`.
    Unavailable,
    /// The start input was not a task: wrong JSON, missing or unknown field, too large.
    InvalidInput,
    /// The agent is not configured on the worker, or its configuration cannot be used.
    RefusedStart,
    /// The model gave no usable answer.
    ModelFailed,
    /// Policy does not allow the model call.
    ModelDenied,
    /// An activity refused the run: other store, store behind the run, record that does not fit.
    Refused,
    /// The workflow execution was terminated from outside, and the reconciler found it.
    Terminated,
    /// The workflow execution ran out of its own time, and the reconciler found it.
    TimedOut,
    /// The workflow execution ended or went without closing its run, and the reconciler found that.
    Lost,
    /// The state machine met an event that its rules exclude. A defect: report it.
    Internal,
}

impl EndReason {
    /// The text of the search attribute and of the failure type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Halted => "halted",
            Self::ApprovalExpired => "approval_expired",
            Self::Cancelled => "cancelled",
            Self::TurnsExhausted => "turns_exhausted",
            Self::ToolCallsExhausted => "tool_calls_exhausted",
            Self::TokensExhausted => "tokens_exhausted",
            Self::Unavailable => "unavailable",
            Self::InvalidInput => "invalid_input",
            Self::RefusedStart => "refused_start",
            Self::ModelFailed => "model_failed",
            Self::ModelDenied => "model_denied",
            Self::Refused => "refused",
            Self::Terminated => "terminated",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Internal => "internal",
        }
    }

    /// The terminal state that this reason leads to.
    #[must_use]
    pub fn state(self) -> RunState {
        match self {
            Self::Halted
            | Self::ApprovalExpired
            | Self::Terminated
            | Self::TurnsExhausted
            | Self::ToolCallsExhausted
            | Self::TokensExhausted => RunState::Stopped,
            Self::Cancelled => RunState::Cancelled,
            Self::Unavailable
            | Self::InvalidInput
            | Self::RefusedStart
            | Self::ModelFailed
            | Self::ModelDenied
            | Self::Refused
            | Self::TimedOut
            | Self::Lost
            | Self::Internal => RunState::Failed,
        }
    }
}

/// What a run answers: the result of the workflow, also as details of a failed or cancelled one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentResult {
    /// Terminal state.
    pub state: RunState,
    /// The final answer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Content>,
    /// Why the run ended without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// The reason in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Model calls.
    pub turns: u32,
    /// Tool calls that the model proposed.
    pub tool_calls: u32,
    /// Tokens over all model calls.
    pub usage: Usage,
    /// Calls of which nobody knows whether they happened. Someone has to look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_outcomes: Vec<ToolCallId>,
    /// For a run that did not complete: calls that changed something before it ended, the last ones if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performed: Vec<PerformedCall>,
    /// For a run that did not complete: calls that were not performed because it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_performed: Vec<ToolCallId>,
    /// What was to be undone because the run did not complete, in the order in which it was tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<UndoneCall>,
    /// Number of audit records and head of the chain: Temporal's history as a second witness of the audit log.
    pub audit: ChainHead,
}

/// A call that was performed and may have changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerformedCall {
    /// The call.
    pub call: ToolCallId,
    /// Its tool.
    pub tool: String,
}
