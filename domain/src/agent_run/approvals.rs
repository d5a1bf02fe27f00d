//! Requests that wait for people, and the decisions about them.
//!
//! Every decision that names a request of this run is reviewed by an activity, one at a time for each call; a decision
//! counts by the moment it arrived, so a deadline that passes while a review is under way waits for it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    AgentRun, Answer, Call, CallState, Command, Failure, Moment, Phase, ResolveCall, Stop, Subject, Ticket,
    UnexpectedEvent, call::settled,
};
use crate::{ApprovalDecision, ApprovalRequest, Content, GroupName, RequestId, Review, ToolCallId, ToolCallOutcome};

/// How many decided requests a run remembers, to answer late decisions with "already decided".
const DECIDED_MAX: usize = 256;
/// How many late decisions are reviewed one by one; those above are counted only.
const LATE_REVIEWS_MAX: u32 = 100;
/// How many decisions may wait for their review at once; those above are refused.
const QUEUE_MAX: usize = 64;

/// A request that waits for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRequest {
    /// What is asked.
    pub request: ApprovalRequest,
    /// Until when, in milliseconds since 1970-01-01 UTC, workflow time.
    pub deadline_ms: u64,
    /// Different people who approved so far.
    pub votes: u32,
    /// Enough people approved; the call waits for another gate.
    approved: bool,
    /// Its time is over, and a review is still under way.
    overdue: bool,
}

/// All requests of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Approvals {
    waiting: Vec<WaitingRequest>,
    decided: VecDeque<(RequestId, ToolCallId)>,
    queue: VecDeque<Queued>,
    reviewing: Vec<Reviewing>,
    late_reviews: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Queued {
    call: ToolCallId,
    ticket: Ticket,
    decision: ApprovalDecision,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reviewing {
    call: ToolCallId,
    request: RequestId,
    /// None for an expiry.
    ticket: Option<Ticket>,
}

impl Approvals {
    /// Takes in what policy asks of people, and sets the timers.
    pub(super) fn ask(
        &mut self,
        requests: &[ApprovalRequest],
        now_ms: u64,
        wait_max_secs: u64,
        commands: &mut Vec<Command>,
    ) {
        for request in requests {
            let wait_secs = request.gate.expires_secs.min(wait_max_secs);
            let deadline_ms = now_ms.saturating_add(wait_secs.saturating_mul(1000));
            commands.push(Command::StartTimer { request: request.id.clone(), deadline_ms });
            let (votes, approved, overdue) = (0, false, false);
            self.waiting.push(WaitingRequest { request: request.clone(), deadline_ms, votes, approved, overdue });
        }
    }

    /// Timers of the open requests, for a new execution.
    pub(super) fn timers(&self) -> Vec<Command> {
        let timer = |waiting: &WaitingRequest| Command::StartTimer {
            request: waiting.request.id.clone(),
            deadline_ms: waiting.deadline_ms,
        };
        self.waiting.iter().map(timer).collect()
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &WaitingRequest> {
        self.waiting.iter().filter(|waiting| !waiting.approved)
    }

    /// Whether a review is under way.
    pub(super) fn reviewing(&self) -> bool {
        !self.reviewing.is_empty()
    }

    pub(super) fn approver_groups(&self) -> Vec<GroupName> {
        let mut groups: Vec<_> = self.open().flat_map(|waiting| waiting.request.gate.approvers.clone()).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    fn open_mut(&mut self, id: &RequestId) -> Option<&mut WaitingRequest> {
        self.waiting.iter_mut().find(|waiting| waiting.request.id == *id && !waiting.approved)
    }

    /// A request that waits, also one that is approved and whose call waits for another gate.
    fn waiting_mut(&mut self, id: &RequestId) -> Option<&mut WaitingRequest> {
        self.waiting.iter_mut().find(|waiting| waiting.request.id == *id)
    }

    fn decided_call(&self, id: &RequestId) -> Option<ToolCallId> {
        let decided = self.decided.iter().find(|(decided, _)| decided == id).map(|(_, call)| *call);
        decided.or_else(|| self.waiting.iter().find(|w| w.approved && w.request.id == *id).map(|w| w.request.call))
    }

    fn remember(&mut self, request: RequestId, call: ToolCallId) {
        if self.decided.len() >= DECIDED_MAX {
            self.decided.pop_front();
        }
        self.decided.push_back((request, call));
    }

    /// Ends all requests of a call.
    fn end_requests(&mut self, call: ToolCallId, commands: &mut Vec<Command>) {
        let (ended, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.request.call == call);
        self.waiting = waiting;
        let ended: Vec<WaitingRequest> = ended;
        for request in ended {
            commands.push(Command::CancelTimer { request: request.request.id.clone() });
            self.remember(request.request.id, call);
        }
    }

    /// Ends everything that waits, because the run ends. Reviews under way come back on their own.
    pub(super) fn withdraw(&mut self, commands: &mut Vec<Command>) -> Vec<Ticket> {
        let calls: Vec<_> = self.waiting.iter().map(|waiting| waiting.request.call).collect();
        for call in calls {
            self.end_requests(call, commands);
        }
        self.queue.drain(..).map(|queued| queued.ticket).collect()
    }

    /// Starts the next review of a call, unless one is under way.
    fn pump(&mut self, call: ToolCallId, commands: &mut Vec<Command>) {
        if self.reviewing.iter().any(|reviewing| reviewing.call == call) {
            return;
        }
        if let Some(position) = self.queue.iter().position(|queued| queued.call == call)
            && let Some(Queued { ticket, decision, .. }) = self.queue.remove(position)
        {
            self.reviewing.push(Reviewing { call, request: decision.request.clone(), ticket: Some(ticket) });
            commands.push(Command::ReviewApproval { call, subject: Subject::Decision { ticket, decision } });
        } else if let Some(request) = self.overdue_request(call) {
            self.reviewing.push(Reviewing { call, request: request.clone(), ticket: None });
            commands.push(Command::ReviewApproval { call, subject: Subject::Expiry { request } });
        }
    }

    fn overdue_request(&self, call: ToolCallId) -> Option<RequestId> {
        self.waiting.iter().find(|w| w.request.call == call && w.overdue).map(|w| w.request.id.clone())
    }

    fn take_review(&mut self, call: ToolCallId) -> Option<Reviewing> {
        let position = self.reviewing.iter().position(|reviewing| reviewing.call == call)?;
        Some(self.reviewing.remove(position))
    }

    fn all_approved(&self, call: ToolCallId) -> bool {
        self.waiting.iter().filter(|w| w.request.call == call).all(|w| w.approved)
    }
}

fn reply(ticket: Option<Ticket>, answer: Answer, commands: &mut Vec<Command>) {
    if let Some(ticket) = ticket {
        commands.push(Command::Reply { ticket, answer });
    }
}

impl AgentRun {
    pub(super) fn decision_received(
        &mut self,
        ticket: Ticket,
        decision: ApprovalDecision,
        moment: Moment,
        commands: &mut Vec<Command>,
    ) {
        match self.call_to_review(&decision.request, moment, commands) {
            Ok(call) => {
                self.approvals.queue.push_back(Queued { call, ticket, decision });
                self.approvals.pump(call, commands);
            }
            Err(reason) => {
                self.refuse_message(reason.clone());
                reply(Some(ticket), Answer::Refused { reason }, commands);
            }
        }
    }

    /// The call whose review queue a decision about this request joins.
    fn call_to_review(
        &mut self,
        id: &RequestId,
        moment: Moment,
        commands: &mut Vec<Command>,
    ) -> Result<ToolCallId, String> {
        if self.phase == Phase::Opening {
            return Err(format!("the run has not begun, and no request `{id}` is pending"));
        }
        if !matches!(self.phase, Phase::Thinking | Phase::Acting | Phase::Resting) {
            return Err(format!("the run is ending, and `{id}` can no longer be decided"));
        }
        if self.approvals.queue.len() >= QUEUE_MAX {
            return Err("too many decisions wait for their review; send this one again later".to_owned());
        }
        if let Some(open) = self.approvals.open_mut(id) {
            let call = open.request.call;
            if moment.now_ms < open.deadline_ms {
                return Ok(call);
            }
            open.overdue = true;
            self.approvals.pump(call, commands);
            return Err(format!("the time of request `{id}` is over"));
        }
        let call =
            self.approvals.decided_call(id).ok_or_else(|| format!("no request `{id}` is pending in this run"))?;
        if self.approvals.late_reviews >= LATE_REVIEWS_MAX {
            return Err(format!("request `{id}` was decided already"));
        }
        self.approvals.late_reviews += 1;
        Ok(call)
    }

    pub(super) fn deadline_reached(&mut self, id: &RequestId, commands: &mut Vec<Command>) {
        // An approval too is good until the request's time is over, and no longer.
        if let Some(waiting) = self.approvals.waiting_mut(id) {
            waiting.overdue = true;
            let call = waiting.request.call;
            self.approvals.pump(call, commands);
        }
    }

    pub(super) fn approval_reviewed(
        &mut self,
        call: ToolCallId,
        review: Review,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let reviewing = self.approvals.take_review(call).ok_or_else(|| self.unexpected("ApprovalReviewed"))?;
        match review {
            Review::Counted { votes, quorum_reached } => {
                self.count_approval(call, &reviewing, votes, quorum_reached, commands);
            }
            Review::Rejected { result } => {
                self.end_undone(call, result, commands);
                let detail = format!("`{call}` is rejected");
                reply(reviewing.ticket, Answer::Accepted { detail }, commands);
            }
            Review::Expired { result } => self.end_undone(call, result, commands),
            Review::Refused { reason } => {
                self.show_refusal(&reason);
                reply(reviewing.ticket, Answer::Refused { reason }, commands);
            }
            Review::AlreadyDecided => self.decided_elsewhere(call, &reviewing, commands),
        }
        self.approvals.pump(call, commands);
        Ok(())
    }

    fn count_approval(
        &mut self,
        call: ToolCallId,
        reviewing: &Reviewing,
        votes: u32,
        quorum_reached: bool,
        commands: &mut Vec<Command>,
    ) {
        if let Some(open) = self.approvals.open_mut(&reviewing.request) {
            open.votes = votes;
            open.approved = quorum_reached;
        }
        let detail = if quorum_reached {
            format!("`{call}` is approved at this gate")
        } else {
            format!("counted; {votes} approved so far")
        };
        reply(reviewing.ticket, Answer::Accepted { detail }, commands);
        if quorum_reached && self.approvals.all_approved(call) {
            self.release(call, reviewing.request.clone(), commands);
        }
    }

    /// Every gate is open: the path is walked again, and policy decides again.
    fn release(&mut self, call: ToolCallId, request: RequestId, commands: &mut Vec<Command>) {
        self.approvals.end_requests(call, commands);
        if self.is_waiting(call) && self.phase == Phase::Acting {
            self.call_again(call, request, commands);
        }
    }

    /// A person or the clock ended the call: it is not performed, and the model reads why.
    fn end_undone(&mut self, call: ToolCallId, result: Content, commands: &mut Vec<Command>) {
        self.approvals.end_requests(call, commands);
        if self.is_waiting(call) {
            self.set_call(call, CallState::Ended { result: result.address });
        }
    }

    fn decided_elsewhere(&mut self, call: ToolCallId, reviewing: &Reviewing, commands: &mut Vec<Command>) {
        reply(reviewing.ticket, Answer::AlreadyDecided, commands);
        // The store has closed a request that is open here, which only a lost answer explains. The path knows best.
        let open = self.approvals.open_mut(&reviewing.request).is_some();
        let expiry = reviewing.ticket.is_none() && self.approvals.waiting_mut(&reviewing.request).is_some();
        if open || expiry {
            self.release(call, reviewing.request.clone(), commands);
        }
    }

    fn is_waiting(&self, id: ToolCallId) -> bool {
        self.calls.iter().any(|call: &Call| call.id == id && call.state == CallState::Waiting)
    }

    pub(super) fn review_failed(
        &mut self,
        call: ToolCallId,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let reviewing = self.approvals.take_review(call).ok_or_else(|| self.unexpected("ReviewFailed"))?;
        let reason = format!("the decision could not be recorded and does not count: {}", failure.detail());
        reply(reviewing.ticket, Answer::Refused { reason }, commands);
        self.begin_stop(Stop::after(failure), commands);
        // A run that was ending already, by its answer, may hold decisions that nothing will review now.
        self.refuse_what_waits(commands);
        Ok(())
    }

    pub(super) fn resolution_received(&mut self, ticket: Ticket, resolution: ResolveCall, commands: &mut Vec<Command>) {
        let call = self.calls.iter_mut().find(|call| call.id == resolution.call);
        if self.phase == Phase::Acting
            && let Some(Call { state: CallState::Unknown { resolving: slot @ None, .. }, .. }) = call
        {
            *slot = Some(ticket);
            commands.push(Command::ReviewInstruction { ticket, resolution });
        } else {
            let reason = format!("call `{}` does not wait for a person's word on its outcome", resolution.call);
            self.refuse_message(reason.clone());
            reply(Some(ticket), Answer::Refused { reason }, commands);
        }
    }

    pub(super) fn instruction_reviewed(
        &mut self,
        call: ToolCallId,
        outcome: Option<ToolCallOutcome>,
        refused: Option<String>,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let ticket = self.take_resolving(call, "InstructionReviewed")?;
        let answer = match (outcome.and_then(settled), refused) {
            (Some(state), refused) => {
                self.set_call(call, state);
                let detail = refused.unwrap_or_else(|| format!("`{call}` is resolved"));
                Answer::Accepted { detail }
            }
            (None, refused) => {
                let reason = refused.unwrap_or_else(|| format!("`{call}` stays unresolved"));
                self.show_refusal(&reason);
                Answer::Refused { reason }
            }
        };
        reply(Some(ticket), answer, commands);
        Ok(())
    }

    pub(super) fn instruction_failed(
        &mut self,
        call: ToolCallId,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let ticket = self.take_resolving(call, "InstructionFailed")?;
        let reason = format!("the instruction could not be recorded and does not count: {}", failure.detail());
        reply(Some(ticket), Answer::Refused { reason }, commands);
        self.begin_stop(Stop::after(failure), commands);
        Ok(())
    }

    fn take_resolving(&mut self, id: ToolCallId, event: &'static str) -> Result<Ticket, UnexpectedEvent> {
        let call = self.calls.iter_mut().find(|call| call.id == id);
        let ticket = match call.map(|call| &mut call.state) {
            Some(CallState::Unknown { resolving, .. }) => resolving.take(),
            Some(
                CallState::Calling
                | CallState::Waiting
                | CallState::LookingUp { .. }
                | CallState::Ended { .. }
                | CallState::Abandoned,
            )
            | None => None,
        };
        ticket.ok_or_else(|| self.unexpected(event))
    }
}
