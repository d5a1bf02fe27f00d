//! Two workers on one PostgreSQL database serve many runs while they are killed one after the other, by chance.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use mandate_domain::audit::RecordBody;
use mandate_tests::{Choices, LONG_FOR_MANY, On, Process, Scenario, run, until_within};

const RUNS: usize = 200;
const AT_ONCE: usize = 10;
/// A worker is killed whenever so many more runs have completed.
const KILLED_EVERY: usize = 20;

#[test]
fn every_run_completes_and_pays_once_while_workers_are_killed_by_chance() {
    run(async {
        let world = Scenario::on(On::Postgres, "many-workers").await;
        world.raise_order("o2").await;
        // A refund that is sent twice is paid twice.
        world.server_command(&["--forget-keys"]);
        let workers = [world.start_worker().await, world.start_worker().await];
        let runs: Vec<_> = (0..RUNS).map(|number| world.of_run(&format!("many-workers-{number}"))).collect();
        let start = stream::iter(&runs).for_each_concurrent(AT_ONCE, async |run| run.start("Refund order o2").await);
        let (kills, ()) = tokio::join!(kill_until_all_completed(&world, workers), start);
        assert!(kills >= RUNS / KILLED_EVERY - 1, "{kills}");

        // The truth is what the system of record says.
        let payments = world.payments().await;
        let keys: BTreeSet<_> = payments.iter().filter_map(|payment| payment.key.clone()).collect();
        assert_eq!((payments.len(), keys.len()), (RUNS, RUNS), "each run is paid once");
        let told = |body: &RecordBody| matches!(body, RecordBody::RunClosed { .. });
        assert_eq!(world.records_where(told).await.len(), RUNS, "each run is closed once");
        let verified = world.mandate(&["audit", "verify", "--witness", "temporal"]).await.ok();
        assert_eq!(verified.matches("confirmed by Temporal's history").count(), RUNS, "{verified}");
    });
}

/// How many workers were killed.
async fn kill_until_all_completed(world: &Scenario, workers: [Process; 2]) -> usize {
    let completed = r#"ExecutionStatus="Completed" AND TaskQueue="many-workers""#;
    let (mut workers, mut choices, mut kills) = (Vec::from(workers), Choices::seeded(200), 0);
    loop {
        let enough = ((kills + 1) * KILLED_EVERY).min(RUNS);
        let reached = until_within(LONG_FOR_MANY, async || {
            let count = world.count(completed).await;
            (count >= enough).then_some(count)
        });
        let count = reached.await.unwrap_or_else(|| world.give_up(&format!("no {enough} runs complete")));
        if count == RUNS {
            return kills;
        }
        let killed = workers.remove(usize::from(choices.flip()));
        killed.kill().await;
        workers.push(world.start_worker().await);
        kills += 1;
    }
}
