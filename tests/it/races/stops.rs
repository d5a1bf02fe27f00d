//! Against those who stop the run.

use mandate_domain::{EndReason, RunState, audit::RecordBody};
use mandate_tests::{Scenario, run};

use super::{ROUNDS, Round, each, end, world};

/// How far apart the two are sent at most, in milliseconds.
const APART_MAX_MS: u64 = 1500;

async fn stopped(name: &str, state: RunState, reason: EndReason, stop: impl AsyncFn(&Scenario)) {
    let world = world(name).await;
    let _worker = world.start_worker().await;
    let rounds = Round::start_all(&world, 0..ROUNDS).await;
    let rounds = each(rounds, async |round| round.race(APART_MAX_MS, &stop).await).await;
    let ended = end(&world, rounds).await;
    let won = ended.iter().filter(|ended| ended.paid).count();
    assert!(won > 0 && won < ended.len(), "it was a race: {won}");
    for ended in ended {
        let (seed, result) = (ended.seed, &ended.result);
        let expected = if result.reason.is_some() { (state, Some(reason)) } else { (RunState::Completed, None) };
        assert_eq!((result.state, result.reason), expected, "seed {seed}");
        // Halt and cancel win until an intent is recorded: nothing else keeps the call from being paid.
        assert!(ended.paid || result.reason.is_some(), "seed {seed}: {result:?}");
        let halted = ended.count(|body| matches!(body, RecordBody::Halted { .. }));
        assert_eq!(halted, usize::from(result.reason == Some(EndReason::Halted)), "seed {seed}");
    }
}

#[test]
fn an_approval_races_with_the_cancellation_of_its_run() {
    run(stopped("race-cancel", RunState::Cancelled, EndReason::Cancelled, async |run: &Scenario| {
        run.cancel().await;
    }));
}

#[test]
fn an_approval_races_with_a_halt() {
    run(stopped("race-halt", RunState::Stopped, EndReason::Halted, async |run: &Scenario| {
        run.handle_signal("halt", r#"{"by":"kim@acme.example"}"#).await;
    }));
}
