//! A run goes on in a new execution between turns. That it does so while it waits for people: `junk.rs`.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run};

const TURNS: &str = r#"
[[conversation]]
[[conversation.reply]]
repeat = 7
calls = [{ tool = "orders.read", arguments = { order_id = "o2" } }]
[[conversation.reply]]
calls = [{ tool = "payments.refund", arguments = { order_id = "o1", amount_cents = 50000, currency = "EUR" } }]
[[conversation.reply]]
text = "I refunded 500.00 EUR for order o1."
"#;

#[test]
fn a_run_continues_as_new_between_turns_and_keeps_its_state() {
    run(async {
        let scenario = Scenario::new("continued").await;
        scenario.write("scripts/refunds.toml", TURNS);
        scenario.edit("mandate.toml", "turns_max = 20", "turns_max = 20\nturns_per_execution_max = 3");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Look seven times, then refund order o1").await;
        let first = scenario.describe().await.run_id().to_owned();
        let request = scenario.pending_id().await;
        let status = scenario.status().await;
        assert_eq!((status.turn, status.tool_calls), (8, 8));
        assert_ne!(scenario.describe().await.run_id(), first, "another execution goes on");
        scenario.approve(&request, "bo@acme.example").await;
        let result = scenario.result().await;
        assert_eq!((&result["state"], &result["turns"]), (&"Completed".into(), &9.into()), "{result}");
        let records = scenario.records().await.into_iter().filter(|record| record.run.workflow_id == scenario.name);
        assert_eq!(result["audit"]["records"], records.count(), "one chain over all executions");
        assert_eq!(scenario.payments().await.len(), 1);
        let reset = scenario.records_where(|body| matches!(body, RecordBody::RunReset { .. })).await;
        assert!(reset.is_empty(), "to continue is no reset: {reset:?}");
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("confirmed by Temporal's history"), "{verified}");
        scenario.store_execution(&first, "continues").await;
        scenario.store_history("continued").await;
        // Turns 1-3, 4-6, 7-9: the last execution holds three.
        assert_eq!(scenario.history().await.activities("invoke_model"), 3);
    });
}
