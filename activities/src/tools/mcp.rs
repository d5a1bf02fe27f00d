//! One connection to an MCP server over standard input and output: start, list, call, close.
//!
//! Six guards stand between the protocol's library and the rest: an outer time limit on connecting (a mute server is
//! waited for without end), a process group that is killed last (a child's own children outlive the polite close), a
//! cancel notification when a call is dropped, a test for a dead transport, no hidden rounds or retries, and a closed
//! list of the ends that a call can have.

use std::{collections::BTreeMap, pin::pin, process::Stdio, sync::Arc, time::Duration};

use mandate_domain::ServerName;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use process_wrap::tokio::{CommandWrap, ProcessGroup};
use rmcp::{
    ClientHandler, RoleClient, ServiceError,
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation, ProtocolVersion,
        RequestMetaObject,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, Peer, RunningService},
    transport::{IntoTransport, TokioChildProcess},
};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{answer, stderr_tail::StderrTail};
use crate::{
    catalog::{EnvValue, ServerSettings},
    tools::{LAST_LOOK, PrepareToolError, ToolAnswer},
};

/// Where the key of an effect stands in `_meta`.
pub(super) const IDEMPOTENCY_KEY: &str = "dev.mandate/idempotency-key";

/// How long a server may take to end by itself: the library waits 3 s, asks, and waits 3 s more.
const CLOSE_LIMIT: Duration = Duration::from_secs(7);

/// How long a dead server's last words may take to arrive.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(250);

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
    group: Group,
}

/// The process group of a server. Killed when dropped, so that no way out of this module leaves a process.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        // "No such group" is the good case: everything ended by itself.
        if let Some(pid) = self.0
            && let Err(error) = killpg(pid, Signal::SIGKILL)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(%pid, %error, "cannot end the process group of a tool server");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(super) struct NoAnswer(pub(super) String);

impl Connection {
    /// Starts the server, agrees on a protocol version and lists the tools, within the server's time limit.
    pub(super) async fn open(name: &ServerName, settings: &ServerSettings) -> Result<Self, PrepareToolError> {
        let unreachable = |reason| PrepareToolError::Unreachable { server: name.clone(), reason };
        let command = command(settings).await.map_err(unreachable)?;
        let started = TokioChildProcess::builder(command).stderr(Stdio::piped()).spawn();
        let (child, stderr) =
            started.map_err(|error| unreachable(format!("cannot start `{}`: {error}", settings.program.display())))?;
        // From here on every way out ends the group.
        let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
        let tail = StderrTail::default();
        let drained = stderr.map(|stderr| tokio::spawn(tail.clone().drain(stderr)));
        let limit = Duration::from_secs(settings.connect_timeout_secs);
        let reason = match tokio::time::timeout(limit, greet(child)).await {
            Ok(Ok((service, input_schemas))) => {
                let peer = service.peer().clone();
                return Ok(Self { peer, service: Mutex::new(Some(service)), input_schemas, group });
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("no connection within {} s", limit.as_secs()),
        };
        group.kill();
        Err(unreachable(with_last_words(reason, drained, &tail).await))
    }

    /// Whether the transport is gone. Nothing sent on it would arrive.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    /// The server's own schema of a tool's arguments.
    pub(super) fn input_schema(&self, tool: &str) -> Option<&Value> {
        self.input_schemas.get(tool)
    }

    /// Sends one `tools/call` and waits for its one answer. Dropping the future sends a cancel notification.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        key: Option<String>,
        limit: Duration,
    ) -> Result<ToolAnswer, NoAnswer> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        if let Some(key) = key {
            let mut meta = RequestMetaObject::new();
            meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::String(key));
            params.meta = Some(meta);
        }
        // `RunningService::call_tool` would drive further rounds by itself, past policy and audit.
        let mut asked = pin!(self.peer.call_tool_once(params));
        let ended = match tokio::time::timeout(limit, &mut asked).await {
            Ok(ended) => Ok(ended),
            // A process that was frozen sees its timer before the answer that lies in the pipe.
            Err(_) => tokio::time::timeout(LAST_LOOK, asked).await,
        };
        let Ok(ended) = ended else {
            return Err(NoAnswer(format!("no answer within {} s", limit.as_secs())));
        };
        match ended {
            Ok(CallToolResponse::Complete(result)) => Ok(answer::read(tool, result)),
            Ok(CallToolResponse::InputRequired(_)) => {
                Ok(answer::error(format!("error: `{tool}` asks for input, which is not supported")))
            }
            // A task was accepted and may run: that is no refusal.
            Ok(CallToolResponse::Task(_)) => Err(NoAnswer("it answers with a task, which is not supported".to_owned())),
            Ok(_) => Err(NoAnswer("the answer is of an unknown kind".to_owned())),
            Err(ServiceError::McpError(error)) => {
                Ok(answer::error(format!("error: the server refused the call: {} ({})", error.message, error.code.0)))
            }
            Err(error) => Err(NoAnswer(error.to_string())),
        }
    }

    /// Closes politely, then ends what is left of the group.
    pub(super) async fn close(&self) {
        if let Some(mut service) = self.service.lock().await.take()
            && let Err(error) = service.close_with_timeout(CLOSE_LIMIT).await
        {
            tracing::warn!(%error, "a tool server's connection did not close");
        }
        self.group.kill();
    }
}

type Greeted = (RunningService<RoleClient, Governed>, BTreeMap<String, Value>);

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

async fn command(settings: &ServerSettings) -> Result<CommandWrap, String> {
    let mut command = tokio::process::Command::new(&settings.program);
    command.args(&settings.args).current_dir(&settings.directory).env_clear();
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &settings.env {
        match value {
            EnvValue::Plain(text) => command.env(name, text),
            EnvValue::Secret(reference) => {
                let secret = reference.resolve().await.map_err(|error| format!("variable `{name}`: {error}"))?;
                command.env(name, secret.expose_secret())
            }
        };
    }
    let mut wrap = CommandWrap::from(command);
    wrap.wrap(ProcessGroup::leader());
    Ok(wrap)
}

// A server that crashes at its start says why on standard error alone.
async fn with_last_words(reason: String, drained: Option<JoinHandle<()>>, tail: &StderrTail) -> String {
    if let Some(drained) = drained {
        let _ = tokio::time::timeout(LAST_WORDS_LIMIT, drained).await;
    }
    let words = tail.text();
    if words.is_empty() { reason } else { format!("{reason}; its standard error ends: {words}") }
}
