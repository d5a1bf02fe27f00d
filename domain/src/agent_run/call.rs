//! One tool call of the current turn, from the model's proposal to its one result.

use serde::{Deserialize, Serialize};

use super::{AgentRun, Command, Failure, Moment, Phase, Stop, UnexpectedEvent};
use crate::{
    Address, CallSummary, EndReason, ModelTurn, RequestId, RunState, ToolCallId, ToolCallOutcome, UndoSummary,
};

/// A call and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its id.
    pub id: ToolCallId,
    /// The tool that the model named. Foreign text.
    pub tool: String,
    /// Longest time the tool may take, in seconds.
    pub timeout_secs: Option<u64>,
    /// Whether its result is the run's final answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submits_answer: bool,
    /// How it would be undone, where the agent wants that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSummary>,
    /// Where it stands.
    pub state: CallState,
}

/// Where a call stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CallState {
    /// `call_tool` is under way.
    Calling,
    /// People have to decide.
    Waiting,
    /// `call_tool` was lost, and the store is asked what it knows.
    LookingUp {
        /// How it was lost.
        failure: Failure,
    },
    /// A person has to answer.
    Asked,
    /// It would be called, and the run is paused.
    Held {
        /// The request that released it, on a further walk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        released_by: Option<RequestId>,
    },
    /// Nobody knows whether it happened; a person has to say.
    Unknown {
        /// What is known.
        reason: String,
    },
    /// It has its one result.
    Ended {
        /// The message that the model reads.
        result: Address,
    },
    /// The run ended before it was performed.
    Abandoned,
}

impl Call {
    fn new(id: ToolCallId, summary: CallSummary, state: CallState) -> Self {
        let CallSummary { tool, timeout_secs, submits_answer, undo, .. } = summary;
        Self { id, tool, timeout_secs, submits_answer, undo, state }
    }

    /// Whether the model can be told its result.
    #[must_use]
    pub fn has_result(&self) -> bool {
        self.result().is_some()
    }

    /// The message that the model reads.
    #[must_use]
    pub fn result(&self) -> Option<Address> {
        match &self.state {
            CallState::Ended { result } => Some(result.clone()),
            CallState::Calling
            | CallState::Waiting
            | CallState::Asked
            | CallState::Held { .. }
            | CallState::LookingUp { .. }
            | CallState::Unknown { .. }
            | CallState::Abandoned => None,
        }
    }

    /// Whether an activity of this call is under way.
    #[must_use]
    pub fn under_way(&self) -> bool {
        match &self.state {
            CallState::Calling | CallState::LookingUp { .. } => true,
            CallState::Waiting
            | CallState::Asked
            | CallState::Held { .. }
            | CallState::Unknown { .. }
            | CallState::Ended { .. }
            | CallState::Abandoned => false,
        }
    }
}

/// What the calls of a turn make of the run's state: a person is needed only when nothing goes on by itself.
pub(super) fn state_of<'a>(calls: &(impl Iterator<Item = &'a Call> + Clone)) -> RunState {
    let any = |wanted: fn(&CallState) -> bool| calls.clone().any(|call| wanted(&call.state));
    if any(|state| matches!(state, CallState::Calling | CallState::LookingUp { .. })) {
        RunState::Running
    } else if any(|state| matches!(state, CallState::Unknown { .. })) {
        RunState::OutcomeUnknown
    } else if any(|state| matches!(state, CallState::Waiting)) {
        RunState::AwaitingApproval
    } else if any(|state| matches!(state, CallState::Asked)) {
        RunState::AwaitingAnswer
    } else {
        RunState::Running
    }
}

/// Calls whose outcome nobody knows.
pub(super) fn unknown(calls: &[Call]) -> Vec<ToolCallId> {
    calls.iter().filter(|call| matches!(call.state, CallState::Unknown { .. })).map(|call| call.id).collect()
}

impl AgentRun {
    pub(super) fn model_replied(
        &mut self,
        reply: ModelTurn,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect_model("ModelReplied")?;
        self.usage = self.usage.plus(reply.usage);
        if let Some(opened) = &mut self.opened {
            opened.transcript = reply.transcript;
        }
        let proposed = u32::try_from(reply.calls.len()).unwrap_or(u32::MAX);
        self.tool_calls = self.tool_calls.saturating_add(proposed);
        self.model_ended();
        if proposed == 0 {
            if self.stop.is_none() && (self.paused || self.instructions.any_open()) {
                // A person has said more, is about to, or holds the run: the answer is final when nothing follows from that.
                self.submitted = reply.text;
            } else {
                self.finish_with(reply.text);
            }
            return Ok(());
        }
        let stop = self.exhausted(proposed).filter(|_| self.stop.is_none());
        let begin = self.stop.is_none() && stop.is_none();
        let state = match (begin, self.paused) {
            (true, false) => CallState::Calling,
            (true, true) => CallState::Held { released_by: None },
            (false, _) => CallState::Abandoned,
        };
        let turn = self.turn;
        self.calls = (0..)
            .map(|index| ToolCallId::new(turn, index))
            .zip(reply.calls)
            .map(|(id, call)| Call::new(id, call, state.clone()))
            .collect();
        if let Some(stop) = stop {
            self.begin_stop(stop, commands);
        }
        if begin && !self.paused {
            commands.extend(self.calls.iter().map(|call| Command::CallTool { call: call.id, released_by: None }));
        }
        Ok(())
    }

    /// The bound that a reply with so many calls breaks.
    fn exhausted(&self, proposed: u32) -> Option<Stop> {
        let limits = self.limits();
        if proposed > limits.parallel_calls_max || self.tool_calls > limits.tool_calls_max {
            let detail = format!(
                "the model proposed {proposed} calls, {} in this run; at most {} in one turn and {} in a run are allowed",
                self.tool_calls, limits.parallel_calls_max, limits.tool_calls_max
            );
            return Some(Stop::of(EndReason::ToolCallsExhausted, Some(detail)));
        }
        if self.usage.tokens() > limits.tokens_max {
            let detail = format!("the run used {} tokens of {}", self.usage.tokens(), limits.tokens_max);
            return Some(Stop::of(EndReason::TokensExhausted, Some(detail)));
        }
        None
    }

    pub(super) fn model_refused(
        &mut self,
        by_policy: bool,
        reason: String,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect_model("ModelRefused")?;
        self.model_ended();
        let why = if by_policy { EndReason::ModelDenied } else { EndReason::ModelFailed };
        self.begin_stop(Stop::of(why, Some(reason)), commands);
        Ok(())
    }

    pub(super) fn model_failed(
        &mut self,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        self.expect_model("ModelFailed")?;
        self.model_ended();
        self.begin_stop(Stop::after(failure), commands);
        Ok(())
    }

    fn expect_model(&self, event: &'static str) -> Result<(), UnexpectedEvent> {
        let stopping = self.stop.as_ref().is_some_and(Stop::waits_for_effect) && self.opened.is_some();
        let fits = self.phase == Phase::Thinking || (self.phase == Phase::Stopping && stopping);
        if fits { Ok(()) } else { Err(self.unexpected(event)) }
    }

    /// The model call is over: the run is between its effects, as in `Acting` without calls.
    fn model_ended(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.effect_ended();
        } else {
            self.phase = Phase::Acting;
            self.calls.clear();
        }
    }

    pub(super) fn tool_returned(
        &mut self,
        id: ToolCallId,
        outcome: ToolCallOutcome,
        moment: Moment,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let event = "ToolReturned";
        if !matches!(self.call(id, event)?.state, CallState::Calling) {
            return Err(self.unexpected(event));
        }
        if let ToolCallOutcome::ApprovalRequired { requests } = &outcome
            && self.phase != Phase::Stopping
            && !requests.is_empty()
        {
            self.ask_approvers(id, requests, moment.now_ms, commands);
            return Ok(());
        }
        if let ToolCallOutcome::AnswerRequired { question } = &outcome
            && self.phase != Phase::Stopping
        {
            self.ask_people(id, question, commands);
            return Ok(());
        }
        self.take_answer(id, &outcome);
        self.note_for_undoing(id, &outcome);
        let state =
            settled(outcome).unwrap_or_else(|| self.not_performed("the call asked for nothing and did nothing"));
        self.set_call(id, state);
        Ok(())
    }

    /// Takes the answer of a call that submits one. The first of a turn counts.
    fn take_answer(&mut self, id: ToolCallId, outcome: &ToolCallOutcome) {
        let submits = self.calls.iter().any(|call| call.id == id && call.submits_answer);
        if let ToolCallOutcome::Returned { result, is_error: false } = outcome
            && submits
        {
            self.submitted.get_or_insert_with(|| result.clone());
        }
    }

    pub(super) fn tool_failed(
        &mut self,
        id: ToolCallId,
        failure: Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let event = "ToolFailed";
        if !matches!(self.call(id, event)?.state, CallState::Calling) {
            return Err(self.unexpected(event));
        }
        // A lost activity never means that the call did not happen: the store is asked.
        self.set_call(id, CallState::LookingUp { failure });
        commands.push(Command::ResolveOutcome { call: id });
        Ok(())
    }

    pub(super) fn outcome_resolved(
        &mut self,
        id: ToolCallId,
        outcome: ToolCallOutcome,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let event = "OutcomeResolved";
        let CallState::LookingUp { failure } = &self.call(id, event)?.state else {
            return Err(self.unexpected(event));
        };
        let failure = failure.clone();
        if let ToolCallOutcome::AnswerRequired { question } = &outcome
            && self.phase != Phase::Stopping
        {
            self.ask_people(id, question, commands);
            return Ok(());
        }
        self.take_answer(id, &outcome);
        self.note_for_undoing(id, &outcome);
        if let Some(state) = settled(outcome) {
            self.set_call(id, state);
        } else if id.undo {
            // The undo of another call may still be possible.
            self.note_not_undone(id, &failure.detail());
            self.set_call(id, CallState::Abandoned);
        } else {
            // Nothing was begun, and the activity will not come back: the run cannot go on.
            self.set_call(id, CallState::Abandoned);
            self.begin_stop(Stop::after(&failure), commands);
        }
        Ok(())
    }

    pub(super) fn resolve_failed(
        &mut self,
        id: ToolCallId,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let event = "ResolveFailed";
        if !matches!(self.call(id, event)?.state, CallState::LookingUp { .. }) {
            return Err(self.unexpected(event));
        }
        let reason = format!("the call was lost and the store could not be asked: {}", failure.detail());
        self.set_call(id, CallState::Unknown { reason });
        if id.undo {
            return Ok(());
        }
        self.begin_stop(Stop::after(failure), commands);
        Ok(())
    }

    /// A call that came back without an end, which only a run that stops expects.
    fn not_performed(&self, reason: &str) -> CallState {
        if self.phase == Phase::Stopping {
            CallState::Abandoned
        } else {
            CallState::Unknown { reason: reason.to_owned() }
        }
    }

    pub(super) fn call(&self, id: ToolCallId, event: &'static str) -> Result<&Call, UnexpectedEvent> {
        self.calls.iter().find(|call| call.id == id).ok_or_else(|| self.unexpected(event))
    }

    pub(super) fn set_call(&mut self, id: ToolCallId, state: CallState) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.id == id) {
            call.state = state;
        }
    }

    /// Ends the calls that wait for people. One whose effect may be on its way is left alone.
    pub(super) fn abandon_waiting_calls(&mut self) {
        for call in &mut self.calls {
            if matches!(call.state, CallState::Waiting | CallState::Asked | CallState::Held { .. }) {
                call.state = CallState::Abandoned;
            }
        }
    }

    /// Walks the path once more, after people decided or answered.
    pub(super) fn call_again(&mut self, id: ToolCallId, released_by: Option<RequestId>, commands: &mut Vec<Command>) {
        if self.paused {
            self.set_call(id, CallState::Held { released_by });
        } else {
            self.set_call(id, CallState::Calling);
            commands.push(Command::CallTool { call: id, released_by });
        }
    }

    /// Calls what was held while the run was paused.
    pub(super) fn call_held(&mut self, commands: &mut Vec<Command>) {
        for call in &mut self.calls {
            if let CallState::Held { released_by } = &call.state {
                commands.push(Command::CallTool { call: call.id, released_by: released_by.clone() });
                call.state = CallState::Calling;
            }
        }
    }
}

/// What an outcome makes of a call; none where the call neither happened nor ended.
pub(super) fn settled(outcome: ToolCallOutcome) -> Option<CallState> {
    match outcome {
        ToolCallOutcome::Returned { result, .. } | ToolCallOutcome::Refused { result, .. } => {
            Some(CallState::Ended { result: result.address })
        }
        ToolCallOutcome::OutcomeUnknown { reason } => Some(CallState::Unknown { reason }),
        ToolCallOutcome::ApprovalRequired { .. }
        | ToolCallOutcome::AnswerRequired { .. }
        | ToolCallOutcome::NotPerformed => None,
    }
}
