//! One run from its opening to its close, and the same activities once more: nothing is performed twice.

use futures::future::join_all;
use mandate_activities::AgentActivities;
use mandate_domain::{RecordBody, Review, ToolCallOutcome, Verdict};
use temporalio_sdk::{
    activities::ActivityError,
    testing::{ActivityEnvironment, ActivityEnvironmentError},
};

use super::{
    run::{BO, Failed, READ, Run, call, close, counted, invoke, open, refund, review},
    world::{Folder, on_both_engines},
};

async fn a_large_refund_is_read_asked_approved_paid_once_and_answered() {
    let world = Folder::replying(&[
        &format!("text = 'I look.'\ncalls = [{READ}]"),
        &format!("calls = [{}]", refund(50_000)),
        "text = 'I refunded 500.00 EUR.'",
    ])
    .world()
    .await;
    let mut run = Run::open(&world).await;
    assert_eq!(run.turn().await.calls.len(), 1);
    assert!(run.returned("t1.0").await.contains(r#""total_cents":90000"#));
    run.turn().await;
    let [request] = &run.asked("t2.0").await[..] else { panic!("not one request") };
    assert!(request.arguments_shown.contains(r#""amount_cents":50000"#), "{request:?}");
    assert_eq!(run.paid().await, [0; 0]);
    assert_eq!(run.approve(request, BO).await, counted(1, true));
    assert!(run.returned("t2.0").await.contains("refunded"));
    let last = run.turn().await;
    assert!(last.calls.is_empty() && last.text.unwrap().shown().contains("500.00"));
    run.close().await;
    assert_eq!(world.payments().await, [(format!("{}/t2.0", run.opened.run), 50_000)]);
    assert_eq!((run.paid().await, run.intents().await), (vec![50_000], 2));
}

async fn every_activity_answers_the_same_again_and_performs_nothing() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::open(&world).await;
    assert_eq!(open(&run.worker).await.unwrap().opened, run.opened);

    let asked = run.next_turn();
    run.turn().await;
    let first = invoke(&run.worker, asked.clone()).await.unwrap();
    assert_eq!(first, invoke(&world.worker().await, asked).await.unwrap());

    let input = run.call_input("t1.0");
    let waiting = call(&run.worker, input.clone()).await.unwrap();
    assert_eq!(waiting, call(&world.worker().await, input.clone()).await.unwrap());
    let ToolCallOutcome::ApprovalRequired { requests } = waiting.outcome else { panic!("{waiting:?}") };

    let decision = run.decision(requests[0].call, &requests[0].id, Verdict::Approve, BO).await;
    assert_eq!(run.approve(&requests[0], BO).await, counted(1, true));
    let records = run.records().await;
    assert_eq!(review(&run.worker, decision).await.unwrap().review, counted(1, true));
    assert_eq!(run.records().await, records);

    let paid = call(&run.worker, input.clone()).await.unwrap();
    assert!(matches!(paid.outcome, ToolCallOutcome::Returned { is_error: false, .. }), "{paid:?}");
    assert_eq!(call(&world.worker().await, input).await.unwrap(), paid);
    assert_eq!((run.paid().await, world.requests_received().await), (vec![50_000], 1));
    assert_eq!(run.look_up("t1.0").await, paid.outcome);

    let closing = run.closing();
    let closed = close(&run.worker, closing.clone()).await.unwrap();
    assert_eq!(close(&run.worker, closing).await.unwrap(), closed);
    assert_eq!((run.intents().await, world.requests_received().await), (1, 1));
}

async fn a_rejection_and_an_expiry_answer_the_same_again() {
    let world = Folder::proposing(&[&refund(50_000), &refund(20_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let (rejected, expired) = (run.asked("t1.0").await.remove(0), run.asked("t1.1").await.remove(0));
    let decision = run.decision(rejected.call, &rejected.id, Verdict::Reject, BO).await;
    let expiry = run.expiry(&expired);
    let first = (run.reject(&rejected, BO).await, run.review(expiry.clone()).await);
    assert!(matches!(first, (Review::Rejected { .. }, Review::Expired { .. })), "{first:?}");
    let records = run.records().await;
    let again = (review(&run.worker, decision).await.unwrap(), review(&run.worker, expiry).await.unwrap());
    assert_eq!((again.0.review, again.1.review), first);
    assert_eq!((run.records().await, run.paid().await), (records, vec![]));
}

async fn a_cancelled_activity_begins_nothing_and_still_gives_back_what_is_known() {
    let world = Folder::proposing(&[&refund(4_500), &refund(5_500)]).world().await;
    let mut run = Run::proposed(&world).await;
    let paid = run.call("t1.0").await;
    run.worker.cancel();
    assert_eq!(run.call("t1.0").await, paid);
    let input = run.call_input("t1.1");
    let ended = run.worker.run(AgentActivities::call_tool, input).await;
    assert!(matches!(&ended, Err(ActivityEnvironmentError::Activity(ActivityError::Cancelled { .. }))), "{ended:?}");
    assert_eq!((run.paid().await, run.intents().await), (vec![4_500], 1));
}

/// Four workers do the same at once and answer the same.
async fn at_once<T: PartialEq + std::fmt::Debug>(
    workers: &[ActivityEnvironment],
    act: impl AsyncFn(&ActivityEnvironment) -> Result<T, Failed>,
) -> T {
    let mut answers = join_all(workers.iter().map(|worker| act(worker))).await;
    let first = answers.remove(0).unwrap();
    for answer in answers {
        assert_eq!(answer.as_ref(), Ok(&first));
    }
    first
}

async fn attempts_at_once_answer_the_same_and_record_once() {
    let calls = [&refund(50_000), "{ tool = 'nothing' }", &refund(600_000)];
    let world = Folder::proposing(&calls).world().await;
    let workers: Vec<_> = join_all((0..4).map(|_| world.worker())).await;
    let opened = at_once(&workers, async |worker| Ok(open(worker).await?.opened)).await;
    let mut run = Run::proposed(&world).await;
    assert_eq!(run.opened, opened);

    let input = run.call_input("t1.0");
    let asked = at_once(&workers, async |worker| Ok(call(worker, input.clone()).await?.outcome)).await;
    let ToolCallOutcome::ApprovalRequired { requests } = asked else { panic!("{asked:?}") };
    for refused in ["t1.1", "t1.2"] {
        let input = run.call_input(refused);
        let outcome = at_once(&workers, async |worker| Ok(call(worker, input.clone()).await?.outcome)).await;
        assert_eq!(run.call(refused).await, outcome);
    }
    let decision = run.decision(requests[0].call, &requests[0].id, Verdict::Reject, BO).await;
    let rejected = at_once(&workers, async |worker| Ok(review(worker, decision.clone()).await?.review)).await;
    assert!(matches!(rejected, Review::Rejected { .. }), "{rejected:?}");
    let closing = run.closing();
    at_once(&workers, async |worker| close(worker, closing.clone()).await).await;

    let once = [
        run.count(|body| matches!(body, RecordBody::RunOpened { .. })).await,
        run.count(|body| matches!(body, RecordBody::ApprovalRequested { .. })).await,
        run.count(|body| matches!(body, RecordBody::CallRefused { .. })).await,
        run.count(|body| matches!(body, RecordBody::ApprovalDecided { .. })).await,
        run.count(|body| matches!(body, RecordBody::RunClosed { .. })).await,
    ];
    assert_eq!((once, run.intents().await, run.paid().await), ([1; 5], 0, vec![]));
}

on_both_engines! {
    a_large_refund_is_read_asked_approved_paid_once_and_answered
    every_activity_answers_the_same_again_and_performs_nothing
    a_rejection_and_an_expiry_answer_the_same_again
    a_cancelled_activity_begins_nothing_and_still_gives_back_what_is_known
    attempts_at_once_answer_the_same_and_record_once
}
