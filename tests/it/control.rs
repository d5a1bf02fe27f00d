//! People steer, pause, resume and halt runs: one, or many at once by a Temporal batch.

use mandate_domain::{audit::RecordBody, proof::InstructionKind};
use mandate_tests::{AGENT, Scenario, run, until};
use serde_json::{Value, json};
use temporalio_client::{UntypedWorkflow, WorkflowDescribeOptions, WorkflowExecutionStatus};

const BO: &str = "bo@acme.example";
const KIM: &str = "kim@acme.example";
const MALLORY: &str = "mallory@acme.example";

fn instructed(kind: InstructionKind) -> impl Fn(&RecordBody) -> bool {
    move |body| matches!(body, RecordBody::Instructed { instruction, .. } if *instruction == kind)
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
    format!("TaskQueue = '{}' AND MandateState = 'AwaitingApproval'", scenario.name)
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
        let batch =
            ["workflow", "signal", "--query", &query(&scenario), "--name", "halt", "--reason", "drill", "--yes"];
        let input = json!({ "by": KIM, "comment": "drill" }).to_string();
        scenario.temporal(&[&batch[..], &["--input", &input]].concat()).await.ok();
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
fn halting_many_reports_what_was_stopped_and_what_had_happened() {
    run(async {
        let scenario = Scenario::new("halt-query").await;
        // Each run has paid something before it waits.
        scenario.edit(
            "scripts/refunds.toml",
            "when = \"order o1\"\n",
            "when = \"order o1\"\n\n[[conversation.reply]]\ncalls = [{ tool = \"payments.refund\", arguments = { order_id = \"o2\", amount_cents = 4500, currency = \"EUR\" } }]\n",
        );
        let _worker = scenario.start_worker().await;
        let ids = waiting(&scenario, 2).await;
        let refused = scenario.mandate(&["halt", "--query", &query(&scenario), "--by", KIM]).await;
        assert_eq!(refused.code, 2, "there is no terminal to ask on: {refused:?}");
        assert_eq!(status(&scenario, &ids[0]).await, WorkflowExecutionStatus::Running);
        let halt = ["halt", "--query", &query(&scenario), "--by", KIM, "--yes", "--output", "json"];
        let said = scenario.mandate(&halt).await;
        assert_eq!(said.code, 0, "{said:?}");
        let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
        let rows = report.as_array().or_else(|| report["runs"].as_array()).expect("a list");
        assert_eq!(rows.len(), 2, "{report}");
        let text = report.to_string();
        for id in &ids {
            assert!(text.contains(id.as_str()), "{report}");
        }
        assert!(text.contains("payments.refund"), "what had happened already is named: {report}");
        assert_eq!(scenario.payments().await.len(), 2, "only what had happened before");
    });
}
