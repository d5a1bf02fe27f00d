//! Against what becomes of workers and executions: neither takes anything from a decision.

use mandate_domain::RunState;
use mandate_tests::{Choices, Scenario, Told, Way, pass, run, until};

use super::{BO, ROUNDS, Round, each, end, world};

/// In what time the approvals are sent, in milliseconds.
const WITHIN_MS: u64 = 1500;
/// Size of one message that says nothing. The server suggests to continue as new when the history has 4 MiB.
const NOISE_BYTES: usize = 250_000;
/// So many of them are a little less.
const NOISE: u64 = 16;

/// Whoever is turned away sends it again.
async fn until_taken(mut round: Round) -> Round {
    round.approve().await;
    if matches!(round.told, Some(Told::TurnedAway(_))) {
        round.told = Some(round.run.approve_by(Way::Signal, &round.request, BO).await);
    }
    round
}

/// Each run is paid, once, and completes: with each seed, in how many executions.
async fn all_paid(world: &Scenario, rounds: Vec<Round>) -> Vec<(u64, usize)> {
    let ended = end(world, rounds).await;
    for ended in &ended {
        assert!(ended.paid && ended.result.state == RunState::Completed, "seed {}: {:?}", ended.seed, ended.result);
    }
    ended.iter().map(|ended| (ended.seed, ended.executions.len())).collect()
}

#[test]
fn approvals_race_with_the_death_of_their_worker() {
    run(async {
        let world = world("race-kill").await;
        let worker = world.start_worker().await;
        let rounds = Round::start_all(&world, 0..ROUNDS).await;
        let approvals = futures::future::join_all(rounds.into_iter().map(async |mut round: Round| {
            pass(round.choices.millis_below(WITHIN_MS)).await;
            until_taken(round).await
        }));
        // Some are paid by then, some are on their way, and some are not approved.
        let paid = usize::try_from(2 + Choices::seeded(ROUNDS).below(ROUNDS / 2)).unwrap();
        let death = async {
            until("some are paid", async || (world.payments().await.len() >= paid).then_some(())).await;
            worker.kill().await;
            world.start_worker().await
        };
        let (rounds, _worker) = futures::join!(approvals, death);
        let executions = all_paid(&world, rounds).await;
        assert!(executions.iter().all(|(_, executions)| *executions == 1), "one execution each: {executions:?}");
    });
}

#[test]
fn approvals_race_with_the_next_execution_of_their_runs() {
    run(async {
        let world = world("race-continue").await;
        let _worker = world.start_worker().await;
        let rounds = Round::start_all(&world, 0..ROUNDS).await;
        let noise = format!("\"{}\"", "x".repeat(NOISE_BYTES));
        let rounds = each(rounds, async |mut round: Round| {
            for _ in 0..NOISE {
                assert!(round.run.handle_signal("approve", &noise).await, "seed {}", round.seed);
            }
            // One more makes the history long, right before the approval: whatever overtakes what, the run needs a
            // further turn once it has paid, and begins none in an execution with a long history. The next execution
            // comes before the approval, between the approval and its review, or behind the payment.
            let (before, wait) = (1 + round.choices.below(3), round.choices.millis_below(60));
            for _ in 0..before {
                round.run.handle_signal("reject", &noise).await;
            }
            pass(wait).await;
            let run = round.run.of_run(&round.run.name);
            let more = async {
                for _ in before..4 {
                    // The run may have ended by then.
                    run.handle_signal("reject", &noise).await;
                }
            };
            futures::join!(until_taken(round), more).0
        })
        .await;
        let executions = all_paid(&world, rounds).await;
        assert_eq!(executions.len() as u64, ROUNDS);
        assert!(executions.iter().all(|(_, executions)| *executions > 1), "each run was continued: {executions:?}");
    });
}
