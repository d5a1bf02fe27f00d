//! One function for each activity: its input, its options, and the event that its answer becomes.

use mandate_domain::{
    Address, AgentRun, ChainHead, RequestId, ToolCallId,
    agent_run::{Closing, Event, Failure, Subject, Ticket, Word},
    audit::NoticeId,
};
use temporalio_common::error::IncomingError;
use temporalio_workflow::{ActivityExecutionError, WorkflowCancellationToken};

use super::Driver;
use crate::{
    contract::{
        CallPurpose, CallTool, CallToolInput, CloseRun, CloseRunInput, InvokeModel, InvokeModelInput, ModelCallOutcome,
        Notify, NotifyInput, OpenRun, OpenRunInput, RefusedMessages, ReviewApproval, ReviewApprovalInput,
        ReviewInstruction, ReviewInstructionInput, ReviewSubject, RunPointer,
    },
    options,
};

/// What a task of the run loop came to.
pub(super) struct Happened {
    pub(super) event: Option<Event>,
    pub(super) audit: Option<ChainHead>,
}

impl Happened {
    pub(super) fn event(event: Event) -> Self {
        Self { event: Some(event), audit: None }
    }

    pub(super) fn nothing() -> Self {
        Self { event: None, audit: None }
    }

    fn answered(event: Event, audit: ChainHead) -> Self {
        Self { event: Some(event), audit: Some(audit) }
    }
}

/// Longest detail of a failure that the run keeps, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// What an activity's error means to the run.
fn failure_of(error: &ActivityExecutionError) -> Failure {
    let detail = |text: &dyn std::fmt::Display| text.to_string().chars().take(DETAIL_CHARS_MAX).collect::<String>();
    match error {
        ActivityExecutionError::Cancelled(_) => Failure::Cancelled,
        ActivityExecutionError::Serialization(why) => {
            Failure::Refused { kind: "PayloadConversion".to_owned(), detail: detail(why) }
        }
        ActivityExecutionError::Failed(failed) => match error.reason() {
            Some(IncomingError::Application(why)) if why.is_non_retryable() => {
                Failure::Refused { kind: why.type_name().unwrap_or("Error").to_owned(), detail: detail(why) }
            }
            Some(IncomingError::Cancelled(_)) => Failure::Cancelled,
            Some(why) => Failure::Unavailable { detail: detail(&why.failure().message) },
            None => Failure::Unavailable { detail: detail(&failed.failure().message) },
        },
        _ => Failure::Unavailable { detail: detail(error) },
    }
}

impl Driver<'_> {
    /// None before the run is opened, when there is nothing to point at.
    fn pointer(&mut self) -> Option<RunPointer> {
        let (store, audit, count, reason) = self.run(|run| {
            let (count, reason) = run.refused_messages();
            let store = run.opened_run().map(|opened| opened.pins.store.clone());
            (store, run.audit().clone(), count, reason.map(str::to_owned))
        });
        let news = count > self.reported_refusals;
        self.reported_refusals = count;
        let refused_messages = reason.filter(|_| news).map(|last_reason| RefusedMessages { count, last_reason });
        Some(RunPointer { store: store?, audit, refused_messages })
    }

    pub(super) fn open_run(&mut self) {
        let (agent, limits) = self.run(|run| (run.agent().clone(), run.limits()));
        let options = options::open_run(agent.as_str(), &limits, self.effects.clone());
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(OpenRun, OpenRunInput { agent }, options).await {
                Ok(output) => Happened::answered(Event::Opened(Box::new(output.opened)), output.audit),
                Err(error) => Happened::event(Event::OpenFailed(failure_of(&error))),
            }
        });
    }

    pub(super) fn invoke_model(
        &mut self,
        turn: u32,
        transcript: Address,
        append: Vec<Address>,
        instructions: Vec<Address>,
    ) {
        let Some(run) = self.pointer() else { return };
        let (limits, model) = self.run(|run| (run.limits(), model_of(run)));
        let options = options::invoke_model(turn, &model, &limits, self.effects.clone());
        let input = InvokeModelInput { run, turn, transcript, append, instructions };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(InvokeModel, input, options).await {
                Ok(output) => Happened::answered(model_event(output.outcome), output.audit),
                Err(error) => Happened::event(Event::ModelFailed(failure_of(&error))),
            }
        });
    }

    pub(super) fn call_tool(&mut self, call: ToolCallId, released_by: Option<&RequestId>) {
        let Some(run) = self.pointer() else { return };
        let options = self.run(|run| {
            let one = run.calls().iter().find(|one| one.id == call);
            one.map(|one| options::call_tool(one, released_by, &run.limits(), self.effects.clone()))
        });
        let Some(options) = options else { return };
        let input = CallToolInput { run, call, purpose: CallPurpose::Perform };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(CallTool, input, options).await {
                Ok(output) => Happened::answered(Event::ToolReturned { call, outcome: output.outcome }, output.audit),
                Err(error) => Happened::event(Event::ToolFailed { call, failure: failure_of(&error) }),
            }
        });
    }

    pub(super) fn look_up(&mut self, call: ToolCallId) {
        let Some(run) = self.pointer() else { return };
        let options = self.run(|run| options::look_up(call, &run.limits(), WorkflowCancellationToken::new()));
        let input = CallToolInput { run, call, purpose: CallPurpose::LookUp };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(CallTool, input, options).await {
                Ok(output) => {
                    Happened::answered(Event::OutcomeResolved { call, outcome: output.outcome }, output.audit)
                }
                Err(error) => Happened::event(Event::ResolveFailed { call, failure: failure_of(&error) }),
            }
        });
    }

    pub(super) fn review_approval(&mut self, call: ToolCallId, subject: Subject) {
        let Some(run) = self.pointer() else { return };
        let (request, subject) = match subject {
            Subject::Decision { ticket, decision, arrival } => {
                let (request, arrival) = (decision.request.clone(), Some(arrival));
                (request, ReviewSubject::Decision { decision, ordinal: ticket, arrival })
            }
            Subject::Expiry { request } => (request.clone(), ReviewSubject::Expiry { request }),
            Subject::Escalation { request } => (request.clone(), ReviewSubject::Escalation { request }),
        };
        let options = self.run(|run| options::review_approval(&request, &run.limits(), self.effects.clone()));
        let input = ReviewApprovalInput { run, call, subject };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(ReviewApproval, input, options).await {
                Ok(output) => Happened::answered(Event::ApprovalReviewed { call, review: output.review }, output.audit),
                Err(error) => Happened::event(Event::ReviewFailed { call, failure: failure_of(&error) }),
            }
        });
    }

    pub(super) fn review_instruction(&mut self, ticket: Ticket, word: Word) {
        let Some(run) = self.pointer() else { return };
        let options = self.run(|run| options::review_instruction(&word, &run.limits(), self.effects.clone()));
        let input = ReviewInstructionInput { run, word, ordinal: ticket };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(ReviewInstruction, input, options).await {
                Ok(output) => {
                    Happened::answered(Event::InstructionReviewed { ticket, review: output.review }, output.audit)
                }
                Err(error) => Happened::event(Event::InstructionFailed { ticket, failure: failure_of(&error) }),
            }
        });
    }

    pub(super) fn notify(&mut self, notice: NoticeId) {
        let Some(run) = self.pointer() else { return };
        let options = self.run(|run| options::notify(notice, &run.limits(), self.notices.clone()));
        let input = NotifyInput { run, notice };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(Notify, input, options).await {
                Ok(output) => Happened::answered(Event::Notified { notice, failure: None }, output.audit),
                Err(error) => Happened::event(Event::Notified { notice, failure: Some(failure_of(&error)) }),
            }
        });
    }

    pub(super) fn close_run(&mut self, closing: Closing) {
        let Some(run) = self.pointer() else { return };
        let token = WorkflowCancellationToken::new();
        let options = self.run(|run| options::close_run(closing.state.as_str(), &run.limits(), token));
        let Closing { state, reason, turns, usage, abandoned, unknown_outcomes, halted_by, undoing_halted_by } =
            closing;
        let input = CloseRunInput {
            run,
            state,
            reason,
            turns,
            usage,
            abandoned,
            unknown_outcomes,
            halted_by,
            undoing_halted_by,
        };
        let ctx = self.ctx;
        self.tasks.push(async move {
            match ctx.execute_activity(CloseRun, input, options).await {
                Ok(output) => Happened::answered(Event::Closed { performed: output.performed }, output.audit),
                Err(error) => Happened::event(Event::CloseFailed(failure_of(&error))),
            }
        });
    }
}

fn model_of(run: &AgentRun) -> String {
    run.opened_run().map(|opened| opened.pins.model.to_string()).unwrap_or_default()
}

fn model_event(outcome: ModelCallOutcome) -> Event {
    match outcome {
        ModelCallOutcome::Replied(turn) => Event::ModelReplied(turn),
        ModelCallOutcome::Denied { reason } => Event::ModelRefused { by_policy: true, reason },
        ModelCallOutcome::Failed { reason } => Event::ModelRefused { by_policy: false, reason },
    }
}
