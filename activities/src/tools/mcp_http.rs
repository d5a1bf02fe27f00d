//! One connection to an MCP server over streamable HTTP, in both eras of the protocol: with a session, and without.
//!
//! The guards are those of `mcp.rs`, and those of HTTP: an outer time limit on connecting, one request for each message
//! and no second one, no redirect, no stream that is resumed, answers of a bounded size, and a connection that is not
//! used again after a call on it was left open. What is said to the server goes out by the guarded way (`egress`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mandate_domain::ToolName;
use rmcp::{
    RoleClient, ServiceError,
    model::CallToolResponse,
    service::{Peer, RunningService},
    transport::{
        StreamableHttpClientTransport, common::client_side_sse::SseRetryPolicy,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    CallToolError, ToolAnswer, answer,
    asks::{Governed, ServerAsks},
    blot::Secrets,
    mcp,
    remote::Remote,
    send_by::SendBy,
    stop::answered,
};
use crate::governed::RecordedPermit;

mod post;

use post::{PostError, Poster};

/// How long a server may take to end a session.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

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
    client: Governed,
    peer: Peer<RoleClient>,
    service: Mutex<Option<RunningService<RoleClient, Governed>>>,
    input_schemas: BTreeMap<String, Value>,
    send_by: SendBy,
    spoiled: AtomicBool,
    /// What its requests carry.
    secrets: Secrets,
}

impl Connection {
    /// Agrees on a protocol version and lists the tools, within the server's time limit. An error is a sentence.
    pub(super) async fn open(remote: &Arc<Remote>) -> Result<Self, String> {
        let send_by = SendBy::default();
        let headers = remote.headers().await.map_err(|error| error.to_string())?;
        let url = remote.egress().map_err(|error| error.to_string())?.url.as_str().to_owned();
        let secrets = Secrets::in_headers(&headers);
        let poster = Poster::new(Arc::clone(remote), headers, send_by.clone());
        let mut config = StreamableHttpClientTransportConfig::with_uri(url).reinit_on_expired_session(false);
        config.retry_config = Arc::new(Never);
        config.max_concurrent_requests = remote.calls_max();
        let transport = StreamableHttpClientTransport::with_client(poster, config);
        let (client, limit) = (Governed::default(), remote.connect_limit());
        let (service, input_schemas) = tokio::time::timeout(limit, mcp::greet(client.clone(), transport))
            .await
            .map_err(|_| format!("no connection within {} s", limit.as_secs()))??;
        let (peer, spoiled) = (service.peer().clone(), AtomicBool::new(false));
        Ok(Self { client, peer, service: Mutex::new(Some(service)), input_schemas, send_by, spoiled, secrets })
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
        request: mcp::Request<'_>,
    ) -> Result<ToolAnswer, CallToolError> {
        let not_sent = |reason: String| CallToolError::NotSent { tool: name.to_string(), reason };
        if self.is_closed() {
            return Err(not_sent("the connection to its server is gone".to_owned()));
        }
        // Last thing before the bytes go out: after this moment another worker may hold the effect.
        permit.may_send().map_err(|error| not_sent(error.to_string()))?;
        let key = request.key.as_ref();
        let _until = key.map(|key| {
            let until = Instant::now() + permit.time_left();
            self.send_by.let_out(key, until, request.patience.stop)
        });
        let talk = self.client.begin(request.told);
        let ended = match answered(request.patience.over(), self.peer.call_tool_once(request.params())).await {
            Ok(ended) => {
                if spoils(&ended) {
                    self.spoiled.store(true, Ordering::SeqCst);
                }
                end_of(name, &request.tool, permit.repeats(), ended)
            }
            Err(why) => {
                // What became of the connection is not known either.
                self.spoiled.store(true, Ordering::SeqCst);
                Err(unknown(name, why))
            }
        };
        let asks = |asks| CallToolError::Asks { tool: name.to_string(), asks };
        ended.and_then(|answer| talk.ended(self.secrets.blotted_answer(answer)).map_err(asks))
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

fn unknown(name: &ToolName, reason: String) -> CallToolError {
    CallToolError::unknown(name, reason)
}

/// Whether a connection is not used again after a call on it ended so: what became of it is not known, or its headers or its
/// session are not taken any more.
fn spoils(ended: &Result<CallToolResponse, ServiceError>) -> bool {
    match ended {
        Ok(CallToolResponse::Complete(_) | CallToolResponse::InputRequired(_)) | Err(ServiceError::McpError(_)) => {
            false
        }
        Err(ServiceError::TransportSend(error)) => match post::cause(error.error.as_ref()) {
            Some(PostError::NotSent(_) | PostError::Declined { .. }) => false,
            Some(
                PostError::NoSession | PostError::Broken(_) | PostError::Unavailable { .. } | PostError::Refused { .. },
            )
            | None => true,
        },
        Ok(_) | Err(_) => true,
    }
}

fn end_of(
    name: &ToolName,
    tool: &str,
    repeats: bool,
    ended: Result<CallToolResponse, ServiceError>,
) -> Result<ToolAnswer, CallToolError> {
    match ended {
        Ok(CallToolResponse::Complete(result)) => Ok(answer::read(result)),
        Ok(CallToolResponse::InputRequired(asked)) => match ServerAsks::read(asked) {
            Ok(asks) => Err(CallToolError::Asks { tool: name.to_string(), asks: Box::new(asks) }),
            Err(why) => Ok(answer::asks_in_vain(tool, &why)),
        },
        // A task was accepted and may run: that is no refusal.
        Ok(CallToolResponse::Task(_)) => {
            Err(unknown(name, "it answers with a task, which is not supported".to_owned()))
        }
        Ok(_) => Err(unknown(name, "the answer is of an unknown kind".to_owned())),
        Err(ServiceError::McpError(error)) => {
            Ok(answer::error(format!("error: the server refused the call: {} ({})", error.message, error.code.0)))
        }
        Err(ServiceError::TransportSend(error)) => match post::cause(error.error.as_ref()) {
            Some(posted) => post_end(name, repeats, posted),
            None => Err(unknown(name, "the connection broke".to_owned())),
        },
        Err(error) => Err(unknown(name, error.to_string())),
    }
}

/// What a request that was not answered as MCP answers came to.
fn post_end(name: &ToolName, repeats: bool, posted: &PostError) -> Result<ToolAnswer, CallToolError> {
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
        // It refuses this attempt, and says nothing of the one before it.
        PostError::Refused { status } if repeats => {
            Err(CallToolError::Unavailable { tool, status: *status, retry_after: None })
        }
        PostError::Refused { status } => {
            Ok(answer::error(format!("error: the server refused the call with status {status}")))
        }
    }
}

#[cfg(test)]
mod tests;
