//! One connection to an MCP server over standard input and output: start, list, call, close.
//!
//! Seven guards stand between the protocol's library and the rest: an outer time limit on connecting (a mute server is
//! waited for without end), a supervisor that ends what the server started (a child's own children outlive the polite
//! close), lines that are bounded and never thrown away without a word, a cancel notification when a call is dropped, a
//! test for a dead transport, no hidden rounds or retries, and a closed list of the ends that a call can have.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mandate_domain::ServerName;
use rmcp::{
    RoleClient, ServiceError,
    model::{CallToolRequestParams, CallToolResponse, PaginatedRequestParams, ProtocolVersion, RequestMetaObject},
    service::{ClientLifecycleMode, ClientServiceExt as _, Peer, RunningService},
    transport::IntoTransport,
};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{
    answer,
    asks::{Governed, ServerAsks, Told},
    child::ServerProcess,
    lines::{GivenUp, Lines, TOO_LARGE, Why, nothing_was_sent},
    send_by::SendBy,
    stop::{Patience, answered},
};
use crate::{
    catalog::ServerSettings,
    tools::{PrepareToolError, ToolAnswer},
};

/// Where the key of an effect stands in `_meta`.
const IDEMPOTENCY_KEY: &str = "dev.mandate/idempotency-key";

/// How long the connection may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Most tools that a server may offer, and most pages of its list.
const TOOLS_MAX: usize = 2000;
const PAGES_MAX: usize = 100;
/// Longest error of a connection, in characters.
const ERROR_CHARS_MAX: usize = 500;
/// How long a server may take to say that it is still there.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);

/// A connected server. Calls share it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Governed,
    peer: Peer<RoleClient>,
    service: Mutex<Option<RunningService<RoleClient, Governed>>>,
    /// Input schema of each tool, as listed when the connection was made.
    input_schemas: BTreeMap<String, Value>,
    process: ServerProcess,
    send_by: SendBy,
    given_up: GivenUp,
    /// A call was not answered in time: before the next one it is asked whether it is still there.
    doubtful: AtomicBool,
}

/// A call as it goes out.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The tool's name at the server.
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) key: Option<String>,
    /// What people said to what the server asked for before.
    pub(super) told: Option<&'a Told>,
    pub(super) patience: Patience<'a>,
}

impl Request<'_> {
    pub(super) fn params(&self) -> CallToolRequestParams {
        let mut params = CallToolRequestParams::new(self.tool.clone()).with_arguments(self.arguments.clone());
        if let Some(key) = &self.key {
            let mut meta = RequestMetaObject::new();
            meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::String(key.clone()));
            params.meta = Some(meta);
        }
        if let Some(told) = self.told {
            let (responses, state) = told.params();
            (params.input_responses, params.request_state) = (Some(responses), state);
        }
        params
    }
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nothing was sent, and why.
    NotSent(String),
    /// It was sent, or may have been. Why no answer came, in words of ours, and what the server wrote.
    Lost { reason: String, wrote: String },
    /// The server asks people first.
    Asks(Box<ServerAsks>),
}

impl Connection {
    /// Starts the server, agrees on a protocol version and lists the tools, within the server's time limit.
    pub(super) async fn open(name: &ServerName, settings: &ServerSettings) -> Result<Self, PrepareToolError> {
        let unreachable = |reason| PrepareToolError::Unreachable { server: name.clone(), reason };
        // From here on every way out ends the process.
        let (process, (output, input)) = ServerProcess::start(settings).await.map_err(unreachable)?;
        let limit = Duration::from_secs(settings.connect_timeout_secs);
        let (send_by, given_up) = (SendBy::default(), GivenUp::default());
        let answer_max_bytes = usize::try_from(settings.answer_max_bytes).unwrap_or(usize::MAX);
        let lines = Lines::new(output, input, answer_max_bytes, send_by.clone(), given_up.clone());
        let client = Governed::default();
        let reason = match tokio::time::timeout(limit, greet(client.clone(), lines)).await {
            Ok(Ok((service, input_schemas))) => {
                let (peer, service) = (service.peer().clone(), Mutex::new(Some(service)));
                let doubtful = AtomicBool::new(false);
                return Ok(Self { client, peer, service, input_schemas, process, send_by, given_up, doubtful });
            }
            Ok(Err(reason)) => {
                // Nothing was asked of it yet, so what it says is about itself.
                let (reason, wrote) = ended(&process, &given_up, reason).await;
                if wrote.starts_with(';') { reason + &wrote } else { format!("{reason}: {wrote}") }
            }
            Err(_) => format!("no connection within {} s{}", limit.as_secs(), process.complaint()),
        };
        Err(unreachable(reason))
    }

    /// Whether the transport is gone. Nothing sent on it would arrive.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed() || self.given_up.why().is_some()
    }

    /// Whether it can be used for a further call. One that did not answer the last one in time is asked.
    pub(super) async fn is_alive(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        if !self.doubtful.load(Ordering::SeqCst) {
            return true;
        }
        let answers =
            tokio::time::timeout(ALIVE_LIMIT, self.peer.list_tools(None)).await.is_ok_and(|list| list.is_ok());
        self.doubtful.store(!answers, Ordering::SeqCst);
        answers
    }

    /// The server's own schema of a tool's arguments.
    pub(super) fn input_schema(&self, tool: &str) -> Option<&Value> {
        self.input_schemas.get(tool)
    }

    /// Sends one `tools/call` and waits for its one answer. Where it is not waited for any longer, also because the future
    /// is dropped, the server gets a cancel notification; what it answers to a call that was cancelled is not looked at.
    pub(super) async fn call(&self, send_by: Instant, request: Request<'_>) -> Result<ToolAnswer, NoAnswer> {
        let key = request.key.as_ref();
        let _until = key.map(|key| self.send_by.let_out(key, send_by, request.patience.stop));
        let talk = self.client.begin(request.told);
        // `RunningService::call_tool` would drive further rounds by itself, past policy and audit.
        let asked = self.peer.call_tool_once(request.params());
        let ended = answered(request.patience.over(), asked).await.map_err(|why| {
            self.doubtful.store(true, Ordering::SeqCst);
            lost(why)
        })?;
        let answer = self.process.secrets().blotted_answer(self.answer_of(&request.tool, ended).await?);
        talk.ended(answer).map_err(NoAnswer::Asks)
    }

    async fn answer_of(
        &self,
        tool: &str,
        ended: Result<CallToolResponse, ServiceError>,
    ) -> Result<ToolAnswer, NoAnswer> {
        match ended {
            Ok(CallToolResponse::Complete(result)) => Ok(answer::read(result)),
            Ok(CallToolResponse::InputRequired(asked)) => match ServerAsks::read(asked) {
                Ok(asks) => Err(NoAnswer::Asks(Box::new(asks))),
                Err(why) => Ok(answer::asks_in_vain(tool, &why)),
            },
            // A task was accepted and may run: that is no refusal.
            Ok(CallToolResponse::Task(_)) => Err(lost("it answers with a task, which is not supported")),
            Ok(_) => Err(lost("the answer is of an unknown kind")),
            Err(ServiceError::McpError(error)) if error.code.0 == TOO_LARGE => {
                Ok(answer::left_out(tool, error.data.as_ref()))
            }
            Err(ServiceError::McpError(error)) => {
                Ok(answer::error(format!("error: the server refused the call: {} ({})", error.message, error.code.0)))
            }
            Err(error) => match not_sent(&error) {
                Some(why) => Err(NoAnswer::NotSent(why)),
                None if self.is_closed() => Err(self.ended(error.to_string()).await),
                None => Err(lost(error.to_string())),
            },
        }
    }

    async fn ended(&self, reason: String) -> NoAnswer {
        let (reason, wrote) = ended(&self.process, &self.given_up, reason).await;
        NoAnswer::Lost { reason, wrote }
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

/// Why nothing was sent, where the transport's error says so.
fn not_sent(error: &ServiceError) -> Option<String> {
    let ServiceError::TransportSend(error) = error else { return None };
    error.error.downcast_ref::<std::io::Error>().and_then(nothing_was_sent)
}

type Greeted = (RunningService<RoleClient, Governed>, BTreeMap<String, Value>);

/// No answer, and nothing that the server wrote is known of it.
fn lost(reason: impl Into<String>) -> NoAnswer {
    NoAnswer::Lost { reason: reason.into(), wrote: String::new() }
}

/// Why a connection is at its end: what this side could not bear, or how the server ended; and what it wrote last.
async fn ended(process: &ServerProcess, given_up: &GivenUp, reason: String) -> (String, String) {
    match given_up.why() {
        Some(Why { reason, wrote }) => (reason.clone(), format!("{wrote}{}", process.complaint())),
        None => (reason + &process.how_it_ended().await, process.complaint()),
    }
}

/// Agrees on a protocol version and lists the tools.
pub(super) async fn greet<T, E, A>(client: Governed, transport: T) -> Result<Greeted, String>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let service = client.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| plain(&error))?;
    let schemas = listed(&service).await.map_err(|error| format!("cannot list its tools: {error}"))?;
    Ok((service, schemas))
}

/// The input schema of each tool that the server offers.
async fn listed(service: &RunningService<RoleClient, Governed>) -> Result<BTreeMap<String, Value>, String> {
    let (mut schemas, mut next) = (BTreeMap::new(), None);
    for _ in 0..PAGES_MAX {
        let request = PaginatedRequestParams::default().with_cursor(next);
        let page = service.list_tools(Some(request)).await.map_err(|error| plain(&error))?;
        for tool in page.tools {
            schemas.insert(tool.name.into_owned(), Value::Object(Arc::unwrap_or_clone(tool.input_schema)));
        }
        next = page.next_cursor;
        if next.is_none() {
            return Ok(schemas);
        }
        if schemas.len() > TOOLS_MAX {
            break;
        }
    }
    Err(format!("it offers more than {TOOLS_MAX} tools, or on more than {PAGES_MAX} pages"))
}

/// An error of the protocol's library, which may repeat all that the server said.
fn plain(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX).collect()
}
