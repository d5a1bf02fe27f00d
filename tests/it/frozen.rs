//! Two attempts at once: a worker is frozen while the tool holds its call, another one takes the next attempt, then the
//! tool answers and the first worker is thawed. Whatever the tool's kind, the effect is not doubled.

use std::fs;

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use nix::sys::signal::Signal;

/// How long the tool holds the call, less than `settles_within_secs` below.
const HELD_MS: &str = "14000";

/// Sets the kind of `payments.refund` in the registry.
fn registered_as(scenario: &Scenario, lines: &str) {
    let file = "tools/payments.refund.toml";
    let text = fs::read_to_string(scenario.path(file)).unwrap();
    let kept = text.lines().filter(|line| {
        !["read_only", "destructive", "idempotent", "check", "settles_within_secs"]
            .iter()
            .any(|key| line.starts_with(key))
    });
    let text: Vec<&str> = kept.collect();
    let (head, tail) = text.split_at(text.iter().position(|line| line.starts_with("owner")).unwrap());
    scenario.write(file, &format!("{}\n{lines}\n{}\n", head.join("\n"), tail.join("\n")));
}

/// Lets the tool's answer meet a frozen worker. Returns when the first worker is thawed.
async fn two_attempts(scenario: &Scenario) {
    scenario.server_command(&["--delay-before-ms", HELD_MS]);
    let first = scenario.start_worker().await;
    scenario.start_run("Refund order o2").await;
    until("the tool holds the call", async || (!scenario.refund_calls().await.is_empty()).then_some(())).await;
    first.signal(Signal::SIGSTOP);
    let second = scenario.start_worker().await;
    until("a second attempt", async || {
        let raw = scenario.describe().await.into_raw();
        raw.pending_activities.iter().any(|activity| activity.attempt >= 2).then_some(())
    })
    .await;
    until("the tool answers the first attempt", async || (!scenario.payments().await.is_empty()).then_some(())).await;
    first.signal(Signal::SIGCONT);
    // Both live on until the run ended.
    scenario.keep(first);
    scenario.keep(second);
}

async fn completes_once(scenario: &Scenario) {
    let answer = scenario.answer().await;
    assert!(answer.contains("45.00 EUR for order o2"), "{answer}");
    paid_once(scenario).await;
}

async fn paid_once(scenario: &Scenario) {
    let payments = scenario.payments().await;
    assert_eq!(payments.len(), 1, "{payments:?}");
    let verified = scenario.audit_verify().await;
    assert!(verified.code == 0 && !verified.stdout.contains("doubled"), "{verified:?}");
}

#[test]
fn a_read_only_tool_is_called_again() {
    run(async {
        let scenario = Scenario::new("frozen-read-only").await;
        registered_as(&scenario, "read_only = true");
        two_attempts(&scenario).await;
        completes_once(&scenario).await;
    });
}

#[test]
fn an_idempotent_tool_is_called_again_with_the_same_key() {
    run(async {
        let scenario = Scenario::new("frozen-idempotent").await;
        registered_as(&scenario, "read_only = false\nidempotent = true");
        two_attempts(&scenario).await;
        completes_once(&scenario).await;
        let keys: Vec<_> = scenario.refund_calls().await.into_iter().map(|call| call.key).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    });
}

#[test]
fn a_checkable_tool_is_asked_and_not_called_again() {
    run(async {
        let scenario = Scenario::new("frozen-checkable").await;
        let lines =
            "read_only = false\nidempotent = false\ncheck = \"payments.refund_status\"\nsettles_within_secs = 30";
        registered_as(&scenario, lines);
        two_attempts(&scenario).await;
        completes_once(&scenario).await;
        assert_eq!(refunds(&scenario).await, 1, "the refund is sent once");
    });
}

#[test]
fn a_plain_tool_is_never_called_again_and_a_person_settles_it() {
    run(async {
        let scenario = Scenario::new("frozen-plain").await;
        registered_as(&scenario, "read_only = false\nidempotent = false");
        two_attempts(&scenario).await;
        // The thawed worker's outcome may come in before or after the call was parked: both are right.
        let parked = until("the run is parked or done", async || {
            let state = scenario.attribute("MandateState").await?;
            ["OutcomeUnknown", "Completed"].contains(&state.as_str()?).then_some(state == "OutcomeUnknown")
        })
        .await;
        if parked {
            scenario.signal("resolve", r#"{"call":"t2.0","resolution":"happened","by":"bo@acme.example"}"#).await.ok();
        }
        assert!(scenario.answer().await.contains("o2"));
        paid_once(&scenario).await;
        assert_eq!(refunds(&scenario).await, 1, "the refund is sent once");
        let unknown = scenario.records_where(|body| matches!(body, RecordBody::OutcomeUnknown { .. })).await;
        assert_eq!(unknown.len(), usize::from(parked));
    });
}

async fn refunds(scenario: &Scenario) -> usize {
    scenario.refund_calls().await.iter().filter(|call| call.tool == "refund_payment").count()
}
