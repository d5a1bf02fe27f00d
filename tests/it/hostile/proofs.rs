//! Attacks on signed decisions: without a proof, or with one that was made by somebody else or for something else.

use mandate_domain::{Verdict, audit::RecordBody};
use mandate_tests::{Scenario, keys};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Value, json};

use super::{
    ground::{
        BO, Held, KIM, LARGE, MALLORY, asked, asked_once, refused, rests_in, sends, sent_before, start_refunds,
        untouched,
    },
    people::decision_refused,
};

/// What the record says of a signature that does not fit.
const BAD_SIGNATURE: &str = "the signature is not one of `bo@acme.example` over these words";

/// People prove themselves with keys. The gate asks for one of them and no four eyes: claims could hold it.
pub(super) fn with_keys(scenario: &Scenario) {
    keys::accept_keys(&scenario.path(""));
}

/// What a person says of a request.
pub(super) fn says(request: &PendingRequest, verdict: Verdict) -> keys::SaysOf<'_> {
    let digest = request.digest.as_ref().unwrap();
    keys::SaysOf { request: &request.request_id, digest, verdict, comment: None, arguments: None }
}

/// The last of so many decisions did not count for this reason, and what it is about waits on.
pub(super) async fn refused_and_waiting(scenario: &Scenario, number: usize, words: &str) -> Held {
    decision_refused(scenario, number, words).await?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await
}

/// A refund waits, and somebody sends an approval.
async fn comes_to_nothing(scenario: &Scenario, words: &str, decide: impl FnOnce(&PendingRequest) -> Value) -> Held {
    with_keys(scenario);
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &decide(&request)).await?;
    refused_and_waiting(scenario, 1, words).await
}

pub(super) async fn decision_without_a_proof(scenario: &Scenario) -> Held {
    comes_to_nothing(
        scenario,
        "nothing proves who sent this; accepted are: key",
        |request| json!({ "request_id": request.request_id, "by": BO }),
    )
    .await
}

pub(super) async fn decision_signed_by_another_key(scenario: &Scenario) -> Held {
    comes_to_nothing(scenario, BAD_SIGNATURE, |request| {
        let signature = keys::sign(&says(request, Verdict::Approve).statement(), BO, MALLORY);
        json!({ "request_id": request.request_id, "by": BO, "signature": signature })
    })
    .await
}

/// An approver changes the amount, and somebody on the way changes it again.
pub(super) async fn decision_signed_for_other_arguments(scenario: &Scenario) -> Held {
    comes_to_nothing(scenario, BAD_SIGNATURE, |request| {
        let signed = json!({ "order_id": "o1", "amount_cents": 20_000, "currency": "EUR" });
        let says = keys::SaysOf { arguments: signed.as_object(), ..says(request, Verdict::Approve) };
        let mut decision = says.signed(BO);
        decision["arguments"]["amount_cents"] = 400_000.into();
        decision
    })
    .await
}

pub(super) async fn decision_signed_for_the_other_verdict(scenario: &Scenario) -> Held {
    comes_to_nothing(scenario, BAD_SIGNATURE, |request| says(request, Verdict::Reject).signed(BO)).await
}

pub(super) async fn decision_signed_for_another_request(scenario: &Scenario) -> Held {
    with_keys(scenario);
    let other = r#"{ order_id = "o5", amount_cents = 25000, currency = "EUR" }"#;
    scenario.keep(start_refunds(scenario, &[LARGE, other]).await);
    let pending = asked(scenario, 2).await?;
    let mut decision = says(&pending[0], Verdict::Approve).signed(BO);
    decision["request_id"] = pending[1].request_id.clone().into();
    sends(scenario, "approve", &decision).await?;
    refused_and_waiting(scenario, 1, BAD_SIGNATURE).await
}

/// Last week's run had this workflow id and asked for the same. Its approval is sent again as it was, and with the id of
/// the request that waits now.
pub(super) async fn decision_for_last_weeks_run(scenario: &Scenario) -> Held {
    with_keys(scenario);
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let last_week = asked_once(scenario).await?;
    // It comes too late: the run has ended.
    let mut decision = says(&last_week, Verdict::Approve).signed(BO);
    sends(scenario, "halt", &json!({ "by": KIM, "comment": "not this week" })).await?;
    scenario.wait_closed().await;
    scenario.start_run("Please do what is due this week.").await;
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &decision).await?;
    let read = sent_before(scenario, "approve").await?;
    assert_eq!(read, decision);
    decision["request_id"] = request.request_id.into();
    sends(scenario, "approve", &decision).await?;
    refused_and_waiting(scenario, 1, BAD_SIGNATURE).await?;
    refused(scenario, "the decision that names nothing", |body| {
        matches!(body, RecordBody::MessagesRefused { count: 1, last_reason } if last_reason.contains(&last_week.request_id))
    })
    .await
}
