//! Calls that policy, people or time refuse: ordinary results that the model reads.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run};

#[test]
fn an_amount_above_the_ceiling_is_refused_whoever_would_approve() {
    run(async {
        let scenario = Scenario::new("forbidden-amount").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o3").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("policy forbids"), "{answer}");
        assert!(scenario.payments().await.is_empty() && scenario.refund_calls().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_rejected_call_is_not_performed_and_the_model_reads_why() {
    run(async {
        let scenario = Scenario::new("rejected").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        scenario.reject(&request, "bo@acme.example").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("rejected by a finance lead"), "{answer}");
        assert!(scenario.refund_calls().await.is_empty());
        scenario.store_history("rejected").await;
        scenario.audit_verify().await.ok();
    });
}

/// A rejection is as durable as the policy that asked: whoever takes it in later does not perform the call either.
#[test]
fn a_call_rejected_while_no_worker_was_up_is_not_performed_by_the_next() {
    run(async {
        let scenario = Scenario::new("rejected-meanwhile").await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        worker.kill().await;
        scenario.reject(&request, "bo@acme.example").await;
        scenario.approve(&request, "eve@acme.example").await;
        let _worker = scenario.start_worker().await;
        assert!(scenario.answer().await.contains("rejected by a finance lead"));
        assert!(scenario.refund_calls().await.is_empty());
        let counted = |body: &RecordBody| matches!(body, RecordBody::ApprovalDecided { refused: None, .. });
        assert_eq!(scenario.records_where(counted).await.len(), 1, "the first decision counts, and no other");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_request_nobody_decides_expires_and_a_late_decision_does_nothing() {
    run(async {
        let scenario = Scenario::new("expired").await;
        scenario.edit("policies/refunds.cedar", r#"@expires("PT24H")"#, r#"@expires("PT3S")"#);
        // The run is kept open after the expiry, so that a late decision meets a living run: o5 waits twice.
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let answer = scenario.answer().await;
        assert!(answer.contains("Nobody decided"), "{answer}");
        let late = scenario.signal("approve", &format!(r#"{{"request_id":"{request}","by":"bo@acme.example"}}"#)).await;
        assert_ne!(late.code, 0, "a closed run takes no signals: {late:?}");
        assert!(scenario.refund_calls().await.is_empty());
        let expired = scenario.records_where(|body| matches!(body, RecordBody::ApprovalExpired { .. })).await;
        assert_eq!(expired.len(), 1);
        scenario.store_history("expired").await;
        scenario.audit_verify().await.ok();
    });
}
