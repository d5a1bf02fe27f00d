//! A system of record that speaks HTTP: it cancels orders, and keeps its own record of what it was asked and what it did.
//! It is told how it behaves.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How it answers a request that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    Well,
    /// It does what it is asked, and then answers 500.
    FailsAfterwards,
    /// It does what it is asked, and then closes the connection.
    DiesAfterwards,
    /// It does nothing and answers 503, with one second to wait.
    Overloaded,
    /// It does nothing and answers 429, with one second to wait.
    Limits,
}

/// A request that arrived, or what was done on its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Method and path.
    pub line: String,
    /// Its idempotency key, without the quotes.
    pub key: Option<String>,
}

#[derive(Debug)]
struct Record {
    behaviour: Behaviour,
    asked: Vec<Order>,
    done: Vec<Order>,
    /// What each key was answered with.
    known: BTreeMap<String, Value>,
    /// Whether a key is looked at: a server of the plain kind does what it is asked each time.
    honours_keys: bool,
}

/// The server. It ends with its test.
#[derive(Debug)]
pub struct Orders {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
    serving: JoinHandle<()>,
}

impl Orders {
    /// A server that listens on this machine and behaves like this.
    pub async fn behaving(behaviour: Behaviour, honours_keys: bool) -> Self {
        // For workers within the test; one that is there already stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let (asked, done, known) = (Vec::new(), Vec::new(), BTreeMap::new());
        let record = Arc::new(Mutex::new(Record { behaviour, asked, done, known, honours_keys }));
        let kept = Arc::clone(&record);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Self { address, record, serving }
    }

    /// Behaves like this from here on.
    pub fn behaves(&self, behaviour: Behaviour) {
        self.record.lock().unwrap().behaviour = behaviour;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `[servers.orders]` of an operating folder.
    pub fn server_toml(&self) -> String {
        let host = self.address;
        format!("\n[servers.orders]\nbase_url = \"http://{host}/v1\"\nallow_internal = [\"{host}\"]\n")
    }

    /// Requests that arrived, in order.
    pub fn asked(&self) -> Vec<Order> {
        self.record.lock().unwrap().asked.clone()
    }

    /// What was done, in order.
    pub fn done(&self) -> Vec<Order> {
        self.record.lock().unwrap().done.clone()
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, record: Arc<Mutex<Record>>) {
    let Some(request) = read(&mut stream).await else { return };
    let answer = take(&request, &mut record.lock().unwrap());
    if let Some(answer) = answer {
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// Reads one request, as far as it says that it is long. None for a connection that asks nothing.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let length = seen.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if let Some((_, body)) = seen.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            return Some(seen);
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
            Ok(0) | Err(_) => return None,
        }
    }
}

fn take(request: &str, record: &mut Record) -> Option<String> {
    let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    if let Some(key) = line.strip_prefix("GET /v1/calls?idempotency_key=") {
        return Some(known(record, &key.replace("%2F", "/")));
    }
    let key = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
    let order = Order { line, key: key.map(|key| key.trim_matches('"').to_owned()) };
    record.asked.push(order.clone());
    match record.behaviour {
        Behaviour::Overloaded => return Some(said("503 Service Unavailable", "retry-after: 1\r\n", &json!({}))),
        Behaviour::Limits => return Some(said("429 Too Many Requests", "retry-after: 1\r\n", &json!({}))),
        Behaviour::Well | Behaviour::FailsAfterwards | Behaviour::DiesAfterwards => {}
    }
    let before = order.key.as_ref().filter(|_| record.honours_keys).and_then(|key| record.known.get(key)).cloned();
    let result = before.unwrap_or_else(|| {
        record.done.push(order.clone());
        let result = json!({ "done": record.done.len(), "line": order.line });
        record.known.extend(order.key.map(|key| (key, result.clone())));
        result
    });
    match record.behaviour {
        Behaviour::Well => Some(said("200 OK", "", &result)),
        Behaviour::FailsAfterwards => Some(said("500 Internal Server Error", "", &json!({}))),
        Behaviour::DiesAfterwards | Behaviour::Overloaded | Behaviour::Limits => None,
    }
}

fn known(record: &Record, key: &str) -> String {
    let found = record.known.get(key);
    said("200 OK", "", &json!({ "happened": found.is_some(), "result": found }))
}

fn said(status: &str, headers: &str, body: &Value) -> String {
    let (kind, body) = ("content-type: application/json\r\n", body.to_string());
    format!("HTTP/1.1 {status}\r\n{headers}{kind}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
