//! What people and clocks do to a run.

use super::*;

impl World {
    fn owe(&mut self) -> Ticket {
        let ticket = self.run.ticket();
        self.log.drew_ticket();
        self.replies_owed.insert(ticket);
        ticket
    }

    /// A time is reached, whichever timer it is.
    pub(super) fn fire_any(&mut self, choices: &mut Choices, long: bool) {
        if let Some(timer) = choices.pick(self.timers.len()).and_then(|n| self.timers.keys().nth(n).cloned()) {
            self.fire(timer, long);
        }
    }

    /// A timer fires. It is over then; the machine may still cancel it, which the SDK ignores.
    pub(in crate::agent_run::tests) fn fire(&mut self, timer: Timer, long: bool) {
        let at_ms = self.timers.remove(&timer).expect("it was set");
        self.now = self.now.max(at_ms);
        self.seen.insert(format!("Timer::{}", timer_name(&timer)));
        self.fired.insert(timer.clone());
        if let Timer::Deadline(id) = &timer {
            self.overdue.extend(self.call_of(id));
        }
        self.feed(&Event::TimerFired { timer }, long);
    }

    pub(super) fn disturb(&mut self, choices: &mut Choices, long: bool) {
        match choices.pick(24) {
            Some(0) => self.feed(&halt(), long),
            Some(1) => self.feed(&Event::CancelRequested, long),
            Some(2..12) => self.feed(&Event::MessageRefused { reason: "junk".into() }, long),
            _ => self.expect_refusals(),
        }
    }

    /// Events that the state excludes are refused and change nothing.
    fn expect_refusals(&mut self) {
        let before = self.run.clone();
        let foreign = ToolCallId::new(99, 9);
        let outcome = ToolCallOutcome::NotPerformed;
        for event in [
            Event::ToolReturned { call: foreign, outcome: outcome.clone() },
            Event::OutcomeResolved { call: foreign, outcome },
            Event::ApprovalReviewed { call: foreign, review: Review::AlreadyDecided },
            Event::ReviewFailed { call: foreign, failure: Failure::Cancelled },
            Event::InstructionReviewed { ticket: 99_999, review: TAKEN },
            Event::InstructionFailed { ticket: 99_999, failure: Failure::Cancelled },
            Event::Notified { notice: "r9.asked".parse().unwrap(), failure: None },
        ] {
            assert!(self.run.apply(event, self.moment(false)).is_err());
        }
        assert_eq!(self.run, before);
    }

    /// A person says something, whether it fits or not.
    pub(super) fn instruct(&mut self, choices: &mut Choices, long: bool) {
        let says = match choices.pick(8) {
            Some(0) => Instruction::Pause,
            Some(1 | 2) => Instruction::Resume,
            Some(3 | 4) => steer(),
            Some(5) => {
                let call = ToolCallId::new(self.run.turn(), small(choices.pick(4).unwrap_or_default()));
                Instruction::Resolve { call, resolution: Resolution::Happened }
            }
            _ => Instruction::Answer { question: self.any_question(choices), text: "yes".into() },
        };
        self.say(says, long);
    }

    pub(super) fn say(&mut self, says: Instruction, long: bool) -> Ticket {
        let ticket = self.owe();
        self.feed(&told(ticket, says), long);
        ticket
    }

    /// A question of this run, whether it waits or not, or one of no run.
    fn any_question(&self, choices: &mut Choices) -> QuestionId {
        let known: Vec<_> = self.calls.values().filter_map(|stored| stored.question.as_ref()).collect();
        let picked = choices.pick(known.len() + 1).and_then(|n| known.get(n));
        picked.map_or_else(|| QuestionId::parse("q9-abcdef").unwrap(), |question| question.id.clone())
    }

    /// The call that a request is about.
    fn call_of(&self, id: &RequestId) -> Option<ToolCallId> {
        let names = |stored: &Stored| stored.requests.iter().any(|one| one.id == *id);
        self.calls.iter().find(|(_, stored)| names(stored)).map(|(call, _)| *call)
    }

    /// A person decides about a request of this run, whether it waits or not, or about one of no run.
    pub(super) fn decide(&mut self, choices: &mut Choices, long: bool) {
        let known: Vec<_> = self.calls.values().flat_map(|stored| &stored.requests).collect();
        let picked = choices.pick(known.len() + 1).and_then(|n| known.get(n));
        let id = picked.map_or_else(|| RequestId::parse("r9-abcdef").unwrap(), |request| request.id.clone());
        let verdict = if choices.one_in(3) { Verdict::Reject } else { Verdict::Approve };
        let edits = verdict == Verdict::Approve && choices.one_in(5);
        self.send_decision(&id, verdict, edits, long);
    }

    pub(in crate::agent_run::tests) fn send_decision(
        &mut self,
        id: &RequestId,
        verdict: Verdict,
        edits: bool,
        long: bool,
    ) -> Ticket {
        let ticket = self.owe();
        if let Some(call) = self.call_of(id).filter(|call| !self.overdue.contains(call)) {
            self.undecided.insert(ticket, call);
        }
        let mut event = decided(ticket, id, verdict);
        if let Event::DecisionReceived { decision, .. } = &mut event {
            decision.arguments = edits.then(serde_json::Map::new);
        }
        self.feed(&event, long);
        ticket
    }
}

fn timer_name(timer: &Timer) -> &'static str {
    match timer {
        Timer::Deadline(_) => "Deadline",
        Timer::Reminder(_) => "Reminder",
        Timer::Escalation(_) => "Escalation",
        Timer::Question(_) => "Question",
        Timer::Notices => "Notices",
    }
}
