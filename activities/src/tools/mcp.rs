//! One connection to an MCP server over standard input and output: start, list, call, close.
//!
//! Seven guards stand between the protocol's library and the rest: an outer time limit on connecting (a mute server is
//! waited for without end), a supervisor that ends what the server started (a child's own children outlive the polite
//! close), lines that are bounded and never thrown away without a word, a cancel notification when a call is dropped, a
//! test for a dead transport, no hidden rounds or retries, and a closed list of the ends that a call can have.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mandate_domain::ServerName;
use rmcp::{
    ClientHandler, RoleClient, ServiceError,
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation, ProtocolVersion,
        RequestMetaObject,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, Peer, RunningService},
    transport::IntoTransport,
};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{
    answer,
    child::ServerProcess,
    lines::{GivenUp, Lines, TOO_LARGE},
    stop::{Patience, answered},
};
use crate::{
    catalog::ServerSettings,
    tools::{PrepareToolError, ToolAnswer},
};

/// Where the key of an effect stands in `_meta`.
pub(super) const IDEMPOTENCY_KEY: &str = "dev.mandate/idempotency-key";

/// How long the connection may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The client: it answers neither sampling nor roots nor elicitation.
#[derive(Debug, Clone)]
pub(super) struct Governed;

impl ClientHandler for Governed {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("mandate", env!("CARGO_PKG_VERSION")))
    }
}

/// A connected server. Calls share it.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    service: Mutex<Option<RunningService<RoleClient, Governed>>>,
    /// Input schema of each tool, as listed when the connection was made.
    input_schemas: BTreeMap<String, Value>,
    process: ServerProcess,
    given_up: GivenUp,
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(super) struct NoAnswer(pub(super) String);

impl Connection {
    /// Starts the server, agrees on a protocol version and lists the tools, within the server's time limit.
    pub(super) async fn open(name: &ServerName, settings: &ServerSettings) -> Result<Self, PrepareToolError> {
        let unreachable = |reason| PrepareToolError::Unreachable { server: name.clone(), reason };
        // From here on every way out ends the process.
        let (process, (output, input)) = ServerProcess::start(settings).await.map_err(unreachable)?;
        let limit = Duration::from_secs(settings.connect_timeout_secs);
        let given_up = GivenUp::default();
        let answer_max_bytes = usize::try_from(settings.answer_max_bytes).unwrap_or(usize::MAX);
        let lines = Lines::new(output, input, answer_max_bytes, given_up.clone());
        let reason = match tokio::time::timeout(limit, greet(lines)).await {
            Ok(Ok((service, input_schemas))) => {
                let peer = service.peer().clone();
                return Ok(Self { peer, service: Mutex::new(Some(service)), input_schemas, process, given_up });
            }
            Ok(Err(reason)) => ended(&process, &given_up, reason).await,
            Err(_) => format!("no connection within {} s{}", limit.as_secs(), process.complaint()),
        };
        Err(unreachable(reason))
    }

    /// Whether the transport is gone. Nothing sent on it would arrive.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    /// The server's own schema of a tool's arguments.
    pub(super) fn input_schema(&self, tool: &str) -> Option<&Value> {
        self.input_schemas.get(tool)
    }

    /// Sends one `tools/call` and waits for its one answer. Where it is not waited for any longer, also because the future
    /// is dropped, the server gets a cancel notification; what it answers to a call that was cancelled is not looked at.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        key: Option<String>,
        patience: Patience<'_>,
    ) -> Result<ToolAnswer, NoAnswer> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        if let Some(key) = key {
            let mut meta = RequestMetaObject::new();
            meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::String(key));
            params.meta = Some(meta);
        }
        // `RunningService::call_tool` would drive further rounds by itself, past policy and audit.
        let asked = self.peer.call_tool_once(params);
        match answered(patience.over(), asked).await.map_err(NoAnswer)? {
            Ok(CallToolResponse::Complete(result)) => Ok(answer::read(result)),
            Ok(CallToolResponse::InputRequired(_)) => {
                Ok(answer::error(format!("error: `{tool}` asks for input, which is not supported")))
            }
            // A task was accepted and may run: that is no refusal.
            Ok(CallToolResponse::Task(_)) => Err(NoAnswer("it answers with a task, which is not supported".to_owned())),
            Ok(_) => Err(NoAnswer("the answer is of an unknown kind".to_owned())),
            Err(ServiceError::McpError(error)) if error.code.0 == TOO_LARGE => {
                Ok(answer::left_out(tool, error.data.as_ref()))
            }
            Err(ServiceError::McpError(error)) => {
                Ok(answer::error(format!("error: the server refused the call: {} ({})", error.message, error.code.0)))
            }
            Err(error) if self.is_closed() => {
                Err(NoAnswer(ended(&self.process, &self.given_up, error.to_string()).await))
            }
            Err(error) => Err(NoAnswer(error.to_string())),
        }
    }

    /// Closes politely, which closes the server's input, and waits until nothing of it is left.
    pub(super) async fn close(&self) {
        if let Some(mut service) = self.service.lock().await.take()
            && let Err(error) = service.close_with_timeout(CLOSE_LIMIT).await
        {
            tracing::warn!(%error, "a tool server's connection did not close");
        }
        self.process.end().await;
    }
}

type Greeted = (RunningService<RoleClient, Governed>, BTreeMap<String, Value>);

/// Why a connection is at its end: what this side could not bear, or how the server ended.
async fn ended(process: &ServerProcess, given_up: &GivenUp, reason: String) -> String {
    match given_up.reason() {
        Some(reason) => format!("{reason}{}", process.complaint()),
        None => reason + &process.last_words().await,
    }
}

/// Agrees on a protocol version and lists the tools.
pub(super) async fn greet<T, E, A>(transport: T) -> Result<Greeted, String>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let service = Governed.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| error.to_string())?;
    let tools = service.list_all_tools().await.map_err(|error| format!("cannot list its tools: {error}"))?;
    let schemas = tools
        .into_iter()
        .map(|tool| (tool.name.into_owned(), Value::Object(Arc::unwrap_or_clone(tool.input_schema))))
        .collect();
    Ok((service, schemas))
}
