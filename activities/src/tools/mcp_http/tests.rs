//! MCP over HTTP against servers on a socket of this machine: one of each era, and those that break. What arrived is read
//! from the server's own record.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicU32},
};

use mandate_domain::{EffectId, PersonId, ServerName, ToolCallId, ToolDefinition, ToolReach};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    catalog::{HeaderSetting, RemoteSettings, SecretRef, Speaks},
    tools::{PrepareToolError, ToolSet},
};

/// What the server does with a `tools/call` that it has recorded.
#[derive(Debug, Clone)]
enum Act {
    /// Answers as MCP does.
    Answer,
    /// The same in an event stream.
    Stream,
    /// Answers with this text.
    Say(String),
    /// Answers with the head of the request.
    Repeat,
    /// Never answers.
    Hang,
    /// Closes the connection.
    Close,
    /// Answers with this head, and then without end.
    Flood(&'static str),
    /// Asks for input on the stream of the call, and answers when it has been answered itself.
    Ask,
    /// Answers that it needs input.
    NeedsInput,
}

/// What a request over HTTP was.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Value,
}

impl Seen {
    fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
}

struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    act: Arc<Mutex<Act>>,
}

/// The two eras.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    /// `initialize`, and a session.
    Session,
    /// `server/discover`, and nothing that is kept.
    Stateless,
}

const JSON: &str = "content-type: application/json\r\n";

impl Server {
    async fn of(era: Era, act: Act) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, act) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(act)));
        let (kept, doing) = (Arc::clone(&seen), Arc::clone(&act));
        let sessions = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, doing, sessions) = (Arc::clone(&kept), Arc::clone(&doing), Arc::clone(&sessions));
                tokio::spawn(async move {
                    let Some((mut stream, request)) = request(stream).await else { return };
                    kept.lock().unwrap().push(request.clone());
                    let act = doing.lock().unwrap().clone();
                    serve(&mut stream, era, &request, act, &sessions, &kept).await;
                });
            }
        });
        Self { port, seen, act }
    }

    fn does(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn tools(&self) -> ToolSet {
        self.tools_with([].into())
    }

    fn tools_with(&self, headers: BTreeMap<String, HeaderSetting>) -> ToolSet {
        let host = format!("127.0.0.1:{}", self.port);
        let settings = RemoteSettings {
            speaks: Speaks::Mcp,
            url: format!("http://{host}/mcp"),
            headers,
            allow_internal: vec![host.parse().unwrap()],
            connect_timeout_secs: 5,
            calls_max: 4,
        };
        ToolSet::new(BTreeMap::new()).with_remotes([(ServerName::parse("orders").unwrap(), settings)].into())
    }

    fn calls(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.method() == "tools/call").cloned().collect()
    }

    fn count(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.method() == method).count()
    }
}

async fn request(mut stream: TcpStream) -> Option<(TcpStream, Seen)> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            let seen = Seen { head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() };
            return Some((stream, seen));
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
        }
    }
}

fn said(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn result(request: &Seen, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], "result": result })
}

async fn serve(
    stream: &mut TcpStream,
    era: Era,
    request: &Seen,
    act: Act,
    sessions: &AtomicU32,
    seen: &Mutex<Vec<Seen>>,
) {
    let tool = json!({
        "name": "cancel_order",
        "annotations": { "readOnlyHint": true, "destructiveHint": false },
        "inputSchema": { "type": "object", "required": ["order_id"], "properties": { "order_id": { "type": "string" } } },
    });
    let kept = json!({ "ttlMs": 0, "cacheScope": "private", "resultType": "complete" });
    let with = |mut value: Value| {
        if era == Era::Stateless {
            value.as_object_mut().unwrap().extend(kept.as_object().unwrap().clone());
        }
        value
    };
    let session = format!("{JSON}mcp-session-id: s{}\r\n", sessions.load(Ordering::SeqCst));
    let text = match (request.method(), era) {
        ("server/discover", Era::Session) => said("400 Bad Request", "content-type: text/plain\r\n", "no session"),
        ("server/discover", Era::Stateless) => {
            let discovered = json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } });
            said("200 OK", JSON, &result(request, &with(discovered)).to_string())
        }
        ("initialize", _) => {
            let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
            let greeted = json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "orders", "version": "1" },
            });
            let headers = format!("{JSON}mcp-session-id: s{number}\r\n");
            said("200 OK", &headers, &result(request, &greeted).to_string())
        }
        ("tools/list", _) => said("200 OK", &session, &result(request, &with(json!({ "tools": [tool] }))).to_string()),
        ("tools/call", _) => return call(stream, era, request, act, seen).await,
        _ => said("202 Accepted", "", ""),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn call(stream: &mut TcpStream, era: Era, request: &Seen, act: Act, seen: &Mutex<Vec<Seen>>) {
    let said_of_it = if matches!(act, Act::Repeat) { request.head.as_str() } else { "cancelled" };
    let mut answer = json!({ "content": [{ "type": "text", "text": said_of_it }] });
    if era == Era::Stateless {
        answer["resultType"] = json!("complete");
    }
    let answer = result(request, &answer).to_string();
    let text = match act {
        Act::Answer | Act::Repeat => said("200 OK", JSON, &answer),
        Act::Stream => {
            said("200 OK", "content-type: text/event-stream\r\n", &format!("event: message\ndata: {answer}\n\n"))
        }
        Act::Say(text) => text,
        Act::NeedsInput => {
            let asked = json!({ "resultType": "input_required", "requestState": "s", "inputRequests": {} });
            said("200 OK", JSON, &result(request, &asked).to_string())
        }
        Act::Ask => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let question = json!({
                "jsonrpc": "2.0", "id": "e1", "method": "elicitation/create",
                "params": { "message": "Really?", "requestedSchema": { "type": "object", "properties": {} } },
            });
            let _ = stream.write_all(format!("{head}data: {question}\n\n").as_bytes()).await;
            while !seen.lock().unwrap().iter().any(|seen| seen.body["id"] == "e1") {
                tokio::task::yield_now().await;
            }
            format!("data: {answer}\n\n")
        }
        Act::Hang => {
            let _ = stream.read(&mut [0; 1]).await;
            let closed = Seen { head: String::new(), body: json!({ "method": "the client closed it" }) };
            return seen.lock().unwrap().push(closed);
        }
        Act::Close => return,
        Act::Flood(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn cancel() -> ToolDefinition {
    ToolDefinition {
        name: ToolName::parse("orders.cancel").unwrap(),
        description: "Cancels an order.".to_owned(),
        owner: PersonId::parse("ana@acme.example").unwrap(),
        read_only: false,
        destructive: true,
        idempotent: false,
        open_world: false,
        check: None,
        undo: None,
        settles_within_secs: None,
        timeout_secs: 20,
        cost_micros: 0,
        amounts: Vec::new(),
        argument_classes: [].into(),
        result_classes: [].into(),
        input_schema: json!({
            "type": "object", "required": ["order_id"], "properties": { "order_id": { "type": "string" } },
        }),
        reach: ToolReach::Mcp { server: ServerName::parse("orders").unwrap(), tool: "cancel_order".to_owned() },
    }
}

async fn outcome(tools: &ToolSet, tool: &ToolDefinition) -> String {
    let prepared = match tools.prepare(tool).await {
        Ok(prepared) => prepared,
        Err(PrepareToolError::Unreachable { reason, .. }) => return format!("unreachable: {reason}"),
        Err(other) => return other.to_string(),
    };
    let permit = RecordedPermit::unrecorded(EffectId::Tool(ToolCallId::new(1, 0)));
    let arguments = json!({ "order_id": "o1" });
    match tools.call(&permit, prepared, arguments.as_object().unwrap()).await {
        Ok(answer) if answer.is_error => answer.text,
        Ok(answer) => format!("answer: {}", answer.text),
        Err(CallToolError::Asks { asks, .. }) => format!("asks: {:?}", asks.forms),
        Err(CallToolError::NotSent { reason, .. }) => format!("not sent: {reason}"),
        Err(CallToolError::OutcomeUnknown { reason, .. }) => format!("unknown: {reason}"),
        Err(CallToolError::Declined { status, retry_after, .. }) => format!("declined: {status} {retry_after:?}"),
        Err(CallToolError::Unavailable { status, retry_after, .. }) => format!("unavailable: {status} {retry_after:?}"),
    }
}

#[tokio::test]
async fn both_eras_are_spoken_as_json_and_as_events() {
    for era in [Era::Session, Era::Stateless] {
        for act in [Act::Answer, Act::Stream] {
            let server = Server::of(era, act).await;
            let tools = server.tools();
            assert_eq!(outcome(&tools, &cancel()).await, "answer: cancelled", "{era:?}");
            assert_eq!(outcome(&tools, &cancel()).await, "answer: cancelled");
            let calls = server.calls();
            assert_eq!(calls.len(), 2);
            assert_eq!(calls[0].body["params"]["_meta"]["dev.mandate/idempotency-key"], "test/run/t1.0");
            assert_eq!(calls[0].head.contains("mcp-session-id: s1"), era == Era::Session, "{}", calls[0].head);
            assert_eq!(server.count("initialize"), usize::from(era == Era::Session), "connected once");
            tools.close().await;
        }
    }
}

#[tokio::test]
async fn what_breaks_in_a_call_leaves_its_outcome_open_and_is_not_sent_again() {
    let flood = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\"";
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: ";
    for era in [Era::Session, Era::Stateless] {
        for (act, expected) in [
            (Act::Close, "unknown: the connection broke"),
            (Act::Flood(flood), "unknown: the answer is over the limit of 10485760 bytes"),
            (Act::Flood(events), "unknown: "),
            (Act::Say(said("200 OK", JSON, "{ no JSON")), "unknown: the answer is no JSON-RPC"),
            (Act::Say(said("200 OK", "content-type: text/html\r\n", "x")), "unknown: the answer is neither JSON nor"),
            (Act::Say(said("500 Broken", "", "")), "unavailable: 500 None"),
            (Act::Say(said("503 Busy", "retry-after: 2\r\n", "")), "unavailable: 503 Some(2s)"),
        ] {
            let shown = format!("{era:?} {act:?}");
            let server = Server::of(era, act).await;
            let tools = server.tools();
            let said = outcome(&tools, &cancel()).await;
            assert!(said.starts_with(expected), "{shown}: {said}");
            assert_eq!(server.calls().len(), 1, "{shown}");
            server.does(Act::Answer);
            assert_eq!(outcome(&tools, &cancel()).await, "answer: cancelled", "a connection of its own: {shown}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_the_server_repeats_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret-token").unwrap();
    let reference = SecretRef::File(folder.path().join("token"));
    let bearer = HeaderSetting::Secret { prefix: "Bearer ".to_owned(), reference };
    for era in [Era::Session, Era::Stateless] {
        let server = Server::of(era, Act::Repeat).await;
        let tools = server.tools_with([("authorization".to_owned(), bearer.clone())].into());
        let said = outcome(&tools, &cancel()).await;
        assert!(said.contains("authorization: [secret]") && !said.contains("s3cret"), "{said}");
        assert!(server.calls()[0].head.contains("Bearer s3cret-token"));
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_at_the_time_limit_and_told_so() {
    for era in [Era::Session, Era::Stateless] {
        let server = Server::of(era, Act::Hang).await;
        let tools = server.tools();
        let quick = ToolDefinition { timeout_secs: 1, ..cancel() };
        assert_eq!(outcome(&tools, &quick).await, "unknown: no answer within 1 s");
        assert_eq!(server.calls().len(), 1);
        let sign = if era == Era::Session { "notifications/cancelled" } else { "the client closed it" };
        let told = async {
            while server.count(sign) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap_or_else(|_| panic!("{era:?}: {sign}"));
    }
}

#[tokio::test]
async fn a_server_that_says_that_it_took_no_call_had_none() {
    let lost = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "no session" } });
    let forgotten = "not sent: the server has forgotten the session";
    for (text, expected, greetings) in [
        (said("429 Slow", "retry-after: 3\r\n", ""), "declined: 429 Some(3s)", 1),
        (said("404 Not Found", "", ""), forgotten, 2),
        (said("400 Bad Request", JSON, &lost.to_string()), forgotten, 2),
    ] {
        let server = Server::of(Era::Session, Act::Say(text)).await;
        let tools = server.tools();
        let said = outcome(&tools, &cancel()).await;
        assert!(said.starts_with(expected), "{said}");
        assert_eq!((server.calls().len(), server.count("initialize")), (1, 1), "not sent again");
        server.does(Act::Answer);
        assert_eq!(outcome(&tools, &cancel()).await, "answer: cancelled");
        assert_eq!(server.count("initialize"), greetings, "a new session where the old one is lost");
        assert!(server.calls()[1].head.contains(&format!("mcp-session-id: s{greetings}")));
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_that_the_model_reads() {
    for status in [401, 403, 400] {
        let server = Server::of(Era::Session, Act::Say(said(&format!("{status} No"), "", ""))).await;
        let tools = server.tools();
        assert_eq!(
            outcome(&tools, &cancel()).await,
            format!("error: the server refused the call with status {status}")
        );
        assert_eq!(server.calls().len(), 1);
        // A token that ran out or a session that is not known is not taken the next time either: it is greeted anew.
        server.does(Act::Answer);
        assert_eq!(outcome(&tools, &cancel()).await, "answer: cancelled");
        assert_eq!(server.count("initialize"), 2);
    }
    let moved = said("302 Found", "location: http://169.254.169.254/\r\n", "");
    let server = Server::of(Era::Session, Act::Say(moved)).await;
    let said = outcome(&server.tools(), &cancel()).await;
    assert_eq!(said, "unknown: the server answered with a redirect (status 302), which is not followed");
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_down_or_offers_another_tool_is_found_before_the_decision() {
    let server = Server::of(Era::Session, Act::Answer).await;
    let other = ToolDefinition { input_schema: json!({ "type": "object" }), ..cancel() };
    assert!(outcome(&server.tools(), &other).await.contains("is not as the registry states"));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let down = Server { port: gone, seen: Arc::clone(&server.seen), act: Arc::clone(&server.act) };
    assert!(outcome(&down.tools(), &cancel()).await.starts_with("unreachable: no connection"));
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_server_that_asks_for_input_in_a_call_is_put_off_or_told_to_nobody() {
    let server = Server::of(Era::Session, Act::Ask).await;
    assert_eq!(outcome(&server.tools(), &cancel()).await, "answer: cancelled");
    let seen = server.seen.lock().unwrap().iter().find(|seen| seen.body["id"] == "e1").cloned().unwrap();
    assert_eq!(seen.body["result"]["action"], "cancel", "{}", seen.body);
    let server = Server::of(Era::Stateless, Act::NeedsInput).await;
    let said = outcome(&server.tools(), &cancel()).await;
    assert_eq!(
        said,
        "error: `cancel_order` wants to be called again and asks for nothing, which is not supported, and was not performed"
    );
    assert_eq!(server.calls().len(), 1, "no further round");
}
