//! One connection to an MCP server over streamable HTTP, in both eras of the protocol: with a session, and without.
//!
//! The guards are those of `mcp.rs`, and those of HTTP: an outer time limit on connecting, one request for each message
//! and no second one, no redirect, no stream that is resumed, answers of a bounded size, and a connection that is not
//! used again after a call on it was left open. What is said to the server goes out by the guarded way (`egress`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mandate_domain::ToolName;
use rmcp::{
    RoleClient, ServiceError,
    model::{CallToolRequestParams, CallToolResponse, RequestMetaObject},
    service::{Peer, RunningService},
    transport::{
        StreamableHttpClientTransport, common::client_side_sse::SseRetryPolicy,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{
    CallToolError, ToolAnswer, answer, mcp,
    remote::Remote,
    stop::{Patience, answered},
};
use crate::governed::RecordedPermit;

mod post;

use post::{PostError, Poster};

/// How long a server may take to end a session.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Until when each effect may be sent, by its key.
type SendBy = Arc<StdMutex<BTreeMap<String, Instant>>>;

/// A stream that breaks stays broken: a repeated request could be a repeated call.
#[derive(Debug)]
struct Never;

impl SseRetryPolicy for Never {
    fn retry(&self, _: usize) -> Option<Duration> {
        None
    }
}

/// A connected server. Calls share it.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    service: Mutex<Option<RunningService<RoleClient, mcp::Governed>>>,
    input_schemas: BTreeMap<String, Value>,
    send_by: SendBy,
    spoiled: AtomicBool,
}

impl Connection {
    /// Agrees on a protocol version and lists the tools, within the server's time limit. An error is a sentence.
    pub(super) async fn open(remote: &Arc<Remote>) -> Result<Self, String> {
        let send_by = SendBy::default();
        let headers = remote.headers().await.map_err(|error| error.to_string())?;
        let url = remote.egress().map_err(|error| error.to_string())?.url.as_str().to_owned();
        let poster = Poster::new(Arc::clone(remote), headers, Arc::clone(&send_by));
        let mut config = StreamableHttpClientTransportConfig::with_uri(url).reinit_on_expired_session(false);
        config.retry_config = Arc::new(Never);
        config.max_concurrent_requests = remote.calls_max();
        let transport = StreamableHttpClientTransport::with_client(poster, config);
        let limit = remote.connect_limit();
        let (service, input_schemas) = tokio::time::timeout(limit, mcp::greet(transport))
            .await
            .map_err(|_| format!("no connection within {} s", limit.as_secs()))??;
        let (peer, spoiled) = (service.peer().clone(), AtomicBool::new(false));
        Ok(Self { peer, service: Mutex::new(Some(service)), input_schemas, send_by, spoiled })
    }

    /// Whether nothing may be sent on it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.spoiled.load(Ordering::SeqCst) || self.peer.is_transport_closed()
    }

    /// The server's own schema of a tool's arguments.
    pub(super) fn input_schema(&self, tool: &str) -> Option<&Value> {
        self.input_schemas.get(tool)
    }

    /// Sends one `tools/call` and waits for its one answer. Dropping the future sends a cancel notification.
    pub(super) async fn call(
        &self,
        permit: &RecordedPermit,
        name: &ToolName,
        tool: &str,
        arguments: Map<String, Value>,
        key: Option<String>,
        patience: Patience<'_>,
    ) -> Result<ToolAnswer, CallToolError> {
        let not_sent = |reason: String| CallToolError::NotSent { tool: name.to_string(), reason };
        if self.is_closed() {
            return Err(not_sent("the connection to its server is gone".to_owned()));
        }
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        // Last thing before the bytes go out: after this moment another worker may hold the effect.
        permit.may_send().map_err(|error| not_sent(error.to_string()))?;
        let _until = key.as_ref().map(|key| Until::set(&self.send_by, key, Instant::now() + permit.time_left()));
        if let Some(key) = key {
            let mut meta = RequestMetaObject::new();
            meta.insert(mcp::IDEMPOTENCY_KEY.to_owned(), Value::String(key));
            params.meta = Some(meta);
        }
        let ended = match answered(patience.over(), self.peer.call_tool_once(params)).await {
            Ok(ended) => end_of(name, tool, ended),
            Err(why) => Err(unknown(name, why)),
        };
        if ended.is_err() {
            // What became of the connection is not known either.
            self.spoiled.store(true, Ordering::SeqCst);
        }
        ended
    }

    /// Ends the session, if there is one.
    pub(super) async fn close(&self) {
        if let Some(mut service) = self.service.lock().await.take()
            && let Err(error) = service.close_with_timeout(CLOSE_LIMIT).await
        {
            tracing::warn!(%error, "a tool server's connection did not close");
        }
    }
}

/// The time of one effect, while it is being called.
struct Until {
    send_by: SendBy,
    key: String,
}

impl Until {
    fn set(send_by: &SendBy, key: &str, until: Instant) -> Self {
        send_by.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), until);
        Self { send_by: Arc::clone(send_by), key: key.to_owned() }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.send_by.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

fn unknown(name: &ToolName, reason: String) -> CallToolError {
    CallToolError::OutcomeUnknown { tool: name.to_string(), reason }
}

fn end_of(
    name: &ToolName,
    tool: &str,
    ended: Result<CallToolResponse, ServiceError>,
) -> Result<ToolAnswer, CallToolError> {
    match ended {
        Ok(CallToolResponse::Complete(result)) => Ok(answer::read(result)),
        Ok(CallToolResponse::InputRequired(_)) => {
            Ok(answer::error(format!("error: `{tool}` asks for input, which is not supported")))
        }
        // A task was accepted and may run: that is no refusal.
        Ok(CallToolResponse::Task(_)) => {
            Err(unknown(name, "it answers with a task, which is not supported".to_owned()))
        }
        Ok(_) => Err(unknown(name, "the answer is of an unknown kind".to_owned())),
        Err(ServiceError::McpError(error)) => {
            Ok(answer::error(format!("error: the server refused the call: {} ({})", error.message, error.code.0)))
        }
        Err(ServiceError::TransportSend(error)) => match post::cause(error.error.as_ref()) {
            Some(posted) => post_end(name, posted),
            None => Err(unknown(name, "the connection broke".to_owned())),
        },
        Err(error) => Err(unknown(name, error.to_string())),
    }
}

/// What a request that was not answered as MCP answers came to.
fn post_end(name: &ToolName, posted: &PostError) -> Result<ToolAnswer, CallToolError> {
    let tool = name.to_string();
    match posted {
        PostError::NotSent(reason) => Err(CallToolError::NotSent { tool, reason: reason.clone() }),
        PostError::NoSession => {
            let reason = "the server has forgotten the session, and did not take the call".to_owned();
            Err(CallToolError::NotSent { tool, reason })
        }
        PostError::Broken(reason) => Err(unknown(name, reason.clone())),
        PostError::Declined { status, retry_after } => {
            Err(CallToolError::Declined { tool, status: *status, retry_after: *retry_after })
        }
        PostError::Unavailable { status, retry_after } => {
            Err(CallToolError::Unavailable { tool, status: *status, retry_after: *retry_after })
        }
        PostError::Refused { status } => {
            Ok(answer::error(format!("error: the server refused the call with status {status}")))
        }
    }
}

#[cfg(test)]
mod tests;
