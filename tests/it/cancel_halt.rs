//! Runs that are stopped: both still close, with their record.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use temporalio_client::WorkflowExecutionStatus;

#[test]
fn a_cancelled_run_closes_its_audit_chain() {
    run(async {
        let scenario = Scenario::new("cancelled").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        scenario.temporal(&["workflow", "cancel", "--workflow-id", &scenario.name]).await.ok();
        assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Canceled);
        assert_eq!(scenario.attribute("MandateState").await.unwrap(), "Cancelled");
        scenario.store_history("cancelled").await;
        ended_without_effect(&scenario).await;
    });
}

#[test]
fn a_halted_run_stops_and_names_who_halted_it() {
    run(async {
        let scenario = Scenario::new("halted").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.pending_id().await;
        scenario.signal("halt", r#"{"by":"op@acme.example","comment":"wrong customer"}"#).await.ok();
        let result = scenario.result().await;
        assert_eq!((&result["state"], &result["reason"]), (&"Stopped".into(), &"halted".into()), "{result}");
        let halted = scenario.records_where(|body| matches!(body, RecordBody::Halted { .. })).await;
        assert!(
            matches!(&halted[..], [record] if matches!(&record.body, RecordBody::Halted { by, .. } if by.as_str() == "op@acme.example")),
            "{halted:?}"
        );
        scenario.store_history("halted").await;
        ended_without_effect(&scenario).await;
    });
}

async fn ended_without_effect(scenario: &Scenario) {
    assert!(scenario.refund_calls().await.is_empty());
    let closed = until("the chain is closed", async || {
        let records = scenario.records_where(|body| matches!(body, RecordBody::RunClosed { .. })).await;
        (!records.is_empty()).then_some(records.len())
    })
    .await;
    assert_eq!(closed, 1);
    scenario.audit_verify().await.ok();
}
