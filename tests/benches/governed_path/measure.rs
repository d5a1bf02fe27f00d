//! The calls of one run, one after the other, and what each took.

use std::time::{Duration, Instant};

use mandate_tests::On;

use super::{
    run::Run,
    world::{ENGINE, Folder},
};

/// Calls of one turn.
pub(crate) const CALLS: usize = 200;
pub(crate) const WARM_UP: usize = 20;
const COMMITS_MAX: u64 = 2;
const CLOCK: &str = r#"{ tool = "clock", arguments = {} }"#;

/// Whether no call committed more than it may.
pub(crate) async fn measure(on: On) -> bool {
    ENGINE.scope(on, calls(on)).await
}

async fn calls(on: On) -> bool {
    let limits = format!("turns_max = 12\nparallel_calls_max = {CALLS}\ntool_calls_max = {CALLS}");
    let folder = Folder::proposing(&[CLOCK; CALLS])
        .edit("mandate.toml", "tool_calls_max = 40", &format!("tool_calls_max = {CALLS}\nparallel_calls_max = {CALLS}"))
        .edit("tenants/acme/support/refunds/agent.toml", "turns_max = 12\ntool_calls_max = 20", &limits);
    let world = folder.world().await;
    let mut run = Run::proposed(&world).await;
    let mut took = Vec::with_capacity(CALLS);
    for index in 0..CALLS {
        if index == WARM_UP {
            took.clear();
        }
        let (began, before) = (Instant::now(), world.store.commits());
        run.returned(&format!("t1.{index}")).await;
        took.push((began.elapsed(), world.store.commits() - before));
    }
    report(on, &took)
}

fn report(on: On, calls: &[(Duration, u64)]) -> bool {
    let mut took: Vec<Duration> = calls.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_micros();
    let commits = calls.iter().map(|(_, commits)| *commits).max().unwrap_or_default();
    println!("  {:<10} p50 {:>7} us   p99 {:>7} us   at most {commits} commits", format!("{on:?}"), at(50), at(99));
    commits <= COMMITS_MAX
}
