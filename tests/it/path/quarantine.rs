//! Approvals of somebody who is in quarantine by the time the call is to be performed.

use mandate_activities::operator::{Acted, Judged, Judgement, Operator};
use mandate_domain::{Proof, RefusalKind};

use super::{
    run::{BO, EVE, Run, counted, open, person, refund},
    world::{Folder, Task, World, on_both_engines},
};

const WHO: &str = "person:bo@acme.example";

fn operator(world: &World) -> (Operator, Judged) {
    let judgement = Judgement::Permitted { policies: Vec::new(), bundle: None };
    let judged = Judged { by: person("kim@acme.example"), proof: Proof::Claimed, judgement };
    (Operator::new(world.store.clone(), "desk"), judged)
}

pub(super) async fn lock(world: &World) {
    lock_up(world, WHO).await;
}

pub(super) async fn lock_up(world: &World, target: &str) {
    let (operator, judged) = operator(world);
    assert_eq!(operator.quarantine(&judged, &target.parse().unwrap(), "stolen laptop").await.unwrap(), Acted::Done);
}

pub(super) async fn lift(world: &World) {
    let (operator, judged) = operator(world);
    assert_eq!(operator.lift(&judged, &WHO.parse().unwrap()).await.unwrap(), Acted::Done);
}

async fn refused(run: &mut Run<'_>, target: &str) {
    let (kind, text) = run.refused("t1.0").await;
    let why = format!("`{target}` is in quarantine: stolen laptop");
    assert!(kind == RefusalKind::Denied && text.contains(&why), "{kind:?}: {text}");
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}

async fn an_approval_releases_nothing_once_who_gave_it_is_in_quarantine() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    lock(&world).await;
    refused(&mut run, WHO).await;
    lift(&world).await;
    refused(&mut run, WHO).await;
}

async fn nor_does_the_second_approval_after_it() {
    let two = r#"@quorum("2")"#;
    let folder = Folder::proposing(&[&refund(50_000), &refund(40_000)]);
    let world = folder.edit("policies/refunds.cedar", r#"@quorum("1")"#, two).with_keys().world().await;
    let mut run = Run::proposed(&world).await;
    let first = run.asked("t1.0").await.remove(0);
    let second = run.asked("t1.1").await.remove(0);
    for request in [&first, &second] {
        assert_eq!(run.approve(request, BO).await, counted(1, false));
    }
    lock(&world).await;
    assert_eq!(run.approve(&first, EVE).await, counted(2, true));
    refused(&mut run, WHO).await;

    lift(&world).await;
    assert_eq!(run.approve(&second, EVE).await, counted(2, true));
    run.returned("t1.1").await;
    assert_eq!(run.paid().await, [40_000]);
}

/// Nothing is retried for a day because what is locked up does not answer.
async fn a_server_in_quarantine_is_neither_started_nor_waited_for() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    lock_up(&world, "server:refunds").await;
    let command = r#"command = ["refunds-mcp", "--database", "var/payments.db"]"#;
    world.edit("mandate.toml", command, r#"command = ["sh", "-c", "touch started; exit 1"]"#);
    run.next_worker().await;
    refused(&mut run, "server:refunds").await;

    let workflow_type = mandate_workflows::WORKFLOW_TYPE;
    world.start("run-2", "run-2", workflow_type, "mandate");
    let worker = world.worker_for(Task { run_id: "run-2", ..Task::default() }).await;
    open(&worker).await.unwrap();
    assert!(!world.folder.path().join("started").exists(), "it was started");
}

on_both_engines! {
    an_approval_releases_nothing_once_who_gave_it_is_in_quarantine
    nor_does_the_second_approval_after_it
    a_server_in_quarantine_is_neither_started_nor_waited_for
}
