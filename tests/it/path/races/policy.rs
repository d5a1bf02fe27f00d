//! An approval races with a change of policy: what was allowed before the change is paid, and nothing after it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::future::join_all;
use mandate_activities::operator::{Applied, BundleToApply, Judged, Judgement, Operator};
use mandate_domain::{AuditRecord, DecisionOutcome, Digest, EffectId, PolicyId, Proof, RecordBody, ToolCallOutcome};
use mandate_tests::Choices;
use mandate_worker::bundle;
use mandate_workflows::contract::CallToolInput;
use temporalio_sdk::testing::ActivityEnvironment;
use tokio::sync::watch;

use super::{
    super::run::{counted, id, person, refusal},
    Act, Arena, CALLS, Named, ROUNDS, Recorded, Told, WON_MIN, act, is_paid, walk,
};

/// Runs that wait while the policy is changed.
const RUNS_PER_CHANGE: u64 = 5;

/// Makes a bundle the active one, as in the development profile.
async fn apply(arena: &Arena, bundle: &BundleToApply) {
    let judgement = Judgement::Permitted { policies: Vec::new(), bundle: None };
    let judged = Judged { by: person("kim@acme.example"), proof: Proof::Claimed, judgement };
    let applied = Operator::new(arena.world.store.clone(), "test").apply(&judged, bundle).await.unwrap();
    assert!(matches!(applied, Applied::Applied { .. }), "{applied:?}");
}

/// Decides about one of the waiting runs: whether the bundle was the new one before the second walk, and its end.
async fn decides(
    env: ActivityEnvironment,
    approval: Act,
    input: CallToolInput,
    tightened: Arc<AtomicBool>,
    walked: watch::Sender<u64>,
) -> (bool, ToolCallOutcome) {
    assert_eq!(act(&env, &approval).await, Told::Review(counted(1, true)));
    let denied = tightened.load(Ordering::SeqCst);
    let end = walk(&env, &input).await;
    walked.send_modify(|walked| *walked += 1);
    (denied, end)
}

/// Many calls are approved while the policy changes at a moment that the seed chooses: which were paid.
async fn change(arena: &Arena, tight: &BundleToApply, seed: u64) -> Vec<String> {
    let _named = Named { rival: "policy change".to_owned(), seed };
    let mut choices = Choices::seeded(seed);
    let mut waiting = Vec::new();
    for number in 0..RUNS_PER_CHANGE {
        waiting.extend(arena.waiting(format!("policy-{seed}-{number}")).await);
    }
    choices.shuffle(&mut waiting);
    let (tightened, (walked, mut progress)) = (Arc::new(AtomicBool::new(false)), watch::channel(0));
    let tasks = waiting.iter().enumerate().map(|(index, waiting)| {
        let (env, approval) = (arena.env(index % 2, waiting.task), Act::Review(waiting.approval.clone()));
        let input = waiting.run.call_input(&waiting.call);
        tokio::spawn(decides(env, approval, input, Arc::clone(&tightened), walked.clone()))
    });
    let tasks: Vec<_> = tasks.collect();
    let ahead = choices.below(waiting.len() as u64);
    progress.wait_for(|walked| *walked >= ahead).await.unwrap();
    apply(arena, tight).await;
    tightened.store(true, Ordering::SeqCst);
    let mut paid = Vec::new();
    for (index, (task, waiting)) in join_all(tasks).await.into_iter().zip(&waiting).enumerate() {
        let (denied, end) = task.unwrap();
        assert!(!(denied && is_paid(&end)), "paid by a policy that was not in force any more");
        assert_eq!(waiting.end().await, end);
        let told = act(&arena.env((index + 1) % 2, waiting.task), &Act::Review(waiting.approval.clone())).await;
        assert_eq!(told, Told::Review(counted(1, true)), "told the same, whatever became of it");
        decided_by(&waiting.records().await, &waiting.call, &end, &tight.digest);
        paid.extend(is_paid(&end).then(|| waiting.key()));
    }
    paid
}

/// The records say that the bundle that was in force decided.
fn decided_by(records: &[AuditRecord], call: &str, end: &ToolCallOutcome, tight: &Digest) {
    let (own, paid) = (EffectId::Tool(id(call)), is_paid(end));
    let (intents, outcomes) = (u64::from(paid), u64::from(paid));
    let expected = Recorded { intents, outcomes, decided: 1, counted: 1, ..Recorded::default() };
    assert_eq!(Recorded::of(records, call), expected, "{end:?}");
    let decisions = records.iter().filter_map(|record| match &record.body {
        RecordBody::Decision { effect, outcome, bundle, .. } if *effect == own => Some((*outcome, bundle == tight)),
        _ => None,
    });
    let decisions: Vec<_> = decisions.collect();
    let last = if paid { DecisionOutcome::Allow } else { DecisionOutcome::Deny };
    assert_eq!(decisions, [(DecisionOutcome::RequireApproval, false), (last, !paid)]);
    if !paid {
        assert_eq!(refusal(end.clone()).0.policies, [PolicyId::parse("refund.ceiling").unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_races_with_a_change_of_policy() {
    let arena = Arena::new(CALLS).await;
    let loose = bundle::to_apply(&arena.world.config().policy).unwrap();
    let ceiling = ["500000", "40000"].map(|cents| format!("amount_cents > {cents} }};\n\n// The facts"));
    arena.world.edit("policies/refunds.cedar", &ceiling[0], &ceiling[1]);
    let tight = bundle::to_apply(&arena.world.config().policy).unwrap();
    let mut paid = Vec::new();
    for seed in 0..ROUNDS / (RUNS_PER_CHANGE * CALLS as u64) {
        paid.extend(change(&arena, &tight, seed).await);
        apply(&arena, &loose).await;
    }
    let won = paid.len() as u64;
    arena.check_payments(paid).await;
    assert!((WON_MIN..=ROUNDS - WON_MIN).contains(&won), "{won} of {ROUNDS} rounds");
}
