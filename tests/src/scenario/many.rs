//! Many runs in one world: started, told and looked at through the client, as a program for each would take longer than
//! the runs.

use mandate_domain::{AgentResult, agent_run::Answer};
use mandate_workflows::WORKFLOW_TYPE;
use serde_json::{Value, json};
use temporalio_client::{
    NamespacedClient as _, UntypedUpdate, UntypedWorkflow, UntypedWorkflowHandle, WorkflowCancelOptions,
    WorkflowCountOptions, WorkflowExecuteUpdateOptions, WorkflowExecutionInfo, WorkflowFetchHistoryOptions,
    WorkflowHistory, WorkflowStartOptions, errors::WorkflowUpdateError,
};
use temporalio_common::{
    data_converters::RawValue,
    protos::temporal::api::{
        common::v1::{Payload, Payloads},
        failure::v1::failure::FailureInfo,
        history::v1::{HistoryEvent, history_event::Attributes},
    },
};

use crate::{AGENT, History, LONG_FOR_MANY, Scenario, until_within};

/// How a person sends a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A signal, which nobody answers.
    Signal,
    /// The update `decide`.
    Update,
}

/// What a person is told who sends a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The server took the signal.
    Taken,
    /// The run answered the update.
    Answered(Answer),
    /// The server did not take it, or the run turned it away unread.
    TurnedAway(String),
}

/// One execution of a run.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its id.
    pub run_id: String,
    /// Its events.
    pub events: Vec<HistoryEvent>,
    json: Vec<u8>,
}

impl Execution {
    /// The events as tests ask about them.
    #[must_use]
    pub fn history(&self) -> History {
        History::of(&self.events)
    }

    /// The history as a replay reads it.
    pub fn replayable(&self) -> WorkflowHistory {
        WorkflowHistory::from_json(&self.json).expect("a history")
    }

    /// The execution that this one continues.
    fn continues(&self) -> Option<String> {
        match &self.events.first()?.attributes {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
                Some(started.continued_execution_run_id.clone()).filter(|run_id| !run_id.is_empty())
            }
            _ => None,
        }
    }

    /// What the run came to, also one that was cancelled or failed.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other end has no result")]
    pub fn result(&self) -> Option<AgentResult> {
        let payloads = match self.events.last()?.attributes.as_ref()? {
            Attributes::WorkflowExecutionCompletedEventAttributes(completed) => completed.result.as_ref(),
            Attributes::WorkflowExecutionCanceledEventAttributes(cancelled) => cancelled.details.as_ref(),
            Attributes::WorkflowExecutionFailedEventAttributes(failed) => {
                let Some(FailureInfo::ApplicationFailureInfo(info)) = &failed.failure.as_ref()?.failure_info else {
                    return None;
                };
                info.details.as_ref()
            }
            _ => None,
        };
        first(payloads?)
    }
}

fn first<T: serde::de::DeserializeOwned>(payloads: &Payloads) -> Option<T> {
    serde_json::from_slice(&payloads.payloads.first()?.data).ok()
}

/// A value as the server carries it.
pub(super) fn raw(json: &str) -> RawValue {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    RawValue::new(vec![Payload { metadata, data: json.as_bytes().to_vec(), ..Payload::default() }])
}

impl Scenario {
    /// Starts the run through the client.
    pub async fn start(&self, prompt: &str) {
        let task = json!({ "agent": AGENT, "prompt": prompt, "on_behalf_of": "ana@acme.example" });
        let options = WorkflowStartOptions::new(self.world.task_queue.clone(), self.name.clone()).build();
        let workflow = UntypedWorkflow::new(WORKFLOW_TYPE);
        let started = self.server.client.start_workflow(workflow, raw(&task.to_string()), options).await;
        started.unwrap_or_else(|error| panic!("`{}` does not start: {error:?}", self.name));
    }

    /// Approves a request in one of both ways.
    pub async fn approve_by(&self, way: Way, request: &str, by: &str) -> Told {
        let mut payload = json!({ "request_id": request, "by": by });
        match way {
            Way::Signal if self.handle_signal("approve", &payload.to_string()).await => Told::Taken,
            Way::Signal => Told::TurnedAway("the server did not take the signal".to_owned()),
            Way::Update => {
                payload["verdict"] = "approve".into();
                self.update_decide(&payload).await
            }
        }
    }

    /// Sends the update `decide` and waits for its answer.
    pub async fn update_decide(&self, payload: &Value) -> Told {
        let (update, options) = (UntypedUpdate::new("decide"), WorkflowExecuteUpdateOptions::default());
        match self.handle().execute_update(update, raw(&payload.to_string()), options).await {
            Ok(answer) => Told::Answered(serde_json::from_slice(&answer.payloads[0].data).expect("an answer")),
            Err(WorkflowUpdateError::Failed(failure)) => Told::TurnedAway(failure.message),
            Err(other) => Told::TurnedAway(other.to_string()),
        }
    }

    /// Asks for the cancellation of the run. Whether the server took it.
    pub async fn cancel(&self) -> bool {
        self.handle().cancel(WorkflowCancelOptions::default()).await.is_ok()
    }

    /// The request that waits, as soon as there is one. None where the run has ended before it was seen.
    pub async fn first_request(&self) -> Option<String> {
        let seen = until_within(LONG_FOR_MANY, async || {
            let pending = self.pending_now().await?;
            match pending.first() {
                Some(request) => Some(Some(request.request_id.clone())),
                None => self.describe().await.close_time().map(|_| None),
            }
        });
        seen.await.expect("the run waits")
    }

    /// How many executions a list query finds.
    pub async fn count(&self, query: &str) -> usize {
        let count = self.server.client.count_workflows(query, WorkflowCountOptions::default()).await;
        count.expect("a count").count()
    }

    /// All executions of the run, the newest first.
    pub async fn executions(&self) -> Vec<Execution> {
        let mut executions: Vec<Execution> = Vec::new();
        let mut next = Some(self.describe().await.run_id().to_owned());
        while let Some(run_id) = next {
            let execution = self.execution(run_id).await;
            next = execution.continues();
            executions.push(execution);
        }
        executions
    }

    async fn execution(&self, run_id: String) -> Execution {
        let history = self.execution_handle(&run_id).fetch_history(WorkflowFetchHistoryOptions::default());
        let json = history.to_json().await.expect("the history");
        let events = WorkflowHistory::from_json(&json).expect("a history").into_events().await.expect("its events");
        Execution { run_id, events, json }
    }

    /// An execution of the run, which need not be the newest.
    pub(super) fn execution_handle(&self, run_id: &str) -> UntypedWorkflowHandle<temporalio_client::Client> {
        WorkflowExecutionInfo::builder()
            .namespace(self.server.client.namespace())
            .workflow_id(&self.name)
            .run_id(run_id)
            .build()
            .bind_untyped(self.server.client.clone())
    }
}
