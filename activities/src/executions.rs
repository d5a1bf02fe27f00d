//! What the Temporal server says of an execution: its first event, which nobody but the server wrote.

use futures::future::BoxFuture;
use temporalio_client::{
    Client, NamespacedClient,
    grpc::WorkflowService,
    tonic::{Code, IntoRequest},
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    history::v1::{WorkflowExecutionStartedEventAttributes, history_event::Attributes},
    workflowservice::v1::GetWorkflowExecutionHistoryRequest,
};

/// The first event of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedExecution {
    /// Its workflow type.
    pub workflow_type: String,
    /// Its task queue.
    pub task_queue: String,
    /// Run id of the first execution of its chain.
    pub first_run_id: String,
    /// The data of its start inputs.
    pub input: Vec<Vec<u8>>,
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
    /// The history does not begin with a started event.
    #[error("history of run `{run_id}` does not begin with the start of a workflow")]
    NotStarted {
        /// The run id.
        run_id: String,
    },
}

/// Where first events come from.
pub trait Executions: Send + Sync {
    /// The first event of an execution; none if the server knows no such execution.
    fn started<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StartedExecution>, LookUpError>>;
}

/// The Temporal server that the worker is connected to.
pub struct ServerExecutions {
    client: Client,
}

impl ServerExecutions {
    /// Asks through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn first_event(&self, workflow_id: &str, run_id: &str) -> Result<Option<StartedExecution>, LookUpError> {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.client.namespace(),
            execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.to_owned() }),
            maximum_page_size: 1,
            ..Default::default()
        };
        let run_id = run_id.to_owned();
        let answer =
            WorkflowService::get_workflow_execution_history(&mut self.client.clone(), request.into_request()).await;
        let response = match answer {
            Ok(response) => response.into_inner(),
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => return Ok(None),
            Err(status) => return Err(LookUpError::Failed { run_id, reason: status.message().to_owned() }),
        };
        let event = response.history.and_then(|history| history.events.into_iter().next());
        match event.and_then(|event| event.attributes) {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => Ok(Some(read(started))),
            Some(_) | None => Err(LookUpError::NotStarted { run_id }),
        }
    }
}

fn read(started: WorkflowExecutionStartedEventAttributes) -> StartedExecution {
    StartedExecution {
        workflow_type: started.workflow_type.map(|kind| kind.name).unwrap_or_default(),
        task_queue: started.task_queue.map(|queue| queue.name).unwrap_or_default(),
        first_run_id: started.first_execution_run_id,
        input: started.input.map(|input| input.payloads.into_iter().map(|one| one.data).collect()).unwrap_or_default(),
    }
}

impl Executions for ServerExecutions {
    fn started<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StartedExecution>, LookUpError>> {
        Box::pin(self.first_event(workflow_id, run_id))
    }
}
