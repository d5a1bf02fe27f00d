//! Against those who change what is allowed.

use mandate_domain::{DecisionOutcome, audit::RecordBody};
use mandate_tests::{Scenario, pass, run, until};

use super::{BO, ROUNDS, Round, end, world};

/// How far apart the approvals are sent at most, in milliseconds.
const APART_MAX_MS: u64 = 400;
/// So many are paid before somebody changes something, and so many are approved when that is done.
const BEFORE: usize = 2;
const AFTER: usize = 2;

/// Approvals one after the other, while somebody changes something.
async fn approved_meanwhile(world: &Scenario, mut rounds: Vec<Round>, change: impl Future<Output = ()>) -> Vec<Round> {
    let paid = world.payments().await.len() + BEFORE;
    let mut later = rounds.split_off(rounds.len() - AFTER);
    let approvals = async {
        for round in &mut rounds {
            round.approve().await;
            pass(round.choices.millis_below(APART_MAX_MS)).await;
        }
    };
    let change = async {
        until("some are paid", async || (world.payments().await.len() >= paid).then_some(())).await;
        change.await;
        for round in &mut later {
            round.approve().await;
        }
    };
    futures::join!(approvals, change);
    rounds.extend(later);
    rounds
}

/// Nothing was allowed once the change was in force, and what was allowed before was paid.
async fn check(world: &Scenario, rounds: Vec<Round>, is_change: impl Fn(&RecordBody) -> bool, words: &str) {
    let ended = end(world, rounds).await;
    let won = ended.iter().filter(|ended| ended.paid).count();
    assert!((BEFORE..=ended.len() - AFTER).contains(&won), "it was a race: {won}");
    let changed = world.records_where(is_change).await.last().unwrap().time_micros;
    for ended in ended {
        let seed = ended.seed;
        let mut decisions = ended.records.iter().filter_map(|record| match &record.body {
            RecordBody::Decision { target, outcome, reason, .. } if target == "payments.refund" => {
                Some((*outcome, record.time_micros, reason))
            }
            _ => None,
        });
        let (outcome, at, reason) = decisions.next_back().unwrap();
        let expected = if at < changed { DecisionOutcome::Allow } else { DecisionOutcome::Deny };
        assert_eq!((outcome, ended.paid), (expected, at < changed), "seed {seed}: {reason}");
        assert!(ended.paid || reason.contains(words), "seed {seed}: {reason}");
    }
}

#[test]
fn approvals_race_with_a_quarantine_and_with_a_tighter_bundle() {
    run(async {
        let world = world("race-policy").await;
        let _worker = world.start_worker().await;
        let rounds = Round::start_all(&world, 0..ROUNDS / 2).await;
        let add = ["quarantine", "add", "tool:payments.refund", "--by", BO, "--reason", "a leak"];
        let rounds = approved_meanwhile(&world, rounds, async {
            world.mandate(&add).await.ok();
        });
        let quarantined = |body: &RecordBody| matches!(body, RecordBody::Quarantined { .. });
        check(&world, rounds.await, quarantined, "is in quarantine").await;

        let operator = ["--by", "kim@acme.example"];
        let lift = ["quarantine", "lift", "tool:payments.refund"];
        world.mandate(&[&lift[..], &operator].concat()).await.ok();
        let rounds = Round::start_all(&world, ROUNDS / 2..ROUNDS).await;
        world.edit(
            "policies/refunds.cedar",
            "amount_cents > 500000 };\n\n// The facts",
            "amount_cents > 40000 };\n\n// The facts",
        );
        let rounds = approved_meanwhile(&world, rounds, async {
            world.mandate(&[&["apply", "--yes"], &operator[..]].concat()).await.ok();
        });
        let applied = |body: &RecordBody| matches!(body, RecordBody::BundleApplied { .. });
        check(&world, rounds.await, applied, "no agent refunds more").await;
    });
}
