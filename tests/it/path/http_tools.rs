//! HTTP tools along the path: what each kind of tool makes of a server that fails after it has done what it was asked.
//! What was done is read from the server's own record.

use mandate_domain::{KnownBy, RecordBody, RefusalKind, ToolCallOutcome};
use mandate_tests::{Behaviour, Orders, until_it_holds};

use super::{
    quarantine::lock_up,
    run::Run,
    world::{Folder, World},
};

const CALL: &str = r#"{ tool = "orders.cancel", arguments = { order_id = "o1", reason = "late" } }"#;

/// The tool, of a kind that these lines say.
fn tool(kind: &str) -> String {
    format!(
        r#"
name = "orders.cancel"
description = "Cancel an order."
owner = "support@acme.example"
open_world = false
{kind}

[http]
server = "orders"
method = "POST"
path = "/orders/{{order_id}}/cancel"
arguments = "body"

[input_schema]
type = "object"
required = ["order_id"]
additionalProperties = false

[input_schema.properties]
order_id = {{ type = "string" }}
reason = {{ type = "string" }}

[argument_classes]
"/order_id" = "order"
"/reason" = "order"

[result_classes]
"" = "order"
"#
    )
}

const STATUS: &str = r#"
name = "orders.call"
description = "Say whether a call happened."
owner = "support@acme.example"
read_only = true
open_world = false

[http]
server = "orders"
method = "GET"
path = "/calls"
arguments = "query"

[input_schema]
type = "object"
required = ["idempotency_key"]
additionalProperties = false

[input_schema.properties.idempotency_key]
type = "string"

[result_classes]
"" = "order"
"#;

const POLICY: &str = r#"
@id("orders.cancel")
@reason("the support unit cancels orders")
permit (principal in Mandate::Unit::"acme/support", action == Mandate::Action::"orders.cancel", resource);
"#;

const PLAIN: &str = "";
const IDEMPOTENT: &str = "idempotent = true";
const READING: &str = "read_only = true";
const CHECKABLE: &str = "check = \"orders.call\"\nsettles_within_secs = 10";

async fn world(orders: &Orders, kind: &str, call: &str) -> World {
    Folder::proposing(&[call])
        .edit("mandate.toml", "\n[models.support]", &format!("{}\n[models.support]", orders.server_toml()))
        .edit("tenants/acme/support/refunds/agent.toml", "tools = [", "tools = [\"orders.cancel\", ")
        .write("tools/orders.cancel.toml", &tool(kind))
        .write("tools/orders.call.toml", STATUS)
        .policy("orders", POLICY)
        .world()
        .await
}

fn parked(outcome: &ToolCallOutcome) -> &str {
    match outcome {
        ToolCallOutcome::OutcomeUnknown { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_order_is_cancelled_once_with_its_key() {
    let orders = Orders::behaving(Behaviour::Well, true).await;
    let world = world(&orders, PLAIN, CALL).await;
    let mut run = Run::proposed(&world).await;
    assert!(run.returned("t1.0").await.contains("POST /v1/orders/o1/cancel"));
    let [done] = orders.done().try_into().unwrap();
    assert_eq!(done.key.as_deref(), Some("refund-1/run-1/t1.0"));
    run.returned("t1.0").await;
    assert_eq!(orders.asked().len(), 1, "it has its outcome");
    run.turn().await;
}

#[tokio::test]
async fn a_plain_tool_that_failed_after_it_was_done_is_parked_and_never_sent_again() {
    for behaviour in [Behaviour::FailsAfterwards, Behaviour::DiesAfterwards, Behaviour::Overloaded] {
        let orders = Orders::behaving(behaviour, false).await;
        let world = world(&orders, PLAIN, CALL).await;
        let mut run = Run::proposed(&world).await;
        let outcome = run.call("t1.0").await;
        assert!(!parked(&outcome).is_empty());
        orders.behaves(Behaviour::Well);
        world.run_out("t1.0", 1).await;
        assert_eq!(run.call("t1.0").await, outcome);
        assert_eq!(orders.asked().len(), 1, "{behaviour:?}");
        assert_eq!(orders.done().len(), usize::from(behaviour != Behaviour::Overloaded));
        assert_eq!(run.intents().await, 1);
    }
}

#[tokio::test]
async fn an_idempotent_tool_that_failed_after_it_was_done_is_sent_again_under_its_key() {
    for behaviour in [Behaviour::FailsAfterwards, Behaviour::DiesAfterwards] {
        let orders = Orders::behaving(behaviour, true).await;
        let world = world(&orders, IDEMPOTENT, CALL).await;
        let mut run = Run::proposed(&world).await;
        let kind = if behaviour == Behaviour::FailsAfterwards { "ToolUnavailable" } else { "NoAnswer" };
        run.try_call("t1.0").await.unwrap_err().may_pass(kind, "orders.cancel");
        orders.behaves(Behaviour::Well);
        world.run_out("t1.0", 1).await;
        assert!(run.returned("t1.0").await.contains("\"done\":1"));
        assert_eq!((orders.done().len(), orders.asked().len(), run.intents().await), (1, 2, 2));
        let keys: Vec<_> = orders.asked().into_iter().map(|order| order.key).collect();
        assert_eq!(keys[0], keys[1]);
    }
}

#[tokio::test]
async fn a_reading_tool_waits_as_long_as_an_overloaded_server_asks() {
    let orders = Orders::behaving(Behaviour::Overloaded, false).await;
    let world = world(&orders, READING, CALL).await;
    let mut run = Run::proposed(&world).await;
    let failed = run.try_call("t1.0").await.unwrap_err();
    failed.may_pass("ToolUnavailable", "status 503");
    assert_eq!(failed.delay.map(|delay| delay.as_secs()), Some(1));
    orders.behaves(Behaviour::Well);
    world.run_out("t1.0", 1).await;
    run.returned("t1.0").await;
    assert_eq!(run.intents().await, 2);
}

#[tokio::test]
async fn a_tool_with_a_check_is_asked_about_and_not_sent_again() {
    let orders = Orders::behaving(Behaviour::FailsAfterwards, false).await;
    let world = world(&orders, CHECKABLE, CALL).await;
    let mut run = Run::proposed(&world).await;
    run.try_call("t1.0").await.unwrap_err().may_pass("ToolUnavailable", "status 500");
    orders.behaves(Behaviour::Well);
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("POST /v1/orders/o1/cancel"));
    let by_check = |body: &RecordBody| matches!(body, RecordBody::Outcome { known_by: KnownBy::Check, .. });
    assert_eq!((orders.asked().len(), orders.done().len(), run.count(by_check).await), (1, 1, 1));
}

#[tokio::test]
async fn a_server_that_declines_had_no_call_and_gets_it_when_it_said_that_it_would_take_it() {
    let orders = Orders::behaving(Behaviour::Limits, false).await;
    let world = world(&orders, PLAIN, CALL).await;
    let mut run = Run::proposed(&world).await;
    let failed = run.try_call("t1.0").await.unwrap_err();
    failed.may_pass("ToolDeclined", "status 429");
    assert_eq!(failed.delay.map(|delay| delay.as_secs()), Some(1));
    assert_eq!(world.effect("t1.0").await, Some(("released".to_owned(), 1)));
    orders.behaves(Behaviour::Well);
    run.returned("t1.0").await;
    let given_back = |body: &RecordBody| matches!(body, RecordBody::NotSent { .. });
    assert_eq!((orders.done().len(), run.count(given_back).await), (1, 1));
}

#[tokio::test]
async fn a_server_that_declines_a_second_attempt_leaves_the_first_one_open() {
    let orders = Orders::behaving(Behaviour::FailsAfterwards, true).await;
    let world = world(&orders, IDEMPOTENT, CALL).await;
    let mut run = Run::proposed(&world).await;
    run.try_call("t1.0").await.unwrap_err().may_pass("ToolUnavailable", "status 500");
    orders.behaves(Behaviour::Limits);
    world.run_out("t1.0", 1).await;
    run.try_call("t1.0").await.unwrap_err().may_pass("ToolDeclined", "status 429");
    assert_eq!(world.effect("t1.0").await, Some(("open".to_owned(), 2)), "the first attempt did it");
    orders.behaves(Behaviour::Well);
    world.run_out("t1.0", 1).await;
    assert!(run.returned("t1.0").await.contains("\"done\":1"));
    assert_eq!((orders.done().len(), orders.asked().len()), (1, 3));
}

#[tokio::test]
async fn arguments_that_would_change_the_path_are_refused_before_policy_is_asked() {
    let orders = Orders::behaving(Behaviour::Well, false).await;
    let world = world(&orders, PLAIN, &CALL.replace("\"o1\"", "\"../admin\"")).await;
    let mut run = Run::proposed(&world).await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(
        kind == RefusalKind::InvalidArguments && text.contains("argument `order_id` cannot be a part of a path"),
        "{text}"
    );
    assert_eq!((orders.asked().len(), run.intents().await), (0, 0));
}

#[tokio::test]
async fn quarantine_of_an_http_server_stops_its_tools() {
    let orders = Orders::behaving(Behaviour::Well, false).await;
    let world = world(&orders, PLAIN, CALL).await;
    let mut run = Run::proposed(&world).await;
    lock_up(&world, "server:orders").await;
    let (kind, text) = run.refused("t1.0").await;
    assert!(kind == RefusalKind::Denied && text.contains("`server:orders` is in quarantine"), "{text}");
    assert_eq!(orders.asked().len(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for_and_nothing_is_recorded_of_a_call() {
    let orders = Orders::behaving(Behaviour::Well, false).await;
    let world = world(&orders, PLAIN, CALL).await;
    let mut run = Run::proposed(&world).await;
    drop(orders);
    until_it_holds("it has closed", async || {
        let failed = run.try_call("t1.0").await.unwrap_err();
        failed.kind == "ToolServerUnreachable" && failed.again
    })
    .await;
    assert_eq!(run.intents().await, 0);
}
