//! Whoever may schedule activities can at most ask: a foreign workflow that aims at a call of a run is refused for good,
//! the attempt stands in the audit log, and the run is unharmed. More attacks are in `hostile.rs`.

use std::{sync::Arc, time::Duration};

use mandate_activities::{
    AgentActivities, Metrics, ServerExecutions, Setup,
    policy::ActivePolicy,
    store::{AddressKeySource, Store, StorePlace, StoreSettings},
};
use mandate_domain::{ChainHead, ToolCallId, audit::RecordBody};
use mandate_tests::{Scenario, profile_folder, run};
use mandate_worker::config::Config;
use mandate_workflows::contract::{CallPurpose, CallTool, CallToolInput, RunPointer};
use serde::{Deserialize, Serialize};
use temporalio_client::{WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::RuntimeOptions};
use temporalio_workflow::{ActivityOptions, WorkflowContext, WorkflowResult};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ask {
    task_queue: String,
    input: CallToolInput,
}

/// A workflow that somebody else wrote.
#[workflow]
#[derive(Default)]
struct Foreign;

#[workflow_methods]
impl Foreign {
    #[run(name = "ForeignWorkflow")]
    async fn run(ctx: &mut WorkflowContext<Self>, ask: Ask) -> WorkflowResult<String> {
        let options =
            ActivityOptions::with_schedule_to_close_timeout(Duration::from_mins(1)).task_queue(ask.task_queue);
        let asked = ctx.execute_activity(CallTool, ask.input, options.build()).await;
        Ok(match asked {
            Ok(output) => format!("performed: {output:?}"),
            Err(error) => format!("refused: {error:?}"),
        })
    }
}

/// A pointer at a call that waits in another run.
pub(crate) async fn stolen(scenario: &Scenario) -> CallToolInput {
    let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
    let RecordBody::RunOpened { store, .. } = opened[0].body.clone() else { unreachable!("picked above") };
    let run = RunPointer { store, audit: ChainHead::empty(), refused_messages: None };
    CallToolInput { run, call: ToolCallId::new(2, 0), purpose: CallPurpose::Perform }
}

#[test]
fn a_foreign_workflow_is_refused_and_recorded() {
    run(async {
        let scenario = Scenario::new("foreign").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        let ask = Ask { task_queue: scenario.name.clone(), input: stolen(&scenario).await };

        let client = scenario.server.client.clone();
        let runtime = Runtime::from_current_tokio(RuntimeOptions::default()).unwrap();
        let options = WorkerOptions::new("foreign-queue").register_workflow::<Foreign>().unwrap().build();
        let mut worker = Worker::new(&runtime, client.clone(), options).unwrap();
        let stop = worker.shutdown_handle();
        let asking = async {
            let options = WorkflowStartOptions::new("foreign-queue", "foreign-asks").build();
            let handle = client.start_workflow(Foreign::run, ask, options).await.unwrap();
            let answer = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            stop();
            answer
        };
        let (ran, answer) = tokio::join!(worker.run(), asking);
        ran.unwrap();
        assert!(answer.starts_with("refused") && answer.contains("may not ask for effects"), "{answer}");
        assert!(answer.contains("non_retryable: true"), "{answer}");
        assert!(scenario.refund_calls().await.is_empty());
        let recorded = scenario.records_where(|body| matches!(body, RecordBody::Intrusion { .. })).await;
        assert_eq!(recorded.len(), 1, "{recorded:?}");
        // The run that was aimed at is unharmed.
        let request = scenario.pending_id().await;
        scenario.approve(&request, "bo@acme.example").await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        scenario.audit_verify().await.ok();
    });
}

/// The activities of a worker on this folder, without a server that hands out tasks.
pub(crate) async fn activities(scenario: &Scenario) -> AgentActivities {
    let config = Config::load(&scenario.path(""), &profile_folder()).unwrap();
    let settings = StoreSettings {
        place: StorePlace::File(scenario.path("var/mandate.db")),
        address_keys: AddressKeySource::Folder(scenario.path("var/keys")),
    };
    let store = Store::open(settings).await.unwrap();
    AgentActivities::new(Setup {
        policy: ActivePolicy::open(&store).await.unwrap(),
        store,
        catalog: config.catalog,
        task_queue: config.task_queue,
        identity: "test".to_owned(),
        executions: Arc::new(ServerExecutions::new(scenario.server.client.clone())),
        metrics: Metrics::default(),
    })
    .unwrap()
}
