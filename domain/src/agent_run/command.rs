//! What a run wants done. The workflow carries commands out and feeds what comes of them back as events.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Address, AgentResult, ApprovalDecision, EndReason, QuestionId, RequestId, RunState, ToolCallId, Usage,
    agent_run::event::{Answer, HaltRequest, Ticket},
    approval::Arrival,
    audit::NoticeId,
    instruction::SentInstruction,
};

/// Something to do, in the imperative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Resolve the agent and open its audit chain.
    OpenRun,
    /// Append what is new and ask the model.
    InvokeModel {
        /// The turn.
        turn: u32,
        /// The transcript so far.
        transcript: Address,
        /// One result for each call of the last reply, in order.
        append: Vec<Address>,
        /// Further instructions of people, in the order in which they were accepted.
        instructions: Vec<Address>,
    },
    /// Walk the governed path for one call.
    CallTool {
        /// The call.
        call: ToolCallId,
        /// The request that released it, on the second walk.
        released_by: Option<RequestId>,
    },
    /// Walk the governed path for the call that undoes another one. The run has stopped, and effects of before may have been
    /// cancelled: this one is not.
    Compensate {
        /// The call that undoes.
        call: ToolCallId,
    },
    /// Ask the store what became of a call; perform nothing.
    ResolveOutcome {
        /// The call.
        call: ToolCallId,
    },
    /// Check and record a decision, an expiry or an escalation.
    ReviewApproval {
        /// The call.
        call: ToolCallId,
        /// What is reviewed.
        subject: Subject,
    },
    /// Check and record what a person tells the run, or that a question's time is over.
    ReviewInstruction {
        /// Unique in the run.
        ticket: Ticket,
        /// What is reviewed.
        subject: Word,
    },
    /// Tell the configured webhook.
    Notify {
        /// What.
        notice: NoticeId,
    },
    /// Stop telling: what was not delivered yet is given up, or begun again in the next execution.
    CancelNotices,
    /// Ask to be told when a time is reached.
    StartTimer {
        /// Which.
        timer: Timer,
        /// Milliseconds since 1970-01-01 UTC, workflow time.
        at_ms: u64,
    },
    /// That is no longer of interest.
    CancelTimer {
        /// Which.
        timer: Timer,
    },
    /// Cancel whatever effect is still being retried; one whose intent is recorded runs to its end.
    CancelEffects,
    /// State or approver groups changed: show it.
    Publish,
    /// Tell the person who sent a message what came of it.
    Reply {
        /// Their ticket.
        ticket: Ticket,
        /// What came of it.
        answer: Answer,
    },
    /// Write the closing record.
    CloseRun(Box<Closing>),
    /// Go on in a new execution with this state.
    ContinueAsNew,
    /// The run is over.
    Finish(Box<AgentResult>),
}

/// A time that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// A request's time is over.
    Deadline(RequestId),
    /// People are reminded of a request.
    Reminder(RequestId),
    /// Further people are asked.
    Escalation(RequestId),
    /// A question's time is over.
    Question(QuestionId),
    /// The run ends, and what was not told by then is given up.
    Notices,
}

/// What the Web UI shows beside the timer.
impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(id) => write!(f, "approval deadline {id}"),
            Self::Reminder(id) => write!(f, "approval reminder {id}"),
            Self::Escalation(id) => write!(f, "approval escalation {id}"),
            Self::Question(id) => write!(f, "question deadline {id}"),
            Self::Notices => f.write_str("last notifications"),
        }
    }
}

/// What `review_approval` is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "few at a time, and each is moved once or twice")]
pub enum Subject {
    /// A decision.
    Decision {
        /// Unique in the run.
        ticket: Ticket,
        /// What was decided.
        decision: ApprovalDecision,
        /// Where it came in.
        arrival: Arrival,
    },
    /// A request whose time is over.
    Expiry {
        /// The request.
        request: RequestId,
    },
    /// A request that further people are to decide.
    Escalation {
        /// The request.
        request: RequestId,
    },
}

/// What `review_instruction` is to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "few at a time, and each is moved once or twice")]
pub enum Word {
    /// What a person said.
    Sent {
        /// What they said.
        sent: SentInstruction,
        /// Where it came in.
        arrival: Arrival,
    },
    /// A question whose time is over.
    Expiry {
        /// The question.
        question: QuestionId,
    },
}

/// What the closing record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Terminal state.
    pub state: RunState,
    /// Why, if it did not complete.
    pub reason: Option<EndReason>,
    /// Model calls.
    pub turns: u32,
    /// Tokens over the run.
    pub usage: Usage,
    /// Calls that are not performed because the run ends.
    pub abandoned: Vec<ToolCallId>,
    /// Calls whose outcome nobody knows.
    pub unknown_outcomes: Vec<ToolCallId>,
    /// Who halted the run.
    pub halted_by: Option<HaltRequest>,
    /// The halt that ended the undoing of what the run did.
    pub undoing_halted_by: Option<HaltRequest>,
}
