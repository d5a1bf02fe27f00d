//! What must hold of every command, and of what follows from an event.

use super::*;

/// A run before an event, as far as promises speak of it.
pub(super) struct Before {
    paused: bool,
    held: Vec<ToolCallId>,
    reason: Option<EndReason>,
}

impl Before {
    pub(super) fn of(run: &AgentRun) -> Self {
        Self { paused: run.is_paused(), held: held(run), reason: run.result().reason }
    }
}

/// Calls that wait for the end of a pause.
fn held(run: &AgentRun) -> Vec<ToolCallId> {
    let held = |call: &&Call| matches!(call.state, CallState::Held { .. });
    run.calls().iter().filter(held).map(|call| call.id).collect()
}

impl World {
    /// Whether a person, a bound or a failure ends the run.
    pub(super) fn stops(&self) -> bool {
        self.run.result().reason.is_some()
    }

    /// What must hold when a command is given.
    pub(super) fn expect(&mut self, command: &Command) {
        match command {
            Command::InvokeModel { turn, append, instructions, .. } => self.model_is_asked(*turn, append, instructions),
            Command::CallTool { call, released_by } => self.call_begins(*call, released_by.as_ref()),
            Command::Compensate { call } => self.undo_begins(*call),
            Command::ReviewApproval { call, subject } => self.review_begins(*call, subject),
            Command::ReviewInstruction { ticket, .. } => {
                let other = |c: &Command| matches!(c, Command::ReviewInstruction { .. });
                assert!(!self.under_way.iter().any(other), "one instruction is reviewed at a time");
                assert!(*ticket > self.instructed, "instructions are reviewed in the order in which they came");
                self.instructed = *ticket;
            }
            Command::Notify { notice } => {
                assert!(self.settings.notifies && self.begun.insert(*notice), "{notice} is told once");
            }
            Command::CloseRun(closing) => self.run_closes(closing),
            Command::Finish(result) => self.run_ends(result),
            Command::OpenRun
            | Command::ResolveOutcome { .. }
            | Command::CancelNotices
            | Command::StartTimer { .. }
            | Command::CancelTimer { .. }
            | Command::CancelEffects
            | Command::Publish
            | Command::Reply { .. }
            | Command::ContinueAsNew => {}
        }
    }

    fn model_is_asked(&mut self, turn: u32, append: &[Address], instructions: &[Address]) {
        assert!(!self.paused, "turn {turn} begins while the run is paused");
        let results: Vec<_> = (0..self.last_reply.1).map(|index| self.result_of(turn - 1, index)).collect();
        assert_eq!(append, results, "exactly one result per call, in order");
        assert_eq!(instructions, &self.steered[self.delivered..], "each instruction once, in order");
        self.delivered = self.steered.len();
    }

    /// What the model reads of a call: the result of its last revision.
    fn result_of(&self, turn: u32, index: u32) -> Address {
        let mut id = ToolCallId::new(turn, index);
        while let Some(revision) = self.calls[&id].revised {
            id = revision;
        }
        self.calls[&id].end.clone().expect("each call has a result")
    }

    fn call_begins(&mut self, call: ToolCallId, released_by: Option<&RequestId>) {
        assert!(!self.paused, "{call} begins while the run is paused");
        let stored = self.calls.entry(call).or_default();
        stored.walks += 1;
        let known = std::mem::take(&mut stored.path_knows);
        let began = stored.end.is_some() || stored.unknown || stored.intents > 0;
        assert!(known || !began, "{call} is called though it began");
        assert!(stored.revised.is_none(), "{call} is called though it was revised");
        assert!(stored.question.is_none() || stored.goes_on.is_some(), "{call} is called though it asks people");
        let approved = |request: &ApprovalRequest| stored.approved.contains(&request.id);
        assert!(known || stored.requests.iter().all(approved), "{call} is called without its approvals");
        let released = match released_by {
            Some(id) => stored.edited_by.as_ref() == Some(id) || stored.requests.iter().any(|one| one.id == *id),
            None if stored.goes_on.is_some() => true,
            None => stored.requests.is_empty() && stored.edited_by.is_none() && stored.walks == 1,
        };
        assert!(released, "{call} is released by its people only");
        assert!(self.calling.insert(call), "{call} is called twice at once");
    }

    /// Takes note of calls that completed, as the run hears of them.
    pub(super) fn completes(&mut self, event: &Event) {
        let settled = |review: &InstructionReview| match review {
            InstructionReview::Settled { outcome: ToolCallOutcome::Returned { result, is_error: false }, .. } => {
                let ends =
                    |(id, stored): (&ToolCallId, &Stored)| (stored.end == Some(result.address.clone())).then_some(*id);
                self.calls.iter().find_map(ends)
            }
            _ => None,
        };
        let completed = match event {
            Event::ToolReturned { call, outcome: ToolCallOutcome::Returned { is_error: false, .. } }
            | Event::OutcomeResolved { call, outcome: ToolCallOutcome::Returned { is_error: false, .. } } => {
                Some(*call)
            }
            Event::InstructionReviewed { review, .. } => settled(review),
            _ => None,
        };
        // A question that expires while the run stops belongs to a call that was given up.
        let kept =
            |call: &ToolCallId| self.run.calls().iter().all(|one| one.id != *call || one.state != CallState::Abandoned);
        self.completed.extend(completed.filter(|call| !call.undo && kept(call)));
    }

    fn undo_begins(&mut self, undo: ToolCallId) {
        let call = undo.undoes().expect("an undo undoes a call");
        assert!(self.settings.compensates && self.stops(), "{undo} begins in a run that goes on");
        let next = self.completed.iter().rev().nth(self.undoing.len());
        assert_eq!(next, Some(&call), "undone one after the other, the last one first");
        assert!(
            self.under_way.iter().all(|c| matches!(c, Command::Notify { .. })),
            "{undo} begins beside something else"
        );
        // What people held is over, and what was cancelled before is not.
        (self.paused, self.effects_cancelled) = (false, false);
        self.undoing.push(call);
        self.seen.insert("an undo begins".to_owned());
        self.call_begins(undo, None);
    }

    fn review_begins(&mut self, call: ToolCallId, subject: &Subject) {
        assert!(self.reviewing.insert(call), "one review of {call} at a time");
        let stored = self.calls.get_mut(&call).unwrap();
        match subject {
            Subject::Decision { ticket, .. } => {
                assert!(*ticket > stored.reviewed, "decisions are reviewed in the order in which they came");
                stored.reviewed = *ticket;
            }
            Subject::Expiry { .. } | Subject::Escalation { .. } => {
                let before = self.undecided.values().any(|of| *of == call);
                assert!(!before, "what people decided in time is reviewed first");
            }
        }
    }

    fn run_closes(&mut self, closing: &Closing) {
        assert!(self.under_way.is_empty(), "nothing is under way: {:?}", self.under_way);
        let unknown: Vec<_> = self.calls.iter().filter(|(_, s)| s.unknown).map(|(id, _)| *id).collect();
        let named: BTreeSet<_> = closing.unknown_outcomes.iter().copied().collect();
        assert_eq!(named, unknown.into_iter().collect::<BTreeSet<_>>(), "unknown outcomes are named");
        let undoes: Vec<_> = self.run.calls().iter().filter_map(|call| call.id.undoes()).collect();
        let expected = if self.settings.compensates && self.stops() { self.completed.clone() } else { vec![] };
        assert!(undoes.iter().eq(expected.iter().rev()), "what completed is undone, or named as not: {undoes:?}");
        for call in self.run.calls() {
            let named = [&closing.abandoned, &closing.unknown_outcomes].map(|list| list.contains(&call.id));
            let ends = usize::from(call.has_result()) + named.into_iter().map(usize::from).sum::<usize>();
            assert_eq!(ends, 1, "{} has one result or is named once: {call:?}", call.id);
        }
        let performed = |call: &ToolCallId| self.calls.get(call).is_some_and(|stored| stored.performed > 0);
        assert!(!closing.abandoned.iter().any(performed), "what was performed is not named as not performed");
        if closing.state == RunState::Completed {
            assert!(!self.paused, "a paused run does not complete");
            assert_eq!(self.delivered, self.steered.len(), "no answer is final while an instruction waits");
        }
        self.closed += 1;
    }

    fn run_ends(&self, result: &AgentResult) {
        assert!(self.finished.is_none() && self.under_way.is_empty(), "nothing is left behind");
        assert!(self.closed == 1 || !self.opened, "closed once");
        assert!(self.timers.is_empty(), "a timer is left: {:?} {:#?}", self.timers, self.run);
        assert!(self.replies_owed.is_empty(), "an answer is owed: {:?} {:#?}", self.replies_owed, self.run);
        assert!(result.state.is_terminal());
    }

    /// What must hold behind an event.
    pub(super) fn follows(&mut self, before: &Before, event: &Event) {
        if let Event::ApprovalReviewed { review, .. } = event {
            self.expiry_follows(before, review);
        }
        if matches!(event, Event::InstructionReviewed { .. }) && !self.stops() {
            assert_eq!(self.run.is_paused(), self.paused);
        }
        if before.paused && !self.paused && !self.stops() {
            for call in &before.held {
                assert!(self.calling.contains(call), "{call} was held and does not begin");
                self.seen.insert("a held call begins".to_owned());
            }
        }
        assert!(self.paused || held(&self.run).is_empty(), "only a paused run holds calls");
    }

    /// A gate may stop the run when its time is over, and nothing else about a review that comes back does.
    fn expiry_follows(&mut self, before: &Before, review: &Review) {
        let was = before.reason;
        let halts = matches!(review, Review::Expired { .. }) && std::mem::take(&mut self.halts);
        let expected = if was.is_none() && halts { Some(EndReason::ApprovalExpired) } else { was };
        let reason = self.run.result().reason;
        let by_turns = was.is_none() && reason == Some(EndReason::TurnsExhausted);
        assert!(reason == expected || by_turns, "{reason:?} {expected:?} {review:?}");
        if halts && was.is_none() {
            self.seen.insert("an expiry stops the run".to_owned());
        }
    }
}
