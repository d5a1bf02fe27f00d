//! What is not there: a tool server that cannot be started or dies. Before the intent an outage is only waited for.

use mandate_domain::RecordBody;
use mandate_tests::until_it_holds;
use nix::sys::signal::Signal;

use super::{
    run::{Run, open, refund},
    world::{Folder, on_both_engines},
};

async fn a_tool_server_that_cannot_be_started_keeps_a_run_from_opening_and_may_pass() {
    let world = Folder::proposing(&[&refund(4_500)])
        .server("test -e var/down && { echo the database is locked >&2; exit 3; }; exec $SERVER")
        .world()
        .await;
    let down = world.folder.path().join("var/down");
    std::fs::write(&down, "").unwrap();
    let worker = world.worker().await;
    open(&worker).await.unwrap_err().may_pass("ToolServerUnreachable", "the database is locked");
    assert_eq!(world.store.runs(None).await.unwrap(), []);
    std::fs::remove_file(&down).unwrap();
    open(&worker).await.unwrap();
}

async fn a_tool_server_that_is_gone_is_waited_for_before_any_intent() {
    let world = Folder::proposing(&[&refund(4_500)]).server("test -e var/down && exit 3; exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    let down = world.folder.path().join("var/down");
    std::fs::write(&down, "").unwrap();
    run.next_worker().await;
    let records = run.records().await;
    for _ in 0..2 {
        run.try_call("t1.0").await.unwrap_err().may_pass("ToolServerUnreachable", "refunds");
    }
    assert_eq!((run.records().await, world.effect("t1.0").await), (records, None));
    std::fs::remove_file(&down).unwrap();
    run.returned("t1.0").await;
    assert_eq!((run.paid().await, run.intents().await), (vec![4_500], 1));
}

async fn a_tool_server_that_died_between_two_calls_is_started_again() {
    let world = Folder::proposing(&[&refund(4_500), &refund(5_500)]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    run.returned("t1.0").await;
    world.signal_server(Signal::SIGKILL);
    until_it_holds("the server is back", async || run.try_call("t1.1").await.is_ok_and(|_| true)).await;
    run.turn().await;
    assert_eq!(run.paid().await, [4_500, 5_500]);
    // Noticed too late, the claim was given back; noticed in time, there was none.
    let open = |body: &RecordBody| matches!(body, RecordBody::OutcomeUnknown { .. });
    assert_eq!(run.count(open).await, 0);
}

on_both_engines! {
    a_tool_server_that_cannot_be_started_keeps_a_run_from_opening_and_may_pass
    a_tool_server_that_is_gone_is_waited_for_before_any_intent
    a_tool_server_that_died_between_two_calls_is_started_again
}
