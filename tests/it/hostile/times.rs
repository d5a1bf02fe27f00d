//! Attacks by time: decisions that come too late, and approvals that are kept for later.

use std::time::{SystemTime, UNIX_EPOCH};

use mandate_domain::audit::RecordBody;
use mandate_tests::Scenario;
use serde_json::json;

use super::{
    ground::{
        BO, Held, LARGE, asked_once, calls, model_says, never, recorded, refund, refused, sends, soon, start,
        start_refunds, untouched,
    },
    people::decision_refused,
    proofs::refused_and_waiting,
};

/// A gate whose time is over before anybody has looked, beside that of the example.
const QUICK: &str = r#"
@id("refund.quick")
@reason("order o1 is decided at once or not at all")
@decision("require_approval")
@approvers("finance-leads")
@expires("PT1S")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.input.order_id == "o1" }
unless { context.approved.contains("refund.quick") };
"#;

/// People have so long to decide.
fn time_to_decide(scenario: &Scenario, time: &str) {
    scenario.edit("policies/refunds.cedar", r#"@expires("PT24H")"#, &format!(r#"@expires("{time}")"#));
}

/// Waits until the first request's time is over.
async fn time_is_over(scenario: &Scenario) -> Held {
    let asked = recorded(scenario, 1, |body| matches!(body, RecordBody::ApprovalRequested { .. })).await?;
    let RecordBody::ApprovalRequested { expires_ms: Some(ends_ms), .. } = &asked[0] else {
        return Err(format!("it has no end: {asked:?}"));
    };
    soon("the time is over", async || {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        (now_ms > u128::from(*ends_ms)).then_some(())
    })
    .await
}

fn expired(body: &RecordBody) -> bool {
    matches!(body, RecordBody::ApprovalExpired { .. })
}

/// No worker is there to see the deadline pass. What comes after it is taken in before the timer all the same.
pub(super) async fn decision_after_the_deadline(scenario: &Scenario) -> Held {
    time_to_decide(scenario, "PT3S");
    let worker = start_refunds(scenario, &[LARGE]).await;
    let request = asked_once(scenario).await?;
    worker.stop().await;
    time_is_over(scenario).await?;
    sends(scenario, "approve", &json!({ "request_id": request.request_id, "by": BO })).await?;
    scenario.keep(scenario.start_worker().await);
    decision_refused(scenario, 1, "it came after the time for it was over").await?;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    refused(scenario, "the end of the request's time", expired).await
}

/// An approval comes in time and is kept until its time is over, by a pause. People are asked again.
pub(super) async fn approval_used_after_its_time(scenario: &Scenario) -> Held {
    time_to_decide(scenario, "PT8S");
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    sends(scenario, "pause", &json!({ "by": BO })).await?;
    scenario.wait_state("Paused").await;
    sends(scenario, "approve", &json!({ "request_id": request.request_id, "by": BO })).await?;
    let decided = recorded(scenario, 1, |body| matches!(body, RecordBody::ApprovalDecided { .. })).await?;
    never(
        !matches!(&decided[0], RecordBody::ApprovalDecided { refused: None, .. }),
        format!("it does not count: {decided:?}"),
    )?;
    time_is_over(scenario).await?;
    sends(scenario, "resume", &json!({ "by": BO })).await?;
    let again = asked_once(scenario).await?;
    never(again.request_id == request.request_id, "the same request waits")?;
    untouched(scenario).await?;
    refused(scenario, "that the approval lapsed", expired).await
}

/// The call has two gates and ends with the first deadline. Another call keeps the run going.
pub(super) async fn decision_for_an_expired_request(scenario: &Scenario) -> Held {
    scenario.write("policies/quick.cedar", QUICK);
    let other = refund(r#"{ order_id = "o5", amount_cents = 25000, currency = "EUR" }"#);
    model_says(scenario, &[&calls(&[&refund(LARGE), &other])]);
    scenario.keep(start(scenario).await);
    let ended = recorded(scenario, 1, expired).await?;
    let RecordBody::ApprovalExpired { request, .. } = &ended[0] else { unreachable!("picked above") };
    asked_once(scenario).await?;
    sends(scenario, "approve", &json!({ "request_id": request, "by": BO })).await?;
    refused_and_waiting(scenario, 1, "the request was decided already").await
}
