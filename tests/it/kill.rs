//! A worker dies by SIGKILL at every point of the governed path, and another one goes on.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, stream};
use mandate_activities::failpoints;
use mandate_tests::{Scenario, run, until};

/// How many points are tried at the same time.
const AT_ONCE: usize = 3;
/// How soon after the kill the next attempt or workflow task has to start.
const RESUMES_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn every_effect_happens_once_wherever_a_worker_dies() {
    run(async {
        assert_eq!(failpoints::ALL.len(), 14, "a new point needs a look at this test");
        let tried = stream::iter(failpoints::ALL).map(dies_at).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        let failed: Vec<_> = tried.into_iter().flatten().collect();
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

/// Whether a run survives the death at one point; all points are tried before the test fails.
async fn dies_at(point: &'static str) -> Option<String> {
    let tried = tokio::task::spawn_blocking(move || run(survives(point))).await;
    tried.err().map(|panic| match panic.into_panic().downcast::<String>() {
        Ok(text) => format!("{point}: {text}"),
        Err(_) => format!("{point}: panicked"),
    })
}

async fn survives(point: &str) {
    let scenario = Scenario::new(&format!("kill-{}", point.replace(['.', '_'], "-"))).await;
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut first = scenario.worker_with_env(&env).await;
    scenario.start_run("Refund order o1").await;
    let mut approved = false;
    let died = until(&format!("the worker dies at {point}"), async || {
        approve_once(&scenario, &mut approved).await;
        first.ended()
    })
    .await;
    assert_eq!(died, 137, "SIGKILL");
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
    let verified = scenario.audit_verify().await;
    assert_eq!(verified.code, 0, "{verified:?}");
    let resumed = scenario.history().await.started_after(killed).expect("something starts after the kill");
    assert!(resumed < RESUMES_WITHIN, "the next attempt started {resumed:?} after the kill");
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
