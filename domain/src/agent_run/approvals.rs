//! Requests that wait for people, and the decisions about them.
//!
//! Every decision that names a request of this run is reviewed by an activity, one at a time for each call. A decision
//! counts by the moment at which it was accepted into history: one that is taken in after the deadline is reviewed all the
//! same, where its event is looked up, and the deadline waits for every review that is under way. It does not wait for
//! what comes behind it. A parked run whose history is long puts its reviews off for the next execution: else whoever
//! keeps sending what is no good would keep it from continuing as new.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    AgentRun, Answer, Call, CallState, Command, Failure, Phase, Stop, Subject, Ticket, Timer, UnexpectedEvent,
    json_bytes, waiting::WaitingRequest,
};
use crate::{
    ApprovalDecision, ApprovalRequest, Content, EndReason, GroupName, RequestId, Review, ToolCallId,
    approval::{Arrival, OnExpiry},
    audit::NoticeKind,
};

/// How many decided requests a run remembers, to answer late decisions with "already decided".
const DECIDED_MAX: usize = 256;
/// How many late decisions are reviewed one by one; those above are counted only.
const LATE_REVIEWS_MAX: u32 = 100;
/// How many decisions may wait for their review at once, and how many bytes of JSON; those above are refused. A run that
/// goes on in a new execution takes them along.
const QUEUE_MAX: usize = 64;
const QUEUE_BYTES_MAX: usize = 64 * 1024;

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
    arrival: Arrival,
    /// It was taken in behind the deadline of its call, whose review goes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    late: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reviewing {
    call: ToolCallId,
    request: RequestId,
    of: Reviewed,
}

/// What a review is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reviewed {
    Decision(Ticket),
    Expiry,
    Escalation,
}

impl Reviewing {
    /// None where no person sent anything.
    fn ticket(&self) -> Option<Ticket> {
        match self.of {
            Reviewed::Decision(ticket) => Some(ticket),
            Reviewed::Expiry | Reviewed::Escalation => None,
        }
    }
}

impl Approvals {
    /// Takes in what policy asks of people, and sets the timers.
    fn ask(&mut self, requests: &[ApprovalRequest], now_ms: u64, wait_max_secs: u64, commands: &mut Vec<Command>) {
        for request in requests {
            let waiting = WaitingRequest::new(request, now_ms, wait_max_secs);
            commands.extend(waiting.timers().map(|(timer, at_ms)| Command::StartTimer { timer, at_ms }));
            self.waiting.push(waiting);
        }
    }

    /// Timers of the open requests, for a new execution.
    pub(super) fn timers(&self) -> Vec<Command> {
        let timers = self.waiting.iter().flat_map(WaitingRequest::timers);
        timers.map(|(timer, at_ms)| Command::StartTimer { timer, at_ms }).collect()
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &WaitingRequest> {
        self.waiting.iter().filter(|waiting| !waiting.approved)
    }

    /// Whether a review is under way.
    pub(super) fn under_way(&self) -> bool {
        !self.reviewing.is_empty()
    }

    /// Whether a review is under way or waits.
    pub(super) fn any_said(&self) -> bool {
        self.under_way() || !self.queue.is_empty()
    }

    pub(super) fn approver_groups(&self) -> Vec<GroupName> {
        let mut groups: Vec<_> = self.open().flat_map(WaitingRequest::deciders).collect();
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
        for waiting in ended {
            commands.extend(waiting.timers().map(|(timer, _)| Command::CancelTimer { timer }));
            self.remember(waiting.request.id, call);
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

    /// Starts the next review of each call, unless one of that call is under way.
    pub(super) fn pump(&mut self, commands: &mut Vec<Command>) {
        let queued = self.queue.iter().map(|queued| queued.call);
        let due = self.waiting.iter().filter(|waiting| waiting.overdue || waiting.escalating);
        let calls: BTreeSet<_> = queued.chain(due.map(|waiting| waiting.request.call)).collect();
        for call in calls {
            if !self.reviewing.iter().any(|reviewing| reviewing.call == call) {
                self.review_next(call, commands);
            }
        }
    }

    fn review_next(&mut self, call: ToolCallId, commands: &mut Vec<Command>) {
        let overdue = self.due_request(call, |waiting| waiting.overdue);
        let next = self.queue.iter().position(|queued| queued.call == call && !(queued.late && overdue.is_some()));
        if let Some(Queued { ticket, decision, arrival, .. }) = next.and_then(|at| self.queue.remove(at)) {
            let request = decision.request.clone();
            self.reviewing.push(Reviewing { call, request, of: Reviewed::Decision(ticket) });
            commands.push(Command::ReviewApproval { call, subject: Subject::Decision { ticket, decision, arrival } });
        } else if let Some(request) = overdue {
            self.reviewing.push(Reviewing { call, request: request.clone(), of: Reviewed::Expiry });
            commands.push(Command::ReviewApproval { call, subject: Subject::Expiry { request } });
        } else if let Some(request) = self.due_request(call, |waiting| waiting.escalating && !waiting.approved) {
            self.reviewing.push(Reviewing { call, request: request.clone(), of: Reviewed::Escalation });
            commands.push(Command::ReviewApproval { call, subject: Subject::Escalation { request } });
        }
    }

    fn due_request(&self, call: ToolCallId, due: impl Fn(&WaitingRequest) -> bool) -> Option<RequestId> {
        self.waiting.iter().find(|w| w.request.call == call && due(w)).map(|w| w.request.id.clone())
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
    /// Policy asks people about a call: it waits for them.
    pub(super) fn ask_approvers(
        &mut self,
        call: ToolCallId,
        requests: &[ApprovalRequest],
        now_ms: u64,
        commands: &mut Vec<Command>,
    ) {
        self.approvals.ask(requests, now_ms, self.limits().approval_wait_max_secs, commands);
        self.set_call(call, CallState::Waiting);
        for request in requests {
            self.notify_of(request.id.as_str(), NoticeKind::Asked, commands);
        }
    }

    pub(super) fn decision_received(
        &mut self,
        ticket: Ticket,
        decision: ApprovalDecision,
        arrival: Arrival,
        commands: &mut Vec<Command>,
    ) {
        match self.call_to_review(&decision.request) {
            Ok(call) => {
                let late = self.approvals.due_request(call, |waiting| waiting.overdue).is_some();
                self.approvals.queue.push_back(Queued { call, ticket, decision, arrival, late });
            }
            Err(reason) => {
                self.refuse_message(reason.clone());
                reply(Some(ticket), Answer::Refused { reason }, commands);
            }
        }
    }

    /// The call whose review queue a decision about this request joins.
    fn call_to_review(&mut self, id: &RequestId) -> Result<ToolCallId, String> {
        if self.phase == Phase::Opening {
            return Err(format!("the run has not begun, and no request `{id}` is pending"));
        }
        if !matches!(self.phase, Phase::Thinking | Phase::Acting | Phase::Resting | Phase::Compensating) {
            return Err(format!("the run is ending, and `{id}` can no longer be decided"));
        }
        if self.approvals.queue.len() >= QUEUE_MAX || json_bytes(&self.approvals.queue) >= QUEUE_BYTES_MAX {
            return Err("too many decisions wait for their review; send this one again later".to_owned());
        }
        if let Some(open) = self.approvals.open_mut(id) {
            return Ok(open.request.call);
        }
        if self.phase == Phase::Compensating {
            return Err(format!("the run is ending, and `{id}` can no longer be decided"));
        }
        let call =
            self.approvals.decided_call(id).ok_or_else(|| format!("no request `{id}` is pending in this run"))?;
        if self.approvals.late_reviews >= LATE_REVIEWS_MAX {
            return Err(format!("request `{id}` was decided already"));
        }
        self.approvals.late_reviews += 1;
        Ok(call)
    }

    pub(super) fn timer_fired(&mut self, timer: &Timer, commands: &mut Vec<Command>) {
        match timer {
            Timer::Deadline(id) => {
                // An approval too is good until the request's time is over, and no longer.
                if let Some(waiting) = self.approvals.waiting_mut(id) {
                    waiting.overdue = true;
                }
            }
            Timer::Reminder(id) => {
                if self.approvals.open_mut(id).and_then(|open| open.remind_ms.take()).is_some() {
                    self.notify_of(id.as_str(), NoticeKind::Reminder, commands);
                }
            }
            Timer::Escalation(id) => {
                if let Some(open) = self.approvals.open_mut(id)
                    && open.escalate_ms.take().is_some()
                {
                    open.escalating = true;
                }
            }
            Timer::Question(id) => self.question_overdue(id),
            Timer::Notices => self.last_words_spoken(commands),
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
                reply(reviewing.ticket(), Answer::Accepted { detail }, commands);
            }
            Review::Revised { call: revision } => {
                self.revise(call, revision, &reviewing, commands);
                let detail = format!("the arguments are changed: `{revision}` is judged afresh");
                reply(reviewing.ticket(), Answer::Accepted { detail }, commands);
            }
            Review::Expired { result } => self.expire(call, result, &reviewing, commands),
            Review::Escalated { arguments_shown } => self.escalate(&reviewing, arguments_shown, commands),
            Review::Refused { reason } => self.review_refused(call, &reviewing, reason, commands),
            Review::AlreadyDecided => self.decided_elsewhere(call, &reviewing, commands),
        }
        Ok(())
    }

    fn review_refused(&mut self, call: ToolCallId, reviewing: &Reviewing, reason: String, commands: &mut Vec<Command>) {
        match reviewing.of {
            Reviewed::Decision(_) => {}
            Reviewed::Escalation => {
                if let Some(open) = self.approvals.open_mut(&reviewing.request) {
                    open.escalating = false;
                }
            }
            // The store does not know what this run waits for: asking again would go on for ever, and the call has no end
            // to go on with.
            Reviewed::Expiry => {
                self.approvals.end_requests(call, commands);
                if self.is_waiting(call) {
                    self.set_call(call, CallState::Unknown { reason: reason.clone() });
                }
            }
        }
        self.show_refusal(&reason);
        reply(reviewing.ticket(), Answer::Refused { reason }, commands);
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
            if quorum_reached {
                open.approve(commands);
            }
        }
        let detail = if quorum_reached {
            format!("`{call}` is approved at this gate")
        } else {
            format!("counted; {votes} approved so far")
        };
        reply(reviewing.ticket(), Answer::Accepted { detail }, commands);
        if quorum_reached && self.approvals.all_approved(call) {
            self.release(call, reviewing.request.clone(), commands);
        }
    }

    /// Every gate is open: the path is walked again, and policy decides again.
    fn release(&mut self, call: ToolCallId, request: RequestId, commands: &mut Vec<Command>) {
        self.approvals.end_requests(call, commands);
        if self.is_waiting(call) && matches!(self.phase, Phase::Acting | Phase::Compensating) {
            self.call_again(call, Some(request), commands);
        }
    }

    /// An approver changed the arguments: the call goes on as its revision, about which policy is asked anew.
    fn revise(&mut self, call: ToolCallId, revision: ToolCallId, reviewing: &Reviewing, commands: &mut Vec<Command>) {
        self.approvals.end_requests(call, commands);
        if !self.is_waiting(call) || self.phase != Phase::Acting {
            return;
        }
        if let Some(one) = self.calls.iter_mut().find(|one| one.id == call) {
            one.id = revision;
        }
        self.call_again(revision, Some(reviewing.request.clone()), commands);
    }

    fn escalate(&mut self, reviewing: &Reviewing, arguments_shown: String, commands: &mut Vec<Command>) {
        if let Some(open) = self.approvals.open_mut(&reviewing.request) {
            open.escalating = false;
            open.escalated = true;
            open.request.arguments_shown = arguments_shown;
            self.notify_of(reviewing.request.as_str(), NoticeKind::Escalated, commands);
        }
    }

    fn expire(&mut self, call: ToolCallId, result: Content, reviewing: &Reviewing, commands: &mut Vec<Command>) {
        let gate = self.approvals.waiting_mut(&reviewing.request).map(|waiting| waiting.request.gate.clone());
        self.end_undone(call, result, commands);
        self.notify_of(reviewing.request.as_str(), NoticeKind::Expired, commands);
        if let Some(gate) = gate.filter(|gate| gate.on_expiry == OnExpiry::Halt) {
            let detail = format!(
                "nobody decided about `{}` in time, and gate `{}` stops the run then",
                reviewing.request, gate.id
            );
            self.begin_stop(Stop::of(EndReason::ApprovalExpired, Some(detail)), commands);
        }
    }

    /// A person or the clock ended the call: it is not performed, and the model reads why.
    fn end_undone(&mut self, call: ToolCallId, result: Content, commands: &mut Vec<Command>) {
        self.approvals.end_requests(call, commands);
        if self.is_waiting(call) {
            self.note_not_undone(call, result.shown());
            self.set_call(call, CallState::Ended { result: result.address });
        }
    }

    fn decided_elsewhere(&mut self, call: ToolCallId, reviewing: &Reviewing, commands: &mut Vec<Command>) {
        reply(reviewing.ticket(), Answer::AlreadyDecided, commands);
        if let Some(open) = self.approvals.open_mut(&reviewing.request) {
            open.escalating = false;
        }
        // The store has closed a request that is open here, which only a lost answer explains. The path knows best.
        let open = self.approvals.open_mut(&reviewing.request).is_some();
        let expiry = reviewing.ticket().is_none() && self.approvals.waiting_mut(&reviewing.request).is_some();
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
        if let Some(ticket) = reviewing.ticket() {
            // It has no record of its own: a stop may have cancelled its review before that began.
            self.refuse_message(reason.clone());
            commands.push(Command::Reply { ticket, answer: Answer::Refused { reason: reason.clone() } });
        }
        if self.phase == Phase::Compensating {
            // Others may still be undone.
            if self.is_waiting(call) {
                self.approvals.end_requests(call, commands);
                self.note_not_undone(call, &reason);
                self.set_call(call, CallState::Abandoned);
            }
            return Ok(());
        }
        self.begin_stop(Stop::after(failure), commands);
        // A run that was ending already, by its answer, may hold decisions that nothing will review now.
        self.refuse_what_waits(commands);
        Ok(())
    }
}
