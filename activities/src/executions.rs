//! What the Temporal server says of an execution: its first event and the messages it received, which nobody but the
//! server wrote.
//!
//! With each event stands who caused it, where the server stamps that ([`Principal`]). What a payload says of its
//! sender is a claim, and so is the `identity` of a client; a principal is neither.

use std::{collections::BTreeSet, fmt, sync::OnceLock};

use futures::future::BoxFuture;
use mandate_domain::{ChainHead, Digest};
use temporalio_client::{
    Client, NamespacedClient,
    grpc::WorkflowService,
    tonic::{Code, IntoRequest},
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    history::v1::{HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event::Attributes},
    workflowservice::v1::{GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse},
};

mod search;
mod standing;

pub use standing::{Listed, Standing};

use search::{Search, evidence_in, millis, principal};

/// Events that one request for messages asks for.
const PAGE_EVENTS: i32 = 250;
/// Pages that are read for one message: more events than the server lets a history have.
const PAGES_MAX: usize = 1000;

/// The first event of an execution.
#[derive(Clone, PartialEq, Eq)]
pub struct StartedExecution {
    /// Its workflow type.
    pub workflow_type: String,
    /// Its task queue.
    pub task_queue: String,
    /// Run id of the first execution of its chain.
    pub first_run_id: String,
    /// Run id of the execution that it continues; none for the first.
    pub continued_run_id: Option<String>,
    /// Its run id when this event was written: another one where it came to be by a reset.
    pub original_run_id: String,
    /// The data of its start inputs.
    pub input: Vec<Vec<u8>>,
    /// When it was started, by the server's clock: milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// Who started it, where the server stamps that.
    pub principal: Option<Principal>,
}

impl fmt::Debug for StartedExecution {
    /// Inputs may hold a token, so their size alone is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedExecution")
            .field("workflow_type", &self.workflow_type)
            .field("task_queue", &self.task_queue)
            .field("first_run_id", &self.first_run_id)
            .field("continued_run_id", &self.continued_run_id)
            .field("original_run_id", &self.original_run_id)
            .field("input_bytes", &self.input.iter().map(Vec::len).sum::<usize>())
            .field("started_ms", &self.started_ms)
            .field("principal", &self.principal)
            .finish()
    }
}

impl StartedExecution {
    /// The start as the message that it is.
    #[must_use]
    pub fn message(&self) -> MessageEvent {
        MessageEvent {
            time_ms: self.started_ms,
            principal: self.principal.clone(),
            carries_principal: true,
            payload: self.input.first().cloned().unwrap_or_default(),
            worker_principals: BTreeSet::new(),
            earlier: BTreeSet::new(),
        }
    }
}

/// Who caused an event, by the server's word. Stamped by server 1.32 and later with
/// `frontend.enablePrincipalPropagation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// How the server knows: `jwt`, or `temporal` for the server itself.
    pub kind: String,
    /// Who it is in that way: the subject of a token.
    pub name: String,
}

impl Principal {
    /// Whether this is the server itself, or whoever reached its internal port: everybody there is an administrator
    /// without a name.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.kind == "temporal"
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A message as the server accepted it: a signal, or an update.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageEvent {
    /// When, by the server's clock: milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Who sent it, where the server stamps that.
    pub principal: Option<Principal>,
    /// Whether events of this kind say who sent them. Those of updates name the worker.
    pub carries_principal: bool,
    /// The data of its first argument.
    pub payload: Vec<u8>,
    /// Names of the principals that polled as workers before it.
    pub worker_principals: BTreeSet<String>,
    /// What the messages before it in this execution had as evidence, by [`mandate_domain::Evidence::once`].
    pub earlier: BTreeSet<Digest>,
}

impl fmt::Debug for MessageEvent {
    /// The payload may hold a token, so its size alone is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEvent")
            .field("time_ms", &self.time_ms)
            .field("principal", &self.principal)
            .field("carries_principal", &self.carries_principal)
            .field("payload_bytes", &self.payload.len())
            .field("worker_principals", &self.worker_principals)
            .field("earlier", &self.earlier.len())
            .finish()
    }
}

/// The server did not say. Try again.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// The request failed.
    #[error("history of run `{run_id}` could not be read: {reason}")]
    Failed {
        /// The run id.
        run_id: String,
        /// The server's words.
        reason: String,
    },
    /// The server could not be asked about the namespace or its executions.
    #[error("the server does not answer: {reason}")]
    NotAnswered {
        /// The server's words.
        reason: String,
    },
    /// The history does not begin with a started event.
    #[error("history of run `{run_id}` does not begin with the start of a workflow")]
    NotStarted {
        /// The run id.
        run_id: String,
    },
}

/// Where events come from.
pub trait Executions: Send + Sync {
    /// The first event of an execution; none if the server knows no such execution.
    fn started<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StartedExecution>, LookUpError>>;

    /// The `ordinal`-th message of this name in the execution, the first being 1; none if there are not so many. The names
    /// of [`mandate_workflows::contract::UPDATES`] are those of updates, as they were accepted; all others are those of signals.
    fn message<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
        name: &'a str,
        ordinal: u32,
    ) -> BoxFuture<'a, Result<Option<MessageEvent>, LookUpError>>;

    /// What all messages of an execution had as evidence, by [`mandate_domain::Evidence::once`]; none if the server knows
    /// no such execution any more.
    fn evidence<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<Digest>>, LookUpError>>;

    /// Id of the namespace; none if the server does not say it to whoever asks.
    fn namespace_id(&self) -> BoxFuture<'_, Result<Option<String>, LookUpError>>;

    /// Where an execution stands, or the newest one under the workflow id; none if the server knows no such execution.
    fn standing<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Standing>, LookUpError>>;

    /// The longest audit chain that the end of an execution's history has seen.
    fn witness<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<ChainHead>, LookUpError>>;

    /// A page of the agent runs of a task queue, the newest first.
    fn listed<'a>(&'a self, task_queue: &'a str, token: Vec<u8>) -> BoxFuture<'a, Result<Listed, LookUpError>>;
}

/// The Temporal server that the worker is connected to.
pub struct ServerExecutions {
    client: Client,
    namespace_id: OnceLock<Option<String>>,
}

/// A page of a history that is asked for.
struct Page<'a> {
    workflow_id: &'a str,
    run_id: &'a str,
    size: i32,
    token: Vec<u8>,
}

impl ServerExecutions {
    /// Asks through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, namespace_id: OnceLock::new() }
    }

    /// One page; none if the server knows no such execution.
    async fn page(&self, page: Page<'_>) -> Result<Option<GetWorkflowExecutionHistoryResponse>, LookUpError> {
        let (workflow_id, run_id) = (page.workflow_id.to_owned(), page.run_id.to_owned());
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.client.namespace(),
            execution: Some(WorkflowExecution { workflow_id, run_id }),
            maximum_page_size: page.size,
            next_page_token: page.token,
            ..Default::default()
        };
        let answer =
            WorkflowService::get_workflow_execution_history(&mut self.client.clone(), request.into_request()).await;
        match answer {
            Ok(response) => Ok(Some(response.into_inner())),
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Ok(None),
            Err(status) => {
                Err(LookUpError::Failed { run_id: page.run_id.to_owned(), reason: status.message().to_owned() })
            }
        }
    }

    async fn first_event(&self, workflow_id: &str, run_id: &str) -> Result<Option<StartedExecution>, LookUpError> {
        let Some(response) = self.page(Page { workflow_id, run_id, size: 1, token: Vec::new() }).await? else {
            return Ok(None);
        };
        let event = response.history.and_then(|history| history.events.into_iter().next());
        let not_started = || LookUpError::NotStarted { run_id: run_id.to_owned() };
        event.and_then(read).map(Some).ok_or_else(not_started)
    }

    /// Goes through a history, event by event, until `found` has what it looks for, or to its end; whether the server knows
    /// the execution.
    async fn go_through(
        &self,
        workflow_id: &str,
        run_id: &str,
        mut found: impl FnMut(HistoryEvent) -> bool,
    ) -> Result<bool, LookUpError> {
        let mut token = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = Page { workflow_id, run_id, size: PAGE_EVENTS, token };
            let Some(response) = self.page(page).await? else { return Ok(false) };
            let events = response.history.map(|history| history.events).unwrap_or_default();
            token = response.next_page_token;
            if events.into_iter().any(&mut found) || token.is_empty() {
                return Ok(true);
            }
        }
        let reason = format!("it has more than {PAGES_MAX} pages");
        Err(LookUpError::Failed { run_id: run_id.to_owned(), reason })
    }
}

fn read(event: HistoryEvent) -> Option<StartedExecution> {
    let (started_ms, principal) = (millis(&event), principal(&event));
    let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) = event.attributes else { return None };
    let WorkflowExecutionStartedEventAttributes {
        workflow_type,
        task_queue,
        input,
        first_execution_run_id,
        continued_execution_run_id,
        original_execution_run_id,
        ..
    } = started;
    Some(StartedExecution {
        workflow_type: workflow_type.map(|kind| kind.name).unwrap_or_default(),
        task_queue: task_queue.map(|queue| queue.name).unwrap_or_default(),
        first_run_id: first_execution_run_id,
        continued_run_id: Some(continued_execution_run_id).filter(|id| !id.is_empty()),
        original_run_id: original_execution_run_id,
        input: input.map(|input| input.payloads.into_iter().map(|one| one.data).collect()).unwrap_or_default(),
        started_ms,
        principal,
    })
}

impl Executions for ServerExecutions {
    fn started<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StartedExecution>, LookUpError>> {
        Box::pin(self.first_event(workflow_id, run_id))
    }

    fn message<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
        name: &'a str,
        ordinal: u32,
    ) -> BoxFuture<'a, Result<Option<MessageEvent>, LookUpError>> {
        Box::pin(async move {
            let (mut search, mut message) = (Search::new(name, ordinal), None);
            let found = |event| {
                message = search.look_at(event);
                message.is_some()
            };
            self.go_through(workflow_id, run_id, found).await?;
            Ok(message)
        })
    }

    fn evidence<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<Digest>>, LookUpError>> {
        Box::pin(async move {
            let mut all = BTreeSet::new();
            let read_on = |event: HistoryEvent| {
                all.extend(search::message_of(event).and_then(|message| evidence_in(&message.payload)));
                false
            };
            Ok(self.go_through(workflow_id, run_id, read_on).await?.then_some(all))
        })
    }

    fn namespace_id(&self) -> BoxFuture<'_, Result<Option<String>, LookUpError>> {
        Box::pin(self.read_namespace_id())
    }

    fn standing<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Standing>, LookUpError>> {
        Box::pin(self.describe(workflow_id, run_id))
    }

    fn witness<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<ChainHead>, LookUpError>> {
        Box::pin(self.last_head(workflow_id, run_id))
    }

    fn listed<'a>(&'a self, task_queue: &'a str, token: Vec<u8>) -> BoxFuture<'a, Result<Listed, LookUpError>> {
        Box::pin(self.list(task_queue, token))
    }
}
