//! How a run ends: by its answer, by a person, by a bound, by a failure. Whatever the reason, effects that are under
//! way come to their end first, and the audit chain is closed.

use serde::{Deserialize, Serialize};

use super::{AgentRun, Answer, CallState, Closing, Command, Failure, HaltRequest, Phase, UnexpectedEvent, call};
use crate::{Content, EndReason, PerformedCall, RunState, ToolCallId};

/// Halts that come in so soon after each other are one wish.
const HALTS_AT_ONCE_MS: u64 = 10_000;

/// Why a run stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) reason: EndReason,
    pub(super) detail: Option<String>,
    halted_by: Option<HaltRequest>,
    /// `open_run` or `invoke_model` is still under way.
    waits_for_effect: bool,
}

impl Stop {
    pub(super) fn of(reason: EndReason, detail: Option<String>) -> Self {
        Self { reason, detail, halted_by: None, waits_for_effect: false }
    }

    /// What an activity's failure makes of the run.
    pub(super) fn after(failure: &Failure) -> Self {
        let reason = match failure {
            Failure::Unavailable { .. } => EndReason::Unavailable,
            Failure::Refused { .. } => EndReason::Refused,
            Failure::Cancelled => EndReason::Cancelled,
        };
        Self::of(reason, Some(failure.detail()))
    }

    pub(super) fn waits_for_effect(&self) -> bool {
        self.waits_for_effect
    }

    pub(super) fn halted_by(&self) -> Option<HaltRequest> {
        self.halted_by.clone()
    }

    pub(super) fn effect_ended(&mut self) {
        self.waits_for_effect = false;
    }
}

impl AgentRun {
    pub(super) fn halt_requested(&mut self, halt: HaltRequest, commands: &mut Vec<Command>) {
        if self.phase == Phase::Compensating && self.is_halted_at_once_with(&halt) {
            // Two who halted the run: neither meant to keep it from undoing what it did.
            return;
        }
        let detail = format!("halted by {}", halt.claimed_by());
        let stop = Stop { halted_by: Some(halt), ..Stop::of(EndReason::Halted, Some(detail)) };
        self.begin_stop(stop, commands);
    }

    /// Whether another halt has come in with this one, as people send it who see the same.
    fn is_halted_at_once_with(&self, halt: &HaltRequest) -> bool {
        let at = |halt: &HaltRequest| halt.arrival.as_ref().map(|arrival| arrival.at_ms);
        let first = self.stop.as_ref().and_then(|stop| stop.halted_by.as_ref()).and_then(at);
        first.zip(at(halt)).is_some_and(|(first, second)| second.saturating_sub(first) < HALTS_AT_ONCE_MS)
    }

    /// Stops the run, unless it is ending already. Nothing new begins; what is under way comes to its end.
    pub(super) fn begin_stop(&mut self, stop: Stop, commands: &mut Vec<Command>) {
        let waits_for_effect = match self.phase {
            Phase::Opening | Phase::Thinking => true,
            Phase::Acting | Phase::Resting => false,
            Phase::Compensating => return self.stop_compensation(stop, commands),
            Phase::Stopping | Phase::Closing | Phase::Finished => return,
        };
        self.stop = Some(Stop { waits_for_effect, ..stop });
        self.phase = Phase::Stopping;
        self.refuse_what_waits(commands);
        self.abandon_waiting_calls();
        if !self.nothing_under_way() {
            commands.push(Command::CancelEffects);
        }
    }

    /// Requests and decisions that still wait come to nothing, and whoever sent one is told.
    pub(super) fn refuse_what_waits(&mut self, commands: &mut Vec<Command>) {
        self.questions.withdraw(commands);
        for ticket in self.approvals.withdraw(commands).into_iter().chain(self.instructions.withdraw()) {
            let reason = "the run is ending".to_owned();
            self.refuse_message(reason.clone());
            commands.push(Command::Reply { ticket, answer: Answer::Refused { reason } });
        }
    }

    /// The model gave its final answer. A review that is still under way is waited for.
    pub(super) fn finish_with(&mut self, answer: Option<Content>) {
        self.answer = answer;
        self.calls.clear();
        self.phase = Phase::Stopping;
    }

    pub(super) fn open_failed(
        &mut self,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect(&[Phase::Opening, Phase::Stopping], self.opened.is_none(), "OpenFailed")?;
        let mut stop = Stop::after(failure);
        if stop.reason == EndReason::Refused {
            stop.reason = EndReason::RefusedStart;
        }
        self.opening_ended();
        self.begin_stop(stop, commands);
        Ok(())
    }

    /// `open_run` is over: the run is between its effects, unless it is stopping.
    pub(super) fn opening_ended(&mut self) {
        match &mut self.stop {
            Some(stop) => stop.effect_ended(),
            None => self.phase = Phase::Acting,
        }
    }

    /// Nothing is under way any more: the chain is closed. A run that never opened has none.
    pub(super) fn close(&mut self, commands: &mut Vec<Command>) {
        if self.opened.is_none() {
            self.finish(commands);
            return;
        }
        self.phase = Phase::Closing;
        commands.push(Command::CloseRun(Box::new(Closing {
            state: self.terminal_state(),
            reason: self.stop.as_ref().map(|stop| stop.reason),
            turns: self.turn,
            usage: self.usage,
            abandoned: self.abandoned(),
            unknown_outcomes: call::unknown(&self.calls),
            halted_by: self.stop.as_ref().and_then(Stop::halted_by),
            undoing_halted_by: self.undoing_halted_by(),
        })));
    }

    /// Calls that are not performed because the run ends.
    pub(super) fn abandoned(&self) -> Vec<ToolCallId> {
        self.calls.iter().filter(|call| call.state == CallState::Abandoned).map(|call| call.id).collect()
    }

    pub(super) fn closed(
        &mut self,
        performed: Vec<PerformedCall>,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect(&[Phase::Closing], true, "Closed")?;
        self.performed = performed;
        self.finish(commands);
        Ok(())
    }

    /// Without its closing record the run has not completed, whatever the model said.
    pub(super) fn close_failed(
        &mut self,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect(&[Phase::Closing], true, "CloseFailed")?;
        let mut stop = Stop::after(failure);
        let words = format!("the closing record could not be written: {}", failure.detail());
        stop.detail = Some(words);
        self.stop = Some(stop);
        self.finish(commands);
        Ok(())
    }

    fn finish(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Finished;
        self.publish(commands);
        commands.push(Command::Finish(Box::new(self.result())));
    }

    pub(super) fn terminal_state(&self) -> RunState {
        self.stop.as_ref().map_or(RunState::Completed, |stop| stop.reason.state())
    }
}
