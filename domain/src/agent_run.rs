//! The agent run as a pure state machine: events in, commands out. The workflow carries out the commands and nothing
//! else, so every rule about order is here and is tested without Temporal.
//!
//! | phase | leaves on | for |
//! | --- | --- | --- |
//! | `Opening` | `Opened` | `Thinking` |
//! | `Thinking` | `ModelReplied` with calls | `Acting` |
//! | `Thinking` | `ModelReplied` without calls | `Closing` (Completed), or `Acting` while a person's word or a pause is open |
//! | `Acting` | every call has its one result | `Thinking`, or `Resting` when it is time to continue as new |
//! | `Resting` | continued, or anything that arrives first | `Thinking` |
//! | any but the last two | halt, cancel, a bound, a failure | `Stopping`, and `Closing` when nothing is under way |
//! | `Stopping` | nothing is under way, and calls are to be undone | `Compensating`, and `Stopping` again |
//! | `Closing` | `Closed` | `Finished` |
//!
//! A call of the turn goes its own way (`call.rs`): `Calling` → `Ended`, or `Waiting` for people and `Calling` again,
//! perhaps as another revision, or `Asked` until a person answers, or `LookingUp` when its activity was lost, and
//! `Unknown` when the store cannot tell either. While the run is paused nothing new begins: what would be called is
//! `Held`.

use serde::{Deserialize, Serialize};

use crate::{
    AgentName, ChainHead, EndReason, GroupName, OpenedRun, PerformedCall, PersonId, RunState, Usage, model::Content,
};

pub mod command;
pub mod event;

mod approvals;
mod call;
mod compensation;
mod ending;
mod instructions;
mod known;
mod notices;
mod questions;
mod waiting;

pub use crate::audit::NoticeId;
pub use call::{Call, CallState};
pub use command::{Closing, Command, Subject, Timer, Word};
pub use event::{Answer, Event, Failure, HaltRequest, Ticket};
pub use instructions::MessageAnswer;
pub use questions::WaitingQuestion;
pub use waiting::WaitingRequest;

use approvals::Approvals;
use compensation::Compensation;
use ending::Stop;
use instructions::Instructions;
use notices::Notices;
use questions::Questions;

/// One run of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRun {
    agent: AgentName,
    on_behalf_of: PersonId,
    phase: Phase,
    opened: Option<OpenedRun>,
    /// Where the audit chain stood when an activity last said so.
    audit: ChainHead,
    turn: u32,
    /// Model calls of this execution; the count begins anew after continue-as-new.
    turns_here: u32,
    tool_calls: u32,
    usage: Usage,
    /// The calls of the current turn, in the model's order.
    calls: Vec<Call>,
    approvals: Approvals,
    #[serde(default)]
    questions: Questions,
    #[serde(default)]
    instructions: Instructions,
    #[serde(default)]
    notices: Notices,
    /// A person paused it: nothing new begins.
    #[serde(default)]
    paused: bool,
    answer: Option<Content>,
    stop: Option<Stop>,
    refused_messages: u64,
    last_refusal: Option<String>,
    /// The answer that the model gave or a call of this turn submitted. The run ends with it when everything of the turn
    /// has ended, unless a person has said more by then.
    #[serde(default)]
    submitted: Option<Content>,
    /// Decisions and instructions that were reviewed and do not count. Each has its own audit record.
    #[serde(default)]
    refused_reviews: u64,
    #[serde(default)]
    shown_refusal: Option<String>,
    /// Calls that changed something, as the closing record found them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    performed: Vec<PerformedCall>,
    #[serde(default, skip_serializing_if = "Compensation::is_empty")]
    compensation: Compensation,
    next_ticket: Ticket,
    published: Option<(RunState, Vec<GroupName>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Opening,
    Thinking,
    Acting,
    Resting,
    Stopping,
    Compensating,
    Closing,
    Finished,
}

/// The moment at which an event is applied. All of it comes from history, so a replay sees the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Workflow time in milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    /// The server suggests to continue as new.
    pub history_is_long: bool,
}

/// An event that the run's state excludes. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` does not fit a run that is {phase}")]
pub struct UnexpectedEvent {
    event: &'static str,
    phase: String,
}

impl AgentRun {
    /// A run that has not begun, and what to do first.
    #[must_use]
    pub fn start(agent: AgentName, on_behalf_of: PersonId) -> (Self, Vec<Command>) {
        let mut run = Self {
            agent,
            on_behalf_of,
            phase: Phase::Opening,
            opened: None,
            audit: ChainHead::empty(),
            turn: 0,
            turns_here: 0,
            tool_calls: 0,
            usage: Usage::default(),
            calls: Vec::new(),
            approvals: Approvals::default(),
            questions: Questions::default(),
            instructions: Instructions::default(),
            notices: Notices::default(),
            paused: false,
            answer: None,
            submitted: None,
            stop: None,
            refused_messages: 0,
            last_refusal: None,
            refused_reviews: 0,
            shown_refusal: None,
            performed: Vec::new(),
            compensation: Compensation::default(),
            next_ticket: 1,
            published: None,
        };
        let mut commands = vec![Command::OpenRun];
        run.publish(&mut commands);
        (run, commands)
    }

    /// Goes on in a new execution: timers are set again, and a run that rested between turns asks the model.
    #[must_use]
    pub fn resume(&mut self, moment: Moment) -> Vec<Command> {
        self.turns_here = 0;
        let mut commands = self.approvals.timers();
        commands.extend(self.questions.timers());
        self.notify_again(&mut commands);
        if self.phase == Phase::Resting {
            self.phase = Phase::Acting;
        }
        self.advance(moment, &mut commands);
        commands
    }

    /// Takes in what happened and says what to do.
    ///
    /// # Errors
    /// [`UnexpectedEvent`] when the run's state excludes the event. Nothing was changed then.
    pub fn apply(&mut self, event: Event, moment: Moment) -> Result<Vec<Command>, UnexpectedEvent> {
        let mut commands = Vec::new();
        match event {
            Event::Opened(opened) => self.opened(*opened)?,
            Event::OpenFailed(failure) => self.open_failed(&failure, &mut commands)?,
            Event::ModelReplied(reply) => self.model_replied(reply, &mut commands)?,
            Event::ModelRefused { by_policy, reason } => self.model_refused(by_policy, reason, &mut commands)?,
            Event::ModelFailed(failure) => self.model_failed(&failure, &mut commands)?,
            Event::ToolReturned { call, outcome } => self.tool_returned(call, outcome, moment, &mut commands)?,
            Event::ToolFailed { call, failure } => self.tool_failed(call, failure, &mut commands)?,
            Event::OutcomeResolved { call, outcome } => self.outcome_resolved(call, outcome, &mut commands)?,
            Event::ResolveFailed { call, failure } => self.resolve_failed(call, &failure, &mut commands)?,
            Event::DecisionReceived { ticket, decision, arrival } => {
                self.decision_received(ticket, decision, arrival, &mut commands);
            }
            Event::ApprovalReviewed { call, review } => self.approval_reviewed(call, review, &mut commands)?,
            Event::ReviewFailed { call, failure } => self.review_failed(call, &failure, &mut commands)?,
            Event::InstructionReceived { ticket, sent, arrival } => {
                self.instruction_received(ticket, sent, arrival, &mut commands);
            }
            Event::InstructionReviewed { ticket, review } => {
                self.instruction_reviewed(ticket, review, &mut commands)?;
            }
            Event::InstructionFailed { ticket, failure } => self.instruction_failed(ticket, &failure, &mut commands)?,
            Event::TimerFired { timer } => self.timer_fired(&timer, &mut commands),
            Event::Notified { notice, failure } => self.notified(notice, failure.as_ref(), &mut commands)?,
            Event::MessageRefused { reason } => self.refuse_message(reason),
            Event::HaltRequested(halt) => self.halt_requested(halt, &mut commands),
            Event::CancelRequested => self.begin_stop(Stop::of(EndReason::Cancelled, None), &mut commands),
            Event::Closed { performed } => self.closed(performed, &mut commands)?,
            Event::CloseFailed(failure) => self.close_failed(&failure, &mut commands)?,
        }
        self.advance(moment, &mut commands);
        Ok(commands)
    }

    fn opened(&mut self, opened: OpenedRun) -> Result<(), UnexpectedEvent> {
        self.expect(&[Phase::Opening, Phase::Stopping], self.opened.is_none(), "Opened")?;
        self.opened = Some(opened);
        self.opening_ended();
        Ok(())
    }

    /// Does what follows from the state alone: the next turn, closing, continuing as new, showing a change.
    fn advance(&mut self, moment: Moment, commands: &mut Vec<Command>) {
        if !self.puts_reviews_off(moment) {
            self.pump(commands);
        }
        match self.phase {
            Phase::Acting | Phase::Resting
                if self.calls.iter().all(Call::has_result) && !self.paused && !self.anything_said() =>
            {
                self.next_turn(moment, commands);
            }
            Phase::Acting | Phase::Resting if moment.history_is_long && self.nothing_under_way() => {
                if self.notices_put_off(commands) {
                    commands.push(Command::ContinueAsNew);
                }
            }
            Phase::Stopping if self.nothing_under_way() => self.undo_or_close(moment, commands),
            Phase::Compensating if self.nothing_under_way() => self.compensate_next(moment, commands),
            Phase::Opening
            | Phase::Thinking
            | Phase::Acting
            | Phase::Resting
            | Phase::Stopping
            | Phase::Compensating
            | Phase::Closing
            | Phase::Finished => {}
        }
        self.publish(commands);
    }

    /// Whether reviews wait for the next execution: only people and reviews keep the run from it.
    fn puts_reviews_off(&self, moment: Moment) -> bool {
        let parked = matches!(self.phase, Phase::Acting | Phase::Resting) && !self.calls.iter().any(Call::under_way);
        moment.history_is_long && parked
    }

    /// Starts what is to be reviewed next.
    fn pump(&mut self, commands: &mut Vec<Command>) {
        self.approvals.pump(commands);
        self.pump_instructions(commands);
    }

    /// The next execution does not come yet, as there is too much to carry: what was put off for it is done here.
    #[must_use]
    pub fn stay(&mut self, moment: Moment) -> Vec<Command> {
        let mut commands = Vec::new();
        self.turns_here = 0;
        self.advance(Moment { history_is_long: false, ..moment }, &mut commands);
        commands
    }

    fn next_turn(&mut self, moment: Moment, commands: &mut Vec<Command>) {
        if self.instructions.has_undelivered() {
            // A person has said more: what was the answer is a step on the way.
            self.submitted = None;
        }
        if let Some(answer) = self.submitted.take() {
            self.finish_with(Some(answer));
            self.close_after_notices(moment, commands);
            return;
        }
        let Some(opened) = &self.opened else { return };
        let limits = opened.limits;
        if self.turn >= limits.turns_max {
            let detail = format!("the run used all of its {} turns", limits.turns_max);
            self.begin_stop(Stop::of(EndReason::TurnsExhausted, Some(detail)), commands);
            self.undo_or_close(moment, commands);
            return;
        }
        // A fresh execution always asks the model once: else a low bound would continue as new for ever.
        let full = moment.history_is_long || self.turns_here >= limits.turns_per_execution_max;
        if full && self.turns_here > 0 {
            self.phase = Phase::Resting;
            if self.notices_put_off(commands) {
                commands.push(Command::ContinueAsNew);
            }
            return;
        }
        let transcript = opened.transcript.clone();
        let append = self.calls.iter().filter_map(Call::result).collect();
        let instructions = self.instructions.take_undelivered();
        self.phase = Phase::Thinking;
        self.turn += 1;
        self.turns_here += 1;
        commands.push(Command::InvokeModel { turn: self.turn, transcript, append, instructions });
    }

    fn publish(&mut self, commands: &mut Vec<Command>) {
        let shown = (self.state(), self.approvals.approver_groups());
        if self.published.as_ref() != Some(&shown) {
            self.published = Some(shown);
            commands.push(Command::Publish);
        }
    }

    fn expect(&self, phases: &[Phase], fits: bool, event: &'static str) -> Result<(), UnexpectedEvent> {
        if fits && phases.contains(&self.phase) { Ok(()) } else { Err(self.unexpected(event)) }
    }

    fn unexpected(&self, event: &'static str) -> UnexpectedEvent {
        UnexpectedEvent { event, phase: format!("{:?}", self.phase) }
    }

    /// Whether no activity of this run is under way.
    #[must_use]
    pub fn nothing_under_way(&self) -> bool {
        let effect = match self.phase {
            Phase::Opening | Phase::Thinking | Phase::Closing => true,
            Phase::Stopping => self.stop.as_ref().is_some_and(Stop::waits_for_effect),
            Phase::Acting | Phase::Resting | Phase::Compensating | Phase::Finished => false,
        };
        !effect && !self.calls.iter().any(Call::under_way) && !self.reviewing()
    }

    /// Whether anything that people said is being reviewed.
    fn reviewing(&self) -> bool {
        self.approvals.under_way() || self.instructions.under_way()
    }

    /// Whether anything that people said is being reviewed, or waits for that.
    fn anything_said(&self) -> bool {
        self.approvals.any_said() || self.instructions.any_said()
    }

    /// Counts a message that could not be read or named nothing pending.
    fn refuse_message(&mut self, reason: String) {
        self.refused_messages += 1;
        self.shown_refusal = Some(reason.clone());
        self.last_refusal = Some(reason);
    }

    /// Shows a refusal that was reviewed and recorded.
    fn show_refusal(&mut self, reason: &str) {
        self.refused_reviews += 1;
        self.shown_refusal = Some(reason.to_owned());
    }

    /// Takes note of where the audit chain stands. A smaller number than before is ignored: activities of one turn
    /// run in parallel and answer in any order.
    pub fn witness(&mut self, audit: ChainHead) {
        if audit.records > self.audit.records {
            self.audit = audit;
        }
    }

    /// The next ticket for a person's message.
    pub fn ticket(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.saturating_add(1);
        ticket
    }
}

/// How much room something takes in a snapshot, in bytes of JSON. What cannot be written takes all there is.
fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests;
