//! What a tool's server asks for, along the path and on both engines. The truth is read from the payment system.

use mandate_domain::{Instruction, RecordBody, ToolCallOutcome, instruction::Question};

use super::{
    quarantine::lock_up,
    run::{ANA, BO, Run, refund},
    world::{Folder, World, chain, on_both_engines},
};

const ASKS: &str = "exec $SERVER --ask-above-cents 4000";

async fn world() -> World {
    Folder::proposing(&[&refund(4_500)]).server(ASKS).world().await
}

async fn asked(run: &mut Run<'_>) -> Question {
    let outcome = run.call("t1.0").await;
    let ToolCallOutcome::AnswerRequired { question } = outcome else { panic!("{outcome:?}") };
    question
}

fn answer(question: &Question, text: &str) -> Instruction {
    Instruction::Answer { question: question.id.clone(), text: text.to_owned() }
}

async fn a_server_is_asked_once_while_its_question_waits_and_told_the_answer() {
    let world = world().await;
    let mut run = Run::proposed(&world).await;
    let question = asked(&mut run).await;
    assert!(question.asked.contains("From which account are 4500 cents paid?"), "{question:?}");
    assert_eq!(asked(&mut run).await, question, "another attempt finds it");
    assert_eq!((world.requests_received().await, run.paid().await), (1, vec![]));

    let unfit = run.tell("t1.0", run.says(answer(&question, "the moon"), BO)).await;
    assert!(unfit.refused.is_some_and(|why| why.contains("does not fit")), "{question:?}");
    let told = run.says(answer(&question, "reserve"), BO);
    let first = run.tell("t1.0", told.clone()).await;
    assert_eq!((first.settled, first.refused), (None, None));
    run.returned("t1.0").await;
    assert_eq!((world.requests_received().await, run.paid().await, run.intents().await), (2, vec![4_500], 2));
    let records = world.bodies(&chain()).await;
    assert!(!format!("{records:?}").contains("reserve"), "the record holds no content");
    let asked = records.iter().filter(|body| matches!(body, RecordBody::QuestionAsked { .. }));
    assert_eq!(asked.count(), 1);
    let late = run.tell("t1.0", run.says(answer(&question, "main"), ANA)).await;
    assert!(late.refused.is_some(), "{late:?}");
}

async fn policy_decides_anew_when_people_have_answered() {
    let world = world().await;
    let mut run = Run::proposed(&world).await;
    let question = asked(&mut run).await;
    run.tell("t1.0", run.says(answer(&question, "reserve"), BO)).await;
    lock_up(&world, "tool:payments.refund").await;
    let (_, text) = run.refused("t1.0").await;
    assert!(text.contains("is in quarantine"), "{text}");
    assert_eq!((world.requests_received().await, run.paid().await), (1, vec![]));
}

async fn a_run_that_ends_takes_back_what_a_server_asked_for() {
    let world = world().await;
    let mut run = Run::proposed(&world).await;
    let question = asked(&mut run).await;
    let mut closing = run.closing();
    closing.abandoned = vec![question.call];
    super::run::close(&run.worker, closing).await.unwrap();
    let late = run.tell("t1.0", run.says(answer(&question, "reserve"), BO)).await;
    assert!(late.refused.is_some(), "{late:?}");
    let (_, text) = run.refused("t1.0").await;
    assert!(text.contains("the run has ended"), "{text}");
    assert_eq!((world.requests_received().await, run.paid().await), (1, vec![]));
}

on_both_engines! {
    a_server_is_asked_once_while_its_question_waits_and_told_the_answer
    policy_decides_anew_when_people_have_answered
    a_run_that_ends_takes_back_what_a_server_asked_for
}
