//! `AgentWorkflow`: carries out what [`AgentRun`] decides. Its handlers change state and return; the run loop in
//! `agent/driver.rs` reacts. Deliberately absent: policy, clocks, logging that a replay would repeat.

use std::collections::{BTreeMap, VecDeque};

use mandate_domain::{
    AgentResult, AgentRun, ApprovalDecision, Instruction, QuestionId, Sender, SentInstruction, ToolCallId, Verdict,
    agent_run::{Answer, CallState},
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SyncWorkflowContext, WaitConditionOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView,
    WorkflowResult,
};

use crate::{
    contract::{ANSWER_QUESTION, DECIDE},
    lenient::{Decided, Lenient},
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
    /// How many signals and updates of each name this execution took, readable or not: a message's position in history.
    arrivals: BTreeMap<&'static str, u32>,
}

/// What a handler took in for the run loop.
#[derive(Debug)]
enum Message {
    Decision { decision: ApprovalDecision, at: Position, update: Option<u64> },
    Instruction { sent: SentInstruction, at: Position, update: Option<u64> },
    Halt { sender: Sender, at: Position },
    Refused(String),
}

/// A message among those of its name in this execution.
#[derive(Debug, Clone, Copy)]
struct Position {
    name: &'static str,
    ordinal: u32,
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
        ANSWER_QUESTION, AgentResult, AgentWorkflow, Answer, DECIDE, Decided, HandlerError, Instruction, Lenient,
        Message, PendingRequest, QuestionId, Status, SyncWorkflowContext, Transcript, Verdict, WorkflowContext,
        WorkflowContextView, WorkflowResult, answer_of, driver, waits_for_word, workflow_methods,
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
            self.take_instruction("resolve", input.resolution());
        }

        #[signal]
        pub fn answer(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_instruction("answer", input.answer());
        }

        #[signal]
        pub fn steer(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_instruction("steer", input.steer());
        }

        #[signal]
        pub fn pause(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_instruction("pause", input.plain(Instruction::Pause));
        }

        #[signal]
        pub fn resume(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            self.take_instruction("resume", input.plain(Instruction::Resume));
        }

        #[signal]
        pub fn halt(&mut self, _ctx: &mut SyncWorkflowContext<Self>, input: Lenient) {
            let at = self.arrived("halt");
            self.take(Message::Halt { sender: input.halt(), at });
        }

        #[update_validator(decide)]
        fn validate_decide(&self, _ctx: &WorkflowContextView, input: &Lenient) -> Result<(), HandlerError> {
            let decided = input.decided()?;
            let run = self.open_for_updates()?;
            let decision = match decided {
                Decided::Request(decision) => decision,
                Decided::Word(sent) => return waits_for_word(run, &sent),
            };
            if run.waiting_requests().any(|waiting| waiting.request.id == decision.request) {
                Ok(())
            } else {
                Err(format!("no request `{}` is pending in this run", decision.request).into())
            }
        }

        #[update]
        pub async fn decide(ctx: &mut WorkflowContext<Self>, input: Lenient) -> Result<Answer, HandlerError> {
            let decided = input.decided();
            let update = ctx.state_mut(|state| {
                let (at, update) = (state.arrived(DECIDE), state.next_update());
                let message = match decided? {
                    Decided::Request(decision) => Message::Decision { decision, at, update: Some(update) },
                    Decided::Word(sent) => Message::Instruction { sent, at, update: Some(update) },
                };
                state.inbox.push_back(message);
                Ok::<u64, String>(update)
            })?;
            answer_of(ctx, update).await
        }

        #[update_validator(answer_question)]
        fn validate_answer_question(&self, _ctx: &WorkflowContextView, input: &Lenient) -> Result<(), HandlerError> {
            let sent = input.answer()?;
            let run = self.open_for_updates()?;
            let waits = |id: &QuestionId| run.waiting_questions().any(|waiting| waiting.question.id == *id);
            if matches!(&sent.instruction, Instruction::Answer { question, .. } if waits(question)) {
                return Ok(());
            }
            let about = sent.instruction.about().unwrap_or_default();
            Err(format!("no question `{about}` waits in this run").into())
        }

        #[update]
        pub async fn answer_question(ctx: &mut WorkflowContext<Self>, input: Lenient) -> Result<Answer, HandlerError> {
            let sent = input.answer();
            let update = ctx.state_mut(|state| {
                let (at, update) = (state.arrived(ANSWER_QUESTION), state.next_update());
                let message = Message::Instruction { sent: sent?, at, update: Some(update) };
                state.inbox.push_back(message);
                Ok::<u64, String>(update)
            })?;
            answer_of(ctx, update).await
        }

        #[query]
        pub fn status(&self, ctx: &WorkflowContextView) -> Option<Status> {
            self.run.as_ref().map(|run| Status::of(run, ctx.workflow_id()))
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

/// Whether a word on a lost call names one that waits for it.
fn waits_for_word(run: &AgentRun, sent: &SentInstruction) -> Result<(), HandlerError> {
    let unknown = |id: ToolCallId| {
        run.calls().iter().any(|call| call.id == id && matches!(call.state, CallState::Unknown { .. }))
    };
    if run.takes_words() && matches!(&sent.instruction, Instruction::Resolve { call, .. } if unknown(*call)) {
        return Ok(());
    }
    let about = sent.instruction.about().unwrap_or_default();
    Err(format!("the outcome of call `{about}` is not unknown in this run").into())
}

/// What came of an update. The run loop answers every one before it ends, also when it is cancelled: the wait must not
/// end first.
async fn answer_of(ctx: &WorkflowContext<AgentWorkflow>, update: u64) -> Result<Answer, HandlerError> {
    let apart = WaitConditionOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
    ctx.wait_condition_with_options(move |state| state.answers.contains_key(&update), apart).await?;
    ctx.state_mut(|state| state.answers.remove(&update)).ok_or_else(|| "the answer was lost".into())
}

impl AgentWorkflow {
    /// Counts a message of this name, before anything in it is looked at: history has its event in any case.
    fn arrived(&mut self, name: &'static str) -> Position {
        let count = self.arrivals.entry(name).or_default();
        *count = count.saturating_add(1);
        Position { name, ordinal: *count }
    }

    fn open_for_updates(&self) -> Result<&AgentRun, HandlerError> {
        if self.inbox.len() >= INBOX_MAX {
            return Err("too many messages wait for this run; send this one again later".into());
        }
        // A run that goes on in a new execution has not taken up its state at the first moment.
        self.run.as_ref().ok_or_else(|| "the run has not begun in this execution; send this one again later".into())
    }

    fn next_update(&mut self) -> u64 {
        self.updates += 1;
        self.updates
    }

    fn take_decision(&mut self, signal: &'static str, decision: Result<ApprovalDecision, String>) {
        let at = self.arrived(signal);
        self.take(match decision {
            Ok(decision) => Message::Decision { decision, at, update: None },
            Err(reason) => Message::Refused(format!("signal `{signal}`: {reason}")),
        });
    }

    fn take_instruction(&mut self, signal: &'static str, sent: Result<SentInstruction, String>) {
        let at = self.arrived(signal);
        self.take(match sent {
            Ok(sent) => Message::Instruction { sent, at, update: None },
            Err(reason) => Message::Refused(format!("signal `{signal}`: {reason}")),
        });
    }

    fn take(&mut self, message: Message) {
        let must_pass = matches!(message, Message::Halt { .. });
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
