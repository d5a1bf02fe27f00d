//! What a run wants done. The workflow carries commands out and feeds what comes of them back as events.

use crate::{
    Address, AgentResult, ApprovalDecision, EndReason, RequestId, RunState, ToolCallId, Usage,
    agent_run::event::{Answer, HaltRequest, ResolveCall, Ticket},
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
    },
    /// Walk the governed path for one call.
    CallTool {
        /// The call.
        call: ToolCallId,
        /// The request that released it, on the second walk.
        released_by: Option<RequestId>,
    },
    /// Ask the store what became of a call; perform nothing.
    ResolveOutcome {
        /// The call.
        call: ToolCallId,
    },
    /// Check and record a decision or an expiry.
    ReviewApproval {
        /// The call.
        call: ToolCallId,
        /// What is reviewed.
        subject: Subject,
    },
    /// Check and record what a person says became of a call.
    ReviewInstruction {
        /// Unique in the run.
        ticket: Ticket,
        /// What they say.
        resolution: ResolveCall,
    },
    /// Ask to be told when a request's time is over.
    StartTimer {
        /// The request.
        request: RequestId,
        /// Milliseconds since 1970-01-01 UTC, workflow time.
        deadline_ms: u64,
    },
    /// That is no longer of interest.
    CancelTimer {
        /// The request.
        request: RequestId,
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

/// What `review_approval` is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A decision.
    Decision {
        /// Unique in the run.
        ticket: Ticket,
        /// What was decided.
        decision: ApprovalDecision,
    },
    /// A request whose time is over.
    Expiry {
        /// The request.
        request: RequestId,
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
}
