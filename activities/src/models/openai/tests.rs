//! The provider against bodies of the real shape, over a socket of this machine.

use mandate_domain::{Arguments, EffectId, Message, OfferedTool, ProposedCall, ToolCallId};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn provider(base_url: String) -> OpenAi {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let price = Price { input_micros_per_million: 150_000, output_micros_per_million: 600_000 };
    let api_key = None;
    OpenAi::new(Settings { base_url, model: "m-1".to_owned(), api_key, max_output_tokens: 500, price: Some(price) })
        .unwrap()
}

fn request() -> ModelRequest {
    let call = |tool: &str, provider_id: Option<&str>| ProposedCall {
        tool: tool.to_owned(),
        arguments: Arguments::Object(serde_json::Map::from_iter([("order_id".to_owned(), json!("o1"))])),
        provider_id: provider_id.map(str::to_owned),
    };
    let result = |index| Message::Tool { call: ToolCallId::new(1, index), text: format!("r{index}"), is_error: false };
    let calls = vec![call("orders.read", Some("abc")), call("orders.read", None)];
    let tool = OfferedTool {
        name: "orders.read".to_owned(),
        description: "Read".to_owned(),
        input_schema: json!({ "type": "object" }),
    };
    let user = Message::User { text: "SECRET-PROMPT".to_owned() };
    ModelRequest {
        messages: vec![user, Message::Assistant { text: None, calls }, result(0), result(1)],
        tools: vec![tool],
    }
}

/// Answers one request with `status`, `headers` and `body`; gives back the provider's answer and the request's text.
async fn exchange(status: u16, headers: &str, body: &str) -> (Result<ModelReply, ModelError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = provider(format!("http://{}/v1/", listener.local_addr().unwrap()));
    let answer =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !is_whole(&seen) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the request broke off: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        seen
    };
    let permit = RecordedPermit::unrecorded(EffectId::Model(1));
    let request = request();
    tokio::join!(provider.complete(&permit, &request), server)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(usize::MAX)
}

fn good(message: &Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "m-1-2026",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 11, "total_tokens": 111,
            "prompt_tokens_details": { "cached_tokens": 64 }, "completion_tokens_details": { "reasoning_tokens": 5 } },
    })
}

#[tokio::test]
async fn a_reply_is_read_and_the_request_has_the_protocols_form() {
    let call = |name: &str, arguments: &str| json!({ "id": "c1", "type": "function", "function": { "name": name, "arguments": arguments } });
    let calls = [call("orders_read", r#"{"order_id":"o1"}"#), call("orders_read", "{oops"), call("nothing", "5")];
    let body = good(&json!({ "role": "assistant", "content": null, "tool_calls": calls }));
    let (reply, seen) = exchange(200, "", &body.to_string()).await;
    let reply = reply.unwrap();
    let read: Vec<_> = reply.calls.iter().map(|call| (call.tool.as_str(), call.arguments.clone())).collect();
    let object = Arguments::Object(serde_json::Map::from_iter([("order_id".to_owned(), json!("o1"))]));
    let malformed = |text: &str| Arguments::Malformed(text.to_owned());
    assert_eq!(read, [("orders.read", object), ("orders.read", malformed("{oops")), ("nothing", malformed("5"))]);
    let usage = reply.usage;
    assert_eq!((usage.input_tokens, usage.cached_input_tokens), (100, 64));
    assert_eq!((usage.output_tokens, usage.reasoning_tokens, usage.cost_micros), (11, 5, 22));
    assert_eq!((reply.model.as_str(), reply.response_id.as_deref()), ("m-1-2026", Some("chatcmpl-1")));

    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{head}");
    assert!(head.contains("idempotency-key: test/run/m1"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["max_completion_tokens"], 500);
    assert_eq!(body["tools"][0]["function"]["name"], "orders_read");
    assert_eq!(body["messages"][1]["tool_calls"][1]["id"], "call_1_1");
    assert_eq!(body["messages"][2], json!({ "role": "tool", "tool_call_id": "abc", "content": "r0" }));
    assert_eq!(body["messages"][3]["tool_call_id"], "call_1_1");
}

async fn check_error(status: u16, headers: &str, body: &Value, expected: &str) {
    let error = exchange(status, headers, &body.to_string()).await.0.unwrap_err();
    let shown = format!("{error:?}");
    assert!(shown.contains(expected), "{status} {body}: {shown}");
    assert!(!shown.contains("SECRET"), "{shown}");
}

#[tokio::test]
async fn statuses_are_told_apart() {
    let body = json!({ "error": { "message": "SECRET", "type": "some_type", "code": null } });
    let quota = json!({ "error": { "message": "SECRET", "code": "insufficient_quota" } });
    check_error(429, "retry-after: 7\r\n", &body, "RateLimited { retry_after: Some(7s) }").await;
    check_error(429, "retry-after-ms: 250\r\n", &body, "RateLimited { retry_after: Some(250ms) }").await;
    check_error(429, "", &quota, "Refused").await;
    check_error(503, "retry-after: 9999\r\n", &body, "Overloaded { retry_after: Some(60s) }").await;
    check_error(529, "", &body, "Overloaded { retry_after: None }").await;
    check_error(500, "", &body, "Unreachable { reason: \"status 500 (`some_type`)\" }").await;
    for status in [400, 401, 403, 404, 307] {
        check_error(status, "location: http://127.0.0.1:1/\r\n", &body, "Refused").await;
    }
}

#[tokio::test]
async fn a_broken_answer_fails_closed() {
    let text = json!({ "role": "assistant", "content": "SECRET" });
    let with = |at: &str, value: Value| {
        let mut body = good(&text);
        *body.pointer_mut(at).unwrap() = value;
        body
    };
    check_error(200, "", &json!({ "error": { "message": "SECRET" } }), "Protocol").await;
    check_error(200, "", &json!("SECRET"), "Protocol").await;
    check_error(200, "", &with("/choices", json!([])), "Protocol").await;
    check_error(200, "", &with("/usage", Value::Null), "Protocol").await;
    check_error(200, "", &with("/usage/prompt_tokens", json!("100")), "Protocol").await;
    check_error(200, "", &with("/choices/0/message/content", Value::Null), "Protocol").await;
    check_error(200, "", &with("/choices/0/finish_reason", json!("length")), "Refused").await;
    check_error(200, "", &with("/choices/0/finish_reason", json!("content_filter")), "Refused").await;
    check_error(200, "", &good(&json!({ "content": null, "refusal": "SECRET" })), "Refused").await;
    assert!(exchange(200, "", &good(&text).to_string()).await.0.is_ok());
}

#[tokio::test]
async fn no_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let permit = RecordedPermit::unrecorded(EffectId::Model(1));
    let error = provider(url).complete(&permit, &request()).await.unwrap_err();
    let reason = "no connection: Connection refused (os error 111)".to_owned();
    assert_eq!(error, ModelError::Unreachable { reason });
}

#[test]
fn a_wait_is_read_from_a_date_too() {
    let now = "2026-11-21T10:00:00Z".parse().unwrap();
    let check = |text: &str, secs: Option<u64>| {
        let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(retry_after(&headers, now), secs.map(Duration::from_secs), "{text}");
    };
    check("Sat, 21 Nov 2026 10:00:20 GMT", Some(20));
    check("Sat, 21 Nov 2026 09:00:00 GMT", Some(0));
    check("-5", Some(0));
    check("NaN", Some(60));
    check("soon", None);
}

#[test]
fn names_that_collide_on_the_wire_stay_apart() {
    let tool = |name: &str| OfferedTool { name: name.to_owned(), description: String::new(), input_schema: json!({}) };
    let names = request::WireNames::of(&[tool("a.b_c"), tool("a_b.c")]);
    assert_eq!((names.ours("a_b_c"), names.ours("a_b_c_2")), (Some("a.b_c"), Some("a_b.c")));
}
