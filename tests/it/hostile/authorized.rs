//! Attacks on a server that knows its callers: whoever may write to the namespace says that they are an approver, and the
//! server says who they are.

use std::time::Duration;

use mandate_tests::{Scenario, WORKER, authorized_server};
use serde_json::{Value, json};
use temporalio_client::tonic::IntoRequest as _;
use temporalio_common::protos::temporal::api::{
    common::v1::{ActivityType, Payload, Payloads},
    enums::v1::ActivityExecutionStatus,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{DescribeActivityExecutionRequest, StartActivityExecutionRequest},
};

use super::{
    ground::{BO, Held, LARGE, MALLORY, asked_once, intrusion, never, rests_in, sends, soon, start_refunds, untouched},
    proofs::refused_and_waiting,
};

/// What the record says where the server itself sent a message.
const THE_SERVER: &str = "`temporal/internal` is the Temporal server itself and no person";

/// A refund waits, and the server says who decides: an approval in the name of an approver.
async fn waiting(scenario: &Scenario) -> Result<Value, String> {
    scenario.accept_principals();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?.request_id;
    Ok(json!({ "request_id": request, "by": BO }))
}

/// The arguments of the Temporal CLI that send an approval.
fn approval<'a>(decision: &'a str, to: &[&'a str]) -> Vec<&'a str> {
    [&["workflow", "signal", "--name", "approve", "--input", decision], to].concat()
}

pub(super) async fn principal_of_somebody_else(scenario: &Scenario) -> Held {
    let decision = waiting(scenario).await?;
    sends(&scenario.as_person(MALLORY).await, "approve", &decision).await?;
    let words = "the principal is of `mallory@acme.example`, and the message says that it is from `bo@acme.example`";
    refused_and_waiting(scenario, 1, words).await
}

/// A worker has to be permitted to write, so the server takes what it sends.
pub(super) async fn principal_of_a_worker(scenario: &Scenario) -> Held {
    let decision = waiting(scenario).await?;
    sends(&scenario.as_person(WORKER).await, "approve", &decision).await?;
    refused_and_waiting(scenario, 1, "`jwt/worker-1` works on runs as a worker and is no person").await
}

/// The frontend for the server's own use asks nobody for a token.
pub(super) async fn principal_of_the_server_itself(scenario: &Scenario) -> Held {
    let decision = waiting(scenario).await?.to_string();
    let server = authorized_server().await;
    let internal = server.internal_address();
    let to = ["--workflow-id", scenario.name.as_str(), "--address", internal.as_str()];
    server.cli(None, &approval(&decision, &to)).await.ok();
    refused_and_waiting(scenario, 1, THE_SERVER).await
}

/// A batch is carried out by the server, whoever asked for it.
pub(super) async fn decision_by_a_batch(scenario: &Scenario) -> Held {
    let decision = waiting(scenario).await?.to_string();
    let query = format!("WorkflowId = '{}'", scenario.name);
    let to = ["--query", query.as_str(), "--reason", "all at once", "--yes"];
    scenario.as_person(MALLORY).await.temporal(&approval(&decision, &to)).await.ok();
    refused_and_waiting(scenario, 1, THE_SERVER).await
}

/// The event of an update names the worker that took it, and nobody who sent it.
pub(super) async fn decision_by_an_update(scenario: &Scenario) -> Held {
    let mut decision = waiting(scenario).await?;
    decision["verdict"] = json!("approve");
    let update = ["workflow", "update", "execute", "--workflow-id", &scenario.name, "--name", "decide"];
    let input = decision.to_string();
    let said = scenario.as_person(MALLORY).await.temporal(&[&update[..], &["--input", &input]].concat()).await;
    let words = "does not say who sends an update: send the signal instead";
    refused_and_waiting(scenario, 1, words).await?;
    never(!format!("{}{}", said.stdout, said.stderr).contains(words), format!("told otherwise: {said:?}"))
}

/// An activity that belongs to no workflow, with the pointer of a run whose call waits.
pub(super) async fn activity_on_its_own(scenario: &Scenario) -> Held {
    waiting(scenario).await?;
    let mallory = scenario.as_person(MALLORY).await;
    let input = json!(crate::intrusion::stolen(scenario).await).to_string().into_bytes();
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let payload = Payload { metadata, data: input, ..Payload::default() };
    let (namespace, activity_id) = ("default".to_owned(), format!("{}-alone", scenario.name));
    let start = StartActivityExecutionRequest {
        namespace: namespace.clone(),
        activity_id: activity_id.clone(),
        activity_type: Some(ActivityType { name: "call_tool".to_owned() }),
        task_queue: Some(TaskQueue { name: scenario.name.clone(), ..TaskQueue::default() }),
        input: Some(Payloads { payloads: vec![payload] }),
        schedule_to_close_timeout: Some(Duration::from_mins(1).try_into().unwrap()),
        ..StartActivityExecutionRequest::default()
    };
    let mut service = mallory.server.client.connection().workflow_service();
    let started = service.start_activity_execution(start.into_request()).await.map_err(|error| error.to_string())?;
    let describe = DescribeActivityExecutionRequest {
        namespace,
        activity_id,
        run_id: started.into_inner().run_id,
        ..DescribeActivityExecutionRequest::default()
    };
    let ended = soon("the activity ends", async || {
        let mut service = mallory.server.client.connection().workflow_service();
        let described = service.describe_activity_execution(describe.clone().into_request()).await.ok()?;
        let status = described.into_inner().info?.status();
        (status != ActivityExecutionStatus::Running).then_some(status)
    })
    .await?;
    never(ended != ActivityExecutionStatus::Failed, format!("it is {ended:?}"))?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await?;
    intrusion(scenario, "only an agent run may ask for effects").await
}
