//! Many runs wait at the same time, and each is decided exactly once.

use futures::{StreamExt as _, stream};
use mandate_domain::{agent_run::Answer, audit::RecordBody};
use mandate_tests::{Choices, LONG_FOR_MANY, Scenario, Told, Way, run, until_within};
use serde_json::Value;

const RUNS: usize = 50;
const AT_ONCE: usize = 10;
const BO: &str = "bo@acme.example";
const EVE: &str = "eve@acme.example";

/// Who approves in which way, twice: once by one person, once by the other.
async fn decided(waiting: &Scenario, ways: [Way; 2]) {
    let request = waiting.first_request().await.unwrap();
    for (way, by) in ways.into_iter().zip([BO, EVE]) {
        match waiting.approve_by(way, &request, by).await {
            // The second may find the run ended, or about to.
            Told::TurnedAway(why) => assert_eq!(by, EVE, "{}: {why}", waiting.name),
            Told::Answered(Answer::Accepted { .. }) | Told::Taken => {}
            Told::Answered(other) => assert_eq!(by, EVE, "{}: {other:?}", waiting.name),
        }
    }
}

#[test]
fn fifty_runs_wait_and_each_is_decided_once_by_signals_and_updates_in_any_order() {
    run(async {
        let world = Scenario::new("many-waiting").await;
        world.raise_order("o1").await;
        let _worker = world.start_worker().await;
        let mut runs: Vec<_> = (0..RUNS).map(|number| world.of_run(&format!("many-waiting-{number}"))).collect();
        stream::iter(&runs).for_each_concurrent(AT_ONCE, async |run| run.start("Refund order o1").await).await;
        let waits = r#"MandateState="AwaitingApproval" AND TaskQueue="many-waiting""#;
        let all = until_within(LONG_FOR_MANY, async || (world.count(waits).await == RUNS).then_some(()));
        all.await.expect("all wait");
        assert!(world.refund_calls().await.is_empty());
        let listed = world.mandate(&["approvals", "--output", "json"]).await.ok();
        let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        let own = listed.iter().filter(|one| one["workflow_id"].to_string().contains("many-waiting-"));
        assert_eq!(own.filter(|one| one["kind"] == "request").count(), RUNS, "each is listed: {listed:#?}");

        let mut choices = Choices::seeded(50);
        choices.shuffle(&mut runs);
        let mut way = || if choices.flip() { Way::Signal } else { Way::Update };
        let ways: Vec<_> = runs.iter().map(|run| (run, [way(), way()])).collect();
        stream::iter(ways).for_each_concurrent(AT_ONCE, async |(run, ways)| decided(run, ways).await).await;
        for run in &runs {
            assert!(run.answer().await.contains("500.00 EUR"), "{}", run.name);
        }
        let mut keys: Vec<_> = world.payments().await.into_iter().map(|payment| payment.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), world.refund_calls().await.len()), (RUNS, RUNS), "each is paid once");
        let counted =
            world.records_where(|body| matches!(body, RecordBody::ApprovalDecided { refused: None, .. })).await;
        assert_eq!(counted.len(), RUNS, "each is decided once");
        world.mandate(&["audit", "verify", "--witness", "temporal"]).await.ok();
    });
}
