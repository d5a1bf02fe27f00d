//! Tool servers that misbehave in a call, each way with its one failure. The truth is read from the system of record.

use std::{fs, future::ready, time::Duration};

use mandate_activities::{
    catalog::ServerSettings,
    tools::{CallToolError, Stop, ToolAnswer},
};
use mandate_domain::ToolDefinition;
use mandate_tests::{pass, until_it_holds};
use serde_json::{Value, json};

use crate::mcp::{Fixture, cents, read_order, refund};

/// A server that misbehaves at its first refund, and where it says so.
fn once(mode: &str, change: impl FnOnce(&mut ServerSettings)) -> Fixture {
    Fixture::rogue(&["--once", "happened", "--seen", "seen", mode, "refund_payment"], change)
}

fn patient() -> ToolDefinition {
    ToolDefinition { timeout_secs: 60, ..refund() }
}

fn unknown(ended: Result<ToolAnswer, CallToolError>) -> String {
    let Err(CallToolError::OutcomeUnknown { tool, reason, wrote }) = ended else { panic!("{ended:?}") };
    assert_eq!(tool, "payments.refund");
    reason + &wrote
}

/// What the server was sent, as (method, params).
fn seen(fixture: &Fixture) -> Vec<(String, Value)> {
    let text = fs::read_to_string(fixture.folder.path().join("seen")).unwrap_or_default();
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages
        .map(|message| (message["method"].as_str().unwrap_or_default().to_owned(), message["params"].clone()))
        .collect()
}

async fn was_cancelled(fixture: &Fixture) {
    let cancelled = || seen(fixture).into_iter().filter(|(method, _)| method == "notifications/cancelled").count();
    until_it_holds("the server is told that the call is cancelled", async || cancelled() == 1).await;
}

/// The call has no answer and the money moved; with the same key another server says what happened, and none moves.
async fn fails_and_goes_on(mode: &str, words: &[&str]) {
    let fixture = once(mode, |server| server.answer_max_bytes = 1 << 20);
    let reason = unknown(fixture.call(&patient(), 0, cents(50_000)).await);
    for word in words {
        assert!(reason.contains(word), "{mode}: {reason}");
    }
    let again = fixture.call(&patient(), 0, cents(50_000)).await.unwrap();
    assert!(again.text.contains("rf-0001") && !again.is_error, "{mode}: {again:?}");
    assert_eq!((fixture.count("payments").await, fixture.count("calls").await), (1, 2));
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_says_how() {
    fails_and_goes_on("die", &["it ended with exit code 3", "its standard error ends: rogue: cannot go on"]).await;
}

#[tokio::test]
async fn what_is_no_message_fails_the_call_at_once_and_is_shown() {
    let junk = "it wrote a line that is no JSON-RPC message";
    fails_and_goes_on("garbage", &[junk, "Traceback (most recent call last):"]).await;
    fails_and_goes_on("cut", &[junk, "{"]).await;
}

#[tokio::test]
async fn a_message_without_end_is_given_up() {
    fails_and_goes_on("endless=5000000", &["it wrote a message of more than 4194304 bytes"]).await;
}

#[tokio::test]
async fn an_answer_of_fifty_megabytes_is_left_out_and_names_tool_size_and_limit() {
    for (mode, is_error, what) in
        [("huge=50000000", false, "was performed"), ("huge-error=50000000", true, "reported an error")]
    {
        let fixture = once(mode, |_| {});
        let answer = fixture.call(&patient(), 0, cents(50_000)).await.unwrap();
        let begin = format!("tool `refund_payment` {what}; its answer of 5000");
        assert!(answer.text.starts_with(&begin), "{}", answer.text);
        assert!(
            answer.text.ends_with(" bytes is over the limit of 33554432 bytes and was left out"),
            "{}",
            answer.text
        );
        assert_eq!((answer.is_error, fixture.count("payments").await), (is_error, 1));
        // The same connection goes on.
        let order = fixture.call(&read_order(), 1, json!({ "order_id": "o1" })).await.unwrap();
        assert!(order.text.contains(r#""refunded_cents":50000"#), "{order:?}");
        assert_eq!(seen(&fixture).iter().filter(|(method, _)| method == "tools/list").count(), 1, "one start");
        fixture.tools.close().await;
    }
}

#[tokio::test]
async fn a_gigabyte_on_standard_error_neither_blocks_nor_is_kept() {
    let fixture = once("flood-stderr=1000000000", |_| {});
    let answer = fixture.call(&patient(), 0, cents(50_000)).await.unwrap();
    assert!(answer.text.contains("rf-0001"), "{answer:?}");
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_call_that_timed_out_is_cancelled_at_the_server() {
    let fixture = once("hang", |_| {});
    let slow = ToolDefinition { timeout_secs: 1, ..refund() };
    assert_eq!(unknown(fixture.call(&slow, 0, cents(50_000)).await), "no answer within 1 s");
    was_cancelled(&fixture).await;
    let again = fixture.call(&patient(), 0, cents(50_000)).await.unwrap();
    assert!(again.text.contains("rf-0001"), "{again:?}");
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_call_that_is_to_stop_is_not_sent_or_is_cancelled_at_the_server() {
    let fixture = once("hang", |_| {});
    let prepared = fixture.tools.prepare(&patient()).await.unwrap().until(Stop::when(ready(())));
    let Err(CallToolError::NotSent { reason, .. }) = fixture.call_prepared(prepared, 0, cents(100)).await else {
        panic!("it was sent")
    };
    assert_eq!(reason, "it was to stop before it was sent");
    assert!(seen(&fixture).iter().all(|(method, _)| method != "tools/call"));
    let stop = Stop::when(pass(Duration::from_millis(100)));
    let prepared = fixture.tools.prepare(&patient()).await.unwrap().until(stop);
    let reason = unknown(fixture.call_prepared(prepared, 0, cents(50_000)).await);
    assert_eq!(reason, "it was to stop, and did not answer within 10 s more");
    was_cancelled(&fixture).await;
    fixture.tools.close().await;
}

#[tokio::test]
async fn an_answer_that_comes_soon_after_the_stop_counts() {
    let fixture = Fixture::of("exec $SERVER", "--delay-ms 700");
    let stop = Stop::when(pass(Duration::from_millis(100)));
    let prepared = fixture.tools.prepare(&patient()).await.unwrap().until(stop);
    let answer = fixture.call_prepared(prepared, 0, cents(50_000)).await.unwrap();
    assert!(answer.text.contains("rf-0001"), "{answer:?}");
    fixture.tools.close().await;
}
