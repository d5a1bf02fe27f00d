//! What the webhook is told, walked by hand: from the store alone, once, and as policy says.

use mandate_domain::{DecisionOutcome, EffectId, RecordBody};
use mandate_tests::{Delivery, Receiver};
use mandate_workflows::contract::{NotifyInput, NotifyOutput};

use super::{
    quarantine::lock_up,
    run::{BO, Failed, Run, counted, notify, refund},
    world::{Folder, Task, World, on_both_engines},
};

const PERMIT: &str = r#"@id("notify.all")
    permit (principal, action == Mandate::Action::"notify", resource == Mandate::Webhook::"notifications");"#;

/// A folder whose agent proposes a refund that people decide about, and a webhook that no policy lets be told.
fn silent(url: &str) -> Folder {
    // One TLS provider for every client in this process. Only a second call can fail, and then one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let notify = format!("[notify]\nurl = \"{url}\"\nsecret = \"file:hook.secret\"\n\n[groups]");
    let folder = Folder::proposing(&[&refund(50_000)]).edit("mandate.toml", "[groups]", &notify);
    folder.write("hook.secret", Receiver::SECRET)
}

async fn telling(receiver: &Receiver) -> World {
    silent(&receiver.url()).policy("notify", PERMIT).world().await
}

fn input(run: &Run<'_>, notice: &str) -> NotifyInput {
    NotifyInput { run: run.pointer(), notice: notice.parse().unwrap() }
}

async fn tell(run: &mut Run<'_>, notice: &str) -> Result<(bool, String), Failed> {
    let NotifyOutput { delivered, detail, audit } = notify(&run.worker, input(run, notice)).await?;
    run.audit = audit;
    Ok((delivered, detail.unwrap_or_default()))
}

/// The webhook was told, now or before, and answered with this status.
async fn told(run: &mut Run<'_>, notice: &str, status: &str) {
    assert_eq!(tell(run, notice).await, Ok((true, status.to_owned())), "{notice}");
}

/// Nothing was sent, for a reason with these words.
async fn untold(run: &mut Run<'_>, notice: &str, words: &str) {
    let said = tell(run, notice).await;
    assert!(matches!(&said, Ok((false, detail)) if detail.contains(words)), "{said:?}");
}

async fn intents(run: &Run<'_>) -> usize {
    run.count(|body| matches!(body, RecordBody::Intent { effect: EffectId::Notice(_), .. })).await
}

async fn a_request_is_told_once_and_its_end_too() {
    let receiver = Receiver::new();
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    told(&mut run, "r1.asked", "200").await;
    told(&mut run, "r1.asked", "200").await;
    run.next_worker().await;
    receiver.answers(204);
    told(&mut run, "r1.asked", "200").await;
    let expiry = run.expiry(&request);
    run.review(expiry).await;
    told(&mut run, "r1.asked", "200").await;
    told(&mut run, "r1.expired", "204").await;
    let arrived = receiver.deliveries();
    let events: Vec<_> = arrived.iter().map(Delivery::event).collect();
    assert_eq!(events, ["mandate.request.asked", "mandate.request.expired"]);
    let data = &arrived[0].body["data"];
    assert_eq!(data["request_id"], request.id.as_str());
    assert_eq!(data["arguments_digest"], request.arguments.as_str());
    assert_eq!(intents(&run).await, 2);
}

async fn a_notice_about_nothing_that_happened_is_refused_and_recorded() {
    let receiver = Receiver::new();
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    let forged = ["r2.asked", "r0.asked", "q1.asked", "q1.reminder", "r1.reminder", "r1.escalated", "r1.expired"];
    for notice in forged {
        let failed = tell(&mut run, notice).await.unwrap_err();
        failed.for_good("Refused", "is about nothing that happened in this run");
        assert!(world.intrusions().await.last().is_some_and(|last| last.contains(notice)), "{notice}");
    }
    assert_eq!((world.intrusions().await.len(), receiver.deliveries(), intents(&run).await), (7, vec![], 0));
}

async fn a_request_that_was_decided_is_not_told_any_more() {
    let receiver = Receiver::new();
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    untold(&mut run, "r1.asked", "not needed").await;
    assert_eq!((receiver.deliveries(), intents(&run).await), (vec![], 0));
}

async fn an_attempt_that_was_not_answered_well_is_taken_over_with_the_same_message() {
    let receiver = Receiver::new();
    receiver.answers(500);
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    tell(&mut run, "r1.asked").await.unwrap_err().may_pass("WebhookUnavailable", "status 500");
    tell(&mut run, "r1.asked").await.unwrap_err().may_pass("Claimed", "`r1.asked` is claimed");
    world.run_out("r1.asked", 1000).await;
    receiver.answers(200);
    told(&mut run, "r1.asked", "200").await;
    let arrived = receiver.deliveries();
    assert!(arrived.len() == 2 && arrived[0] == arrived[1], "{arrived:#?}");
    assert_eq!(world.effect("r1.asked").await, Some(("settled".to_owned(), 2)));
}

async fn what_was_not_taken_before_the_decision_is_settled_after_it() {
    let receiver = Receiver::new();
    receiver.answers(503);
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    tell(&mut run, "r1.asked").await.unwrap_err().may_pass("WebhookUnavailable", "status 503");
    run.reject(&request, BO).await;
    world.run_out("r1.asked", 1000).await;
    untold(&mut run, "r1.asked", "not needed").await;
    untold(&mut run, "r1.asked", "not needed").await;
    assert_eq!(receiver.deliveries().len(), 1);
    let settled =
        |body: &RecordBody| matches!(body, RecordBody::Outcome { effect: EffectId::Notice(_), is_error: true, .. });
    assert_eq!(run.count(settled).await, 1);
}

async fn a_receiver_that_refuses_for_good_is_told_once() {
    let receiver = Receiver::new();
    receiver.answers(410);
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    untold(&mut run, "r1.asked", "status 410").await;
    receiver.answers(200);
    untold(&mut run, "r1.asked", "status 410").await;
    assert_eq!(receiver.deliveries().len(), 1);
}

async fn what_was_surely_not_sent_is_claimed_anew_at_once() {
    let closed = Receiver::closed();
    let world = silent(&closed.url()).policy("notify", PERMIT).world().await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    tell(&mut run, "r1.asked").await.unwrap_err().may_pass("NotSent", "no connection");
    assert_eq!(world.effect("r1.asked").await, Some(("released".to_owned(), 1)));
    let _receiver = closed.listen();
    told(&mut run, "r1.asked", "200").await;
    let not_sent = |body: &RecordBody| matches!(body, RecordBody::NotSent { effect: EffectId::Notice(_), .. });
    assert_eq!((run.count(not_sent).await, intents(&run).await), (1, 2));
}

async fn a_secret_is_had_before_anything_is_claimed() {
    let receiver = Receiver::new();
    let world = silent(&receiver.url()).policy("notify", PERMIT).write("hook.secret", "no key").world().await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    let failed = tell(&mut run, "r1.asked").await.unwrap_err();
    failed.may_pass("NoSecret", "hook.secret");
    assert!(!failed.text.contains("no key"), "{failed:?}");
    assert_eq!((receiver.deliveries(), world.effect("r1.asked").await), (vec![], None));
}

fn denied(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Decision { effect: EffectId::Notice(_), outcome: DecisionOutcome::Deny, .. })
}

async fn what_policy_or_quarantine_denies_is_recorded_and_not_told() {
    let receiver = Receiver::new();
    let world = silent(&receiver.url()).world().await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    for _ in 0..2 {
        untold(&mut run, "r1.asked", "no policy permits this").await;
    }
    assert_eq!(run.count(denied).await, 1);
    for target in ["agent:acme/support/refunds", "person:ana@acme.example"] {
        let world = telling(&receiver).await;
        let mut run = Run::proposed(&world).await;
        run.asked("t1.0").await;
        lock_up(&world, target).await;
        untold(&mut run, "r1.asked", &format!("`{target}` is in quarantine")).await;
        assert_eq!(run.count(denied).await, 1);
    }
    assert_eq!(receiver.deliveries(), vec![]);
}

async fn a_policy_may_tell_by_the_kind_of_notice() {
    let receiver = Receiver::new();
    let expired = format!("{} when {{ context.kind == \"expired\" }};", PERMIT.trim_end_matches(';'));
    let world = silent(&receiver.url()).policy("notify", &expired).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    untold(&mut run, "r1.asked", "no policy permits this").await;
    let expiry = run.expiry(&request);
    run.review(expiry).await;
    told(&mut run, "r1.expired", "200").await;
}

async fn two_attempts_at_once_tell_once() {
    let receiver = Receiver::new();
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    let other = world.worker_for(Task { activity_id: "2", ..Task::default() }).await;
    let both = tokio::join!(notify(&run.worker, input(&run, "r1.asked")), notify(&other, input(&run, "r1.asked")));
    let claimed = [both.0, both.1].into_iter().filter_map(Result::err);
    claimed.for_each(|failed| failed.may_pass("Claimed", "is claimed"));
    assert_eq!(receiver.deliveries().len(), 1);
    told(&mut run, "r1.asked", "200").await;
}

async fn a_closed_run_and_a_worker_without_a_webhook_tell_nobody() {
    let receiver = Receiver::new();
    let world = telling(&receiver).await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    run.close().await;
    untold(&mut run, "r1.asked", "the run has ended").await;
    assert_eq!(world.intrusions().await, ["the run has ended"]);
    assert_eq!((receiver.deliveries(), intents(&run).await), (vec![], 0));

    let world = Folder::proposing(&[&refund(50_000)]).policy("notify", PERMIT).world().await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    untold(&mut run, "r1.asked", "no webhook is configured").await;
    assert_eq!(intents(&run).await, 0);
}

on_both_engines! {
    a_request_is_told_once_and_its_end_too
    a_notice_about_nothing_that_happened_is_refused_and_recorded
    a_request_that_was_decided_is_not_told_any_more
    an_attempt_that_was_not_answered_well_is_taken_over_with_the_same_message
    what_was_not_taken_before_the_decision_is_settled_after_it
    a_receiver_that_refuses_for_good_is_told_once
    what_was_surely_not_sent_is_claimed_anew_at_once
    a_secret_is_had_before_anything_is_claimed
    what_policy_or_quarantine_denies_is_recorded_and_not_told
    a_policy_may_tell_by_the_kind_of_notice
    two_attempts_at_once_tell_once
    a_closed_run_and_a_worker_without_a_webhook_tell_nobody
}
