//! One request that waits for people: its times, and how far it has got.

use serde::{Deserialize, Serialize};

use super::{Command, Timer};
use crate::{ApprovalRequest, GroupName};

/// A request that waits for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "four things that happen to a request, each by itself")]
pub struct WaitingRequest {
    /// What is asked.
    pub request: ApprovalRequest,
    /// Until when, in milliseconds since 1970-01-01 UTC, workflow time.
    pub deadline_ms: u64,
    /// Different people who approved so far.
    pub votes: u32,
    /// Enough people approved; the call waits for another gate.
    pub(super) approved: bool,
    /// Its time is over, and a review is still under way.
    pub(super) overdue: bool,
    /// When people are reminded, if they still are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) remind_ms: Option<u64>,
    /// When further people are asked, if they still are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) escalate_ms: Option<u64>,
    /// It is time to ask further people, and a review is still under way.
    #[serde(default)]
    pub(super) escalating: bool,
    /// Further people may decide.
    #[serde(default)]
    pub escalated: bool,
}

impl WaitingRequest {
    pub(super) fn new(request: &ApprovalRequest, now_ms: u64, wait_max_secs: u64) -> Self {
        let at = |secs: u64| now_ms.saturating_add(secs.saturating_mul(1000));
        let gate = &request.gate;
        // The store's own bound counts there; a timer that is later would let people decide in vain.
        let deadline_ms = request.expires_ms.unwrap_or_else(|| at(gate.expires_secs.min(wait_max_secs)));
        let before = |at_ms: &u64| *at_ms < deadline_ms;
        Self {
            request: request.clone(),
            deadline_ms,
            votes: 0,
            approved: false,
            overdue: false,
            remind_ms: gate.remind_secs.map(at).filter(before),
            escalate_ms: gate.escalation.as_ref().map(|escalation| at(escalation.after_secs)).filter(before),
            escalating: false,
            escalated: false,
        }
    }

    /// The timers that are set for it.
    pub(super) fn timers(&self) -> impl Iterator<Item = (Timer, u64)> {
        let id = &self.request.id;
        let deadline = (!self.overdue).then(|| (Timer::Deadline(id.clone()), self.deadline_ms));
        let reminder = self.remind_ms.map(|at_ms| (Timer::Reminder(id.clone()), at_ms));
        let escalation = self.escalate_ms.map(|at_ms| (Timer::Escalation(id.clone()), at_ms));
        [deadline, reminder, escalation].into_iter().flatten()
    }

    /// Enough people approved: nobody is reminded any more, nor is anybody else asked.
    pub(super) fn approve(&mut self, commands: &mut Vec<Command>) {
        self.approved = true;
        let id = &self.request.id;
        let reminder = self.remind_ms.take().map(|_| Timer::Reminder(id.clone()));
        let escalation = self.escalate_ms.take().map(|_| Timer::Escalation(id.clone()));
        commands.extend(reminder.into_iter().chain(escalation).map(|timer| Command::CancelTimer { timer }));
    }

    /// The groups whose members may decide now.
    #[must_use]
    pub fn deciders(&self) -> Vec<GroupName> {
        self.request.gate.deciders(self.escalated)
    }
}
