//! What can happen to a run.

use serde::{Deserialize, Serialize};

use crate::{
    ApprovalDecision, ModelTurn, OpenedRun, PersonId, RequestId, Resolution, Review, ToolCallId, ToolCallOutcome,
};

/// Number that ties a person's message to its answer. Unique in a run chain.
pub type Ticket = u32;

/// Something that happened, in the past tense. Activities, timers and people are its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `open_run` answered.
    Opened(Box<OpenedRun>),
    /// `open_run` ended without an answer.
    OpenFailed(Failure),
    /// The model answered.
    ModelReplied(ModelTurn),
    /// Policy or the provider refused the model call for good.
    ModelRefused {
        /// Whether policy did.
        by_policy: bool,
        /// Why.
        reason: String,
    },
    /// `invoke_model` ended without an answer.
    ModelFailed(Failure),
    /// `call_tool` answered.
    ToolReturned {
        /// The call.
        call: ToolCallId,
        /// Its answer.
        outcome: ToolCallOutcome,
    },
    /// `call_tool` ended without an answer. This never means that the call did not happen.
    ToolFailed {
        /// The call.
        call: ToolCallId,
        /// How it ended.
        failure: Failure,
    },
    /// What the store knows of a call whose activity ended without an answer.
    OutcomeResolved {
        /// The call.
        call: ToolCallId,
        /// What is known.
        outcome: ToolCallOutcome,
    },
    /// The store could not be asked either.
    ResolveFailed {
        /// The call.
        call: ToolCallId,
        /// How the look-up ended.
        failure: Failure,
    },
    /// A person's decision arrived. Nothing in it is checked.
    DecisionReceived {
        /// For the answer.
        ticket: Ticket,
        /// The decision.
        decision: ApprovalDecision,
    },
    /// `review_approval` answered.
    ApprovalReviewed {
        /// The call.
        call: ToolCallId,
        /// What came of it.
        review: Review,
    },
    /// `review_approval` ended without an answer: the decision was not counted.
    ReviewFailed {
        /// The call.
        call: ToolCallId,
        /// How it ended.
        failure: Failure,
    },
    /// A person says what became of a call whose outcome is unknown.
    ResolutionReceived {
        /// For the answer.
        ticket: Ticket,
        /// What they say.
        resolution: ResolveCall,
    },
    /// `review_instruction` answered.
    InstructionReviewed {
        /// The call it was about.
        call: ToolCallId,
        /// What the call came to, if the instruction counts or an outcome had come in meanwhile.
        settled: Option<ToolCallOutcome>,
        /// Why it does not count.
        refused: Option<String>,
    },
    /// `review_instruction` ended without an answer: the instruction was not counted.
    InstructionFailed {
        /// The call it was about.
        call: ToolCallId,
        /// How it ended.
        failure: Failure,
    },
    /// The time of a request is over.
    DeadlineReached {
        /// The request.
        request: RequestId,
    },
    /// A message that could not be read.
    MessageRefused {
        /// Why.
        reason: String,
    },
    /// An operator wants the run to stop.
    HaltRequested(HaltRequest),
    /// The workflow execution was cancelled.
    CancelRequested,
    /// `close_run` answered.
    Closed,
    /// `close_run` ended without an answer.
    CloseFailed(Failure),
}

/// What a person says became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveCall {
    /// The call.
    pub call: ToolCallId,
    /// What became of it.
    pub resolution: Resolution,
    /// Who says so. A claim.
    pub by: PersonId,
    /// Their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// An operator's wish that the run stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltRequest {
    /// Who says so. A claim.
    pub by: PersonId,
    /// Their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// How an activity ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    /// It was retried for as long as an outage may last.
    Unavailable {
        /// The last words of the last attempt.
        detail: String,
    },
    /// It refused for good.
    Refused {
        /// The failure's type.
        kind: String,
        /// Why.
        detail: String,
    },
    /// It was cancelled, as asked.
    Cancelled,
}

impl Failure {
    /// In a sentence.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Unavailable { detail } => detail.clone(),
            Self::Refused { kind, detail } => format!("{kind}: {detail}"),
            Self::Cancelled => "cancelled".to_owned(),
        }
    }
}

/// What a person's message came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It counts.
    Accepted {
        /// What follows, in a sentence.
        detail: String,
    },
    /// The request was decided before; nothing changed.
    AlreadyDecided,
    /// It does not count.
    Refused {
        /// Why.
        reason: String,
    },
}
