//! What the path decides about one call, and what the model reads of it.

use mandate_domain::{DecisionOutcome, RecordBody, RefusalKind, ToolCallOutcome};

use super::{
    run::{BO, READ, Run, counted, refund},
    world::{Folder, on_both_engines},
};

/// A world whose model proposes this one call; the run after its first turn.
async fn refused(call: &str, kind: RefusalKind, words: &[&str]) {
    let world = Folder::proposing(&[call]).world().await;
    let mut run = Run::proposed(&world).await;
    let (got, text) = run.refused("t1.0").await;
    assert_eq!(got, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    assert_eq!((run.paid().await, run.intents().await, world.requests_received().await), (vec![], 0, 0));
    let records = run.records().await;
    assert_eq!(run.refused("t1.0").await, (kind, text));
    assert_eq!(run.records().await, records);
    assert!(run.turn().await.calls.is_empty());
}

async fn reading_is_free_and_an_error_of_the_tool_is_a_result() {
    let nowhere = r#"{ tool = "orders.read", arguments = { order_id = "o99" } }"#;
    let clock = r#"{ tool = "clock" }"#;
    let world = Folder::proposing(&[READ, nowhere, clock]).world().await;
    let mut run = Run::proposed(&world).await;
    assert!(run.returned("t1.0").await.contains(r#""currency":"EUR""#));
    let ToolCallOutcome::Returned { result, is_error: true } = run.call("t1.1").await else { panic!("no error") };
    assert!(result.shown().contains("o99"), "{result:?}");
    assert!(run.returned("t1.2").await.contains('T'));
    let allowed = |body: &RecordBody| matches!(body, RecordBody::Decision { outcome: DecisionOutcome::Allow, .. });
    assert_eq!((run.count(allowed).await, run.intents().await), (4, 3));
    run.turn().await;
}

async fn a_refund_up_to_the_limit_is_paid_and_one_cent_more_asks() {
    let world = Folder::proposing(&[&refund(10_000), &refund(10_001)]).world().await;
    let mut run = Run::proposed(&world).await;
    assert!(run.returned("t1.0").await.contains("refunded"));
    let asked = run.asked("t1.1").await;
    assert_eq!((asked.len(), asked[0].gate.id.as_str()), (1, "refund.large"));
    assert_eq!((run.paid().await, run.intents().await), (vec![10_000], 1));
}

async fn a_forbidden_refund_is_denied_and_asks_nobody() {
    let words = ["policy denies", "no agent refunds more than 5,000 EUR"];
    refused(&refund(500_001), RefusalKind::Denied, &words).await;
}

async fn what_no_policy_permits_is_denied() {
    let usd = refund(100).replace("EUR", "USD");
    refused(&usd, RefusalKind::Denied, &["policy denies"]).await;
}

async fn a_tool_that_is_not_offered_is_refused_with_those_that_are() {
    let status = r#"{ tool = "payments.refund_status", arguments = { idempotency_key = "x" } }"#;
    refused(status, RefusalKind::ToolNotOffered, &["payments.refund_status", "orders.read, customers.read"]).await;
    refused(r#"{ tool = "rm -rf" }"#, RefusalKind::ToolNotOffered, &["rm -rf"]).await;
}

async fn arguments_that_do_not_fit_are_named_to_the_model() {
    let unknown = r#"{ tool = "orders.read", arguments = { order = "o1" } }"#;
    refused(unknown, RefusalKind::InvalidArguments, &["order_id", "call again"]).await;
    refused(&refund(0), RefusalKind::InvalidArguments, &["amount_cents"]).await;
    let text = refund(1).replace("cents = 1", "cents = 'one'");
    refused(&text, RefusalKind::InvalidArguments, &["amount_cents"]).await;
}

async fn arguments_that_are_no_json_are_refused() {
    let world = Folder::replying(&["tool = 'orders.read'\nmalformed = '{\"order_id\": '", "text = 'Sorry.'"]);
    let world = world.world().await;
    let mut run = Run::proposed(&world).await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(kind == RefusalKind::InvalidArguments && text.contains("not a JSON object"), "{text}");
    run.turn().await;
    assert_eq!(run.intents().await, 0);
}

async fn a_call_that_no_policy_can_judge_is_denied_and_recorded() {
    let world = Folder::proposing(&[&refund(4_500)]).world().await;
    let mut run = Run::proposed(&world).await;
    // Somebody applies policies that were checked against another definition of the tool.
    world.edit("tools/payments.refund.toml", "Refund a part or all", "Refund some or all");
    world.worker().await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(kind == RefusalKind::Denied && text.contains("was described differently"), "{kind:?} {text}");
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
    let denied = |body: &RecordBody| matches!(body, RecordBody::Decision { outcome: DecisionOutcome::Deny, .. });
    assert_eq!(run.count(denied).await, 1);
}

async fn an_outcome_stands_although_policy_would_forbid_the_call_now() {
    let world = Folder::proposing(&[&refund(4_500)]).world().await;
    let mut run = Run::proposed(&world).await;
    let paid = run.returned("t1.0").await;
    world.policy("stop", STOP);
    run.next_worker().await;
    assert_eq!(run.returned("t1.0").await, paid);
    assert_eq!((run.paid().await, run.intents().await), (vec![4_500], 1));
}

async fn an_approved_call_is_denied_when_policy_was_tightened_meanwhile() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    world.policy("stop", STOP);
    run.next_worker().await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(kind == RefusalKind::Denied && text.contains("refunds are stopped"), "{text}");
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
    run.turn().await;
}

async fn a_tool_that_changed_since_the_run_began_is_refused() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    world.edit("tools/payments.refund.toml", "timeout_secs = 30", "timeout_secs = 31");
    run.next_worker().await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(kind == RefusalKind::ToolChanged && text.contains("payments.refund"), "{text}");
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}

const STOP: &str = r#"@id("refund.stop") @reason("refunds are stopped")
    forbid (principal, action == Mandate::Action::"payments.refund", resource);"#;

on_both_engines! {
    reading_is_free_and_an_error_of_the_tool_is_a_result
    a_refund_up_to_the_limit_is_paid_and_one_cent_more_asks
    a_forbidden_refund_is_denied_and_asks_nobody
    what_no_policy_permits_is_denied
    a_tool_that_is_not_offered_is_refused_with_those_that_are
    arguments_that_do_not_fit_are_named_to_the_model
    arguments_that_are_no_json_are_refused
    a_call_that_no_policy_can_judge_is_denied_and_recorded
    an_outcome_stands_although_policy_would_forbid_the_call_now
    an_approved_call_is_denied_when_policy_was_tightened_meanwhile
    a_tool_that_changed_since_the_run_began_is_refused
}
