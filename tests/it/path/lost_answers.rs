//! A call that was begun and not answered: what may be done about it depends on the tool, and nothing is done twice.

use mandate_domain::{KnownBy, RecordBody, RefusalKind, ToolCallOutcome};
use mandate_tests::until_it_holds;
use nix::sys::signal::Signal;

use super::{
    run::{BO, READ, Run, call, refund},
    world::{Folder, World, on_both_engines},
};

/// Loses the worker in the first call after `reached`: its attempt ends there, as if the process had died.
async fn lose_worker(run: &mut Run<'_>, reached: impl AsyncFnMut() -> bool) {
    let input = run.call_input("t1.0");
    tokio::select! {
        ended = call(&run.worker, input) => panic!("answered: {ended:?}"),
        () = until_it_holds("the call is on its way", reached) => {}
    }
    run.next_worker().await;
}

/// Loses the worker while the tool server stands still: the call was begun, and nothing has happened.
pub(super) async fn lose_before_effect(world: &World, run: &mut Run<'_>) {
    world.signal_server(Signal::SIGSTOP);
    lose_worker(run, async || world.effect("t1.0").await.is_some_and(|(state, _)| state == "open")).await;
    world.signal_server(Signal::SIGKILL);
}

/// Loses the worker when the payment is written and its answer is not yet sent.
async fn lose_after_effect(world: &World, run: &mut Run<'_>) {
    lose_worker(run, async || !world.payments().await.is_empty()).await;
    world.signal_server(Signal::SIGKILL);
    world.edit("mandate.toml", "--delay-ms 60000", "");
    run.next_worker().await;
}

const SLOW: &str = "exec $SERVER --delay-ms 60000";
const CHECK: &str = "check = \"payments.refund_status\"\nsettles_within_secs = 10\n";

fn plain(folder: Folder) -> Folder {
    folder.edit("tools/payments.refund.toml", CHECK, "")
}

async fn claimed(run: &mut Run<'_>) {
    // However long the next worker took to begin.
    run.world.run_on("t1.0", 3_900).await;
    let failed = run.try_call("t1.0").await.unwrap_err();
    failed.may_pass("Claimed", "t1.0");
    assert!(failed.delay.is_some_and(|delay| !delay.is_zero() && delay.as_secs() < 4), "{failed:?}");
}

async fn a_live_claim_is_waited_for_and_a_reading_call_is_made_again_after_it() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    claimed(&mut run).await;
    assert_eq!(world.effect("t1.0").await, Some(("open".to_owned(), 1)));
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("total_cents"));
    assert_eq!(world.effect("t1.0").await, Some(("settled".to_owned(), 2)));
    assert_eq!(run.intents().await, 2);
    run.turn().await;
}

async fn a_claim_of_another_boot_has_run_out() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    claimed(&mut run).await;
    world.write("UPDATE effects SET boot_id = $1", "another-boot").await;
    run.returned("t1.0").await;
    assert_eq!(world.effect("t1.0").await, Some(("settled".to_owned(), 2)));
}

async fn an_idempotent_call_is_made_again_under_its_key_and_pays_once() {
    let world = Folder::proposing(&[&refund(4_500)])
        .edit("tools/payments.refund.toml", "idempotent = false", "idempotent = true")
        .edit("tools/payments.refund.toml", CHECK, "")
        .server(SLOW)
        .world()
        .await;
    let mut run = Run::proposed(&world).await;
    lose_after_effect(&world, &mut run).await;
    claimed(&mut run).await;
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("rf-0001"));
    assert_eq!((run.paid().await, world.requests_received().await, run.intents().await), (vec![4_500], 2, 2));
}

async fn a_call_that_the_check_tool_knows_is_settled_by_it_and_not_made_again() {
    let world = Folder::proposing(&[&refund(4_500)]).server(SLOW).world().await;
    let mut run = Run::proposed(&world).await;
    lose_after_effect(&world, &mut run).await;
    claimed(&mut run).await;
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("rf-0001"));
    let by_check = |body: &RecordBody| matches!(body, RecordBody::Outcome { known_by: KnownBy::Check, epoch: 1, .. });
    assert_eq!((run.count(by_check).await, run.intents().await), (1, 1));
    assert_eq!((run.paid().await, world.requests_received().await), (vec![4_500], 1));
    run.turn().await;
}

async fn a_call_that_did_not_happen_is_made_again_only_when_it_has_surely_settled() {
    let world = Folder::proposing(&[&refund(4_500)]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 3_000).await;
    let failed = run.try_call("t1.0").await.unwrap_err();
    failed.may_pass("NotSettled", "t1.0");
    assert!(failed.delay.is_some_and(|delay| (1..=7).contains(&delay.as_secs())), "{failed:?}");
    assert_eq!((run.paid().await, run.intents().await), (vec![], 1));
    world.run_out("t1.0", 10_001).await;
    assert!(run.returned("t1.0").await.contains("rf-0001"));
    let given_back = |body: &RecordBody| matches!(body, RecordBody::NotSent { epoch: 1, .. });
    assert_eq!((run.count(given_back).await, run.intents().await), (1, 2));
    assert_eq!((run.paid().await, world.effect("t1.0").await), (vec![4_500], Some(("settled".to_owned(), 2))));
}

async fn no_stated_bound_means_that_only_happened_counts() {
    let world = Folder::proposing(&[&refund(4_500)])
        .edit("tools/payments.refund.toml", "settles_within_secs = 10\n", "")
        .server("exec $SERVER")
        .world()
        .await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 100_000).await;
    let outcome = run.call("t1.0").await;
    assert!(matches!(&outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    assert_eq!(run.call("t1.0").await, outcome);
    assert_eq!((run.paid().await, run.intents().await), (vec![], 1));
}

async fn a_plain_call_is_parked_and_never_made_again() {
    let world = plain(Folder::proposing(&[&refund(4_500)])).server(SLOW).world().await;
    let mut run = Run::proposed(&world).await;
    lose_after_effect(&world, &mut run).await;
    claimed(&mut run).await;
    world.run_out("t1.0", 1).await;
    let outcome = run.call("t1.0").await;
    assert!(matches!(&outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    assert_eq!((run.call("t1.0").await, run.look_up("t1.0").await), (outcome.clone(), outcome));
    let unknown = |body: &RecordBody| matches!(body, RecordBody::OutcomeUnknown { .. });
    assert_eq!((run.count(unknown).await, run.intents().await), (1, 1));
    assert_eq!((run.paid().await, world.requests_received().await), (vec![4_500], 1));
}

async fn a_server_that_dies_in_a_call_doubles_nothing() {
    let world = Folder::proposing(&[&refund(4_500)]).server(SLOW).world().await;
    let mut run = Run::proposed(&world).await;
    let kill_it = async {
        until_it_holds("the payment is written", async || !world.payments().await.is_empty()).await;
        world.signal_server(Signal::SIGKILL);
    };
    let input = run.call_input("t1.0");
    let (failed, ()) = tokio::join!(call(&run.worker, input), kill_it);
    failed.unwrap_err().may_pass("NoAnswer", "payments.refund");
    claimed(&mut run).await;
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("rf-0001"));
    assert_eq!((run.paid().await, world.requests_received().await, run.intents().await), (vec![4_500], 1, 1));
}

async fn policy_decides_again_before_a_lost_call_is_made_again() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 1).await;
    world.policy(
        "quiet",
        r#"@id("orders.closed") @reason("orders are closed")
        forbid (principal, action == Mandate::Action::"orders.read", resource);"#,
    );
    run.next_worker().await;
    // It may have been performed, so "denied" would say too much.
    let outcome = run.call("t1.0").await;
    let ToolCallOutcome::OutcomeUnknown { reason } = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("orders are closed"), "{reason}");
    assert_eq!(run.intents().await, 1);
}

async fn a_tool_that_changed_after_its_call_was_lost_is_not_called_again() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 1).await;
    world.edit("tools/orders.read.toml", "Read one order:", "Read an order:");
    run.next_worker().await;
    let outcome = run.call("t1.0").await;
    assert!(matches!(outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    assert_eq!(run.intents().await, 1);
}

async fn a_look_up_says_what_is_known_and_performs_nothing() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    let outcome = run.look_up("t1.0").await;
    assert!(matches!(outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    world.run_out("t1.0", 1).await;
    assert_eq!(run.call("t1.0").await, outcome);
    assert_eq!(run.intents().await, 1);
}

/// An attempt that was cut off while it connected may come to its decision after the run has given the call up.
async fn a_call_that_a_look_up_found_undone_is_never_performed_later() {
    let world = Folder::proposing(&[&refund(4_500)]).world().await;
    let mut run = Run::proposed(&world).await;
    for _ in 0..2 {
        assert_eq!(run.look_up("t1.0").await, ToolCallOutcome::NotPerformed);
    }
    let (kind, text) = run.refused("t1.0").await;
    assert_eq!(kind, RefusalKind::RunEnded, "{text}");
    assert_eq!((run.intents().await, run.paid().await), (0, vec![]));
}

async fn a_reading_call_that_is_never_answered_goes_to_a_person_in_the_end() {
    let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 1).await;
    world.write("UPDATE effects SET epoch = 10 WHERE effect = $1", "t1.0").await;
    let outcome = run.call("t1.0").await;
    let ToolCallOutcome::OutcomeUnknown { reason } = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("10 attempts"), "{reason}");
    assert_eq!(run.intents().await, 1);
}

async fn a_claim_for_something_else_is_a_conflict_and_performs_nothing() {
    for (statement, other) in [
        ("UPDATE effects SET target = $1 WHERE effect = 't1.0'", "customers.read".to_owned()),
        ("UPDATE effects SET input = $1 WHERE effect = 't1.0'", "0".repeat(64)),
    ] {
        let world = Folder::proposing(&[READ]).server("exec $SERVER").world().await;
        let mut run = Run::proposed(&world).await;
        lose_before_effect(&world, &mut run).await;
        world.run_out("t1.0", 1).await;
        world.write(statement, &other).await;
        let outcome = run.call("t1.0").await;
        let ToolCallOutcome::OutcomeUnknown { reason } = &outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("effect_conflict"), "{reason}");
        assert_eq!(run.intents().await, 1);
    }
}

async fn two_attempts_at_once_perform_once() {
    let world = Folder::proposing(&[&refund(4_500), &refund(5_500)]).world().await;
    let mut run = Run::proposed(&world).await;
    let workers: Vec<_> = futures::future::join_all((0..4).map(|_| world.worker())).await;
    let attempts = workers.iter().map(|worker| call(worker, run.call_input("t1.0")));
    let others = workers.iter().map(|worker| call(worker, run.call_input("t1.1")));
    for ended in futures::future::join_all(attempts.chain(others)).await {
        match ended {
            Ok(output) => assert!(matches!(output.outcome, ToolCallOutcome::Returned { .. }), "{output:?}"),
            Err(failed) => failed.may_pass("Claimed", "t1."),
        }
    }
    run.returned("t1.0").await;
    run.returned("t1.1").await;
    let mut paid = run.paid().await;
    paid.sort_unstable();
    assert_eq!((paid, world.requests_received().await, run.intents().await), (vec![4_500, 5_500], 2, 2));
}

async fn an_approved_call_that_was_lost_is_made_again_without_asking_again() {
    let world = Folder::proposing(&[&refund(50_000)]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    run.approve(&request, BO).await;
    lose_before_effect(&world, &mut run).await;
    world.run_out("t1.0", 10_001).await;
    run.returned("t1.0").await;
    assert_eq!((run.paid().await, run.intents().await), (vec![50_000], 2));
    assert_eq!(run.count(|body| matches!(body, RecordBody::ApprovalRequested { .. })).await, 1);
}

on_both_engines! {
    a_live_claim_is_waited_for_and_a_reading_call_is_made_again_after_it
    a_claim_of_another_boot_has_run_out
    an_idempotent_call_is_made_again_under_its_key_and_pays_once
    a_call_that_the_check_tool_knows_is_settled_by_it_and_not_made_again
    a_call_that_did_not_happen_is_made_again_only_when_it_has_surely_settled
    no_stated_bound_means_that_only_happened_counts
    a_plain_call_is_parked_and_never_made_again
    a_server_that_dies_in_a_call_doubles_nothing
    policy_decides_again_before_a_lost_call_is_made_again
    a_tool_that_changed_after_its_call_was_lost_is_not_called_again
    a_look_up_says_what_is_known_and_performs_nothing
    a_call_that_a_look_up_found_undone_is_never_performed_later
    a_reading_call_that_is_never_answered_goes_to_a_person_in_the_end
    a_claim_for_something_else_is_a_conflict_and_performs_nothing
    two_attempts_at_once_perform_once
    an_approved_call_that_was_lost_is_made_again_without_asking_again
}
