//! Activities that point at what is not theirs: refused for good with a clear text, without effect, and recorded.

use mandate_activities::store::{AddressKeySource, Store, StorePlace, StoreSettings};
use mandate_domain::{ChainHead, Digest, RecordBody};
use mandate_workflows::contract::{CallToolInput, InvokeModelInput, RefusedMessages, RunPointer};

use super::{
    run::{Failed, READ, Run, call, close, instruct, invoke, open, refund, review},
    world::{Folder, Task, World, on_both_engines},
};

/// The failure is an intrusion, and the last recorded one.
async fn intrusion(world: &World, failed: Failed, words: &str) {
    failed.for_good("Refused", words);
    let recorded = world.intrusions().await;
    assert!(recorded.last().is_some_and(|last| failed.text.contains(last.as_str())), "{recorded:?}");
}

fn task(activity_id: &'static str) -> Task {
    Task { activity_id, ..Task::default() }
}

async fn a_call_that_no_reply_proposed_is_refused() {
    let world = Folder::proposing(&[READ]).world().await;
    let run = Run::proposed(&world).await;
    for (activity, forged) in [("21", "t1.1"), ("22", "t2.0"), ("23", "t1.0r2"), ("24", "t0.0")] {
        let failed = call(&world.worker_for(task(activity)).await, run.call_input(forged)).await.unwrap_err();
        intrusion(&world, failed, forged).await;
    }
    assert_eq!((world.intrusions().await.len(), run.intents().await), (4, 0));
}

async fn a_turn_with_another_transcript_or_other_results_is_refused() {
    let world = Folder::proposing(&[READ, READ]).world().await;
    let mut run = Run::open(&world).await;
    let first = run.next_turn();
    run.turn().await;
    run.returned("t1.0").await;
    let half = InvokeModelInput { turn: 2, transcript: run.transcript.clone(), ..first.clone() };
    run.returned("t1.1").await;
    let good = run.next_turn();
    let forged = |change: fn(&mut InvokeModelInput)| {
        let mut input = good.clone();
        change(&mut input);
        input
    };
    let cases = [
        ("31", InvokeModelInput { transcript: good.transcript.clone(), ..first.clone() }, "another transcript"),
        ("32", InvokeModelInput { append: good.append.clone(), ..first }, "another transcript"),
        ("33", InvokeModelInput { transcript: run.opened.transcript.clone(), ..good.clone() }, "another transcript"),
        ("34", half, "other results"),
        ("35", forged(|input| drop(input.append.pop())), "other results"),
        ("36", forged(|input| input.append.extend_from_within(..1)), "other results"),
        ("37", forged(|input| input.turn = 3), "turn 2"),
        ("38", forged(|input| input.turn = 0), "from 1"),
    ];
    for (activity, input, words) in cases {
        let failed = invoke(&world.worker_for(task(activity)).await, input).await.unwrap_err();
        intrusion(&world, failed, words).await;
    }
    let intent = |body: &RecordBody| matches!(body, RecordBody::Intent { .. });
    assert_eq!(run.count(intent).await, 3);
    run.turn().await;
}

async fn a_turn_whose_calls_have_not_ended_is_refused() {
    let world = Folder::proposing(&[READ]).world().await;
    let run = Run::proposed(&world).await;
    let input = InvokeModelInput {
        run: run.pointer(),
        turn: 2,
        transcript: run.transcript.clone(),
        append: vec![],
        instructions: vec![],
    };
    let failed = invoke(&run.worker, input).await.unwrap_err();
    intrusion(&world, failed, "t1.0").await;
}

async fn a_run_of_another_store_is_refused_naming_both() {
    let world = Folder::proposing(&[READ]).world().await;
    let run = Run::proposed(&world).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("mandate.db");
    let address_keys = AddressKeySource::Folder(elsewhere.path().join("keys"));
    let other = Store::open(StoreSettings { place: StorePlace::File(path), address_keys }).await.unwrap();
    let worker = world.worker_on(other.clone(), Task::default()).await;
    let failed = call(&worker, run.call_input("t1.0")).await.unwrap_err();
    failed.for_good("OtherStore", world.store.id().as_str());
    failed.for_good("OtherStore", other.id().as_str());
    invoke(&worker, run.first_turn()).await.unwrap_err().for_good("OtherStore", "pinned");
    close(&worker, run.closing()).await.unwrap_err().for_good("OtherStore", "pinned");
    assert_eq!(run.intents().await, 0);
}

async fn a_store_that_is_behind_its_run_is_refused() {
    let world = Folder::proposing(&[READ, &refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.1").await.remove(0);
    let known = run.audit.clone();
    // More records than there are, and as many with another head: a backup, and one that was written to since.
    for seen in [
        ChainHead { records: known.records + 3, head: Digest::from_bytes([7; 32]) },
        ChainHead { records: known.records, head: Digest::from_bytes([7; 32]) },
    ] {
        run.audit = seen;
        let behind = |failed: Failed| failed.for_good("store_behind_run", "behind its run");
        behind(call(&run.worker, run.call_input("t1.0")).await.unwrap_err());
        let decision = run.decision(request.call, &request.id, mandate_domain::Verdict::Approve, super::run::BO).await;
        behind(review(&run.worker, decision).await.unwrap_err());
        let resolve = run.resolution("t1.0", mandate_domain::Resolution::Skip, super::run::BO);
        behind(instruct(&run.worker, resolve).await.unwrap_err());
        behind(close(&run.worker, run.closing()).await.unwrap_err());
    }
    assert_eq!((run.intents().await, run.records().await as u64), (0, known.records));
}

async fn an_execution_that_is_no_agent_run_of_this_queue_is_refused() {
    let world = Folder::proposing(&[READ]).world().await;
    let run = Run::proposed(&world).await;
    world.start("foreign", "foreign", "Forged", "mandate");
    world.start("elsewhere", "elsewhere", mandate_workflows::WORKFLOW_TYPE, "other");
    world.start("never-opened", "never-opened", mandate_workflows::WORKFLOW_TYPE, "mandate");
    world.start("tail", "lost", mandate_workflows::WORKFLOW_TYPE, "mandate");
    let agent = mandate_workflows::WORKFLOW_TYPE;
    for (run_id, workflow_type, words) in [
        ("foreign", "Forged", "workflow type `Forged`"),
        // The task lies about its type; the first event does not.
        ("foreign", agent, "workflow type `Forged`"),
        ("elsewhere", agent, "task queue `mandate`, not `other`"),
        ("unknown", agent, "knows no such execution"),
        ("never-opened", agent, "not opened"),
        ("tail", agent, "not opened"),
    ] {
        let activity_id = if workflow_type == agent { "2" } else { "1" };
        let worker = world.worker_for(Task { workflow_type, run_id, activity_id, ..Task::default() }).await;
        let failed = call(&worker, run.call_input("t1.0")).await.unwrap_err();
        intrusion(&world, failed, words).await;
    }
    for (run_id, words) in [("foreign", "Forged"), ("elsewhere", "`other`"), ("unknown", "no such"), ("tail", "never")]
    {
        let worker = world.worker_for(Task { run_id, activity_id: "3", ..Task::default() }).await;
        intrusion(&world, open(&worker).await.unwrap_err(), words).await;
    }
    assert_eq!((world.intrusions().await.len(), run.intents().await), (10, 0));
}

async fn an_activity_without_a_workflow_is_refused() {
    let world = Folder::proposing(&[READ]).world().await;
    let run = Run::proposed(&world).await;
    let worker = world.worker_for(Task { workflow_id: None, ..Task::default() }).await;
    let words = "without a workflow execution";
    open(&worker).await.unwrap_err().for_good("NoWorkflow", words);
    call(&worker, run.call_input("t1.0")).await.unwrap_err().for_good("NoWorkflow", words);
    invoke(&worker, run.first_turn()).await.unwrap_err().for_good("NoWorkflow", words);
    close(&worker, run.closing()).await.unwrap_err().for_good("NoWorkflow", words);
    assert_eq!(run.intents().await, 0);
}

async fn a_continued_execution_goes_on_with_its_chain() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::proposed(&world).await;
    world.start("run-2", super::world::RUN_ID, mandate_workflows::WORKFLOW_TYPE, "mandate");
    run.worker = world.worker_for(Task { run_id: "run-2", ..Task::default() }).await;
    run.returned("t1.0").await;
    run.turn().await;
    run.close().await;
    assert_eq!(open(&run.worker).await.unwrap().opened, run.opened);
    assert_eq!((run.intents().await, world.intrusions().await), (1, vec![]));
}

async fn a_start_input_that_is_no_task_and_an_unknown_agent_are_refused() {
    let world = Folder::proposing(&[READ]).world().await;
    let agent = mandate_workflows::WORKFLOW_TYPE;
    let bad = [
        ("b1", "[1]", "InvalidInput", "task"),
        ("b2", r#"{"agent":"acme/support/refunds"}"#, "InvalidInput", "prompt"),
        (
            "b3",
            r#"{"agent":"acme/support/nobody","prompt":"x","on_behalf_of":"ana@acme.example"}"#,
            "UnknownAgent",
            "acme/support/refunds",
        ),
    ];
    for (run_id, input, kind, words) in bad {
        world.start_with(run_id, run_id, agent, "mandate", input.to_owned());
        let worker = world.worker_for(Task { run_id, ..Task::default() }).await;
        open(&worker).await.unwrap_err().for_good(kind, words);
    }
    assert_eq!(world.store.runs(None).await.unwrap(), []);
}

async fn refused_messages_are_recorded_once_by_the_next_activity() {
    let world = Folder::proposing(&[READ]).world().await;
    let mut run = Run::proposed(&world).await;
    let refused_messages = Some(RefusedMessages { count: 2, last_reason: "not JSON".to_owned() });
    let pointer = RunPointer { refused_messages, ..run.pointer() };
    let input = CallToolInput { run: pointer, ..run.call_input("t1.0") };
    for _ in 0..2 {
        run.audit = call(&run.worker, input.clone()).await.unwrap().audit;
    }
    assert_eq!(run.count(|body| matches!(body, RecordBody::MessagesRefused { count: 2, .. })).await, 1);
}

on_both_engines! {
    a_call_that_no_reply_proposed_is_refused
    a_turn_with_another_transcript_or_other_results_is_refused
    a_turn_whose_calls_have_not_ended_is_refused
    a_run_of_another_store_is_refused_naming_both
    a_store_that_is_behind_its_run_is_refused
    an_execution_that_is_no_agent_run_of_this_queue_is_refused
    an_activity_without_a_workflow_is_refused
    a_continued_execution_goes_on_with_its_chain
    a_start_input_that_is_no_task_and_an_unknown_agent_are_refused
    refused_messages_are_recorded_once_by_the_next_activity
}
