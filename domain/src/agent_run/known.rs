//! What others may know of a run: the state that a Temporal user sees, counters, what waits, the result so far.

use super::{AgentRun, Call, CallState, Phase, WaitingQuestion, WaitingRequest, call};
use crate::{
    AgentName, AgentResult, ChainHead, GroupName, OpenedRun, PersonId, RunLimits, RunState, Usage, audit::Proof,
};

impl AgentRun {
    /// The state that a Temporal user sees.
    #[must_use]
    pub fn state(&self) -> RunState {
        match self.phase {
            Phase::Thinking | Phase::Acting | Phase::Resting if self.paused => RunState::Paused,
            Phase::Opening | Phase::Thinking | Phase::Resting | Phase::Stopping => RunState::Running,
            Phase::Closing | Phase::Finished => self.terminal_state(),
            Phase::Acting => call::state_of(&self.calls.iter()),
            // An undo of which nobody knows does not wait for a person.
            Phase::Compensating => {
                let open = self.undo_calls().filter(|call| !matches!(call.state, CallState::Unknown { .. }));
                call::state_of(&open)
            }
        }
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The person it acts for.
    #[must_use]
    pub fn on_behalf_of(&self) -> &PersonId {
        &self.on_behalf_of
    }

    /// How that person was proved, once the run is open.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.opened.as_ref().map_or(Proof::Claimed, |opened| opened.proof)
    }

    /// The ways of proof that count for decisions and instructions.
    #[must_use]
    pub fn accepts(&self) -> Vec<Proof> {
        self.opened.as_ref().map_or_else(|| vec![Proof::Claimed], |opened| opened.accepts.clone())
    }

    /// Whether a person paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Questions that wait for an answer, oldest first.
    pub fn waiting_questions(&self) -> impl Iterator<Item = &WaitingQuestion> {
        self.questions.waiting()
    }

    /// What `open_run` found out, once it has.
    #[must_use]
    pub fn opened_run(&self) -> Option<&OpenedRun> {
        self.opened.as_ref()
    }

    /// Bounds: the configured ones, or the defaults before the run is opened.
    #[must_use]
    pub fn limits(&self) -> RunLimits {
        self.opened.as_ref().map(|opened| opened.limits).unwrap_or_default()
    }

    /// Where the audit chain stood when an activity last said so.
    #[must_use]
    pub fn audit(&self) -> &ChainHead {
        &self.audit
    }

    /// The current turn; 0 before the first.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// Tool calls that the model proposed so far.
    #[must_use]
    pub fn tool_calls(&self) -> u32 {
        self.tool_calls
    }

    /// Tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The calls of the current turn.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Requests that wait for people, oldest first.
    pub fn waiting_requests(&self) -> impl Iterator<Item = &WaitingRequest> {
        self.approvals.open()
    }

    /// Groups that are asked now.
    #[must_use]
    pub fn approver_groups(&self) -> Vec<GroupName> {
        self.approvals.approver_groups()
    }

    /// Messages and reviewed decisions refused so far, and why the last one was: what people are shown.
    #[must_use]
    pub fn refusals(&self) -> (u64, Option<&str>) {
        (self.refused_messages + self.refused_reviews, self.shown_refusal.as_deref())
    }

    /// Messages refused so far without a review, and why the last one was: what the next activity records.
    #[must_use]
    pub fn refused_messages(&self) -> (u64, Option<&str>) {
        (self.refused_messages, self.last_refusal.as_deref())
    }

    /// Whether people may still say what became of a call.
    #[must_use]
    pub fn takes_words(&self) -> bool {
        matches!(self.phase, Phase::Acting | Phase::Resting)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// The result as far as it is known.
    #[must_use]
    pub fn result(&self) -> AgentResult {
        AgentResult {
            state: self.terminal_state(),
            answer: self.answer.clone(),
            reason: self.stop.as_ref().map(|stop| stop.reason),
            detail: self.stop.as_ref().and_then(|stop| stop.detail.clone()),
            turns: self.turn,
            tool_calls: self.tool_calls,
            usage: self.usage,
            unknown_outcomes: call::unknown(&self.calls),
            performed: if self.stop.is_some() { self.performed.clone() } else { Vec::new() },
            not_performed: self.abandoned(),
            undone: self.undone(),
            audit: self.audit.clone(),
        }
    }
}
