//! What Temporal's lists can be asked by: a worker registers the search attributes, and each run sets its own.

use mandate_tests::{AGENT, Scenario, run, until};
use serde_json::{Value, json};

/// Names and types, as the CLI prints them.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("MandateAgent", "KEYWORD"),
    ("MandateApprovers", "KEYWORD_LIST"),
    ("MandateCostMicros", "INT"),
    ("MandateFailure", "KEYWORD"),
    ("MandateState", "KEYWORD"),
    ("MandateTenant", "KEYWORD"),
];

#[test]
fn a_worker_registers_the_attributes_of_a_fresh_namespace() {
    run(async {
        let namespace = "attributes-fresh";
        let scenario = Scenario::new(namespace).await;
        scenario.temporal(&["operator", "namespace", "create", "--namespace", namespace]).await.ok();
        let list = ["operator", "search-attribute", "list", "--namespace", namespace, "-o", "json"];
        let registered = async || {
            let said = scenario.temporal(&list).await;
            let listed: Value = serde_json::from_str(&said.stdout).ok()?;
            let ours = listed.get("customAttributes").and_then(Value::as_object).cloned().unwrap_or_default();
            let mut ours: Vec<_> = ours.into_iter().filter(|(name, _)| name.starts_with("Mandate")).collect();
            ours.sort_by(|one, other| one.0.cmp(&other.0));
            Some(ours)
        };
        let before = until("the namespace answers", &registered).await;
        assert_eq!(before, [], "nobody registered them before");
        let worker = until("a worker starts", async || {
            let mut worker = scenario.worker_process(&[("TEMPORAL_NAMESPACE", namespace)]).await;
            let polls = async || (worker.ended().is_some() || worker.log().contains("worker ready")).then_some(());
            until("the worker polls or ends", polls).await;
            // The server's other parts see a new namespace some seconds later.
            worker.ended().is_none().then_some(worker)
        })
        .await;
        assert!(!worker.log().contains("An administrator has to run"), "{}", worker.log());
        let expected = ATTRIBUTES.map(|(name, kind)| (name.to_owned(), format!("INDEXED_VALUE_TYPE_{kind}").into()));
        assert_eq!(registered().await.unwrap(), expected);

        let task = json!({ "agent": AGENT, "prompt": "Refund order o2", "on_behalf_of": "ana@acme.example" });
        let run = [
            "workflow",
            "execute",
            "--type",
            "AgentWorkflow",
            "--task-queue",
            namespace,
            "--namespace",
            namespace,
            "--workflow-id",
            namespace,
            "--input",
            &task.to_string(),
        ];
        assert!(scenario.temporal(&run).await.ok().contains("45.00 EUR"));
        assert_eq!(worker.stop().await, 0);
    });
}

#[test]
fn a_completed_run_carries_agent_tenant_state_and_cost() {
    run(async {
        let scenario = Scenario::new("attributes-completed").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let result = scenario.result().await;
        let expected = [
            ("MandateAgent", Some(AGENT.into())),
            ("MandateTenant", Some("acme".into())),
            ("MandateState", Some("Completed".into())),
            ("MandateCostMicros", Some(result["usage"]["cost_micros"].as_i64().unwrap_or(0).into())),
            ("MandateFailure", None),
        ];
        check(&scenario, expected).await;
    });
}

#[test]
fn a_halted_run_carries_the_reason_and_is_found_by_it() {
    run(async {
        let scenario = Scenario::new("attributes-halted").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        scenario.signal("halt", r#"{"by":"op@acme.example"}"#).await.ok();
        scenario.wait_closed().await;
        check(&scenario, [("MandateState", Some("Stopped".into())), ("MandateFailure", Some("halted".into()))]).await;
        let query = r#"MandateFailure="halted" AND MandateTenant="acme" AND WorkflowId="attributes-halted""#;
        until("the list query finds the run", async || {
            let listed = scenario.temporal(&["workflow", "list", "--query", query]).await.ok();
            listed.contains("attributes-halted").then_some(())
        })
        .await;
    });
}

async fn check(scenario: &Scenario, expected: impl IntoIterator<Item = (&str, Option<Value>)>) {
    for (name, expected) in expected {
        assert_eq!(scenario.attribute(name).await, expected, "{name}");
    }
}
