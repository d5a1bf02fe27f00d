//! HTTP tools against a server on a socket of this machine, which keeps its own record of what it was asked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use mandate_domain::{
    EffectId, PersonId, ServerName, ToolCallId, ToolReach,
    tool::http::{ANSWER_BYTES, ArgumentsIn},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    catalog::{HeaderSetting, RemoteSettings, SecretRef, Speaks},
    tools::ToolSet,
};

mod answers;
mod hostile;

/// What the server does with a request that it has read and recorded.
#[derive(Debug, Clone)]
enum Act {
    /// Answers with this text, head and body, and closes.
    Say(String),
    /// Never answers.
    Nothing,
    /// Closes without an answer.
    Close,
    /// Answers with this head, and then with one byte each time the reader has taken the last, without end.
    Drip(String),
    /// Answers with this head, and then as much as is taken, without end.
    Flood(String),
}

/// The server.
struct Origin {
    port: u16,
    record: Arc<Mutex<Vec<String>>>,
    most: Arc<AtomicUsize>,
}

impl Origin {
    async fn doing(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (record, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (kept, at_once) = (Arc::clone(&record), Arc::new(AtomicUsize::new(0)));
        let highest = Arc::clone(&most);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, act) = (Arc::clone(&kept), act.clone());
                let (at_once, highest) = (Arc::clone(&at_once), Arc::clone(&highest));
                tokio::spawn(async move {
                    let Some((mut stream, request)) = request(stream).await else { return };
                    kept.lock().unwrap().push(request);
                    highest.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    perform(&mut stream, act).await;
                });
            }
        });
        Self { port, record, most }
    }

    /// Answers with a status, these header lines and a body of this type.
    async fn saying(status: &str, headers: &str, body: &str) -> Self {
        Self::doing(Act::Say(said(status, headers, body))).await
    }

    fn settings(&self) -> RemoteSettings {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = format!("127.0.0.1:{}", self.port);
        RemoteSettings {
            speaks: Speaks::Http,
            url: format!("http://{host}/v1/"),
            headers: BTreeMap::new(),
            allow_internal: vec![host.parse().unwrap()],
            connect_timeout_secs: 5,
            calls_max: 8,
        }
    }

    fn requests(&self) -> Vec<String> {
        self.record.lock().unwrap().clone()
    }
}

fn said(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Reads one request, as far as it says that it is long. None for a connection that asks nothing.
async fn request(mut stream: TcpStream) -> Option<(TcpStream, String)> {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let length = seen.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if let Some((_, body)) = seen.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            return Some((stream, seen));
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
        }
    }
}

async fn perform(stream: &mut TcpStream, act: Act) {
    match act {
        Act::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Act::Nothing => drop(stream.read(&mut [0; 1]).await),
        Act::Close => {}
        Act::Drip(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"x").await.is_ok() {
                beat.tick().await;
            }
        }
        Act::Flood(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        }
    }
}

fn request_of(method: HttpMethod, path: &str, arguments: ArgumentsIn) -> HttpRequest {
    HttpRequest {
        server: ServerName::parse("orders").unwrap(),
        method,
        path: path.parse().unwrap(),
        arguments,
        answer_bytes_max: ANSWER_BYTES,
    }
}

fn cancel() -> ToolDefinition {
    tool(request_of(HttpMethod::Post, "/orders/{order_id}/cancel", ArgumentsIn::Body))
}

fn tool(request: HttpRequest) -> ToolDefinition {
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
        input_schema: json!({ "type": "object" }),
        reach: ToolReach::Http(request),
    }
}

fn permit() -> RecordedPermit {
    RecordedPermit::unrecorded(EffectId::Tool(ToolCallId::new(1, 0)))
}

fn tools(settings: RemoteSettings) -> ToolSet {
    ToolSet::new(BTreeMap::new()).with_remotes(BTreeMap::from([(ServerName::parse("orders").unwrap(), settings)]))
}

/// Calls the tool with the arguments that most tests have.
async fn call(settings: RemoteSettings, tool: &ToolDefinition) -> Result<ToolAnswer, CallToolError> {
    let tools = tools(settings);
    let prepared = tools.prepare(tool).await.unwrap();
    let arguments = json!({ "order_id": "o 1", "reason": "late" });
    tools.call(&permit(), prepared, arguments.as_object().unwrap()).await
}

/// What the call came to, in a line.
async fn outcome(origin: &Origin, tool: &ToolDefinition) -> String {
    in_a_line(call(origin.settings(), tool).await)
}

fn in_a_line(outcome: Result<ToolAnswer, CallToolError>) -> String {
    match outcome {
        Err(CallToolError::Asks { asks, .. }) => format!("asks: {asks:?}"),
        Ok(ToolAnswer { text, is_error: false, .. }) => format!("answer: {text}"),
        Ok(ToolAnswer { text, .. }) => text,
        Err(CallToolError::NotSent { reason, .. }) => format!("not sent: {reason}"),
        Err(CallToolError::OutcomeUnknown { reason, .. }) => format!("unknown: {reason}"),
        Err(CallToolError::Declined { status, retry_after, .. }) => format!("declined: {status} {retry_after:?}"),
        Err(CallToolError::Unavailable { status, retry_after, .. }) => format!("unavailable: {status} {retry_after:?}"),
    }
}

#[tokio::test]
async fn a_call_is_one_request_with_its_key_and_its_headers() {
    let origin = Origin::saying("200 OK", "content-type: application/json\r\n", r#"{"cancelled": true}"#).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret-token\n").unwrap();
    let mut settings = origin.settings();
    let reference = SecretRef::File(folder.path().join("token"));
    let bearer = HeaderSetting::Secret { prefix: "Bearer ".to_owned(), reference };
    let version = HeaderSetting::Plain("2".to_owned());
    settings.headers = [("authorization".to_owned(), bearer), ("api-version".to_owned(), version)].into();
    let answer = call(settings, &cancel()).await.unwrap();
    assert_eq!(answer.structured, Some(json!({ "cancelled": true })));
    assert_eq!((answer.text.as_str(), answer.is_error), (r#"{"cancelled":true}"#, false));
    let [request] = origin.requests().try_into().unwrap();
    assert!(request.starts_with("POST /v1/orders/o%201/cancel HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"reason\":\"late\"}"), "{request}");
    for line in [
        "authorization: Bearer s3cret-token",
        "api-version: 2",
        "idempotency-key: \"test/run/t1.0\"",
        "content-type: application/json",
        "accept: application/json, text/*;q=0.5",
        &format!("host: 127.0.0.1:{}", origin.port),
    ] {
        assert!(request.lines().any(|found| found == line), "{line}: {request}");
    }
}

#[tokio::test]
async fn a_get_carries_its_arguments_in_the_query_and_no_body() {
    let origin = Origin::saying("200 OK", "content-type: text/plain\r\n", "late").await;
    let read = tool(request_of(HttpMethod::Get, "/orders/{order_id}?v=1", ArgumentsIn::Query));
    assert_eq!(outcome(&origin, &read).await, "answer: late");
    let [request] = origin.requests().try_into().unwrap();
    assert!(request.starts_with("GET /v1/orders/o%201?v=1&reason=late HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n") && !request.contains("content-type"), "{request}");
}

#[tokio::test]
async fn a_check_question_carries_no_key_of_its_own() {
    let origin = Origin::saying("200 OK", "content-type: application/json\r\n", r#"{"happened": true}"#).await;
    let tools = tools(origin.settings());
    let status = tool(request_of(HttpMethod::Get, "/status", ArgumentsIn::Query));
    let prepared = tools.prepare(&status).await.unwrap();
    assert!(tools.check(&permit(), prepared, "test/run/t1.0").await.unwrap().happened);
    let [request] = origin.requests().try_into().unwrap();
    assert!(request.starts_with("GET /v1/status?idempotency_key=test%2Frun%2Ft1.0 HTTP/1.1"), "{request}");
    assert!(!request.contains("idempotency-key"), "{request}");
}

#[tokio::test]
async fn calls_wait_for_a_place_before_they_are_decided_about() {
    let origin = Origin::saying("204 No Content", "", "").await;
    let tools = tools(RemoteSettings { calls_max: 2, ..origin.settings() });
    let tool = ToolDefinition { timeout_secs: 1, ..cancel() };
    let arguments = json!({ "order_id": "o1" });
    let (one, two) = (tools.prepare(&tool).await.unwrap(), tools.prepare(&tool).await.unwrap());
    let said = tools.prepare(&tool).await.unwrap_err().to_string();
    assert!(said.contains("all of its 2 calls at a time were under way for 1 s"), "{said}");
    let waiting = tools.prepare(&tool);
    drop(one);
    waiting.await.unwrap();
    tools.call(&permit(), two, arguments.as_object().unwrap()).await.unwrap();
    let calls = (0..20).map(|_| async {
        let prepared = tools.prepare(&cancel()).await.unwrap();
        tools.call(&permit(), prepared, arguments.as_object().unwrap()).await.unwrap()
    });
    futures::future::join_all(calls).await;
    assert_eq!(origin.requests().len(), 21);
    assert!(origin.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_server_that_is_down_and_a_secret_that_is_missing_are_found_before_the_decision() {
    let origin = Origin::saying("204 No Content", "", "").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let down = RemoteSettings {
        url: format!("http://{closed}/"),
        allow_internal: vec![closed.to_string().parse().unwrap()],
        ..origin.settings()
    };
    let said = tools(down).prepare(&cancel()).await.unwrap_err().to_string();
    assert!(said.contains("tool server `orders` cannot be reached: no connection"), "{said}");
    let reference = SecretRef::File("/nowhere/token".into());
    let header = HeaderSetting::Secret { prefix: String::new(), reference };
    let settings = RemoteSettings { headers: [("x-api-key".to_owned(), header)].into(), ..origin.settings() };
    let said = tools(settings).prepare(&cancel()).await.unwrap_err().to_string();
    assert!(said.contains("header `x-api-key`"), "{said}");
    assert!(origin.requests().is_empty());
}
