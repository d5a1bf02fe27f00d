//! Attacks with tokens of an identity provider: each is wrong in one thing alone, and comes with the name of an approver.

use std::time::Duration;

use mandate_domain::Verdict;
use mandate_tests::{Draft, Issuer, Scenario};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Value, json};

use super::{
    ground::{BO, Held, LARGE, MALLORY, asked, asked_once, never, sends, sent_before, soon, start_refunds},
    proofs::refused_and_waiting,
};

/// What a token of somebody is to say who decides about a request.
fn draft(person: &str, request: &PendingRequest) -> Draft {
    Draft::proving(person, request.digest.as_ref().unwrap().as_str())
}

/// A message in the name of an approver.
fn of_bo(request: &PendingRequest, token: &str) -> Value {
    json!({ "request_id": request.request_id, "by": BO, "token": token })
}

/// A refund waits, and somebody sends an approval with a token.
async fn proves_nobody(
    scenario: &Scenario,
    words: &str,
    token: impl FnOnce(&Issuer, &PendingRequest) -> String,
) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &of_bo(&request, &token(&issuer, &request))).await?;
    refused_and_waiting(scenario, 1, words).await
}

pub(super) async fn token_of_another_issuer(scenario: &Scenario) -> Held {
    proves_nobody(scenario, "the token is not from `https://login.acme.example`", |issuer, request| {
        issuer.sign(&draft(BO, request).with("iss", "https://login.elsewhere.example"))
    })
    .await
}

/// Made for another service, and for this one beside it: that service could pass it on.
pub(super) async fn token_for_another_audience(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    for (number, audience) in [(1, json!("payroll")), (2, json!(["payroll", "mandate"]))] {
        let token = issuer.sign(&draft(BO, &request).with("aud", audience));
        sends(scenario, "approve", &of_bo(&request, &token)).await?;
        refused_and_waiting(scenario, number, "the token is not made for `mandate` alone").await?;
    }
    Ok(())
}

pub(super) async fn token_expired(scenario: &Scenario) -> Held {
    proves_nobody(scenario, "the token had expired when it was sent", |issuer, request| {
        issuer.sign(&draft(BO, request).of_before(Duration::from_hours(1)))
    })
    .await
}

pub(super) async fn token_signed_by_another_key(scenario: &Scenario) -> Held {
    proves_nobody(scenario, "the token's signature does not verify", |_, request| {
        Issuer::new().sign(&draft(BO, request))
    })
    .await
}

/// The message says that it is from an approver; the token says who it is.
pub(super) async fn token_of_somebody_else(scenario: &Scenario) -> Held {
    let words = "the token is of `mallory@acme.example`, and the message says that it is from `bo@acme.example`";
    proves_nobody(scenario, words, |issuer, request| issuer.sign(&draft(MALLORY, request))).await
}

/// No signature at all, and a code that everybody can make who knows the public key.
pub(super) async fn token_with_an_algorithm_of_its_own(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    let draft = || draft(BO, &request);
    let tokens = [
        (draft().unsigned(), "the token cannot be read: its header is none of a signed token"),
        (draft().with_secret(issuer.public_key()), "tokens signed with `HS256` are not accepted"),
        (draft().with_secret(issuer.key_set().to_string().as_bytes()), "tokens signed with `HS256` are not accepted"),
    ];
    for (number, (token, words)) in (1..).zip(tokens) {
        sends(scenario, "approve", &of_bo(&request, &token)).await?;
        refused_and_waiting(scenario, number, words).await?;
    }
    Ok(())
}

/// An approver has a token for one request, and somebody sends it with another.
pub(super) async fn token_for_another_request(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    let other = r#"{ order_id = "o5", amount_cents = 25000, currency = "EUR" }"#;
    scenario.keep(start_refunds(scenario, &[LARGE, other]).await);
    let pending = asked(scenario, 2).await?;
    let token = issuer.sign(&draft(BO, &pending[0]));
    sends(scenario, "approve", &of_bo(&pending[1], &token)).await?;
    refused_and_waiting(scenario, 1, "the token is for something else").await
}

/// One of two approvers has approved. Whoever reads that in the history has a token that fits, and rejects with it.
pub(super) async fn token_used_again_to_reject(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.edit("policies/refunds.cedar", r#"@quorum("1")"#, r#"@quorum("2")"#);
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &of_bo(&request, &issuer.sign(&draft(BO, &request)))).await?;
    soon("the approval counts", async || (scenario.pending_now().await?.first()?.votes == 1).then_some(())).await?;
    let stolen = sent_before(scenario, "approve").await?;
    sends(scenario, Verdict::Reject.as_str(), &stolen).await?;
    refused_and_waiting(scenario, 2, "the proof was used before, and it is good once").await?;
    let votes = asked_once(scenario).await?.votes;
    never(votes != 1, format!("{votes} votes"))
}

/// An approver wanted to pay less and mistyped the amount. Whoever reads that in the history has a token that fits, and
/// approves what the model asked for.
pub(super) async fn token_used_again_to_approve(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    let mut decision = of_bo(&request, &issuer.sign(&draft(BO, &request)));
    decision["arguments"] = json!({ "order_id": "o1", "amount_cents": 0, "currency": "EUR" });
    sends(scenario, "approve", &decision).await?;
    refused_and_waiting(scenario, 1, "do not fit the schema").await?;
    let mut stolen = sent_before(scenario, "approve").await?;
    stolen["arguments"].take();
    sends(scenario, "approve", &stolen).await?;
    refused_and_waiting(scenario, 2, "the proof was used before, and it is good once").await
}

/// A rejection with so long a comment that nobody read it. Its token is not used, and whoever finds it in the history
/// approves with it.
pub(super) async fn token_of_a_decision_that_was_not_read(scenario: &Scenario) -> Held {
    let issuer = scenario.accept_tokens();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    let mut decision = of_bo(&request, &issuer.sign(&draft(BO, &request)));
    decision["comment"] = "no ".repeat(500).into();
    sends(scenario, "reject", &decision).await?;
    soon("the rejection is refused", async || (scenario.status().await.refused_messages == 1).then_some(())).await?;
    decision["comment"].take();
    sends(scenario, "approve", &decision).await?;
    refused_and_waiting(scenario, 1, "the proof was used before, and it is good once").await
}
