//! Tools: how a call reaches an MCP server, an HTTP server or a built-in, and the three ends it can have: an answer (which
//! may report an error), not sent, outcome unknown.
//!
//! A call takes a [`RecordedPermit`], so that nothing is called that was not decided and recorded. Nothing here retries:
//! whether a call may be repeated is decided by the governed path, from the registry alone.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mandate_domain::{BuiltinTool, ServerName, ToolDefinition, ToolName, ToolReach, tool::arguments::same_constraints};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::{
    catalog::{RemoteSettings, ServerSettings, Speaks},
    egress,
    governed::RecordedPermit,
    guards::{Guard, on},
};

mod answer;
mod asks;
mod blot;
mod builtin;
mod child;
mod http;
mod lines;
mod mcp;
mod mcp_http;
mod remote;
mod send_by;
mod skim;
mod stderr_tail;
mod stop;

pub use asks::{Form, ServerAsks, Told};
pub use stop::Stop;

use remote::{Place, Remote};
use stop::Patience;

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolAnswer {
    /// What the model reads: the text content, or the structured content as JSON.
    pub text: String,
    /// The structured content, if there is one.
    pub structured: Option<Value>,
    /// MCP `isError == true`.
    pub is_error: bool,
}

/// What a check tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckAnswer {
    /// Whether the call happened.
    pub happened: bool,
    /// The result it had, if it happened and the tool knows it.
    pub result: Option<Value>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallToolError {
    /// Nothing was sent: the claim ran out, or the connection was gone before. The claim can be given back.
    #[error("tool `{tool}` was not called: {reason}")]
    NotSent {
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
    /// It was sent, or may have been, and no answer came. Whether it happened is unknown.
    #[error("tool `{tool}` did not answer: {reason}")]
    OutcomeUnknown {
        /// The tool.
        tool: String,
        /// Why, in words of ours.
        reason: String,
        /// What its server wrote last, for the log of whoever runs it. Foreign text, which may hold content: it stands in no
        /// record and in no history.
        wrote: String,
    },
    /// The server answered that it did not take the call. Nothing happened, and the claim can be given back; try again,
    /// not before `retry_after`.
    #[error("tool `{tool}` was not performed: the server answered with status {status}")]
    Declined {
        /// The tool.
        tool: String,
        /// Its answer.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server asks people something before it performs the call, and has not performed it; or it asked in vain, and that
    /// is why the call came to an error.
    #[error("tool `{tool}` asks for input before it is performed")]
    Asks {
        /// The tool.
        tool: String,
        /// What it asks for.
        asks: Box<ServerAsks>,
    },
    /// The server answered that something went wrong. Whether the call happened is unknown; whoever tries again does so
    /// not before `retry_after`.
    #[error("tool `{tool}` has no answer: the server answered with status {status}, so it may have been performed")]
    Unavailable {
        /// The tool.
        tool: String,
        /// Its answer.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
}

impl CallToolError {
    /// No answer came, for a reason that nothing of the server stands behind.
    fn unknown(tool: &impl ToString, reason: impl Into<String>) -> Self {
        Self::OutcomeUnknown { tool: tool.to_string(), reason: reason.into(), wrote: String::new() }
    }
}

/// Why a tool cannot be called. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum PrepareToolError {
    /// The server cannot be started or does not speak. An outage: try again later.
    #[error("tool server `{server}` cannot be reached: {reason}")]
    Unreachable {
        /// The server.
        server: ServerName,
        /// Why, with the end of the server's standard error. Foreign text, without control characters.
        reason: String,
    },
    /// There is no such server, or it has no such tool. Trying again does not help.
    #[error("tool server `{server}` has no tool `{tool}`")]
    Unknown {
        /// The tool's name at the server.
        tool: String,
        /// The server.
        server: ServerName,
    },
    /// The server's definition allows other arguments than the registry's. Trying again does not help.
    #[error("tool `{tool}` is not as the registry states: {at}")]
    Changed {
        /// The tool's name in the registry.
        tool: ToolName,
        /// Where the two differ.
        at: String,
    },
}

/// A tool ready to be called: found, compared, and bound to its connection, so that nothing is looked up again between
/// the decision and the call.
#[derive(Debug)]
pub struct PreparedTool {
    name: ToolName,
    timeout: Duration,
    stop: Stop,
    told: Option<Told>,
    reach: Reach,
}

#[derive(Debug)]
enum Reach {
    Mcp { connection: Arc<mcp::Connection>, tool: String },
    McpHttp { connection: Arc<mcp_http::Connection>, tool: String, _place: Place },
    Http(Box<http::Prepared>),
    Builtin(BuiltinTool),
}

/// All tool servers of a worker, one connection each, made on first use and shared by parallel calls.
#[derive(Debug, Clone)]
pub struct ToolSet {
    servers: Arc<BTreeMap<ServerName, Server>>,
    remotes: Arc<BTreeMap<ServerName, Arc<Remote>>>,
}

#[derive(Debug)]
struct Server {
    settings: ServerSettings,
    // Held while connecting: parallel calls wait for one start of this server, and for no other server.
    connection: Mutex<Option<Arc<mcp::Connection>>>,
}

impl ToolSet {
    /// Takes the servers' settings. Nothing is started.
    #[must_use]
    pub fn new(servers: BTreeMap<ServerName, ServerSettings>) -> Self {
        let server = |settings| Server { settings, connection: Mutex::new(None) };
        let servers = servers.into_iter().map(|(name, settings)| (name, server(settings))).collect();
        Self { servers: Arc::new(servers), remotes: Arc::default() }
    }

    /// The same with servers that are reached over HTTP.
    #[must_use]
    pub fn with_remotes(self, remotes: BTreeMap<ServerName, RemoteSettings>) -> Self {
        let remote = |(name, settings): (ServerName, RemoteSettings)| {
            (name.clone(), Arc::new(Remote::new(name, settings, egress::system())))
        };
        Self { remotes: Arc::new(remotes.into_iter().map(remote).collect()), ..self }
    }

    /// Connects to a server if needed. One that speaks HTTP is connected to and told nothing.
    ///
    /// # Errors
    /// [`PrepareToolError::Unreachable`], also for a server that is not configured.
    pub async fn connect(&self, server: &ServerName) -> Result<(), PrepareToolError> {
        let unreachable =
            || PrepareToolError::Unreachable { server: server.clone(), reason: "it is not configured".to_owned() };
        if let Some(remote) = self.remotes.get(server) {
            return match remote.speaks() {
                Speaks::Http => remote.reach().await,
                Speaks::Mcp => remote.connection().await.map(drop),
            };
        }
        self.servers.get(server).ok_or_else(unreachable)?.connection(server).await.map(drop)
    }

    /// Connects if needed, finds the tool and compares the server's schema with the registry's.
    ///
    /// # Errors
    /// [`PrepareToolError`]; only [`PrepareToolError::Unreachable`] may pass.
    pub async fn prepare(&self, tool: &ToolDefinition) -> Result<PreparedTool, PrepareToolError> {
        let reach = match &tool.reach {
            ToolReach::Builtin { tool } => Reach::Builtin(*tool),
            ToolReach::Mcp { server, tool: remote } => self.prepare_mcp(tool, server, remote).await?,
            ToolReach::Http(request) => {
                let unknown = || PrepareToolError::Unknown {
                    tool: format!("{} {}", request.method, request.path),
                    server: request.server.clone(),
                };
                let remote = self.remotes.get(&request.server).ok_or_else(unknown)?;
                Reach::Http(Box::new(http::prepare(remote, tool, request).await?))
            }
        };
        let timeout = Duration::from_secs(tool.timeout_secs);
        Ok(PreparedTool { name: tool.name.clone(), timeout, stop: Stop::default(), told: None, reach })
    }

    async fn prepare_mcp(
        &self,
        tool: &ToolDefinition,
        server: &ServerName,
        remote: &str,
    ) -> Result<Reach, PrepareToolError> {
        let unknown = || PrepareToolError::Unknown { tool: remote.to_owned(), server: server.clone() };
        if let Some(over_http) = self.remotes.get(server).filter(|remote| remote.speaks() == Speaks::Mcp) {
            let place = over_http.place(Duration::from_secs(tool.timeout_secs)).await?;
            let connection = over_http.connection().await?;
            is_as_stated(tool, connection.input_schema(remote).ok_or_else(unknown)?)?;
            return Ok(Reach::McpHttp { connection, tool: remote.to_owned(), _place: place });
        }
        let connection = self.servers.get(server).ok_or_else(unknown)?.connection(server).await?;
        is_as_stated(tool, connection.input_schema(remote).ok_or_else(unknown)?)?;
        Ok(Reach::Mcp { connection, tool: remote.to_owned() })
    }

    /// Calls the tool, once.
    ///
    /// # Errors
    /// [`CallToolError`]: not sent, or outcome unknown. A server's refusal is an answer, not an error.
    pub async fn call(
        &self,
        permit: &RecordedPermit,
        prepared: PreparedTool,
        arguments: &Map<String, Value>,
    ) -> Result<ToolAnswer, CallToolError> {
        prepared.call(permit, arguments.clone(), Some(permit.idempotency_key())).await
    }

    /// Asks a check tool whether the call with `original_key` happened. The question carries no key of its own: it
    /// changes nothing, and under the original key a server may take it for the call.
    ///
    /// # Errors
    /// [`CallToolError`]: as [`ToolSet::call`]; an answer that reports an error or has another form than
    /// `{"happened": true|false, "result": …}` is [`CallToolError::OutcomeUnknown`].
    pub async fn check(
        &self,
        permit: &RecordedPermit,
        check_tool: PreparedTool,
        original_key: &str,
    ) -> Result<CheckAnswer, CallToolError> {
        let tool = check_tool.name.to_string();
        let arguments = Map::from_iter([("idempotency_key".to_owned(), Value::String(original_key.to_owned()))]);
        match check_tool.call(permit, arguments, None).await {
            Ok(answer) => read_check(&answer).map_err(|reason| CallToolError::unknown(&tool, reason)),
            Err(CallToolError::Asks { .. }) => {
                let reason = "the check tool asks for input, which nobody gives".to_owned();
                Err(CallToolError::unknown(&tool, reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Closes all connections and ends all servers, with everything they started.
    pub async fn close(&self) {
        let close = async |server: &Server| {
            if let Some(connection) = server.connection.lock().await.take() {
                connection.close().await;
            }
        };
        futures::future::join_all(self.servers.values().map(close)).await;
        futures::future::join_all(self.remotes.values().map(|remote| remote.close())).await;
    }
}

impl Server {
    async fn connection(&self, name: &ServerName) -> Result<Arc<mcp::Connection>, PrepareToolError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref()
            && connection.is_alive().await
        {
            return Ok(Arc::clone(connection));
        }
        // The dead one first: it is ended when the last call on it is.
        *held = None;
        let connection = Arc::new(mcp::Connection::open(name, &self.settings).await?);
        *held = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl PreparedTool {
    /// The same tool with a time limit that is at most `limit`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.timeout = self.timeout.min(limit);
        self
    }

    /// The same tool, not to be sent once `stop` is asked, and to be broken off soon when it is.
    #[must_use]
    pub fn until(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The same tool with what people said to its server's question.
    #[must_use]
    pub fn answering(mut self, told: Option<Told>) -> Self {
        self.told = told;
        self
    }

    /// The tool's name in the registry.
    #[must_use]
    pub fn name(&self) -> &ToolName {
        &self.name
    }

    async fn call(
        self,
        permit: &RecordedPermit,
        arguments: Map<String, Value>,
        key: Option<String>,
    ) -> Result<ToolAnswer, CallToolError> {
        let not_sent = |reason: String| CallToolError::NotSent { tool: self.name.to_string(), reason };
        if self.stop.is_asked() {
            return Err(not_sent("it was to stop before it was sent".to_owned()));
        }
        let patience = Patience { limit: self.timeout, stop: &self.stop };
        match self.reach {
            Reach::Builtin(tool) => {
                permit.may_send().map_err(|error| not_sent(error.to_string()))?;
                Ok(builtin::call(tool))
            }
            Reach::Http(prepared) => prepared.call(permit, &self.name, &arguments, key, patience).await,
            Reach::McpHttp { connection, tool, _place } => {
                let request = mcp::Request { tool, arguments, key, told: self.told.as_ref(), patience };
                connection.call(permit, &self.name, request).await
            }
            Reach::Mcp { connection, tool } => {
                if connection.is_closed() {
                    return Err(not_sent("the connection to its server is gone".to_owned()));
                }
                // Last thing before the bytes go out: after this moment another worker may hold the effect.
                permit.may_send().map_err(|error| not_sent(error.to_string()))?;
                let request = mcp::Request { tool, arguments, key, told: self.told.as_ref(), patience };
                let send_by = Instant::now() + permit.time_left();
                connection.call(send_by, request).await.map_err(|ended| match ended {
                    mcp::NoAnswer::NotSent(reason) => not_sent(reason),
                    mcp::NoAnswer::Lost { reason, wrote } => {
                        CallToolError::OutcomeUnknown { tool: self.name.to_string(), reason, wrote }
                    }
                    mcp::NoAnswer::Asks(asks) => CallToolError::Asks { tool: self.name.to_string(), asks },
                })
            }
        }
    }
}

/// Whether the server's definition of a tool allows the same as the registry's.
fn is_as_stated(tool: &ToolDefinition, schema: &Value) -> Result<(), PrepareToolError> {
    match same_constraints(&tool.input_schema, schema) {
        Err(differs) if on(Guard::ToolAsAnnounced) => {
            Err(PrepareToolError::Changed { tool: tool.name.clone(), at: differs.to_string() })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_check(answer: &ToolAnswer) -> Result<CheckAnswer, String> {
    if answer.is_error {
        return Err("the check tool reported an error".to_owned());
    }
    let parsed: Option<Value> = serde_json::from_str(&answer.text).ok();
    let value = answer.structured.as_ref().or(parsed.as_ref()).ok_or("the check tool's answer is not JSON")?;
    let happened = value.get("happened").and_then(Value::as_bool).ok_or("the check tool does not say `happened`")?;
    Ok(CheckAnswer { happened, result: value.get("result").filter(|result| !result.is_null()).cloned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_check_answer_must_say_whether_it_happened() {
        let check = |text: &str, is_error| {
            read_check(&ToolAnswer { text: text.to_owned(), structured: None, is_error })
                .map(|a| (a.happened, a.result))
        };
        assert_eq!(check(r#"{"happened":true,"result":{"a":1}}"#, false), Ok((true, Some(json!({ "a": 1 })))));
        assert_eq!(check(r#"{"happened":false,"result":null}"#, false), Ok((false, None)));
        for (text, is_error) in [("", false), ("yes", false), (r#"{"happened":"true"}"#, false), ("{}", false)] {
            assert!(check(text, is_error).is_err(), "{text}");
        }
        assert!(check(r#"{"happened":false}"#, true).is_err());
    }
}
