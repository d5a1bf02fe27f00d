//! Undoing what a run did, when it does not complete and its agent wants that: the calls that completed and have an undo,
//! one after the other, the last one first.
//!
//! Each undo is a call of its own (`t3.1u`) along the governed path: policy decides about it, people may be asked, and it is
//! one effect. One that is refused, fails or stays unknown does not keep the next from being tried: the calls that were made
//! do not depend on each other in any way that is known here, and the more is undone, the better. A second halt, or a
//! cancellation, ends it: what is left is named as not undone.

use serde::{Deserialize, Serialize};

use super::{AgentRun, Call, CallState, Command, HaltRequest, Moment, Phase, Stop};
use crate::{
    ToolCallId, ToolCallOutcome,
    compensation::{CompensateOn, UndoState, UndoSummary, UndoneCall},
};

/// Longest reason that the result of a run repeats, in characters.
const REASON_CHARS_MAX: usize = 200;
/// Why an undo was not tried.
const STOPPED: &str = "undoing was stopped";

/// What is undone, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Compensation {
    /// Calls that completed and have an undo, in the order in which they completed.
    #[serde(default)]
    completed: Vec<(ToolCallId, UndoSummary)>,
    /// What is left, the next one last; none before it begins.
    #[serde(default)]
    left: Option<Vec<(ToolCallId, UndoSummary)>>,
    /// What is known of undos that came to an end.
    #[serde(default)]
    ended: Vec<(ToolCallId, UndoState, Option<String>)>,
    /// Why it was stopped, where somebody did.
    #[serde(default)]
    stopped: Option<Stop>,
}

impl Compensation {
    pub(super) fn is_empty(&self) -> bool {
        self.completed.is_empty() && self.left.is_none()
    }

    fn note(&mut self, undo: ToolCallId, state: UndoState, reason: Option<&str>) {
        let reason = reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
        self.ended.retain(|(known, ..)| *known != undo);
        self.ended.push((undo, state, reason));
    }
}

impl AgentRun {
    /// The calls that undo others.
    pub(super) fn undo_calls(&self) -> impl Iterator<Item = &Call> + Clone {
        self.calls.iter().filter(|call| call.id.undo)
    }

    /// Takes note of what a call came to: of one that completed, that there is something to undo; of an undo, how it ended.
    pub(super) fn note_for_undoing(&mut self, id: ToolCallId, outcome: &ToolCallOutcome) {
        if id.undo {
            match outcome {
                ToolCallOutcome::Returned { is_error: false, .. } => {
                    self.compensation.note(id, UndoState::Undone, None);
                }
                ToolCallOutcome::Returned { result, is_error: true } => {
                    self.compensation.note(id, UndoState::NotUndone, Some(result.shown()));
                }
                ToolCallOutcome::Refused { refusal, .. } => {
                    self.compensation.note(id, UndoState::NotUndone, Some(&refusal.reason));
                }
                ToolCallOutcome::ApprovalRequired { .. }
                | ToolCallOutcome::AnswerRequired { .. }
                | ToolCallOutcome::OutcomeUnknown { .. }
                | ToolCallOutcome::NotPerformed => {}
            }
            return;
        }
        let undo = self.calls.iter().find(|call| call.id == id).and_then(|call| call.undo.clone());
        if let (ToolCallOutcome::Returned { is_error: false, .. }, Some(undo)) = (outcome, undo) {
            self.compensation.completed.push((id, undo));
        }
    }

    /// An undo that people or a loss kept from being performed.
    pub(super) fn note_not_undone(&mut self, id: ToolCallId, reason: &str) {
        if id.undo {
            self.compensation.note(id, UndoState::NotUndone, Some(reason));
        }
    }

    /// The run has stopped and nothing is under way: what it did is undone where that is wanted, and then it is closed.
    pub(super) fn undo_or_close(&mut self, moment: Moment, commands: &mut Vec<Command>) {
        if self.begin_compensation() {
            self.compensate_next(moment, commands);
        } else {
            self.close_after_notices(moment, commands);
        }
    }

    /// Begins to undo, if the run stopped in a way at which its agent wants that. Once in a run.
    fn begin_compensation(&mut self) -> bool {
        let (Some(opened), Some(stop)) = (&self.opened, &self.stop) else { return false };
        let wanted = opened.compensate.contains(&CompensateOn::of(stop.reason));
        if !wanted || self.compensation.left.is_some() || self.compensation.completed.is_empty() {
            return false;
        }
        self.compensation.left = Some(self.compensation.completed.clone());
        // Whoever paused the run has held what it was about to do. Undoing is what is left.
        self.paused = false;
        self.phase = Phase::Compensating;
        true
    }

    /// Undoes the next call when the one before has come to its end. Behind the last one the run is closed.
    pub(super) fn compensate_next(&mut self, moment: Moment, commands: &mut Vec<Command>) {
        let waits = self.undo_calls().any(|call| !has_ended(&call.state));
        // What people said meanwhile is reviewed before anything ends, there or here.
        if moment.history_is_long && (waits || self.left_to_undo() > 0 || self.anything_said()) {
            if self.notices_put_off(commands) {
                commands.push(Command::ContinueAsNew);
            }
            return;
        }
        if waits {
            return;
        }
        let Some((call, undo)) = self.compensation.left.as_mut().and_then(Vec::pop) else {
            self.phase = Phase::Stopping;
            self.close_after_notices(moment, commands);
            return;
        };
        let id = call.undone_by();
        self.add_undo(id, undo, CallState::Calling);
        commands.push(Command::Compensate { call: id });
    }

    fn add_undo(&mut self, id: ToolCallId, undo: UndoSummary, state: CallState) {
        let UndoSummary { tool, timeout_secs } = undo;
        self.calls.push(Call { id, tool, timeout_secs: Some(timeout_secs), submits_answer: false, undo: None, state });
    }

    /// Ends undoing: one that is under way comes to its end, and what is left is not undone.
    pub(super) fn stop_compensation(&mut self, stop: Stop, commands: &mut Vec<Command>) {
        self.compensation.stopped.get_or_insert(stop);
        while let Some((call, undo)) = self.compensation.left.as_mut().and_then(Vec::pop) {
            self.add_undo(call.undone_by(), undo, CallState::Abandoned);
        }
        self.phase = Phase::Stopping;
        self.refuse_what_waits(commands);
        self.abandon_waiting_calls();
        if !self.nothing_under_way() {
            commands.push(Command::CancelEffects);
        }
    }

    /// What came of undoing so far, in the order in which it was tried.
    #[must_use]
    pub fn undone(&self) -> Vec<UndoneCall> {
        self.undo_calls().filter_map(|call| self.undone_by(call)).collect()
    }

    /// Calls that are still to be undone.
    #[must_use]
    pub fn left_to_undo(&self) -> usize {
        self.compensation.left.as_ref().map_or(0, Vec::len)
    }

    fn why_stopped(&self) -> String {
        let detail = self.compensation.stopped.as_ref().and_then(|stop| stop.detail.as_deref());
        detail.map_or_else(|| STOPPED.to_owned(), |detail| format!("{STOPPED}: {detail}"))
    }

    /// Who halted the run once more, to end its undoing.
    pub(super) fn undoing_halted_by(&self) -> Option<HaltRequest> {
        self.compensation.stopped.as_ref().and_then(Stop::halted_by)
    }

    fn undone_by(&self, undo: &Call) -> Option<UndoneCall> {
        let known = self.compensation.ended.iter().find(|(id, ..)| *id == undo.id);
        let (state, reason) = match (&undo.state, known) {
            (CallState::Unknown { reason }, _) => (UndoState::Unknown, Some(reason.clone())),
            (CallState::Ended { .. } | CallState::Abandoned, Some((_, state, reason))) => (*state, reason.clone()),
            (CallState::Ended { .. } | CallState::Abandoned, None) => (UndoState::NotUndone, Some(self.why_stopped())),
            (
                CallState::Calling
                | CallState::Waiting
                | CallState::LookingUp { .. }
                | CallState::Asked
                | CallState::Held { .. },
                _,
            ) => return None,
        };
        Some(UndoneCall { call: undo.id.undoes()?, tool: undo.tool.clone(), state, reason })
    }
}

fn has_ended(state: &CallState) -> bool {
    match state {
        CallState::Ended { .. } | CallState::Unknown { .. } | CallState::Abandoned => true,
        CallState::Calling
        | CallState::Waiting
        | CallState::LookingUp { .. }
        | CallState::Asked
        | CallState::Held { .. } => false,
    }
}
