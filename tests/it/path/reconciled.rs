//! More runs than one page of a comparison has: those of the store, and those that Temporal lists.

use mandate_activities::{AgentActivities, executions::Listed};
use mandate_domain::{ChainHead, Digest, EndReason, RecordBody, RunChain, audit::FoundEnd};
use mandate_workflows::{
    RECONCILE_WORKFLOW_TYPE,
    reconcile::{Cursor, ReconcileRunsInput, Reconciled},
};

use super::{
    run::{READ, open},
    world::{Folder, Task, World, environment, on_both_engines},
};

/// One more than a page of the store's runs has; before them stands the store's own chain.
const RUNS: usize = 51;

async fn runs_beyond_the_first_page_are_closed() {
    let world = Folder::proposing(&[READ]).world().await;
    let runs = opened(&world, RUNS).await;
    for run in &runs {
        world.executions.end(&run.workflow_id, &run.first_run_id, FoundEnd::Terminated);
    }
    let (pages, found) = compared(&world).await;
    assert_eq!(pages, ["from 0", "from 51", "listed"]);
    assert_eq!((found.checked, found.closed, found.failed), (51, 51, 0), "{found:?}");
    for run in &runs {
        let bodies = world.bodies(run).await;
        let [.., RecordBody::RunReconciled { found, .. }, RecordBody::RunClosed { reason, .. }] = &bodies[..] else {
            panic!("{bodies:?}")
        };
        assert_eq!((*found, *reason), (FoundEnd::Terminated, Some(EndReason::Terminated)));
    }
    let (_, again) = compared(&world).await;
    assert_eq!((again.checked, again.closed), (0, 0), "{again:?}");
}

async fn a_run_on_the_second_page_of_the_list_is_found_missing() {
    let world = Folder::proposing(&[READ]).world().await;
    let known = opened(&world, 1).await.remove(0);
    world.start_other("refund-lost", "run-lost", "run-lost");
    let seen = ChainHead { records: 7, head: Digest::from_bytes([7; 32]) };
    world.executions.saw("run-lost", seen.clone());
    let one = |run: &RunChain| vec![(run.workflow_id.clone(), run.first_run_id.clone())];
    let lost = RunChain { workflow_id: "refund-lost".to_owned(), first_run_id: "run-lost".to_owned() };
    world.executions.list(b"", Listed { executions: one(&known), token: b"second".to_vec() });
    world.executions.list(b"second", Listed { executions: one(&lost), token: Vec::new() });
    let (pages, found) = compared(&world).await;
    assert_eq!(pages, ["from 0", "listed", "listed"]);
    assert_eq!((found.store_behind_run, found.closed, found.failed), (1, 0, 0), "{found:?}");
    let named = world.bodies(&world.store.own_chain()).await.into_iter().find_map(|body| match body {
        RecordBody::StoreBehindRun { run, seen, found } => Some((run, seen, found)),
        _ => None,
    });
    assert_eq!(named, Some((lost, seen, 0)));
}

/// Runs that their workflows have opened.
async fn opened(world: &World, runs: usize) -> Vec<RunChain> {
    let activities = world.activities_on(world.store.clone()).await;
    let mut opened = Vec::new();
    for number in 0..runs {
        // They live as long as the tests do.
        let id: &'static str = format!("refund-{number}").leak();
        let run_id: &'static str = format!("run-{number}").leak();
        world.start_other(id, run_id, run_id);
        let worker = environment(activities.clone(), Task { workflow_id: Some(id), run_id, ..Task::default() });
        opened.push(open(&worker).await.unwrap().opened.run);
    }
    opened
}

/// What the workflow of the reconciler does: page after page, and what was found.
async fn compared(world: &World) -> (Vec<String>, Reconciled) {
    let task = Task { workflow_type: RECONCILE_WORKFLOW_TYPE, run_id: "compares", ..Task::default() };
    let worker = world.worker_for(task).await;
    let (mut pages, mut found) = (Vec::new(), Reconciled::default());
    let mut next = Some(Cursor::Open { after: 0 });
    while let Some(cursor) = next {
        pages.push(match &cursor {
            Cursor::Open { after } => format!("from {after}"),
            Cursor::Listed { .. } => "listed".to_owned(),
        });
        let output = worker.run(AgentActivities::reconcile_runs, ReconcileRunsInput { cursor }).await.unwrap();
        found = found.plus(output.found);
        next = output.next;
    }
    (pages, found)
}

on_both_engines! {
    runs_beyond_the_first_page_are_closed
    a_run_on_the_second_page_of_the_list_is_found_missing
}
