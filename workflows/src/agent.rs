//! `AgentWorkflow`: carries out what [`AgentRun`] decides. Its handlers change state and return; the run loop in
//! `agent/driver.rs` reacts. Deliberately absent: policy, clocks, logging that a replay would repeat.

use std::collections::{BTreeMap, VecDeque};

use mandate_domain::{
    AgentResult, AgentRun, ApprovalDecision, Verdict,
    agent_run::{Answer, HaltRequest, ResolveCall},
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SyncWorkflowContext, WaitConditionOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView,
    WorkflowResult,
};

use crate::{
    lenient::Lenient,
    snapshot::{PendingRequest, Status, Transcript},
};

mod driver;

/// Workflow type, as a Temporal user writes it.
pub const WORKFLOW_TYPE: &str = "AgentWorkflow";

type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// One agent run as a workflow execution.
#[workflow]
#[derive(Default)]
pub struct AgentWorkflow {
    run: Option<AgentRun>,
    transcript: Transcript,
    inbox: VecDeque<Message>,
    /// Answers for updates that wait, by the number each took.
    answers: BTreeMap<u64, Answer>,
    updates: u64,
}

/// What a handler took in for the run loop.
#[derive(Debug)]
enum Message {
    Decision { decision: ApprovalDecision, update: Option<u64> },
    Resolution(ResolveCall),
    Halt(HaltRequest),
    Refused(String),
}

/// How many messages may wait for the run loop; more are dropped and counted as one refusal.
const INBOX_MAX: usize = 1000;

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::needless_pass_by_value,
    reason = "the macros make public items of each handler and fix its signature"
)]
mod handlers {
    use super::{
        AgentResult, AgentWorkflow, Answer, HandlerError, INBOX_MAX, Lenient, Message, PendingRequest, Status,
        SyncWorkflowContext, Transcript, Verdict, WaitConditionOptions, WorkflowCancellationToken, WorkflowContext,
        WorkflowContextView, WorkflowResult, driver, workflow_methods,
    };

    #[workflow_methods]
    impl AgentWorkflow {
        #[run(name = "AgentWorkflow")]
        pub async fn run(ctx: &mut WorkflowContext<Self>, input: Lenient) -> WorkflowResult<AgentResult> {
            let continued = ctx.info().continued_from_run_id().is_some();
            driver::drive(ctx, &input, continued).await
        }

        #[signal]
        pub fn approve(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_decision("approve", input.decision(Verdict::Approve));
        }

        #[signal]
        pub fn reject(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_decision("reject", input.decision(Verdict::Reject));
        }

        #[signal]
        pub fn resolve(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            let message = match input.resolution() {
                Ok(resolution) => Message::Resolution(resolution),
                Err(reason) => Message::Refused(format!("signal `resolve`: {reason}")),
            };
            self.take(message);
        }

        #[signal]
        pub fn halt(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take(Message::Halt(input.halt()));
        }

        #[update_validator(decide)]
        fn validate_decide(&self, _ctx: &WorkflowContextView, input: &Lenient) -> Result<(), HandlerError> {
            let decision = input.decide()?;
            let run = self.run.as_ref().ok_or("the run has not begun")?;
            if self.inbox.len() >= INBOX_MAX {
                return Err("too many messages wait for this run; send this one again later".into());
            }
            if run.waiting_requests().any(|waiting| waiting.request.id == decision.request) {
                Ok(())
            } else {
                Err(format!("no request `{}` is pending in this run", decision.request).into())
            }
        }

        #[update]
        pub async fn decide(ctx: &mut WorkflowContext<Self>, input: Lenient) -> Result<Answer, HandlerError> {
            let decision = input.decide()?;
            let update = ctx.state_mut(|state| state.take_update(decision));
            // The run loop answers every update before it ends, also when it is cancelled: the wait must not end first.
            let apart = WaitConditionOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
            ctx.wait_condition_with_options(|state| state.answers.contains_key(&update), apart).await?;
            ctx.state_mut(|state| state.answers.remove(&update)).ok_or_else(|| "the answer was lost".into())
        }

        #[query]
        pub fn status(&self, _ctx: &WorkflowContextView) -> Option<Status> {
            self.run.as_ref().map(Status::of)
        }

        #[query]
        pub fn pending(&self, ctx: &WorkflowContextView) -> Vec<PendingRequest> {
            self.run.as_ref().map(|run| PendingRequest::all(run, ctx.workflow_id())).unwrap_or_default()
        }

        #[query]
        pub fn transcript(&self, _ctx: &WorkflowContextView) -> Transcript {
            self.transcript.clone()
        }
    }
}

impl AgentWorkflow {
    fn take_decision(&mut self, signal: &str, decision: Result<ApprovalDecision, String>) {
        let message = match decision {
            Ok(decision) => Message::Decision { decision, update: None },
            Err(reason) => Message::Refused(format!("signal `{signal}`: {reason}")),
        };
        self.take(message);
    }

    fn take_update(&mut self, decision: ApprovalDecision) -> u64 {
        self.updates += 1;
        self.inbox.push_back(Message::Decision { decision, update: Some(self.updates) });
        self.updates
    }

    fn take(&mut self, message: Message) {
        let must_pass = matches!(message, Message::Halt(_));
        match self.inbox.len() {
            ..INBOX_MAX => self.inbox.push_back(message),
            _ if must_pass => self.inbox.push_back(message),
            INBOX_MAX => {
                self.inbox.push_back(Message::Refused("too many messages at once; some were dropped".to_owned()));
            }
            _ => {}
        }
    }
}
