//! People steer, pause, resume and halt runs: one, or many at once by a Temporal batch.

use mandate_domain::{audit::RecordBody, proof::InstructionKind};
use mandate_tests::{AGENT, Process, Scenario, run, until};
use serde_json::{Value, json};
use temporalio_client::{UntypedWorkflow, WorkflowDescribeOptions, WorkflowExecutionStatus};

use crate::{
    frozen::registered_as,
    resolved::{PLAIN, paid_without_an_answer},
};

const BO: &str = "bo@acme.example";
const KIM: &str = "kim@acme.example";
const MALLORY: &str = "mallory@acme.example";

fn instructed(kind: InstructionKind) -> impl Fn(&RecordBody) -> bool {
    move |body| matches!(body, RecordBody::Instructed { instruction, .. } if *instruction == kind)
}

/// Whether it is what she said, and counts.
fn is_of_kim(body: &RecordBody) -> bool {
    match body {
        RecordBody::Instructed { by, refused: None, .. } => by.as_str() == KIM,
        _ => false,
    }
}

#[test]
fn a_paused_run_begins_nothing_until_it_is_resumed() {
    run(async {
        let scenario = Scenario::new("paused").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        scenario.signal("pause", &json!({ "by": MALLORY }).to_string()).await.ok();
        until("the outsider is refused", async || (scenario.status().await.refused_messages == 1).then_some(())).await;
        assert_eq!(scenario.status().await.state, "AwaitingApproval");
        scenario.signal("pause", &json!({ "by": KIM, "comment": "audit" }).to_string()).await.ok();
        scenario.wait_state("Paused").await;
        scenario.approve(&request, BO).await;
        until("the approval counts", async || scenario.pending().await.is_empty().then_some(())).await;
        assert!(scenario.details().await.contains("held until the run is resumed"));
        assert!(scenario.refund_calls().await.is_empty(), "nothing begins while it is paused");
        scenario.signal("resume", &json!({ "by": KIM }).to_string()).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        assert_eq!(scenario.records_where(instructed(InstructionKind::Pause)).await.len(), 2);
        assert_eq!(scenario.records_where(instructed(InstructionKind::Resume)).await.len(), 1);
        scenario.audit_verify().await.ok();
        scenario.store_history("paused").await;
    });
}

#[test]
fn a_further_instruction_is_read_at_the_next_turn() {
    run(async {
        let scenario = Scenario::new("steered").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let said = scenario.mandate(&["steer", &scenario.name, "Tell her by phone.", "--by", BO, "--yes"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        scenario.reject(&request, BO).await;
        assert!(scenario.answer().await.contains("was rejected"));
        let [record] = &scenario.records_where(instructed(InstructionKind::Steer)).await[..] else {
            panic!("recorded once")
        };
        let RecordBody::Instructed { text: Some(_), refused: None, .. } = &record.body else { panic!("{record:?}") };
        let asked: Vec<Value> = scenario.history().await.inputs("invoke_model");
        let read: Vec<_> = asked.iter().filter(|input| input["instructions"].is_array()).collect();
        assert_eq!(read.len(), 1, "the model reads it once: {asked:?}");
        assert_eq!(read[0]["turn"], 3);
        scenario.audit_verify().await.ok();
    });
}

/// A service that holds no state of its own starts a run under an id that it makes of its case, and tells it something in
/// one step.
#[test]
fn a_run_that_is_started_with_a_signal_takes_it_in_first() {
    run(async {
        let scenario = Scenario::new("signal-with-start").await;
        let _worker = scenario.start_worker().await;
        let task =
            json!({ "agent": AGENT, "prompt": "Refund order o2", "on_behalf_of": "ana@acme.example" }).to_string();
        let pause = json!({ "by": KIM }).to_string();
        let start = ["workflow", "signal-with-start", "--signal-name", "pause", "--signal-input", &pause];
        let run = ["--type", "AgentWorkflow", "--task-queue", &scenario.name, "--workflow-id", &scenario.name];
        scenario.temporal(&[&start[..], &run, &["--input", &task]].concat()).await.ok();
        scenario.wait_state("Paused").await;
        assert!(scenario.refund_calls().await.is_empty() && scenario.read_calls().await.is_empty());
        scenario.signal("resume", &json!({ "by": KIM }).to_string()).await.ok();
        assert!(scenario.answer().await.contains("45.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

/// Starts runs that wait for approval, under workflow ids of their own.
async fn waiting(scenario: &Scenario, number: usize) -> Vec<String> {
    let ids: Vec<_> = (0..number).map(|index| format!("{}-{index}", scenario.name)).collect();
    for id in &ids {
        let task = json!({ "agent": AGENT, "prompt": "Refund order o1", "on_behalf_of": "ana@acme.example" });
        let start =
            ["workflow", "start", "--type", "AgentWorkflow", "--task-queue", &scenario.name, "--workflow-id", id];
        scenario.temporal(&[&start[..], &["--input", &task.to_string()]].concat()).await.ok();
    }
    until("all wait", async || {
        let waits = scenario.temporal(&["workflow", "count", "--query", &query(scenario)]).await.ok();
        waits.contains(&number.to_string()).then_some(())
    })
    .await;
    ids
}

fn query(scenario: &Scenario) -> String {
    in_state(scenario, "AwaitingApproval")
}

fn in_state(scenario: &Scenario, state: &str) -> String {
    format!("TaskQueue = '{}' AND MandateState = '{state}'", scenario.name)
}

/// Has the server send a signal to all runs in a state.
async fn tell_all(scenario: &Scenario, state: &str, signal: &str) {
    let input = json!({ "by": KIM, "comment": "drill" }).to_string();
    let query = in_state(scenario, state);
    let batch = ["workflow", "signal", "--query", &query, "--name", signal, "--reason", "drill", "--yes"];
    // The server carries out one batch of a namespace at a time.
    until("the batch begins", async || {
        let said = scenario.temporal(&[&batch[..], &["--input", &input]].concat()).await;
        (!said.stderr.contains("Max concurrent batch operations")).then(|| said.ok())
    })
    .await;
}

async fn status(scenario: &Scenario, id: &str) -> WorkflowExecutionStatus {
    let handle = scenario.server.client.get_workflow_handle::<UntypedWorkflow>(id);
    handle.describe(WorkflowDescribeOptions::default()).await.expect("the run").status()
}

#[test]
fn a_temporal_batch_halts_many_runs() {
    run(async {
        let scenario = Scenario::new("halt-batch").await;
        let _worker = scenario.start_worker().await;
        let ids = waiting(&scenario, 3).await;
        tell_all(&scenario, "AwaitingApproval", "halt").await;
        for id in &ids {
            until("the run has ended", async || {
                (status(&scenario, id).await == WorkflowExecutionStatus::Completed).then_some(())
            })
            .await;
        }
        let halted = scenario.records_where(|body| matches!(body, RecordBody::Halted { .. })).await;
        assert_eq!(halted.len(), 3, "each run has the record");
        assert!(scenario.refund_calls().await.is_empty());
    });
}

#[test]
fn a_temporal_batch_pauses_many_runs_and_another_lets_them_go_on() {
    run(async {
        let scenario = Scenario::new("pause-batch").await;
        scenario.raise_order("o1").await;
        let _worker = scenario.start_worker().await;
        let runs: Vec<_> = waiting(&scenario, 3).await.iter().map(|id| scenario.of_run(id)).collect();
        tell_all(&scenario, "AwaitingApproval", "pause").await;
        for run in &runs {
            run.wait_state("Paused").await;
            let request = run.first_request().await.expect("it waits");
            run.approve(&request, BO).await;
            until("the approval counts", async || run.pending().await.is_empty().then_some(())).await;
        }
        assert!(scenario.refund_calls().await.is_empty(), "nothing begins while they are paused");
        let all = in_state(&scenario, "Paused");
        until("all are found", async || (scenario.count(&all).await == 3).then_some(())).await;
        tell_all(&scenario, "Paused", "resume").await;
        for run in &runs {
            assert!(run.answer().await.contains("500.00 EUR"), "{}", run.name);
            run.audit_verify().await.ok();
        }
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (3, 3));
        for kind in [InstructionKind::Pause, InstructionKind::Resume] {
            let recorded = scenario.records_where(|body| instructed(kind)(body) && is_of_kim(body)).await;
            assert_eq!(recorded.len(), 3, "each run has the record: {recorded:#?}");
        }
    });
}

/// A run that has paid something before it waits, one that waits and has paid nothing, and one that nobody knows of
/// whether it paid.
async fn three_runs(world: &Scenario) -> (Process, [Scenario; 3]) {
    let runs = ["1-paid", "2-waits", "3-unknown"].map(|which| world.of_run(&format!("{}-{which}", world.name)));
    let [paid, waits, unknown] = &runs;
    let first = world.start_worker().await;
    paid.start("Refund order o1").await;
    waits.start("Refund order o5").await;
    for run in [paid, waits] {
        run.wait_state("AwaitingApproval").await;
    }
    first.stop().await;
    let worker = paid_without_an_answer(unknown).await;
    (worker, runs)
}

/// The report of a halt, by workflow id and without the run ids.
fn reported(stdout: &str) -> Value {
    let mut rows: Vec<Value> = serde_json::from_str(stdout).expect("a list");
    for row in &mut rows {
        let run_id = row.as_object_mut().expect("an object").remove("run_id");
        assert!(run_id.is_some_and(|run_id| run_id.is_string()), "{row}");
    }
    rows.sort_by_key(|row| row["workflow_id"].to_string());
    Value::Array(rows)
}

#[test]
fn halting_many_reports_what_was_stopped_what_had_happened_and_what_nobody_knows() {
    run(async {
        let scenario = Scenario::new("halt-query").await;
        registered_as(&scenario, PLAIN);
        let refund = r#"{ order_id = "o2", amount_cents = 4500, currency = "EUR" }"#;
        let first = format!(r#"calls = [{{ tool = "payments.refund", arguments = {refund} }}]"#);
        let o1 = "when = \"order o1\"\n";
        scenario.edit("scripts/refunds.toml", o1, &format!("{o1}\n[[conversation.reply]]\n{first}\n"));
        let (_worker, runs) = three_runs(&scenario).await;
        let open =
            format!("TaskQueue = '{}' AND MandateState IN ('AwaitingApproval', 'OutcomeUnknown')", scenario.name);
        until("all are found", async || (scenario.count(&open).await == 3).then_some(())).await;
        let refused = scenario.mandate(&["halt", "--query", &open, "--by", KIM]).await;
        assert_eq!(refused.code, 2, "there is no terminal to ask on: {refused:?}");
        assert_eq!(status(&scenario, &runs[0].name).await, WorkflowExecutionStatus::Running);

        let said = scenario.mandate(&["halt", "--query", &open, "--by", KIM, "--yes", "--output", "json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let row = |run: &Scenario, stopped: &[&str], performed: Value, unknown: &[&str]| {
            json!({
                "workflow_id": run.name, "outcome": "ended", "state": "Stopped", "reason": "halted",
                "detail": format!("halted by {KIM}"), "not_performed": stopped, "performed": performed,
                "unknown_outcomes": unknown,
            })
        };
        let had_happened = json!([{ "call": "t1.0", "tool": "payments.refund" }]);
        let expected = json!([
            row(&runs[0], &["t3.0"], had_happened, &[]),
            row(&runs[1], &["t2.0", "t2.1"], json!([]), &[]),
            row(&runs[2], &[], json!([]), &["t2.0"]),
        ]);
        assert_eq!(reported(&said.stdout), expected, "{said:?}");
        assert!(said.stderr.contains("3 of 3 run(s) ended"), "{said:?}");
        assert_eq!(scenario.payments().await.len(), 2, "only what had happened before");

        // Told again, which changes nothing, and for people.
        let names = runs.each_ref().map(|run| run.name.as_str());
        let shown = scenario.mandate(&[&["halt"][..], &names, &["--by", KIM]].concat()).await.ok();
        for row in [["t3.0", "t1.0 payments.refund", "-"], ["t2.0, t2.1", "-", "-"], ["-", "-", "t2.0"]] {
            let columns = |line: &str| {
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().ends_with(&row)
            };
            assert!(shown.lines().map(str::trim_end).any(columns), "{row:?}:\n{shown}");
        }
        let halted = scenario.records_where(|body| matches!(body, RecordBody::Halted { .. })).await;
        assert_eq!(halted.len(), 3, "each run has the record: {halted:#?}");
        for run in &runs {
            run.audit_verify().await.ok();
        }
    });
}
