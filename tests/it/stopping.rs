//! A run that is stopped while a tool runs, and an attempt that is taken away: the server is told, nobody waits for what
//! does not come, and what became of the call is never guessed.

use std::fs;

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, program, run, until};
use temporalio_client::WorkflowExecutionStatus;

use crate::frozen::registered_as;

/// Not checkable, not idempotent, and with far more time than a test has.
const PLAIN: &str = "read_only = false\nidempotent = false\ntimeout_secs = 60";

/// A worker whose tool holds a refund before the payment, and a run that waits for it.
async fn holding(scenario: &Scenario, hold_ms: &str) -> mandate_tests::Process {
    let (rogue, refunds) = (program("rogue-mcp"), program("refunds-mcp"));
    let rogue = [rogue.to_str().unwrap(), "--seen", "var/seen", "behave", "refund_payment"];
    let refunds = [refunds.to_str().unwrap(), "--database", "var/payments.db", "--delay-before-ms", hold_ms];
    scenario.set_server(&[&rogue[..], &refunds[..]].concat());
    let worker = scenario.start_worker().await;
    scenario.start_run("Refund order o2").await;
    until("the tool holds the call", async || (!scenario.refund_calls().await.is_empty()).then_some(())).await;
    worker
}

async fn server_was_told(scenario: &Scenario) {
    until("the server is told", async || {
        let seen = fs::read_to_string(scenario.path("var/seen")).unwrap_or_default();
        seen.contains("notifications/cancelled").then_some(())
    })
    .await;
}

/// Sent once, nothing paid, no outcome, and one record that says so.
async fn nobody_knows(scenario: &Scenario, words: &str) {
    let unknown = scenario.records_where(|body| matches!(body, RecordBody::OutcomeUnknown { .. })).await;
    let [RecordBody::OutcomeUnknown { effect, reason }] =
        &unknown.iter().map(|record| record.body.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{unknown:#?}")
    };
    assert!(effect.to_string() == "t2.0" && reason.contains(words), "{effect}: {reason}");
    assert_eq!((scenario.refund_calls().await.len(), scenario.payments().await.len()), (1, 0));
    let verified = scenario.audit_verify().await;
    assert!(verified.stdout.contains("nobody knows whether `t2.0` happened"), "{verified:?}");
}

#[test]
fn a_cancelled_run_cancels_its_running_call_at_the_server() {
    run(async {
        let scenario = Scenario::new("stopping-cancelled").await;
        registered_as(&scenario, PLAIN);
        let _worker = holding(&scenario, "600000").await;
        scenario.temporal(&["workflow", "cancel", "--workflow-id", &scenario.name]).await.ok();
        assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Canceled);
        server_was_told(&scenario).await;
        nobody_knows(&scenario, "it was to stop, and did not answer within 10 s more").await;
    });
}

#[test]
fn a_halted_run_cancels_its_running_call_at_the_server() {
    run(async {
        let scenario = Scenario::new("stopping-halted").await;
        let _worker = holding(&scenario, "600000").await;
        scenario.signal("halt", r#"{"by":"op@acme.example"}"#).await.ok();
        let result = scenario.result().await;
        assert_eq!((&result["state"], &result["reason"]), (&"Stopped".into(), &"halted".into()), "{result}");
        server_was_told(&scenario).await;
        nobody_knows(&scenario, "its activity was lost before it was answered").await;
    });
}

#[test]
fn a_call_that_is_answered_soon_after_the_stop_has_its_outcome() {
    run(async {
        let scenario = Scenario::new("stopping-answered").await;
        let _worker = holding(&scenario, "3000").await;
        scenario.temporal(&["workflow", "cancel", "--workflow-id", &scenario.name]).await.ok();
        assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Canceled);
        let outcomes = scenario.records_where(
            |body| matches!(body, RecordBody::Outcome { effect, is_error: false, .. } if effect.to_string() == "t2.0"),
        );
        assert_eq!(outcomes.await.len(), 1);
        assert_eq!((scenario.refund_calls().await.len(), scenario.payments().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn an_attempt_that_is_reset_cancels_its_call_which_is_not_made_again() {
    run(async {
        let scenario = Scenario::new("stopping-reset").await;
        registered_as(&scenario, PLAIN);
        let _worker = holding(&scenario, "600000").await;
        let raw = scenario.describe().await.into_raw();
        let activity = &raw.pending_activities[0].activity_id;
        let reset = ["activity", "reset", "--workflow-id", &scenario.name, "--activity-id", activity];
        scenario.temporal(&reset).await.ok();
        scenario.wait_state("OutcomeUnknown").await;
        server_was_told(&scenario).await;
        nobody_knows(&scenario, "it was to stop").await;
        let word = r#"{"call":"t2.0","resolution":"did_not_happen","by":"bo@acme.example"}"#;
        scenario.signal("resolve", word).await.ok();
        let answer = scenario.answer().await;
        assert!(answer.contains("was not made"), "{answer}");
        assert_eq!(scenario.refund_calls().await.len(), 1);
    });
}

#[test]
fn a_tool_that_takes_longer_than_a_worker_may_be_silent_is_one_attempt() {
    run(async {
        let scenario = Scenario::new("slow-tool").await;
        scenario.server_command(&["--delay-ms", "7000", "--forget-keys"]);
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert_eq!((scenario.refund_calls().await.len(), scenario.payments().await.len()), (1, 1));
        let attempts: Vec<_> = scenario.history().await.0.iter().filter_map(|event| event.attempt).collect();
        assert!(attempts.iter().all(|attempt| *attempt == 1), "{attempts:?}");
        scenario.audit_verify().await.ok();
    });
}
