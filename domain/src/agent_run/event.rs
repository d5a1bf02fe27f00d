//! What can happen to a run.

use serde::{Deserialize, Serialize};

use super::{NoticeId, Timer};
use crate::{
    ApprovalDecision, ModelTurn, OpenedRun, PerformedCall, PersonId, Review, ToolCallId, ToolCallOutcome,
    approval::Arrival,
    instruction::{InstructionReview, Sender, SentInstruction},
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
        /// Where it came in.
        arrival: Arrival,
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
    /// A person tells the run something. Nothing in it is checked.
    InstructionReceived {
        /// For the answer.
        ticket: Ticket,
        /// What they say.
        sent: SentInstruction,
        /// Where it came in.
        arrival: Arrival,
    },
    /// `review_instruction` answered.
    InstructionReviewed {
        /// The instruction.
        ticket: Ticket,
        /// What came of it.
        review: InstructionReview,
    },
    /// `review_instruction` ended without an answer: the instruction was not counted.
    InstructionFailed {
        /// The instruction.
        ticket: Ticket,
        /// How it ended.
        failure: Failure,
    },
    /// A time was reached.
    TimerFired {
        /// Which.
        timer: Timer,
    },
    /// `notify` ended.
    Notified {
        /// What was told.
        notice: NoticeId,
        /// How it ended without an answer, if it did.
        failure: Option<Failure>,
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
    Closed {
        /// Calls that changed something, the last ones if there are many.
        performed: Vec<PerformedCall>,
    },
    /// `close_run` ended without an answer.
    CloseFailed(Failure),
}

/// An operator's wish that the run stops. It acts at once, and whether it is proved who sent it is recorded afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltRequest {
    /// Who says so.
    #[serde(flatten)]
    pub sender: Sender,
    /// Where it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
}

impl HaltRequest {
    /// Who says so, for messages: a claim.
    #[must_use]
    pub fn claimed_by(&self) -> &str {
        self.sender.by.as_ref().map_or("somebody", PersonId::as_str)
    }
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

/// Names an event for messages.
impl Event {
    /// The variant's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "Opened",
            Self::OpenFailed(_) => "OpenFailed",
            Self::ModelReplied(_) => "ModelReplied",
            Self::ModelRefused { .. } => "ModelRefused",
            Self::ModelFailed(_) => "ModelFailed",
            Self::ToolReturned { .. } => "ToolReturned",
            Self::ToolFailed { .. } => "ToolFailed",
            Self::OutcomeResolved { .. } => "OutcomeResolved",
            Self::ResolveFailed { .. } => "ResolveFailed",
            Self::DecisionReceived { .. } => "DecisionReceived",
            Self::ApprovalReviewed { .. } => "ApprovalReviewed",
            Self::ReviewFailed { .. } => "ReviewFailed",
            Self::InstructionReceived { .. } => "InstructionReceived",
            Self::InstructionReviewed { .. } => "InstructionReviewed",
            Self::InstructionFailed { .. } => "InstructionFailed",
            Self::TimerFired { .. } => "TimerFired",
            Self::Notified { .. } => "Notified",
            Self::MessageRefused { .. } => "MessageRefused",
            Self::HaltRequested(_) => "HaltRequested",
            Self::CancelRequested => "CancelRequested",
            Self::Closed { .. } => "Closed",
            Self::CloseFailed(_) => "CloseFailed",
        }
    }
}
