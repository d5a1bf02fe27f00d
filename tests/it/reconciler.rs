//! What ended outside: terminated, timed out and reset executions, and a store that is an older copy.

use std::fs;

use futures::future::join_all;
use mandate_domain::{
    AuditRecord, EndReason, RunState,
    audit::{FoundEnd, KnownBy, RecordBody},
};
use mandate_tests::{On, Process, Scenario, run, until};
use temporalio_client::{RpcOptions, WorkflowDescribeOptions, WorkflowExecutionStatus, tonic::IntoRequest as _};
use temporalio_common::protos::temporal::api::{
    command::v1::{
        CancelWorkflowExecutionCommandAttributes, Command, CompleteWorkflowExecutionCommandAttributes,
        FailWorkflowExecutionCommandAttributes, command::Attributes,
    },
    enums::v1::CommandType,
    failure::v1::Failure,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{PollWorkflowTaskQueueRequest, RespondWorkflowTaskCompletedRequest},
};

const BO: &str = "bo@acme.example";

/// A world in which workers make the schedule.
async fn world(name: &str) -> Scenario {
    world_on(On::Sqlite, name).await
}

/// The same with its store on an engine, which is in the test's name.
async fn world_on(on: On, name: &str) -> Scenario {
    let scenario = match on {
        On::Sqlite => Scenario::new(name).await,
        On::Postgres => Scenario::on(on, &format!("{name}-postgres")).await,
    };
    scenario.with_reconciler();
    scenario
}

async fn terminate(scenario: &Scenario) {
    let terminate = ["workflow", "terminate", "--workflow-id", &scenario.name, "--reason", "a test does"];
    scenario.temporal(&terminate).await.ok();
}

/// Records of the scenario's own run.
async fn own(scenario: &Scenario) -> Vec<AuditRecord> {
    let records = scenario.records().await.into_iter();
    records.filter(|record| record.run.workflow_id == scenario.name).collect()
}

/// How the run was found and closed.
async fn closed(scenario: &Scenario) -> (FoundEnd, RunState, Option<EndReason>, usize) {
    let records = own(scenario).await;
    let [.., before, last] = &records[..] else { panic!("{records:#?}") };
    match (&before.body, &last.body) {
        (RecordBody::RunReconciled { found, .. }, RecordBody::RunClosed { state, reason, unknown_outcomes, .. }) => {
            (*found, *state, *reason, unknown_outcomes.len())
        }
        other => panic!("{other:#?}"),
    }
}

#[test]
fn a_terminated_run_is_closed_and_a_living_one_is_left_alone() {
    run(closes_what_was_terminated(On::Sqlite));
}

#[test]
fn a_terminated_run_in_a_database_is_closed_and_a_living_one_is_left_alone() {
    run(closes_what_was_terminated(On::Postgres));
}

async fn closes_what_was_terminated(on: On) {
    let scenario = world_on(on, "terminated").await;
    let _worker = scenario.start_worker().await;
    scenario.start_run("Refund order o1").await;
    scenario.pending_id().await;
    let living = scenario.of_run(&format!("{}-living", scenario.name));
    living.start_run("Refund order o1").await;
    let request = living.pending_id().await;
    terminate(&scenario).await;

    let found = scenario.reconcile().await;
    assert_eq!((found.checked, found.closed, found.failed), (2, 1, 0), "{found:?}");
    let expected = (FoundEnd::Terminated, RunState::Stopped, Some(EndReason::Terminated), 0);
    assert_eq!(closed(&scenario).await, expected);
    let abandoned = own(&scenario).await;
    let abandoned = abandoned.iter().filter(|one| matches!(one.body, RecordBody::CallAbandoned { .. })).count();
    assert_eq!(abandoned, 1, "the call that waited for people");
    let open = "UPDATE requests SET state = state WHERE state = $1";
    assert_eq!(scenario.tamper(open, "open").await, 1, "the request of the living run alone");
    scenario.audit_verify().await.ok();
    let explained = scenario.mandate(&["explain", &scenario.name]).await.ok();
    assert!(explained.contains("found terminated by Temporal and not closed"), "{explained}");

    let again = scenario.reconcile().await;
    assert_eq!((again.checked, again.closed), (1, 0), "{again:?}");
    living.approve(&request, BO).await;
    assert!(living.answer().await.contains("500.00 EUR"));
    assert_eq!(scenario.payments().await.len(), 1);
    scenario.mandate(&["audit", "verify"]).await.ok();
}

#[test]
fn a_run_that_ran_out_of_the_time_of_its_execution_is_closed() {
    run(async {
        let scenario = world("timed-out").await;
        let _worker = scenario.start_worker().await;
        let input = r#"{"agent":"acme/support/refunds","prompt":"Refund order o1","on_behalf_of":"ana@acme.example"}"#;
        let id = scenario.name.as_str();
        let start = ["workflow", "start", "--type", "AgentWorkflow", "--task-queue", id, "--workflow-id", id];
        scenario.temporal(&[&start[..], &["--execution-timeout", "8s", "--input", input]].concat()).await.ok();
        assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::TimedOut);
        scenario.reconcile_until_closed().await;
        let expected = (FoundEnd::TimedOut, RunState::Failed, Some(EndReason::TimedOut), 0);
        assert_eq!(closed(&scenario).await, expected);
        scenario.audit_verify().await.ok();
    });
}

/// How a worker that is no worker of mandate ends an execution.
fn ends(end: FoundEnd) -> Command {
    let (kind, attributes) = match end {
        FoundEnd::Completed => (
            CommandType::CompleteWorkflowExecution,
            Attributes::CompleteWorkflowExecutionCommandAttributes(
                CompleteWorkflowExecutionCommandAttributes::default(),
            ),
        ),
        FoundEnd::Cancelled => (
            CommandType::CancelWorkflowExecution,
            Attributes::CancelWorkflowExecutionCommandAttributes(CancelWorkflowExecutionCommandAttributes::default()),
        ),
        FoundEnd::Failed => (
            CommandType::FailWorkflowExecution,
            Attributes::FailWorkflowExecutionCommandAttributes(FailWorkflowExecutionCommandAttributes {
                failure: Some(Failure { message: "it cannot go on".to_owned(), ..Failure::default() }),
            }),
        ),
        FoundEnd::Terminated | FoundEnd::TimedOut | FoundEnd::Gone => panic!("no worker does that: {end:?}"),
    };
    Command { command_type: kind.into(), attributes: Some(attributes), ..Command::default() }
}

/// Takes the next workflow task of the scenario's queue, and ends its execution with it.
async fn end_as_another_worker(scenario: &Scenario, end: FoundEnd) {
    let mut service = scenario.server.client.connection().workflow_service();
    let (namespace, identity) = ("default".to_owned(), "another worker".to_owned());
    let task_queue = Some(TaskQueue { name: scenario.name.clone(), ..TaskQueue::default() });
    let poll =
        PollWorkflowTaskQueueRequest { namespace: namespace.clone(), task_queue, identity, ..Default::default() };
    let task = service.poll_workflow_task_queue(poll.into_request()).await.unwrap().into_inner();
    let commands = vec![ends(end)];
    let (task_token, identity) = (task.task_token, "another worker".to_owned());
    let answer =
        RespondWorkflowTaskCompletedRequest { task_token, commands, identity, namespace, ..Default::default() };
    service.respond_workflow_task_completed(answer.into_request()).await.unwrap();
}

#[test]
fn a_run_that_another_worker_ended_is_closed_as_its_execution_ended() {
    let ways = [
        (FoundEnd::Completed, RunState::Failed, EndReason::Lost),
        (FoundEnd::Failed, RunState::Failed, EndReason::Lost),
        (FoundEnd::Cancelled, RunState::Cancelled, EndReason::Cancelled),
    ];
    run(join_all(ways.into_iter().map(async |(end, state, reason)| {
        let scenario = world(&format!("ended-{}", end.as_str())).await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        worker.kill().await;
        let wake = if end == FoundEnd::Cancelled { "cancel" } else { "signal" };
        let arguments = if end == FoundEnd::Cancelled { &[][..] } else { &["--name", "approve"] };
        scenario.temporal(&[&["workflow", wake, "--workflow-id", &scenario.name], arguments].concat()).await.ok();
        end_as_another_worker(&scenario, end).await;
        scenario.wait_closed().await;
        let _worker = scenario.start_worker().await;
        scenario.reconcile_until_closed().await;
        assert_eq!(closed(&scenario).await, (end, state, Some(reason), 0));
        assert!(scenario.payments().await.is_empty());
        scenario.audit_verify().await.ok();
    })));
}

/// A refund is paid and not answered; its worker dies, and the run is terminated. A worker that looks is left.
async fn terminated_while_paying(scenario: &Scenario) -> Process {
    scenario.server_command(&["--delay-ms", "60000"]);
    let first = scenario.start_worker().await;
    scenario.start_run("Refund order o2").await;
    until("the refund is paid", async || (scenario.payments().await.len() == 1).then_some(())).await;
    first.kill().await;
    terminate(scenario).await;
    scenario.server_command(&[]);
    scenario.start_worker().await
}

#[test]
fn a_call_that_was_under_way_is_asked_about_before_its_run_is_closed() {
    run(asks_about_what_was_under_way(On::Sqlite));
}

#[test]
fn a_call_in_a_database_that_was_under_way_is_asked_about_before_its_run_is_closed() {
    run(asks_about_what_was_under_way(On::Postgres));
}

async fn asks_about_what_was_under_way(on: On) {
    let scenario = world_on(on, "terminated-paying").await;
    let _worker = terminated_while_paying(&scenario).await;
    scenario.reconcile_until_closed().await;
    let expected = (FoundEnd::Terminated, RunState::Stopped, Some(EndReason::Terminated), 0);
    assert_eq!(closed(&scenario).await, expected);
    let outcomes = own(&scenario).await.into_iter().filter_map(|record| match record.body {
        RecordBody::Outcome { effect, known_by, .. } if effect.to_string() == "t2.0" => Some(known_by),
        _ => None,
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [KnownBy::Check]);
    assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
    scenario.audit_verify().await.ok();
}

#[test]
fn a_call_that_nobody_can_be_asked_about_is_listed_as_unknown() {
    run(async {
        let scenario = world("terminated-unknown").await;
        let check = "check = \"payments.refund_status\"\nsettles_within_secs = 10\n";
        scenario.edit("tools/payments.refund.toml", check, "");
        let _worker = terminated_while_paying(&scenario).await;
        scenario.reconcile_until_closed().await;
        let expected = (FoundEnd::Terminated, RunState::Stopped, Some(EndReason::Terminated), 1);
        assert_eq!(closed(&scenario).await, expected);
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("nobody knows whether `t2.0` happened"), "{verified}");
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
    });
}

#[test]
fn a_waiting_run_that_was_reset_is_marked_and_goes_on() {
    run(async {
        let scenario = world("reset-waiting").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let before = scenario.describe().await.run_id().to_owned();
        let reset = ["workflow", "reset", "--workflow-id", &scenario.name, "--type", "LastWorkflowTask"];
        scenario.temporal(&[&reset[..], &["--reason", "a test does"]].concat()).await.ok();
        let now = scenario.describe().await.run_id().to_owned();
        assert_ne!(before, now);

        let found = scenario.reconcile().await;
        assert_eq!((found.closed, found.failed, found.store_behind_run), (0, 0, 0), "{found:?}");
        scenario.approve(&request, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        let marks = own(&scenario).await.into_iter().filter_map(|record| match record.body {
            RecordBody::RunReset { run_id, original_run_id } => Some((run_id, original_run_id)),
            _ => None,
        });
        assert_eq!(marks.collect::<Vec<_>>(), [(now, before)], "once, whoever came first");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn an_older_copy_of_the_store_is_found_by_the_histories_of_its_runs() {
    run(async {
        let scenario = world("older-copy").await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        worker.stop().await;
        let (store, copy) = (scenario.path("var/mandate.db"), scenario.path("copy.db"));
        let newer = scenario.path("newer.db");
        fs::copy(&store, &copy).unwrap();

        // After the copy: the first run pays, and a second one is opened.
        let worker = scenario.start_worker().await;
        let request = scenario.pending_id().await;
        scenario.approve(&request, BO).await;
        scenario.result().await;
        let second = scenario.of_run("older-copy-second");
        second.start_run("Refund order o1").await;
        second.pending_id().await;
        worker.stop().await;
        fs::rename(&store, &newer).unwrap();
        fs::copy(&copy, &store).unwrap();

        let _worker = scenario.start_worker().await;
        let found = scenario.reconcile().await;
        assert_eq!((found.store_behind_run, found.closed, found.failed), (2, 0, 0), "{found:?}");
        let behind = scenario.records_where(|body| matches!(body, RecordBody::StoreBehindRun { .. })).await;
        let named = behind.iter().filter_map(|record| match &record.body {
            RecordBody::StoreBehindRun { run, found, .. } => Some((run.workflow_id.as_str(), *found > 0)),
            _ => None,
        });
        assert_eq!(
            named.collect::<Vec<_>>(),
            [("older-copy", true), ("older-copy-second", false)],
            "what it knows less of, and not at all"
        );
        let doctor = scenario.mandate(&["doctor"]).await;
        assert!(doctor.code == 1 && doctor.stdout.contains("store_behind_run"), "{doctor:?}");
        let again = scenario.reconcile().await;
        assert_eq!((again.store_behind_run, again.closed), (2, 0), "{again:?}");
        let behind = scenario.records_where(|body| matches!(body, RecordBody::StoreBehindRun { .. })).await;
        assert_eq!(behind.len(), 2, "each is recorded once");
        scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
    });
}

#[test]
fn a_second_worker_leaves_the_schedule_as_somebody_set_it() {
    run(async {
        let scenario = world("one-schedule").await;
        let _first = scenario.start_worker().await;
        let id = scenario.reconciler();
        scenario.temporal(&["schedule", "toggle", "--schedule-id", &id, "--pause", "--reason", "holidays"]).await.ok();
        let _second = scenario.start_worker().await;
        let schedule = scenario.server.client.get_schedule_handle(&id);
        let described = schedule.describe(RpcOptions::default()).await.unwrap();
        assert!(described.paused() && described.note() == Some("holidays"), "{described:?}");
    });
}

#[test]
fn several_comparisons_at_once_close_a_run_once() {
    run(async {
        let scenario = world("reconciled-together").await;
        let _first = scenario.start_worker().await;
        let _second = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        terminate(&scenario).await;
        // As anybody may who may start workflows: without an input, and with one that says nothing true.
        let compare = async |number: usize| {
            let id = format!("{}-{number}", scenario.reconciler());
            let start = ["workflow", "execute", "--type", "ReconcileWorkflow", "--task-queue", &scenario.name];
            let input = ["--input", r#"{"cursor":{"open":{"after":0}},"found":7}"#];
            let input = if number == 0 { &[][..] } else { &input[..] };
            scenario.temporal(&[&start[..], &["--workflow-id", &id], input].concat()).await.ok()
        };
        join_all((0..3).map(compare)).await;
        let closings = own(&scenario).await.into_iter().filter(|one| matches!(one.body, RecordBody::RunClosed { .. }));
        assert_eq!(closings.count(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_deleted_run_is_closed_where_it_was_opened_and_left_alone_elsewhere() {
    run(async {
        let scenario = world("deleted").await;
        let elsewhere = scenario.of_run("deleted-elsewhere");
        let worker = scenario.start_worker().await;
        for one in [&scenario, &elsewhere] {
            one.start_run("Refund order o1").await;
            one.pending_id().await;
            one.temporal(&["workflow", "delete", "--workflow-id", &one.name]).await.ok();
            let gone = async || one.handle().describe(WorkflowDescribeOptions::default()).await.is_err().then_some(());
            until("it is deleted", gone).await;
        }
        worker.stop().await;
        let moved = "UPDATE runs SET opened = json_set(opened, '$.namespace_id', 'another')
                     WHERE chain = (SELECT id FROM chains WHERE workflow_id = $1)";
        assert_eq!(scenario.tamper(moved, &elsewhere.name).await, 1);
        let _worker = scenario.start_worker().await;
        let found = scenario.reconcile().await;
        assert_eq!((found.checked, found.closed, found.unknown, found.failed), (2, 1, 1, 0), "{found:?}");
        assert!(found.notes.iter().any(|note| note.contains("deleted-elsewhere")), "{found:?}");
        let expected = (FoundEnd::Gone, RunState::Failed, Some(EndReason::Lost), 0);
        assert_eq!(closed(&scenario).await, expected);
        scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
    });
}
