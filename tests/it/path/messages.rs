//! Where a message came in is a claim of the workflow: what stands in the history of that execution decides.

use mandate_domain::{
    Digest, Evidence, Instruction, PersonId, Sender, SentInstruction, Verdict, agent_run::Word, approval::Arrival,
    audit::RecordBody, proof::InstructionKind,
};
use mandate_tests::keys;
use mandate_workflows::contract::{ReviewInstructionInput, ReviewSubject};
use serde_json::{Value, json};

use super::{
    run::{Run, counted, refund, review},
    world::{Folder, LATE, RUN_ID, Task, WORKFLOW_ID, World},
};

const BO: &str = "bo@acme.example";
/// In what execution a run goes on.
const NEXT: &str = "run-2";
const USED: &str = "the proof was used before, and it is good once";

/// A run in a folder that accepts keys, with a call that waits.
async fn waiting(world: &World) -> Run<'_> {
    let mut run = Run::proposed(world).await;
    run.asked("t1.0").await;
    run
}

async fn with_keys() -> World {
    Folder::proposing(&[&refund(50_000)]).with_keys().world().await
}

/// A pause that Bo has signed.
fn pause(run: &Run<'_>) -> SentInstruction {
    let statement = keys::instruction(&run.opened.run, "m1", InstructionKind::Pause, None, None);
    let evidence = Evidence { signature: Some(keys::sign(&statement, BO, BO)), token: None };
    let (by, message_id) = (Some(PersonId::parse(BO).unwrap()), Some("m1".to_owned()));
    SentInstruction { instruction: Instruction::Pause, sender: Sender { by, comment: None, message_id, evidence } }
}

/// The payload of its signal.
fn payload(sent: &SentInstruction) -> Value {
    json!({ "by": BO, "message_id": "m1", "signature": sent.sender.evidence.signature })
}

/// Why it does not count, said to have come in as this.
async fn refused(run: &mut Run<'_>, sent: SentInstruction, run_id: &str, name: &str) -> Option<String> {
    let arrival = Arrival { run_id: run_id.to_owned(), name: name.to_owned(), ordinal: 1, at_ms: 0 };
    let input = ReviewInstructionInput { run: run.pointer(), word: Word::Sent { sent, arrival }, ordinal: 1 };
    run.tell("t1.0", input).await.refused
}

#[tokio::test]
async fn a_message_counts_that_stands_in_history_as_it_is_said_to() {
    let world = with_keys().await;
    let mut run = waiting(&world).await;
    let sent = pause(&run);
    world.executions.receive(RUN_ID, "pause", 0, &payload(&sent).to_string(), &[]);
    assert_eq!(refused(&mut run, sent, RUN_ID, "pause").await, None);
}

#[tokio::test]
async fn a_message_that_stands_nowhere_or_says_something_else_does_not_count() {
    for (run_id, name, why) in [
        (RUN_ID, "pause", "its event in history says something else"),
        // The payload of a resume looks like that of a pause.
        (RUN_ID, "resume", "it is no message of the kind that it came in as"),
        (RUN_ID, "decide", "it is no message of the kind that it came in as"),
        (NEXT, "pause", "history has no event of it"),
        ("elsewhere", "pause", "execution `elsewhere` is none of this run"),
        ("never", "pause", "execution `never` is none of this run"),
    ] {
        let world = with_keys().await;
        let mut run = waiting(&world).await;
        let sent = pause(&run);
        let other = json!({ "by": BO, "message_id": "m2", "signature": sent.sender.evidence.signature });
        world.executions.receive(RUN_ID, "pause", 0, &other.to_string(), &[]);
        world.executions.receive(RUN_ID, "resume", 0, &payload(&sent).to_string(), &[]);
        world.start(NEXT, RUN_ID, mandate_workflows::WORKFLOW_TYPE, "mandate");
        world.start_other("another-run", "elsewhere", "elsewhere");
        world.executions.receive("elsewhere", "pause", 0, &payload(&sent).to_string(), &[]);
        assert_eq!(refused(&mut run, sent, run_id, name).await.as_deref(), Some(why), "{run_id} {name}");
    }
}

/// The message came before, in this execution or an earlier one, and was refused before anybody looked at its proof.
#[tokio::test]
async fn a_proof_that_an_earlier_message_carried_does_not_count() {
    let world = with_keys().await;
    let mut run = waiting(&world).await;
    let sent = pause(&run);
    let once: Digest = sent.sender.evidence.once().unwrap();
    world.executions.receive(RUN_ID, "pause", 0, &payload(&sent).to_string(), &[once]);
    assert_eq!(refused(&mut run, sent.clone(), RUN_ID, "pause").await.as_deref(), Some(USED));

    let world = with_keys().await;
    let mut run = waiting(&world).await;
    let sent = pause(&run);
    world.start(NEXT, RUN_ID, mandate_workflows::WORKFLOW_TYPE, "mandate");
    world.executions.continues(WORKFLOW_ID, NEXT, RUN_ID);
    world.executions.receive(RUN_ID, "resume", 0, &payload(&sent).to_string(), &[]);
    world.executions.receive(NEXT, "pause", 0, &payload(&sent).to_string(), &[]);
    run.worker = world.worker_for(Task { run_id: NEXT, ..Task::default() }).await;
    assert_eq!(refused(&mut run, sent, NEXT, "pause").await.as_deref(), Some(USED));
}

/// The same for a decision that is reviewed late: the time of its event decides, of a signal and of an update.
#[tokio::test]
async fn a_late_decision_counts_by_the_time_of_its_event() {
    let in_time = |name: &str| (name.to_owned(), 0);
    let too_late = |name: &str| (name.to_owned(), u64::try_from(LATE.as_millis()).unwrap());
    for ((name, time_ms), counts) in [
        (in_time("approve"), true),
        (in_time("decide"), true),
        (too_late("approve"), false),
        (too_late("decide"), false),
        (in_time("reject"), false),
    ] {
        let world = Folder::proposing(&[&refund(50_000)]).world().await;
        let mut run = Run::proposed(&world).await;
        let request = run.asked("t1.0").await.remove(0);
        let mut payload = json!({ "request_id": request.id, "by": BO });
        if name == "decide" {
            payload["verdict"] = "approve".into();
        }
        world.executions.receive(RUN_ID, &name, time_ms, &payload.to_string(), &[]);
        let mut input = run.decision(request.call, &request.id, Verdict::Approve, BO).await;
        if let ReviewSubject::Decision { arrival, .. } = &mut input.subject {
            // The workflow says that it came in time.
            *arrival = Some(Arrival { run_id: RUN_ID.to_owned(), name: name.clone(), ordinal: 1, at_ms: 0 });
        }
        let late = world.worker_for(Task { started: LATE, ..Task::default() }).await;
        let told = review(&late, input).await.unwrap().review;
        assert_eq!(told == counted(1, true), counts, "{name} at {time_ms}: {told:?}");
    }
}

/// That the time of a request is over is a claim as well.
#[tokio::test]
async fn nothing_expires_before_its_time() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    let failed = review(&run.worker, run.expiry(&request)).await.unwrap_err();
    failed.may_pass("TooEarly", "the time of `r1-");
    assert_eq!(run.count(|body| matches!(body, RecordBody::ApprovalExpired { .. })).await, 0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
}
