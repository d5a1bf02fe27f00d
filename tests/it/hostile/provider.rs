//! A model provider of somebody else: it keeps every request as it came over the wire, and answers what it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use mandate_tests::Scenario;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the scripted model of the example is configured with.
const SCRIPTED: &str = "provider = \"scripted\"\nscript = \"scripts/refunds.toml\"";

/// The provider. It ends with its test.
pub(super) struct Provider {
    /// Where it is, which is its name in policies.
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Provider {
    /// Serves these replies, one a turn, to the agent of the scenario. The last one is for every further turn.
    pub(super) async fn instead(scenario: &Scenario, replies: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = format!("provider = \"openai\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m-1\"");
        scenario.edit("mandate.toml", SCRIPTED, &http);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A caller that breaks off is no matter of the provider.
                let _ = serve(stream, &kept, &replies).await;
            }
        });
        Self { address, seen, serving }
    }

    /// Every request so far, byte by byte.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Whether any request has these words.
    pub(super) fn saw(&self, words: &str) -> bool {
        self.seen().iter().any(|request| request.contains(words))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A reply of words.
pub(super) fn says(text: &str) -> Value {
    json!({ "role": "assistant", "content": text })
}

/// A reply that proposes calls, each a tool as it is named on the wire and its arguments, and says something beside.
pub(super) fn proposes(text: &str, calls: &[(&str, Value)]) -> Value {
    let call = |(index, (name, arguments)): (usize, &(&str, Value))| {
        let function = json!({ "name": name, "arguments": arguments.to_string() });
        json!({ "id": format!("c{index}"), "type": "function", "function": function })
    };
    let calls: Vec<Value> = calls.iter().enumerate().map(call).collect();
    json!({ "role": "assistant", "content": text, "tool_calls": calls })
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>, replies: &[Value]) -> std::io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    let body = loop {
        if let Some(body) = whole(&String::from_utf8_lossy(&read)) {
            break body;
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => read.extend_from_slice(&buffer[..count]),
        }
    };
    seen.lock().unwrap().push(String::from_utf8_lossy(&read).into_owned());
    let messages = body["messages"].as_array().unwrap();
    let turn = messages.iter().filter(|message| message["role"] == "assistant").count();
    let message = replies.get(turn).or(replies.last()).unwrap();
    let usage = json!({ "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 });
    let choice = json!({ "index": 0, "finish_reason": "stop", "message": message });
    let answer = json!({ "id": "r", "model": "m-1", "choices": [choice], "usage": usage }).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(format!("{head}{answer}").as_bytes()).await?;
    stream.shutdown().await
}

/// The body of a request that has arrived as a whole.
fn whole(request: &str) -> Option<Value> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    if body.len() < length.unwrap_or(usize::MAX) {
        return None;
    }
    serde_json::from_str(body).ok()
}
