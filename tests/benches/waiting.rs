//! A thousand runs that wait for people cost a worker next to nothing: what they cost, on a real server, and whether each
//! is decided exactly once afterwards.
//!
//! `cargo bench --profile dev --package mandate-tests --bench waiting`. `MANDATE_PROGRAM` names a `mandate` that was built
//! before, with `refunds-mcp` beside it; else those of the same profile are built.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "this crate is test code: a panic is how a test fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use mandate_domain::audit::RecordBody;
use mandate_tests::{Process, Scenario, Told, Usage, Way, pass, run, until_within};
use serde_json::Value;

const RUNS: usize = 1_000;
const AT_ONCE: usize = 50;
/// How long the worker is watched.
const WATCHED: Duration = Duration::from_mins(1);
/// How much of one core it may use meanwhile.
const CPU_SHARE_MAX: f64 = 0.01;
/// How much more memory it may use than before the runs.
const GROWTH_MAX_BYTES: u64 = 50 * 1024 * 1024;
/// How long everything may take that is not measured.
const PATIENCE: Duration = Duration::from_mins(20);
/// A worker that uses less of a core than this has nothing more to do.
const QUIET: Duration = Duration::from_millis(30);
const BO: &str = "bo@acme.example";

fn main() {
    run(measure());
}

async fn measure() {
    let world = Scenario::new("bench-waiting").await;
    world.raise_order("o1").await;
    let worker = world.start_worker().await;
    // One run first: the model, the tool server and the policies are there before anything is measured.
    one_run(&world.of_run("first")).await;
    let before = quiet(&worker).await;
    let runs: Vec<_> = (0..RUNS).map(|number| world.of_run(&format!("waiting-{number}"))).collect();
    stream::iter(&runs).for_each_concurrent(AT_ONCE, async |run| run.start("Refund order o1").await).await;
    let query = |state: &str| format!(r#"MandateState="{state}" AND TaskQueue="{}""#, world.name);
    all(&world, &query("AwaitingApproval"), RUNS).await;
    let waiting = quiet(&worker).await;
    pass(WATCHED).await;
    let after = worker.usage();
    report(before, waiting, after);
    all_are_listed(&world).await;
    approve_all(&world).await;
    all(&world, &query("Completed"), RUNS + 1).await;
    check_payments(&world).await;
    check_decisions(&world).await;
    println!("  memory once all decided   {:>8.1} MiB", mebibytes(worker.usage().resident_bytes));
    check(before, waiting, after);
}

/// Whoever asks what waits is told of each, whatever that costs: it is not measured.
async fn all_are_listed(world: &Scenario) {
    let said = world.mandate(&["approvals", "--output", "json"]).await;
    assert!(said.code == 0 && said.stderr.contains("asked 1000 runs so far"), "{}", said.stderr);
    let listed: Vec<Value> = serde_json::from_str(&said.stdout).expect("JSON");
    let listed = listed.iter().filter(|one| one["kind"] == "request");
    let runs: BTreeSet<_> = listed.filter_map(|one| one["workflow_id"].as_str()).collect();
    assert_eq!(runs.len(), RUNS, "each is listed: {}", said.stderr);
}

/// Approves whatever waits. What that is stands in the store: a query for each would be the worker's work.
async fn approve_all(world: &Scenario) {
    let asked = world.records_where(|body| matches!(body, RecordBody::ApprovalRequested { .. })).await;
    let waiting = asked.iter().filter_map(|record| {
        let RecordBody::ApprovalRequested { request, .. } = &record.body else { return None };
        let run = &record.run.workflow_id;
        run.starts_with("waiting-").then(|| (world.of_run(run), request.to_string()))
    });
    let approve = async |(run, request): (Scenario, String)| {
        assert_eq!(run.approve_by(Way::Signal, &request, BO).await, Told::Taken, "{}", run.name);
    };
    stream::iter(waiting).for_each_concurrent(AT_ONCE, approve).await;
}

async fn one_run(run: &Scenario) {
    run.start("Refund order o1").await;
    let request = run.first_request().await.expect("it waits");
    assert_eq!(run.approve_by(Way::Signal, &request, BO).await, Told::Taken);
    assert!(run.answer().await.contains("500.00 EUR"));
}

async fn all(world: &Scenario, query: &str, runs: usize) {
    let found = until_within(PATIENCE, async || (world.count(query).await == runs).then_some(())).await;
    found.unwrap_or_else(|| panic!("not all {runs}: {query}"));
}

/// Waits until the worker has nothing to do, and answers what it used by then.
async fn quiet(worker: &Process) -> Usage {
    let mut last = worker.usage();
    let quiet = until_within(PATIENCE, async || {
        pass(Duration::from_secs(1)).await;
        let now = worker.usage();
        let used = now.cpu.saturating_sub(last.cpu);
        last = now;
        (used <= QUIET).then_some(now)
    });
    quiet.await.expect("the worker comes to rest")
}

/// Each run was paid exactly once.
async fn check_payments(world: &Scenario) {
    let mut keys: Vec<_> = world.payments().await.into_iter().map(|payment| payment.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), world.refund_calls().await.len()), (RUNS + 1, RUNS + 1), "each is paid once");
}

/// Each run was decided exactly once.
async fn check_decisions(world: &Scenario) {
    let counted = world.records_where(|body| matches!(body, RecordBody::ApprovalDecided { refused: None, .. })).await;
    let mut decisions: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &counted {
        *decisions.entry(&record.run.workflow_id).or_default() += 1;
    }
    assert_eq!(decisions.len(), RUNS + 1, "each is decided");
    let others: Vec<_> = decisions.iter().filter(|(_, decisions)| **decisions != 1).collect();
    assert!(others.is_empty(), "each is decided once: {others:?}");
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// The share of a core that it used while it was watched, and how much its memory grew.
fn cost(before: Usage, waiting: Usage, after: Usage) -> (f64, u64) {
    let share = after.cpu.saturating_sub(waiting.cpu).as_secs_f64() / WATCHED.as_secs_f64();
    (share, after.resident_bytes.saturating_sub(before.resident_bytes))
}

fn report(before: Usage, waiting: Usage, after: Usage) {
    let (share, growth) = cost(before, waiting, after);
    let (share, share_max) = (share * 100.0, CPU_SHARE_MAX * 100.0);
    let (growth, growth_max) = (mebibytes(growth), mebibytes(GROWTH_MAX_BYTES));
    println!("{RUNS} runs wait for approval");
    println!("  worker CPU over {} s      {share:>8.2} % of a core (at most {share_max:.0} %)", WATCHED.as_secs());
    println!("  memory before             {:>8.1} MiB", mebibytes(before.resident_bytes));
    println!("  memory while they wait    {:>8.1} MiB", mebibytes(after.resident_bytes));
    println!("  growth                    {growth:>8.1} MiB (at most {growth_max:.0})");
}

fn check(before: Usage, waiting: Usage, after: Usage) {
    let (share, growth) = cost(before, waiting, after);
    assert!(share <= CPU_SHARE_MAX, "a worker that waits uses too much of a core");
    assert!(growth <= GROWTH_MAX_BYTES, "runs that wait use too much memory");
}
