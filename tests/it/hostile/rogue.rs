//! Somebody who may write to the namespace: a worker of their own whose workflow does what it is told, under any type
//! and on any task queue, also on that of the agent runs. It polls for workflow tasks alone; activities reach the real
//! worker.

use std::{future::Future, time::Duration};

use futures::future::{LocalBoxFuture, join_all};
use mandate_domain::{
    Address, ApprovalDecision, ChainHead, SentInstruction, ToolCallId, agent_run::Word, approval::Arrival,
};
use mandate_tests::{AGENT, Scenario};
use mandate_workflows::{
    contract::{
        CallPurpose, CallTool, CallToolInput, CloseRun, CloseRunInput, InvokeModel, InvokeModelInput, OpenRun,
        OpenRunInput, ReviewApproval, ReviewApprovalInput, ReviewInstruction, ReviewInstructionInput, ReviewSubject,
        RunPointer,
    },
    lenient::Lenient,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use temporalio_client::{UntypedUpdate, UntypedWorkflow, WorkflowExecuteUpdateOptions};
use temporalio_common::{data_converters::RawValue, protos::temporal::api::common::v1::Payload};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::RuntimeOptions};
use temporalio_workflow::{
    ActivityOptions, ContinueAsNewOptions, SyncWorkflowContext, WorkflowContext, WorkflowResult,
};

use super::ground::{ANA, Held, soon};

/// The type of agent runs, which anybody may write on a workflow of their own.
pub(super) const IMPOSTOR: &str = "AgentWorkflow";
/// A type of their own.
pub(super) const FOREIGN: &str = "ForeignWorkflow";

/// How long an activity is tried.
const TRIED_FOR: Duration = Duration::from_secs(30);
/// The rogue's workflow tasks stay with it, however slow the machine is.
const STICKY: Duration = Duration::from_mins(5);

/// An activity to ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    Nothing,
    Open(OpenRunInput),
    Invoke(InvokeModelInput),
    Call(CallToolInput),
    /// All at the same moment.
    Calls(Vec<CallToolInput>),
    Review(ReviewApprovalInput),
    Instruct(ReviewInstructionInput),
    Close(CloseRunInput),
}

/// What the server was told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Told {
    Answered(Value),
    Refused(String),
}

/// How the workflow goes on after it was told to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Next {
    pub(super) input: Value,
    pub(super) task_queue: String,
}

fn told<T: Serialize, E: std::fmt::Debug>(answer: Result<T, E>) -> Told {
    match answer {
        Ok(answer) => Told::Answered(json!(answer)),
        Err(error) => Told::Refused(format!("{error:?}")),
    }
}

/// A workflow that asks for what it is told to ask for.
macro_rules! puppet {
    ($name:ident, $kind:literal) => {
        #[workflow]
        #[derive(Default)]
        struct $name {
            next: Option<Next>,
        }

        #[workflow_methods]
        impl $name {
            #[run(name = $kind)]
            async fn run(ctx: &mut WorkflowContext<Self>, _input: Lenient) -> WorkflowResult<()> {
                ctx.wait_condition(|puppet| puppet.next.is_some()).await?;
                let Some(Next { input, task_queue }) = ctx.state_mut(|puppet| puppet.next.take()) else {
                    return Ok(());
                };
                let options = ContinueAsNewOptions::builder().task_queue(task_queue).build();
                match ctx.continue_as_new(Lenient::json(input.to_string().into_bytes()), options)? {}
            }

            #[signal]
            fn go_on(&mut self, _ctx: &mut SyncWorkflowContext<Self>, next: Next) {
                self.next = Some(next);
            }

            #[update]
            async fn ask(ctx: &mut WorkflowContext<Self>, to: (String, Ask)) -> Told {
                let (task_queue, ask) = to;
                let options = ActivityOptions::with_schedule_to_close_timeout(TRIED_FOR).task_queue(task_queue).build();
                match ask {
                    Ask::Nothing => Told::Answered(Value::Null),
                    Ask::Open(input) => told(ctx.execute_activity(OpenRun, input, options).await),
                    Ask::Invoke(input) => told(ctx.execute_activity(InvokeModel, input, options).await),
                    Ask::Call(input) => told(ctx.execute_activity(CallTool, input, options).await),
                    Ask::Calls(inputs) => {
                        let call = |input| ctx.execute_activity(CallTool, input, options.clone());
                        let answers = join_all(inputs.into_iter().map(call)).await;
                        Told::Answered(answers.into_iter().map(|answer| json!(told(answer))).collect())
                    }
                    Ask::Review(input) => told(ctx.execute_activity(ReviewApproval, input, options).await),
                    Ask::Instruct(input) => told(ctx.execute_activity(ReviewInstruction, input, options).await),
                    Ask::Close(input) => told(ctx.execute_activity(CloseRun, input, options).await),
                }
            }
        }
    };
}

puppet!(Impostor, "AgentWorkflow");
puppet!(Foreign, "ForeignWorkflow");

/// Does something while a worker of the rogue polls a task queue.
pub(super) fn with_rogue<'a, T: 'a>(
    scenario: &'a Scenario,
    task_queue: &'a str,
    act: impl Future<Output = T> + 'a,
) -> LocalBoxFuture<'a, T> {
    let act = Box::pin(act);
    Box::pin(beside_rogue(scenario, task_queue, act))
}

async fn beside_rogue<T>(scenario: &Scenario, task_queue: &str, act: LocalBoxFuture<'_, T>) -> T {
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default()).unwrap();
    let options = WorkerOptions::new(task_queue)
        .register_workflow::<Impostor>()
        .unwrap()
        .register_workflow::<Foreign>()
        .unwrap()
        .sticky_queue_schedule_to_start_timeout(STICKY)
        .build();
    let mut worker = Worker::new(&runtime, scenario.server.client.clone(), options).unwrap();
    let stop = worker.shutdown_handle();
    let acting = async {
        let done = act.await;
        stop();
        done
    };
    let (ran, done) = tokio::join!(worker.run(), acting);
    ran.unwrap();
    done
}

/// A workflow execution of the rogue.
pub(super) struct Puppet<'a> {
    scenario: &'a Scenario,
    pub(super) id: String,
    /// What the next activity is told of its run: whatever the puppet likes.
    pub(super) run: Option<RunPointer>,
    pub(super) transcript: Option<Address>,
}

impl<'a> Puppet<'a> {
    /// Starts one, and waits until the rogue has it: the real worker must not be polling before.
    pub(super) async fn start(
        scenario: &'a Scenario,
        id: &str,
        (kind, task_queue): (&str, &str),
        prompt: &str,
    ) -> Result<Self, String> {
        let start = ["workflow", "start", "--type", kind, "--task-queue", task_queue, "--workflow-id", id];
        let input = task(prompt).to_string();
        scenario.temporal(&[&start[..], &["--input", &input]].concat()).await.ok();
        let puppet = Self { scenario, id: id.to_owned(), run: None, transcript: None };
        puppet.asks(Ask::Nothing).await?;
        Ok(puppet)
    }

    /// Schedules an activity for the real worker.
    pub(super) async fn asks(&self, ask: Ask) -> Result<Told, String> {
        let handle = self.scenario.server.client.get_workflow_handle::<UntypedWorkflow>(&self.id);
        let input = RawValue::new(vec![payload(&json!([self.scenario.name, ask]))]);
        let update = handle.execute_update(UntypedUpdate::new("ask"), input, WorkflowExecuteUpdateOptions::default());
        let answer = update.await.map_err(|error| format!("the rogue's own workflow fails: {error}"))?;
        let payload = answer.payloads.into_iter().next().ok_or("the rogue's workflow says nothing")?;
        serde_json::from_slice(&payload.data).map_err(|error| error.to_string())
    }

    /// Continues as new with an input of its own.
    pub(super) async fn goes_on(&self, input: Value, task_queue: &str) -> Held {
        let before = self.run_id().await;
        let next = json!(Next { input, task_queue: task_queue.to_owned() }).to_string();
        let send = ["workflow", "signal", "--workflow-id", &self.id, "--name", "go_on", "--input", &next];
        self.scenario.temporal(&send).await.ok();
        soon("the execution continues", async || (self.run_id().await != before).then_some(())).await
    }

    async fn run_id(&self) -> String {
        let handle = self.scenario.server.client.get_workflow_handle::<UntypedWorkflow>(&self.id);
        let described = handle.describe(temporalio_client::WorkflowDescribeOptions::default()).await;
        described.map(|description| description.run_id().to_owned()).unwrap_or_default()
    }

    /// Asks for the run to be opened, and takes note of what it is told.
    pub(super) async fn open(&mut self) -> Result<Told, String> {
        let agent = AGENT.parse().unwrap();
        let told = self.asks(Ask::Open(OpenRunInput { agent })).await?;
        if let Told::Answered(answer) = &told {
            let opened = &answer["opened"];
            let store = serde_json::from_value(opened["pins"]["store"].clone()).unwrap();
            self.run = Some(RunPointer { store, audit: ChainHead::empty(), refused_messages: None });
            self.transcript = serde_json::from_value(opened["transcript"].clone()).ok();
        }
        Ok(told)
    }

    /// Opens the run, which must succeed.
    pub(super) async fn opened(&mut self) -> Held {
        answered(self.open().await?).map(|_| ())
    }

    /// What activities are told of the run.
    pub(super) fn pointer(&self) -> Result<RunPointer, String> {
        self.run.clone().ok_or_else(|| "the run was not opened".to_owned())
    }

    /// Asks the model for a turn.
    pub(super) async fn invoke(&self, turn: u32, transcript: &Address) -> Result<Told, String> {
        self.invoke_with(turn, transcript, Vec::new()).await
    }

    /// Asks the model for a turn before which people said more.
    pub(super) async fn invoke_with(
        &self,
        turn: u32,
        transcript: &Address,
        instructions: Vec<Address>,
    ) -> Result<Told, String> {
        let (run, transcript) = (self.pointer()?, transcript.clone());
        self.asks(Ask::Invoke(InvokeModelInput { run, turn, transcript, append: Vec::new(), instructions })).await
    }

    /// Asks for the first turn of the opened run.
    pub(super) async fn first_turn(&self) -> Result<Value, String> {
        let transcript = self.transcript.clone().ok_or("the run was not opened")?;
        answered(self.invoke(1, &transcript).await?)
    }

    /// Asks for a call.
    pub(super) async fn call(&self, call: &str) -> Result<Told, String> {
        self.asks(Ask::Call(self.call_input(call)?)).await
    }

    /// Asks for the first calls of the first turn, all at the same moment, and is told their outcomes.
    pub(super) async fn first_calls(&self, number: usize) -> Result<Vec<Value>, String> {
        let inputs: Result<_, String> = (0..number).map(|index| self.call_input(&format!("t1.{index}"))).collect();
        let all = answered(self.asks(Ask::Calls(inputs?)).await?)?;
        let all: Vec<Told> = serde_json::from_value(all).map_err(|error| error.to_string())?;
        all.into_iter().map(answered).collect()
    }

    fn call_input(&self, call: &str) -> Result<CallToolInput, String> {
        Ok(CallToolInput { run: self.pointer()?, call: id(call), purpose: CallPurpose::Perform })
    }

    /// Asks for the review of a decision about a call.
    pub(super) async fn review(&self, call: &str, decision: ApprovalDecision) -> Result<Told, String> {
        let subject = ReviewSubject::Decision { decision, ordinal: 1, arrival: None };
        self.asks(Ask::Review(ReviewApprovalInput { run: self.pointer()?, call: id(call), subject })).await
    }

    /// Asks for the review of a word on what became of a call.
    pub(super) async fn instruct(&self, sent: SentInstruction) -> Result<Told, String> {
        let arrival = Arrival { run_id: "none".to_owned(), name: "resolve".to_owned(), ordinal: 1, at_ms: 0 };
        let word = Word::Sent { sent, arrival };
        self.asks(Ask::Instruct(ReviewInstructionInput { run: self.pointer()?, word, ordinal: 1 })).await
    }

    /// Opens a run, asks the model, and has its first call performed, as far as it is let.
    pub(super) async fn loots(&mut self) -> Held {
        if let Told::Answered(_) = self.open().await? {
            self.first_turn().await?;
            self.call("t1.0").await?;
        }
        Ok(())
    }
}

/// A task for the agent.
pub(super) fn task(prompt: &str) -> Value {
    json!({ "agent": AGENT, "prompt": prompt, "on_behalf_of": ANA })
}

pub(super) fn id(call: &str) -> ToolCallId {
    call.parse().unwrap()
}

/// What was answered.
pub(super) fn answered(told: Told) -> Result<Value, String> {
    match told {
        Told::Answered(answer) => Ok(answer),
        Told::Refused(why) => Err(format!("refused: {why}")),
    }
}

/// It was refused for good.
pub(super) fn refused_for_good(told: &Told) -> Held {
    match told {
        Told::Refused(why) if why.contains("non_retryable: true") => Ok(()),
        Told::Refused(why) => Err(format!("not refused for good: {why}")),
        Told::Answered(answer) => Err(format!("not refused: {answer}")),
    }
}

fn payload(value: &Value) -> Payload {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Payload { metadata, data: value.to_string().into_bytes(), ..Payload::default() }
}
