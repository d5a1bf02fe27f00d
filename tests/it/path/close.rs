//! After the closing record nothing is performed, and what is still told is only recorded.

use mandate_domain::{RecordBody, RefusalKind, Review, Sender, agent_run::HaltRequest};
use mandate_workflows::contract::ModelCallOutcome;

use super::{
    run::{BO, READ, Run, close, counted, id, invoke, person, refund},
    world::{Folder, on_both_engines},
};

async fn closing_names_who_halted_and_what_was_left() {
    let world = Folder::proposing(&[&refund(50_000), READ]).world().await;
    let mut run = Run::proposed(&world).await;
    run.asked("t1.0").await;
    let mut closing = run.closing();
    closing.halted_by = Some(HaltRequest {
        sender: Sender { by: Some(person(BO)), comment: Some("enough".to_owned()), ..Sender::default() },
        arrival: None,
    });
    closing.abandoned = vec![id("t1.0"), id("t1.1")];
    let closed = close(&run.worker, closing.clone()).await.unwrap();
    assert_eq!(close(&run.worker, closing).await.unwrap(), closed);
    assert_eq!(run.count(|body| matches!(body, RecordBody::CallAbandoned { .. })).await, 2);
    assert_eq!(run.count(|body| matches!(body, RecordBody::Halted { .. })).await, 1);
    assert_eq!(run.count(|body| matches!(body, RecordBody::RunClosed { .. })).await, 1);
    assert_eq!(run.records().await as u64, closed.audit.records);
}

async fn a_closed_run_calls_no_tool() {
    let world = Folder::proposing(&[READ, &refund(50_000), "{ tool = 'nothing' }"]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.1").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    run.close().await;
    let records = run.records().await;
    for call in ["t1.0", "t1.1", "t1.2"] {
        assert_eq!(run.refused(call).await.0, RefusalKind::RunEnded);
    }
    assert_eq!((run.records().await, run.intents().await, run.paid().await), (records, 0, vec![]));
}

async fn a_closed_run_asks_no_model() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::open(&world).await;
    let input = run.next_turn();
    run.close().await;
    let records = run.records().await;
    let outcome = invoke(&run.worker, input).await.unwrap().outcome;
    assert_eq!(outcome, ModelCallOutcome::Failed { reason: "the run has ended".to_owned() });
    assert_eq!(run.records().await, records);
    assert_eq!(run.count(|body| matches!(body, RecordBody::Intent { .. })).await, 0);
}

async fn a_decision_after_the_close_does_not_count() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    run.close().await;
    let ended = Review::Refused { reason: "the run has ended".to_owned() };
    assert_eq!(run.approve(&request, BO).await, ended);
    assert_eq!(run.reject(&request, BO).await, ended);
    assert_eq!(run.review(run.expiry(&request)).await, ended);
    assert_eq!(run.count(|body| matches!(body, RecordBody::ApprovalDecided { refused: Some(_), .. })).await, 2);
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}

on_both_engines! {
    closing_names_who_halted_and_what_was_left
    a_closed_run_calls_no_tool
    a_closed_run_asks_no_model
    a_decision_after_the_close_does_not_count
}
