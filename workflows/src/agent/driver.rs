//! The run loop: an activity, a timer or a person happens, `AgentRun` says what to do, and it is done.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};

use mandate_domain::{
    AgentResult, AgentRun, AgentTask, EndReason, RunState,
    agent_run::{Answer, Command, Event, HaltRequest, Moment, Ticket, Timer},
    approval::Arrival,
    render,
};
use temporalio_common::error::ApplicationFailure;
use temporalio_workflow::{
    ContinueAsNewOptions, TimerOptions, TimerResult, WaitConditionOptions, WorkflowCancellationToken, WorkflowContext,
    WorkflowResult, WorkflowTermination,
};

use super::{AgentWorkflow, Message, Position};
use crate::{
    agent::driver::perform::Happened,
    lenient::{Lenient, Start},
    search_attributes,
    snapshot::Snapshot,
    task_set::TaskSet,
};

mod perform;

/// Begins a failure that Temporal does not retry. A macro, because the builder's type changes with every call.
macro_rules! failure {
    ($message:expr, $reason:expr) => {
        ApplicationFailure::builder(Box::<dyn std::error::Error + Send + Sync>::from($message))
            .type_name($reason.as_str().to_owned())
            .non_retryable(true)
    };
}

/// Runs one execution to its end: a result, a failure, a cancellation, or the next execution.
///
/// Only an execution that the server says continues another may begin with a snapshot: a caller could draw request
/// cards with one.
pub(super) async fn drive(
    ctx: &WorkflowContext<AgentWorkflow>,
    input: &Lenient,
    continued: bool,
) -> WorkflowResult<AgentResult> {
    let start = input.start().map_err(|why| malformed_input(&why))?;
    if matches!(start, Start::Continued(_)) && !continued {
        return Err(malformed_input("`continue` is for executions that continue another"));
    }
    let mut driver = Driver {
        ctx,
        tasks: TaskSet::new(),
        effects: WorkflowCancellationToken::new(),
        notices: WorkflowCancellationToken::new(),
        timers: BTreeMap::new(),
        updates: BTreeMap::new(),
        reported_refusals: 0,
        cancel_seen: false,
        continue_as_new: false,
        result: None,
    };
    let commands = driver.begin(start);
    driver.carry_out(commands);
    loop {
        ctx.set_current_details(driver.details());
        if let Some(result) = driver.result.take() {
            return driver.end(result).await;
        }
        if driver.continue_as_new && driver.may_continue().await {
            match driver.snapshot() {
                Some(snapshot) => return driver.continue_as_new(snapshot),
                None => driver.stay(),
            }
        }
        let (happened, cancelled) = driver.next().await;
        driver.react(happened, cancelled);
    }
}

/// Fails the run at once: retrying would not make the input better.
fn malformed_input(why: &str) -> WorkflowTermination {
    let message = format!("the start input is no task: {why}");
    failure!(message, EndReason::InvalidInput).build().into()
}

/// Largest input of a next execution.
const SNAPSHOT_BYTES_MAX: usize = 256 * 1024;

struct Driver<'a> {
    ctx: &'a WorkflowContext<AgentWorkflow>,
    tasks: TaskSet<'a, Happened>,
    /// Cancels effects that are still being retried. Look-ups and the closing record are not among them.
    effects: WorkflowCancellationToken,
    /// Cancels what is being told to the webhook.
    notices: WorkflowCancellationToken,
    timers: BTreeMap<Timer, WorkflowCancellationToken>,
    /// Updates that wait for the answer to a ticket.
    updates: BTreeMap<Ticket, u64>,
    reported_refusals: u64,
    cancel_seen: bool,
    continue_as_new: bool,
    result: Option<AgentResult>,
}

impl Driver<'_> {
    fn begin(&mut self, start: Start) -> Vec<Command> {
        match start {
            Start::Task(task) => {
                let AgentTask { agent, on_behalf_of, .. } = *task;
                search_attributes::name_agent(self.ctx, &agent);
                let (run, commands) = AgentRun::start(agent, on_behalf_of);
                self.ctx.state_mut(|state| state.run = Some(run));
                commands
            }
            Start::Continued(snapshot) => {
                let Snapshot { run, transcript } = *snapshot;
                let moment = self.moment();
                self.ctx.state_mut(|state| {
                    state.transcript = transcript;
                    state.run.insert(run).resume(moment)
                })
            }
        }
    }

    fn moment(&self) -> Moment {
        let now = self.ctx.workflow_time().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Not while an update waits for its answer: its handler keeps the run in this execution.
        Moment { now_ms, history_is_long: self.ctx.continue_as_new_suggested() && self.updates.is_empty() }
    }

    /// Whatever comes first: the cancellation of the execution, a message, an activity or a timer. Messages before timers:
    /// a decision and the deadline after it may arrive in one activation, and the decision was first.
    async fn next(&mut self) -> (Option<Happened>, bool) {
        let apart = WaitConditionOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
        let mut message = pin!(self.ctx.wait_condition_with_options(|state| !state.inbox.is_empty(), apart));
        let mut cancelled = pin!(self.ctx.cancelled());
        let (tasks, cancel_seen) = (&mut self.tasks, self.cancel_seen);
        poll_fn(|cx| {
            // Cancellation first: a result in the same activation must not continue as new past it.
            if !cancel_seen && cancelled.as_mut().poll(cx).is_ready() {
                return Poll::Ready((None, true));
            }
            if message.as_mut().poll(cx).is_ready() {
                return Poll::Ready((None, false));
            }
            if let Poll::Ready(happened) = tasks.poll_next(cx) {
                return Poll::Ready((Some(happened), false));
            }
            Poll::Pending
        })
        .await
    }

    fn react(&mut self, happened: Option<Happened>, cancelled: bool) {
        if cancelled {
            self.cancel_seen = true;
            self.apply(Event::CancelRequested);
        } else if let Some(happened) = happened {
            self.happened(happened);
        } else if let Some(message) = self.ctx.state_mut(|state| state.inbox.pop_front()) {
            let event = self.event_of(message);
            self.apply(event);
        }
    }

    fn happened(&mut self, happened: Happened) {
        if let Some(audit) = happened.audit {
            self.ctx.state_mut(|state| state.run.as_mut().map(|run| run.witness(audit)));
        }
        let Some(event) = happened.event else { return };
        self.ctx.state_mut(|state| state.transcript.take_note(&event));
        self.apply(event);
    }

    fn event_of(&mut self, message: Message) -> Event {
        match message {
            Message::Decision { decision, at, update } => {
                let (ticket, arrival) = (self.ticket_for(update), self.arrival(at));
                Event::DecisionReceived { ticket, decision, arrival }
            }
            Message::Instruction { sent, at, update } => {
                let (ticket, arrival) = (self.ticket_for(update), self.arrival(at));
                Event::InstructionReceived { ticket, sent, arrival }
            }
            Message::Halt { sender, at } => {
                Event::HaltRequested(HaltRequest { sender, arrival: Some(self.arrival(at)) })
            }
            Message::Refused(reason) => Event::MessageRefused { reason },
        }
    }

    fn arrival(&self, at: Position) -> Arrival {
        let run_id = self.ctx.run_id().to_owned();
        Arrival { run_id, name: at.name.to_owned(), ordinal: at.ordinal, at_ms: self.moment().now_ms }
    }

    fn ticket_for(&mut self, update: Option<u64>) -> Ticket {
        let ticket = self.ticket();
        if let Some(update) = update {
            self.updates.insert(ticket, update);
        }
        ticket
    }

    fn ticket(&self) -> Ticket {
        self.ctx.state_mut(|state| state.run.as_mut().map(AgentRun::ticket)).unwrap_or_default()
    }

    /// An event that the run's state excludes is a defect of this program. The run is stopped, not wedged.
    fn apply(&mut self, event: Event) {
        let moment = self.moment();
        let applied = self.ctx.state_mut(|state| state.run.as_mut().map(|run| run.apply(event, moment)));
        match applied {
            Some(Ok(commands)) => self.carry_out(commands),
            Some(Err(unexpected)) => self.result = Some(self.internal(unexpected.to_string())),
            None => {}
        }
    }

    fn internal(&self, detail: String) -> AgentResult {
        let result = self.run(AgentRun::result);
        AgentResult { state: RunState::Failed, reason: Some(EndReason::Internal), detail: Some(detail), ..result }
    }

    /// Reads the run, which is there from [`Driver::begin`] on.
    #[expect(clippy::expect_used, reason = "begin sets it before anything else, and nothing takes it away")]
    fn run<R>(&self, read: impl FnOnce(&AgentRun) -> R) -> R {
        self.ctx.state(|state| read(state.run.as_ref().expect("the run has begun")))
    }

    fn details(&self) -> String {
        self.run(|run| render::details(run, self.ctx.workflow_id()))
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        self.continue_as_new = false;
        for command in commands {
            self.perform(command);
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::OpenRun => self.open_run(),
            Command::InvokeModel { turn, transcript, append, instructions } => {
                self.invoke_model(turn, transcript, append, instructions);
            }
            Command::CallTool { call, released_by } => self.call_tool(call, released_by.as_ref()),
            Command::Compensate { call } => {
                if self.effects.is_cancelled() {
                    self.effects = WorkflowCancellationToken::new();
                }
                self.call_tool(call, None);
            }
            Command::ResolveOutcome { call } => self.look_up(call),
            Command::ReviewApproval { call, subject } => self.review_approval(call, subject),
            Command::ReviewInstruction { ticket, subject } => self.review_instruction(ticket, subject),
            Command::Notify { notice } => self.notify(notice),
            Command::CancelNotices => std::mem::replace(&mut self.notices, WorkflowCancellationToken::new()).cancel(),
            Command::StartTimer { timer, at_ms } => self.start_timer(timer, at_ms),
            Command::CancelTimer { timer } => {
                if let Some(token) = self.timers.remove(&timer) {
                    token.cancel();
                }
            }
            Command::CancelEffects => self.effects.cancel(),
            Command::Publish => self.run(|run| search_attributes::publish(self.ctx, run)),
            Command::Reply { ticket, answer } => {
                if let Some(update) = self.updates.remove(&ticket) {
                    self.ctx.state_mut(|state| state.answers.insert(update, answer));
                }
            }
            Command::CloseRun(closing) => self.close_run(*closing),
            Command::ContinueAsNew => self.continue_as_new = true,
            Command::Finish(result) => self.result = Some(*result),
        }
    }

    fn start_timer(&mut self, timer: Timer, at_ms: u64) {
        let token = WorkflowCancellationToken::new();
        self.timers.insert(timer.clone(), token.clone());
        let wait = Duration::from_millis(at_ms.saturating_sub(self.moment().now_ms));
        let options = TimerOptions::builder(wait).summary(timer.to_string()).cancellation_token(token).build();
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.timer(options).await {
                TimerResult::Fired => Happened::event(Event::TimerFired { timer }),
                TimerResult::Cancelled => Happened::nothing(),
            }
        });
    }

    /// Waits for handlers. A message or a cancellation that arrives meanwhile is taken in first: the next execution
    /// would not hear of it.
    async fn may_continue(&self) -> bool {
        let ctx = self.ctx.clone();
        let (token, seen) = (self.ctx.cancellation_token(), self.cancel_seen);
        let stop = token.clone();
        let apart = WaitConditionOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
        let idle = self.ctx.wait_condition_with_options(
            move |state| ctx.all_handlers_finished() || !state.inbox.is_empty() || (!seen && stop.is_cancelled()),
            apart,
        );
        let waited = idle.await.is_ok();
        waited && (seen || !token.is_cancelled()) && self.ctx.state(|state| state.inbox.is_empty())
    }

    /// The next execution's input, if it is within its bound. A run with more to carry goes on in this one.
    fn snapshot(&self) -> Option<Vec<u8>> {
        let snapshot = self.ctx.state(|state| {
            let run = state.run.clone()?;
            Some(Snapshot { run, transcript: state.transcript.clone() })
        })?;
        let json = serde_json::to_vec(&serde_json::json!({ "continue": snapshot })).ok()?;
        (json.len() <= SNAPSHOT_BYTES_MAX).then_some(json)
    }

    fn stay(&mut self) {
        let moment = self.moment();
        let commands = self.ctx.state_mut(|state| state.run.as_mut().map(|run| run.stay(moment)));
        self.carry_out(commands.unwrap_or_default());
    }

    fn continue_as_new(&self, snapshot: Vec<u8>) -> WorkflowResult<AgentResult> {
        match self.ctx.continue_as_new(Lenient::json(snapshot), ContinueAsNewOptions::default())? {}
    }

    /// Updates that still wait are answered: nothing will review them any more.
    fn answer_the_rest(&mut self) {
        let waiting = std::mem::take(&mut self.updates).into_values();
        self.ctx.state_mut(|state| {
            let queued = state.inbox.drain(..).filter_map(|message| match message {
                Message::Decision { update, .. } | Message::Instruction { update, .. } => update,
                Message::Halt { .. } | Message::Refused(_) => None,
            });
            let queued: Vec<_> = queued.collect();
            for update in waiting.chain(queued) {
                state.answers.insert(update, Answer::Refused { reason: "the run has ended".to_owned() });
            }
        });
    }

    async fn end(mut self, result: AgentResult) -> WorkflowResult<AgentResult> {
        self.answer_the_rest();
        let ctx = self.ctx.clone();
        let apart = WaitConditionOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
        self.ctx.wait_condition_with_options(move |_| ctx.all_handlers_finished(), apart).await?;
        match result.state {
            RunState::Cancelled => Err(WorkflowTermination::cancelled_with_details(result)),
            RunState::Failed => {
                let reason = result.reason.unwrap_or(EndReason::Internal);
                let detail = result.detail.clone().unwrap_or_default();
                let message = format!("run ended as {}: {detail}", reason.as_str());
                Err(failure!(message, reason).details(result).build().into())
            }
            RunState::Completed
            | RunState::Stopped
            | RunState::Running
            | RunState::AwaitingApproval
            | RunState::AwaitingAnswer
            | RunState::OutcomeUnknown
            | RunState::Paused => Ok(result),
        }
    }
}
