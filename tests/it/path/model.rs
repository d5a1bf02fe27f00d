//! Model calls along the path.

use mandate_domain::{EffectId, RecordBody};
use mandate_workflows::contract::ModelCallOutcome;

use super::{
    run::{READ, Run, invoke},
    world::{Folder, on_both_engines},
};

async fn a_model_that_will_not_answer_is_recorded_once_and_not_asked_again() {
    let world = Folder::replying(&["text = 'Only this.'\nwhen = 'never said'"]).world().await;
    let mut run = Run::open(&world).await;
    let input = run.next_turn();
    let first = run.try_turn().await.unwrap();
    let ModelCallOutcome::Failed { reason } = &first else { panic!("{first:?}") };
    assert!(reason.contains("no reply left"), "{reason}");
    let records = run.records().await;
    assert_eq!(invoke(&world.worker().await, input).await.unwrap().outcome, first);
    assert_eq!(run.records().await, records);
    let outcome = |body: &RecordBody| matches!(body, RecordBody::Outcome { is_error: true, .. });
    assert_eq!(run.count(outcome).await, 1);
    run.close().await;
}

async fn a_model_that_policy_denies_is_not_asked() {
    let quiet = r#"@id("models.none") @reason("no model today")
        forbid (principal, action == Mandate::Action::"invoke_model", resource);"#;
    let world = Folder::proposing(&[READ]).policy("quiet", quiet).world().await;
    let mut run = Run::open(&world).await;
    for _ in 0..2 {
        let outcome = run.try_turn().await.unwrap();
        assert_eq!(outcome, ModelCallOutcome::Denied { reason: "no model today".to_owned() });
    }
    assert_eq!(run.count(|body| matches!(body, RecordBody::Intent { .. })).await, 0);
    assert_eq!(run.count(|body| matches!(body, RecordBody::Decision { .. })).await, 1);
}

async fn a_model_call_claimed_by_another_waits_and_is_taken_over_when_the_claim_ran_out() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::open(&world).await;
    let input = run.next_turn();
    run.turn().await;
    // As if the worker had died between intent and outcome.
    world.lose_outcome("m1").await;
    let failed = invoke(&run.worker, input.clone()).await.unwrap_err();
    failed.may_pass("Claimed", "m1");
    assert!(failed.delay.is_some_and(|delay| !delay.is_zero() && delay.as_secs() < 4), "{failed:?}");
    world.run_out("m1", 1).await;
    let answered = invoke(&run.worker, input).await.unwrap();
    assert!(matches!(answered.outcome, ModelCallOutcome::Replied(_)), "{answered:?}");
    assert_eq!(world.effect("m1").await, Some(("settled".to_owned(), 2)));
    let intent = |body: &RecordBody| matches!(body, RecordBody::Intent { effect: EffectId::Model(1), epoch: 2, .. });
    assert_eq!(run.count(intent).await, 1);
}

async fn a_policy_change_does_not_take_back_a_recorded_reply() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::open(&world).await;
    let input = run.next_turn();
    let reply = run.turn().await;
    world.policy(
        "quiet",
        r#"@id("models.none") @reason("no model today")
        forbid (principal, action == Mandate::Action::"invoke_model", resource);"#,
    );
    let again = invoke(&world.worker().await, input).await.unwrap();
    assert_eq!(again.outcome, ModelCallOutcome::Replied(reply));
}

async fn attempts_at_once_ask_the_model_once_and_none_of_them_fails() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::open(&world).await;
    let workers: Vec<_> = futures::future::join_all((0..6).map(|_| world.worker())).await;
    let attempts = workers.iter().map(|worker| invoke(worker, run.next_turn()));
    for ended in futures::future::join_all(attempts).await {
        match ended {
            Ok(output) => assert!(matches!(output.outcome, ModelCallOutcome::Replied(_)), "{output:?}"),
            Err(failed) => failed.may_pass("Claimed", "m1"),
        }
    }
    run.turn().await;
    assert_eq!(run.count(|body| matches!(body, RecordBody::Intent { .. })).await, 1);
}

on_both_engines! {
    a_model_that_will_not_answer_is_recorded_once_and_not_asked_again
    a_model_that_policy_denies_is_not_asked
    a_model_call_claimed_by_another_waits_and_is_taken_over_when_the_claim_ran_out
    a_policy_change_does_not_take_back_a_recorded_reply
    attempts_at_once_ask_the_model_once_and_none_of_them_fails
}
