//! A worker dies by SIGKILL at every point of the governed path, and another one goes on.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, stream};
use mandate_activities::failpoints;
use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};

/// How many points are tried at the same time.
const AT_ONCE: usize = 4;
/// How soon after the kill the next attempt or workflow task has to start.
const RESUMES_WITHIN: Duration = Duration::from_secs(15);

/// Which call of the run meets the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// The first that passes it: the read, for a tool's points.
    Reading,
    /// The payment: it is the run's first call, and is claimed once it is approved.
    Paying,
}

#[test]
fn every_effect_happens_once_wherever_a_worker_dies() {
    run(async {
        assert_eq!(failpoints::ALL.len(), 22, "a new point needs a look at this test");
        // Those of notices need a webhook: `wherever_a_worker_dies_a_message_keeps_its_id`; those of questions a run that
        // asks: `wherever_a_worker_dies_a_question_is_asked_and_answered_once`.
        let apart = ["notice.", "question.", "instruction."];
        let points = failpoints::ALL.into_iter().filter(|point| !apart.iter().any(|own| point.starts_with(own)));
        let paying = failpoints::ALL.into_iter().filter(|point| point.starts_with("tool."));
        let paying = paying.map(|point| (point, Dies::Paying));
        let all = points.map(|point| (point, Dies::Reading)).chain(paying);
        let tried = stream::iter(all).map(dies_at).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        let failed: Vec<_> = tried.into_iter().flatten().collect();
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

/// Whether a run survives the death at one point; all points are tried before the test fails.
async fn dies_at((point, dies): (&'static str, Dies)) -> Option<String> {
    let tried = tokio::task::spawn_blocking(move || run(survives(point, dies))).await;
    tried.err().map(|panic| match panic.into_panic().downcast::<String>() {
        Ok(text) => format!("{point}, {dies:?}: {text}"),
        Err(_) => format!("{point}, {dies:?}: panicked"),
    })
}

async fn survives(point: &str, dies: Dies) {
    let name = format!("kill-{}-{dies:?}", point.replace(['.', '_'], "-")).to_lowercase();
    let scenario = Scenario::new(&name).await;
    if dies == Dies::Paying {
        pays_at_once(&scenario);
    }
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut first = scenario.worker_with_env(&env).await;
    scenario.start_run("Refund order o1").await;
    let mut approved = false;
    let code = until(&format!("the worker dies at {point}"), async || {
        approve_once(&scenario, &mut approved).await;
        first.ended()
    })
    .await;
    assert_eq!(code, 137, "SIGKILL");
    let killed: SystemTime = fs::metadata(&mark).unwrap().modified().unwrap();
    let _second = scenario.start_worker().await;
    until(&format!("the run goes on after {point}"), async || {
        approve_once(&scenario, &mut approved).await;
        (scenario.attribute("MandateState").await?.as_str()? == "Completed").then_some(())
    })
    .await;
    let answer = scenario.answer().await;
    assert!(answer.contains("500.00 EUR for order o1"), "{answer}");
    let payments = scenario.payments().await;
    assert_eq!(payments.len(), 1, "each effect happens exactly once: {payments:?}");
    assert_eq!(scenario.refund_calls().await.len(), 1, "a payment that may have happened is not sent again");
    let verified = scenario.audit_verify().await;
    assert_eq!(verified.code, 0, "{verified:?}");
    if dies == Dies::Paying {
        assert_eq!(walked(&scenario).await, expected(point), "{point}");
    }
    let resumed = scenario.history().await.started_after(killed).expect("something starts after the kill");
    assert!(resumed < RESUMES_WITHIN, "the next attempt started {resumed:?} after the kill");
}

/// Lets the model propose the refund without reading the order.
fn pays_at_once(scenario: &Scenario) {
    scenario.write(
        "scripts/refunds.toml",
        r#"
        [[conversation]]
        [[conversation.reply]]
        calls = [{ tool = "payments.refund", arguments = { order_id = "o1", amount_cents = 50000, currency = "EUR" } }]
        [[conversation.reply]]
        text = "I refunded 500.00 EUR for order o1."
        "#,
    );
}

/// What the record must say of the payment. After an intent, only the check tool tells what happened.
fn expected(point: &str) -> &'static [&'static str] {
    match point {
        "tool.before_intent" | "tool.after_outcome" => &["intent 1", "outcome 1 Answer"],
        "tool.after_intent" => &["intent 1", "not sent 1", "intent 2", "outcome 2 Answer"],
        "tool.after_effect" => &["intent 1", "outcome 1 Check"],
        point => panic!("`{point}` is no tool's point"),
    }
}

/// What the record says of the payment.
async fn walked(scenario: &Scenario) -> Vec<String> {
    let records = scenario.records().await.into_iter();
    let steps = records.filter(|record| record.key.starts_with("t1.0/")).filter_map(|record| match record.body {
        RecordBody::Intent { epoch, .. } => Some(format!("intent {epoch}")),
        RecordBody::NotSent { epoch, .. } => Some(format!("not sent {epoch}")),
        RecordBody::Outcome { epoch, known_by, .. } => Some(format!("outcome {epoch} {known_by:?}")),
        RecordBody::LateOutcome { epoch, .. } => Some(format!("late {epoch}")),
        _ => None,
    });
    steps.collect()
}

/// Approves the request as soon as there is one.
async fn approve_once(scenario: &Scenario, approved: &mut bool) {
    if *approved || scenario.attribute("MandateState").await.is_none_or(|state| state != "AwaitingApproval") {
        return;
    }
    let pending = scenario.pending_now().await.unwrap_or_default();
    if let [request] = &pending[..] {
        scenario.approve(&request.request_id, "bo@acme.example").await;
        *approved = true;
    }
}
