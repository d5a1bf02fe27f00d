//! What is wrong with a request ends it with one clear message; nothing retries for ever.

use std::fs;

use mandate_domain::audit::RecordBody;
use mandate_tests::{AGENT, Scenario, run, until};
use serde_json::json;
use temporalio_client::WorkflowExecutionStatus;

/// Starts a run with an input and gives back the failure's text.
async fn failure_of(name: &str, input: &str) -> String {
    let scenario = Scenario::new(name).await;
    let _worker = scenario.start_worker().await;
    scenario.start_input(input).await;
    assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Failed);
    if name == "unknown-agent" {
        scenario.store_history("failed-start").await;
    }
    let said = scenario.temporal(&["workflow", "show", "--workflow-id", &scenario.name, "-o", "json"]).await;
    said.ok()
}

#[test]
fn malformed_start_input_fails_the_run_at_once() {
    run(async {
        for (name, input, expected) in [
            ("input-text", r#""refund it""#, "the start input is no task"),
            ("input-unknown-field", r#"{"agent":"a/b/c","prompt":"x","on_behalf_of":"ana","prio":1}"#, "prio"),
        ] {
            let failure = failure_of(name, input).await;
            assert!(failure.contains(expected) && failure.contains("invalid_input"), "{failure}");
        }
    });
}

#[test]
fn one_input_is_wanted_and_neither_none_nor_two() {
    run(async {
        let task = json!({ "agent": AGENT, "prompt": "Refund order o2", "on_behalf_of": "ana@acme.example" });
        let task = task.to_string();
        for (name, inputs) in [("input-missing", vec![]), ("input-twice", vec!["--input", &task, "--input", &task])] {
            let scenario = Scenario::new(name).await;
            let _worker = scenario.start_worker().await;
            let start = ["workflow", "start", "--type", "AgentWorkflow", "--task-queue", name, "--workflow-id", name];
            scenario.temporal(&[&start[..], &inputs].concat()).await.ok();
            assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Failed, "{name}");
            let said = scenario.temporal(&["workflow", "show", "--workflow-id", name, "-o", "json"]).await.ok();
            assert!(said.contains("the start input is no task") && said.contains("invalid_input"), "{said}");
            assert!(scenario.refund_calls().await.is_empty());
        }
    });
}

#[test]
fn an_unknown_agent_fails_the_run_and_is_named() {
    run(async {
        let input = json!({ "agent": "acme/support/nobody", "prompt": "x", "on_behalf_of": "ana@acme.example" });
        let failure = failure_of("unknown-agent", &input.to_string()).await;
        assert!(failure.contains("acme/support/nobody") && failure.contains("refused_start"), "{failure}");
    });
}

#[test]
fn a_tool_the_agent_was_not_given_is_an_error_result() {
    run(async {
        let scenario = Scenario::new("not-offered").await;
        scenario.write(
            "scripts/refunds.toml",
            r#"
            [[conversation]]
            [[conversation.reply]]
            calls = [{ tool = "payments.refund_status", arguments = { idempotency_key = "k" } }]
            [[conversation.reply]]
            tool = "orders.read"
            malformed = "{ order_id: o1"
            [[conversation.reply]]
            text = "I have no such tool."
            "#,
        );
        let _worker = scenario.start_worker().await;
        scenario.start_run("What became of k?").await;
        assert!(scenario.answer().await.contains("no such tool"));
        assert!(scenario.refund_calls().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_policy_with_a_typo_is_reported_with_its_place() {
    run(async {
        let scenario = Scenario::new("policy-typo").await;
        scenario.edit("policies/refunds.cedar", "input.amount_cents > 10000", "input.ammount_cents > 10000");
        let checked = scenario.mandate(&["check"]).await;
        assert_eq!(checked.code, 4, "{checked:?}");
        let text = format!("{}{}", checked.stdout, checked.stderr);
        assert!(text.contains("refunds.cedar") && text.contains("ammount_cents"), "{text}");
        let mut worker = scenario.worker_process(&[]).await;
        assert_eq!(worker.wait().await, 4, "{}", worker.log());
    });
}

#[test]
fn an_unreachable_server_is_named_and_the_worker_ends() {
    run(async {
        let scenario = Scenario::new("unreachable").await;
        let mut worker = scenario.worker_process(&[("TEMPORAL_ADDRESS", "127.0.0.1:1")]).await;
        assert_eq!(worker.wait().await, 1, "{}", worker.log());
        assert!(worker.log().contains("127.0.0.1:1"), "{}", worker.log());
    });
}

#[test]
fn an_unreadable_store_is_named_and_the_worker_ends() {
    run(async {
        let scenario = Scenario::new("unreadable-store").await;
        scenario.write("var/mandate.db", "this is no database, and long enough to be looked at as one");
        let mut worker = scenario.worker_process(&[]).await;
        assert_eq!(worker.wait().await, 1, "{}", worker.log());
        assert!(worker.log().contains("mandate.db"), "{}", worker.log());
    });
}

#[test]
fn a_worker_with_another_store_refuses_the_run_and_names_both() {
    run(async {
        let scenario = Scenario::new("other-store").await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        worker.stop().await;
        let pinned = store_of(&scenario).await;
        for file in ["var/mandate.db", "var/mandate.db-wal", "var/mandate.db-shm"] {
            let _ = fs::rename(scenario.path(file), scenario.path(&format!("{file}.kept")));
        }
        let _other = scenario.start_worker().await;
        scenario.approve(&request, "bo@acme.example").await;
        let refused = until("the history names the refused store", async || {
            let said = scenario.temporal(&["workflow", "show", "--workflow-id", &scenario.name, "-o", "json"]).await;
            said.stdout.contains("pinned to store `").then_some(said.stdout)
        })
        .await;
        let ids: Vec<&str> = refused.split("store `").skip(1).filter_map(|part| part.split('`').next()).collect();
        let [first, second, ..] = &ids[..] else { panic!("{refused}") };
        assert!(*first == pinned && *second != pinned, "{pinned}: {refused}");
        assert!(scenario.refund_calls().await.is_empty());
    });
}

/// The store that the run is pinned to.
async fn store_of(scenario: &Scenario) -> String {
    let records = scenario.records().await;
    let opened = records.into_iter().find_map(|record| match record.body {
        RecordBody::RunOpened { store, .. } => Some(store.to_string()),
        _ => None,
    });
    opened.unwrap()
}

#[test]
fn a_prompt_above_the_bound_is_refused_with_its_size() {
    run(async {
        let input = json!({ "agent": AGENT, "prompt": "x".repeat(9000), "on_behalf_of": "ana@acme.example" });
        let failure = failure_of("long-prompt", &input.to_string()).await;
        assert!(failure.contains("9000 bytes"), "{failure}");
    });
}
