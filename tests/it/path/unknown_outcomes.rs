//! What people may say of a call whose outcome nobody knows, and what counts when the outcome comes after all.

use mandate_domain::{RecordBody, RefusalKind, Resolution, ToolCallOutcome};
use mandate_tests::until_it_holds;
use nix::sys::signal::Signal;

use super::{
    quarantine::{lift, lock},
    run::{ANA, BO, EVE, Run, call, instruct, refund},
    world::{Folder, World, on_both_engines},
};

const CHECK: &str = "check = \"payments.refund_status\"\nsettles_within_secs = 10\n";

/// A world with a refund that only a person can clear up, and a slow tool server.
async fn world() -> World {
    Folder::proposing(&[&refund(4_500)])
        .edit("tools/payments.refund.toml", CHECK, "")
        .server("exec $SERVER --delay-ms 60000")
        .world()
        .await
}

/// The refund was paid, and its answer was lost for good.
async fn parked(world: &World) -> Run<'_> {
    let mut run = Run::proposed(world).await;
    let kill_it = async {
        until_it_holds("the payment is written", async || !world.payments().await.is_empty()).await;
        world.signal_server(Signal::SIGKILL);
    };
    let (outcome, ()) = tokio::join!(run.call("t1.0"), kill_it);
    assert!(matches!(outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    run
}

fn resolved(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Resolved { refused: None, .. })
}

fn refused(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Resolved { refused: Some(_), .. })
}

/// A person says this, and the call has ended so that the model can go on.
async fn resolves(resolution: Resolution, words: &str) {
    let world = world().await;
    let mut run = parked(&world).await;
    let input = run.resolution("t1.0", resolution, BO);
    let settled = run.resolve("t1.0", resolution, BO).await.settled.unwrap();
    let text = match &settled {
        ToolCallOutcome::Returned { result, is_error: false } if resolution == Resolution::Happened => result.shown(),
        ToolCallOutcome::Refused { result, refusal } if refusal.kind == RefusalKind::ResolvedByPerson => result.shown(),
        other => panic!("{other:?}"),
    };
    assert!(text.contains(words), "{text}");
    // The same word again is told the same and recorded once; the call performs nothing.
    let again = instruct(&run.worker, input).await.unwrap();
    assert_eq!((again.settled.as_ref(), again.refused.as_ref()), (Some(&settled), None));
    assert_eq!((run.call("t1.0").await, run.look_up("t1.0").await), (settled.clone(), settled));
    assert_eq!((run.count(resolved).await, run.intents().await), (1, 1));
    assert_eq!((run.paid().await, world.requests_received().await), (vec![4_500], 1));
    run.turn().await;
    run.close().await;
}

async fn a_person_says_that_it_happened() {
    resolves(Resolution::Happened, "was performed").await;
}

async fn a_person_says_that_it_did_not_happen() {
    resolves(Resolution::DidNotHappen, "did not happen").await;
}

async fn a_person_says_to_go_on_without_it() {
    resolves(Resolution::Skip, "do not repeat it").await;
}

async fn who_is_in_no_group_and_what_is_not_unknown_settles_nothing() {
    let world = world().await;
    let mut run = parked(&world).await;
    let stranger = run.resolve("t1.0", Resolution::DidNotHappen, ANA).await;
    assert!(stranger.settled.is_none() && stranger.refused.unwrap().contains(ANA));
    let nothing = run.resolve("t1.1", Resolution::Happened, BO).await;
    assert!(nothing.settled.is_none() && nothing.refused.unwrap().contains("t1.1"));
    assert!(matches!(run.call("t1.0").await, ToolCallOutcome::OutcomeUnknown { .. }));
    assert!(run.resolve("t1.0", Resolution::Happened, BO).await.refused.is_none());
    let twice = run.resolve("t1.0", Resolution::DidNotHappen, BO).await;
    assert!(matches!(twice.settled, Some(ToolCallOutcome::Returned { .. })) && twice.refused.is_some());
    assert_eq!((run.count(resolved).await, run.count(refused).await), (1, 3));
    assert_eq!(run.paid().await, [4_500]);
}

const NOT_EVE: &str = r#"@id("resolve.not_eve") @reason("eve says nothing of calls")
    forbid (principal == Mandate::User::"eve@acme.example", action == Mandate::Action::"resolve", resource);"#;

async fn whom_policy_or_quarantine_holds_off_settles_nothing() {
    let folder = Folder::proposing(&[&refund(4_500)]).edit("tools/payments.refund.toml", CHECK, "");
    let world = folder.server("exec $SERVER --delay-ms 60000").policy("eve", NOT_EVE).world().await;
    let mut run = parked(&world).await;
    let held_off = async |run: &mut Run<'_>, by: &str, why: &str| {
        let said = run.resolve("t1.0", Resolution::Happened, by).await;
        assert!(said.settled.is_none() && said.refused.as_ref().is_some_and(|said| said.contains(why)), "{said:?}");
    };
    held_off(&mut run, EVE, "eve says nothing of calls").await;
    lock(&world).await;
    held_off(&mut run, BO, "`person:bo@acme.example` is in quarantine: stolen laptop").await;
    lift(&world).await;
    assert_eq!(run.resolve("t1.0", Resolution::Happened, BO).await.refused, None);
    let bodies = world.bodies(&run.opened.run).await.into_iter();
    let by: Vec<_> = bodies
        .filter_map(|body| match body {
            RecordBody::Resolved { by, policies, bundle: Some(_), .. } => {
                Some((by.to_string(), policies.first().map(ToString::to_string)))
            }
            _ => None,
        })
        .collect();
    let expected = [(EVE, Some("resolve.not_eve")), (BO, None), (BO, Some("resolve.finance"))];
    assert_eq!(by, expected.map(|(by, policy)| (by.to_owned(), policy.map(str::to_owned))));
    assert_eq!(run.paid().await, [4_500]);
}

/// A world whose refund answers when the test lets it: the server stands still until it is told to go on.
async fn held() -> World {
    Folder::proposing(&[&refund(4_500)])
        .edit("tools/payments.refund.toml", CHECK, "")
        .server("exec $SERVER")
        .world()
        .await
}

async fn an_outcome_that_came_in_before_the_word_of_a_person_stands() {
    let world = held().await;
    let mut run = Run::proposed(&world).await;
    world.signal_server(Signal::SIGSTOP);
    let input = run.call_input("t1.0");
    let first = std::mem::replace(&mut run.worker, world.worker().await);
    let meanwhile = async {
        until_it_holds("the call is begun", async || world.effect("t1.0").await.is_some()).await;
        assert!(matches!(run.look_up("t1.0").await, ToolCallOutcome::OutcomeUnknown { .. }));
        world.signal_server(Signal::SIGCONT);
    };
    let (late, ()) = tokio::join!(call(&first, input), meanwhile);
    let late = late.unwrap().outcome;
    assert!(matches!(late, ToolCallOutcome::Returned { is_error: false, .. }), "{late:?}");
    let told = run.resolve("t1.0", Resolution::DidNotHappen, BO).await;
    assert_eq!(told.settled.as_ref(), Some(&late));
    assert!(told.refused.is_some_and(|reason| reason.contains("come in meanwhile")));
    assert_eq!((run.call("t1.0").await, run.paid().await), (late, vec![4_500]));
    run.turn().await;
}

async fn an_outcome_that_comes_after_the_word_of_a_person_is_recorded_as_late() {
    let world = held().await;
    let mut run = Run::proposed(&world).await;
    world.signal_server(Signal::SIGSTOP);
    let input = run.call_input("t1.0");
    let first = std::mem::replace(&mut run.worker, world.worker().await);
    let meanwhile = async {
        until_it_holds("the call is begun", async || world.effect("t1.0").await.is_some()).await;
        run.look_up("t1.0").await;
        let settled = run.resolve("t1.0", Resolution::DidNotHappen, BO).await.settled.unwrap();
        world.signal_server(Signal::SIGCONT);
        settled
    };
    let (late, settled) = tokio::join!(call(&first, input), meanwhile);
    // The word of the person has been told to the model; what is true is in the audit log.
    assert_eq!(late.unwrap().outcome, settled);
    assert_eq!(run.call("t1.0").await, settled);
    assert_eq!(run.count(|body| matches!(body, RecordBody::LateOutcome { epoch: 1, .. })).await, 1);
    assert_eq!((run.paid().await, run.intents().await), (vec![4_500], 1));
    run.turn().await;
}

on_both_engines! {
    a_person_says_that_it_happened
    a_person_says_that_it_did_not_happen
    a_person_says_to_go_on_without_it
    who_is_in_no_group_and_what_is_not_unknown_settles_nothing
    whom_policy_or_quarantine_holds_off_settles_nothing
    an_outcome_that_came_in_before_the_word_of_a_person_stands
    an_outcome_that_comes_after_the_word_of_a_person_is_recorded_as_late
}
