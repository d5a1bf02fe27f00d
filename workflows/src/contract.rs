//! The activity contract: wire names, inputs and outputs. `activities` binds an implementation to each declaration, and
//! the compiler holds both to these types.
//!
//! Every input is a pointer and is untrusted: the activity takes workflow and run id from the server and everything
//! else from the store. Every input brings back the last [`ChainHead`] that the workflow saw, so that a store which is
//! behind its run (an old backup) is noticed; every output carries the new one. New fields are `#[serde(default)]`.

use mandate_domain::{
    Address, AgentName, ApprovalDecision, ChainHead, EndReason, InstructionReview, ModelTurn, OpenedRun, PerformedCall,
    RequestId, Review, RunState, StoreId, ToolCallId, ToolCallOutcome, Usage,
    agent_run::{HaltRequest, Word},
    approval::Arrival,
    audit::NoticeId,
};
use serde::{Deserialize, Serialize};

/// The update by which people decide about a request.
pub const DECIDE: &str = "decide";
/// The update by which people answer a question.
pub const ANSWER_QUESTION: &str = "answer_question";
/// All messages that are updates. Their events do not say who sent them. Whatever else people send is a signal, named by
/// its verdict or its instruction.
pub const UPDATES: [&str; 2] = [DECIDE, ANSWER_QUESTION];

/// What every activity but the first is told about its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPointer {
    /// The store that the run is pinned to.
    pub store: StoreId,
    /// Where the audit chain stood when the workflow last heard of it.
    pub audit: ChainHead,
    /// Signals that were refused since the last activity, to be recorded as one summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_messages: Option<RefusedMessages>,
}

/// Signals that could not be read or named nothing that is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedMessages {
    /// How many over the whole run.
    pub count: u64,
    /// Why the last one was refused.
    pub last_reason: String,
}

/// Input of `open_run`. The task itself is read from the execution's first event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRunInput {
    /// The agent, for people who read the history.
    pub agent: AgentName,
}

/// Output of `open_run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRunOutput {
    /// What the run is and holds on to.
    pub opened: OpenedRun,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// Input of `invoke_model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeModelInput {
    /// The run.
    pub run: RunPointer,
    /// The turn; the first is 1.
    pub turn: u32,
    /// Address of the transcript so far.
    pub transcript: Address,
    /// Addresses of the results to append, one for each call of the last reply, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub append: Vec<Address>,
    /// Addresses of further instructions of people, in the order in which they were accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<Address>,
}

/// Output of `invoke_model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeModelOutput {
    /// What came of it.
    #[serde(flatten)]
    pub outcome: ModelCallOutcome,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// What a model call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ModelCallOutcome {
    /// The model answered.
    Replied(ModelTurn),
    /// Policy does not allow the call.
    Denied {
        /// Why.
        reason: String,
    },
    /// The provider refused it for good: bad request, bad key, no usable answer.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Input of `call_tool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallToolInput {
    /// The run.
    pub run: RunPointer,
    /// The call: its turn and its position in that turn's recorded reply.
    pub call: ToolCallId,
    /// What to do.
    #[serde(default)]
    pub purpose: CallPurpose,
}

/// What `call_tool` is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPurpose {
    /// Walk the governed path.
    #[default]
    Perform,
    /// Say what the store knows of the call, and perform nothing.
    LookUp,
}

/// Output of `call_tool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallToolOutput {
    /// What came of it.
    #[serde(flatten)]
    pub outcome: ToolCallOutcome,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// Input of `review_approval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewApprovalInput {
    /// The run.
    pub run: RunPointer,
    /// The call that waits.
    pub call: ToolCallId,
    /// What is reviewed.
    pub subject: ReviewSubject,
}

/// What `review_approval` reviews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "few at a time, and each is moved once or twice")]
pub enum ReviewSubject {
    /// A person's decision.
    Decision {
        /// The decision.
        decision: ApprovalDecision,
        /// Unique in the run: the same decision reviewed twice is recorded once.
        ordinal: u32,
        /// Where it came in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arrival: Option<Arrival>,
    },
    /// A request that ran out of time.
    Expiry {
        /// The request.
        request: RequestId,
    },
    /// A request that nobody decided for a while, so that further people may.
    Escalation {
        /// The request.
        request: RequestId,
    },
}

/// Output of `review_approval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewApprovalOutput {
    /// What came of it.
    #[serde(flatten)]
    pub review: Review,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// Input of `review_instruction`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewInstructionInput {
    /// The run.
    pub run: RunPointer,
    /// What is reviewed.
    pub word: Word,
    /// Unique in the run: the same instruction reviewed twice is recorded once.
    pub ordinal: u32,
}

/// Output of `review_instruction`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ReviewedInstruction")]
pub struct ReviewInstructionOutput {
    /// What came of it.
    #[serde(flatten)]
    pub review: InstructionReview,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// The same as histories have it. In the first ones a person's word on a lost call was the only instruction, and what it
/// settled stood without a `review`.
#[derive(Deserialize)]
#[serde(untagged)]
enum ReviewedInstruction {
    Now {
        #[serde(flatten)]
        review: InstructionReview,
        audit: ChainHead,
    },
    FirstSettled {
        settled: ToolCallOutcome,
        refused: Option<String>,
        audit: ChainHead,
    },
    FirstRefused {
        refused: String,
        audit: ChainHead,
    },
}

impl From<ReviewedInstruction> for ReviewInstructionOutput {
    fn from(reviewed: ReviewedInstruction) -> Self {
        match reviewed {
            ReviewedInstruction::Now { review, audit } => Self { review, audit },
            ReviewedInstruction::FirstSettled { settled: outcome, refused: note, audit } => {
                Self { review: InstructionReview::Settled { outcome, note }, audit }
            }
            ReviewedInstruction::FirstRefused { refused: reason, audit } => {
                Self { review: InstructionReview::Refused { reason }, audit }
            }
        }
    }
}

/// Input of `notify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyInput {
    /// The run.
    pub run: RunPointer,
    /// What is told.
    pub notice: NoticeId,
}

/// Output of `notify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyOutput {
    /// Whether the webhook took it.
    pub delivered: bool,
    /// Why not, or what it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where the audit chain stands.
    pub audit: ChainHead,
}

/// Input of `close_run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseRunInput {
    /// The run.
    pub run: RunPointer,
    /// Terminal state.
    pub state: RunState,
    /// Why, if it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// Model calls.
    pub turns: u32,
    /// Tokens over the run.
    pub usage: Usage,
    /// Calls that ended without being performed because the run ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandoned: Vec<ToolCallId>,
    /// Calls whose outcome nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_outcomes: Vec<ToolCallId>,
    /// The operator who halted the run, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted_by: Option<HaltRequest>,
    /// The halt that ended the undoing of what the run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoing_halted_by: Option<HaltRequest>,
}

/// Output of `close_run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseRunOutput {
    /// For a run that did not complete: calls that changed something, the last ones if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performed: Vec<PerformedCall>,
    /// Where the audit chain stands, the closing record included.
    pub audit: ChainHead,
}

#[expect(missing_docs, clippy::must_use_candidate, reason = "the macro makes public items of each declaration")]
mod declarations {
    use temporalio_macros::activity_definitions;

    use super::{
        CallToolInput, CallToolOutput, CloseRunInput, CloseRunOutput, InvokeModelInput, InvokeModelOutput, NotifyInput,
        NotifyOutput, OpenRunInput, OpenRunOutput, ReviewApprovalInput, ReviewApprovalOutput, ReviewInstructionInput,
        ReviewInstructionOutput,
    };

    /// The declarations. The bodies are never run: `activities` binds the implementations.
    pub struct AgentActivities;

    #[activity_definitions]
    impl AgentActivities {
        /// Resolves the agent, pins what the run holds on to, writes the opening record.
        #[activity(name = "open_run")]
        pub fn open_run(_input: OpenRunInput) -> OpenRunOutput {
            unimplemented!()
        }

        /// Appends the results of the last turn and asks the model.
        #[activity(name = "invoke_model")]
        pub fn invoke_model(_input: InvokeModelInput) -> InvokeModelOutput {
            unimplemented!()
        }

        /// Walks the governed path for one tool call.
        #[activity(name = "call_tool")]
        pub fn call_tool(_input: CallToolInput) -> CallToolOutput {
            unimplemented!()
        }

        /// Checks and records a decision about an approval request, or its expiry.
        #[activity(name = "review_approval")]
        pub fn review_approval(_input: ReviewApprovalInput) -> ReviewApprovalOutput {
            unimplemented!()
        }

        /// Checks and records an instruction to the run.
        #[activity(name = "review_instruction")]
        pub fn review_instruction(_input: ReviewInstructionInput) -> ReviewInstructionOutput {
            unimplemented!()
        }

        /// Tells the configured webhook of a request or a question.
        #[activity(name = "notify")]
        pub fn notify(_input: NotifyInput) -> NotifyOutput {
            unimplemented!()
        }

        /// Writes the closing record.
        #[activity(name = "close_run")]
        pub fn close_run(_input: CloseRunInput) -> CloseRunOutput {
            unimplemented!()
        }
    }

    pub use agent_activities::{CallTool, CloseRun, InvokeModel, Notify, OpenRun, ReviewApproval, ReviewInstruction};
}

pub use declarations::{
    AgentActivities, CallTool, CloseRun, InvokeModel, Notify, OpenRun, ReviewApproval, ReviewInstruction,
};
