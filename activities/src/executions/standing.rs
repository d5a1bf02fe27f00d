//! Where executions stand, and the audit chain that their histories have seen: what the reconciler compares with the
//! store.

use mandate_domain::{ChainHead, audit::FoundEnd};
use mandate_workflows::WORKFLOW_TYPE;
use serde::Deserialize;
use temporalio_client::{
    NamespacedClient,
    grpc::WorkflowService,
    tonic::{Code, IntoRequest, Status},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payloads, WorkflowExecution},
    enums::v1::WorkflowExecutionStatus,
    history::v1::{HistoryEvent, history_event::Attributes},
    workflow::v1::WorkflowExecutionInfo,
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryReverseRequest,
        ListWorkflowExecutionsRequest,
    },
};

use super::{LookUpError, ServerExecutions};

/// Events that are read from the end of a history at once.
const LAST_EVENTS: i32 = 60;
/// How often that is done for one history: an execution that waits for people has few other events at its end.
const LAST_PAGES_MAX: usize = 5;
/// Executions that one page of a list has.
const LISTED_AT_ONCE: i32 = 100;

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its run id.
    pub run_id: String,
    /// Run id of the first execution of its chain, from servers that say so.
    pub first_run_id: Option<String>,
    /// How it ended; none while it is open.
    pub end: Option<FoundEnd>,
    /// Another execution of its chain carries it on.
    pub is_continued: bool,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Workflow and run ids.
    pub executions: Vec<(String, String)>,
    /// What the next page is asked for with; empty at the end.
    pub token: Vec<u8>,
}

impl ServerExecutions {
    /// Asked once: a client stays in its namespace.
    pub(super) async fn read_namespace_id(&self) -> Result<Option<String>, LookUpError> {
        if let Some(known) = self.namespace_id.get() {
            return Ok(known.clone());
        }
        let request = DescribeNamespaceRequest { namespace: self.client.namespace(), ..Default::default() };
        let answer = WorkflowService::describe_namespace(&mut self.client.clone(), request.into_request()).await;
        let id = match answer {
            Ok(response) => response.into_inner().namespace_info.map(|info| info.id).filter(|id| !id.is_empty()),
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => None,
            Err(status) => return Err(not_answered(&status)),
        };
        Ok(self.namespace_id.get_or_init(|| id).clone())
    }

    pub(super) async fn describe(
        &self,
        workflow_id: &str,
        run_id: Option<&str>,
    ) -> Result<Option<Standing>, LookUpError> {
        let execution =
            WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.unwrap_or_default().to_owned() };
        let (namespace, execution) = (self.client.namespace(), Some(execution));
        let request = DescribeWorkflowExecutionRequest { namespace, execution };
        let answer =
            WorkflowService::describe_workflow_execution(&mut self.client.clone(), request.into_request()).await;
        match answer {
            Ok(response) => {
                let info = response.into_inner().workflow_execution_info;
                let silent = || LookUpError::NotAnswered { reason: "a description without an execution".to_owned() };
                info.and_then(standing_of).map(Some).ok_or_else(silent)
            }
            // Not an invalid argument: only "there is none" says that there is none.
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(not_answered(&status)),
        }
    }

    /// Read from the end: the first events with a chain in them are the last that saw it. Activities of one turn end in any
    /// order, so of those on one page the longest chain counts.
    pub(super) async fn last_head(&self, workflow_id: &str, run_id: &str) -> Result<Option<ChainHead>, LookUpError> {
        let mut token = Vec::new();
        for _ in 0..LAST_PAGES_MAX {
            let request = GetWorkflowExecutionHistoryReverseRequest {
                namespace: self.client.namespace(),
                execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.to_owned() }),
                maximum_page_size: LAST_EVENTS,
                next_page_token: token,
            };
            let answer = WorkflowService::get_workflow_execution_history_reverse(
                &mut self.client.clone(),
                request.into_request(),
            )
            .await;
            let response = match answer {
                Ok(response) => response.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => {
                    let (run_id, reason) = (run_id.to_owned(), status.message().to_owned());
                    return Err(LookUpError::Failed { run_id, reason });
                }
            };
            let events = response.history.map(|history| history.events).unwrap_or_default();
            let seen = events.iter().filter_map(seen_in).max_by_key(|head| head.records);
            if seen.is_some() {
                return Ok(seen);
            }
            token = response.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    pub(super) async fn list(&self, task_queue: &str, token: Vec<u8>) -> Result<Listed, LookUpError> {
        let task_queue = task_queue.replace('\'', "\\'");
        let request = ListWorkflowExecutionsRequest {
            namespace: self.client.namespace(),
            page_size: LISTED_AT_ONCE,
            next_page_token: token,
            query: format!("WorkflowType = '{WORKFLOW_TYPE}' AND TaskQueue = '{task_queue}'"),
        };
        let answer = WorkflowService::list_workflow_executions(&mut self.client.clone(), request.into_request()).await;
        let response = answer.map_err(|status| not_answered(&status))?.into_inner();
        let named = |info: WorkflowExecutionInfo| info.execution.map(|one| (one.workflow_id, one.run_id));
        let executions = response.executions.into_iter().filter_map(named).collect();
        Ok(Listed { executions, token: response.next_page_token })
    }
}

fn not_answered(status: &Status) -> LookUpError {
    LookUpError::NotAnswered { reason: status.message().to_owned() }
}

fn standing_of(info: WorkflowExecutionInfo) -> Option<Standing> {
    let status = info.status();
    Some(Standing {
        run_id: info.execution?.run_id,
        first_run_id: Some(info.first_run_id).filter(|id| !id.is_empty()),
        end: end_of(status),
        is_continued: status == WorkflowExecutionStatus::ContinuedAsNew,
    })
}

/// A status that this program does not know is none that ended.
fn end_of(status: WorkflowExecutionStatus) -> Option<FoundEnd> {
    match status {
        WorkflowExecutionStatus::Terminated => Some(FoundEnd::Terminated),
        WorkflowExecutionStatus::TimedOut => Some(FoundEnd::TimedOut),
        WorkflowExecutionStatus::Failed => Some(FoundEnd::Failed),
        WorkflowExecutionStatus::Canceled => Some(FoundEnd::Cancelled),
        WorkflowExecutionStatus::Completed => Some(FoundEnd::Completed),
        WorkflowExecutionStatus::Unspecified
        | WorkflowExecutionStatus::Running
        | WorkflowExecutionStatus::ContinuedAsNew
        | WorkflowExecutionStatus::Paused => None,
    }
}

/// What every output of an activity carries, and every result of a run.
#[derive(Deserialize)]
struct Carries {
    audit: ChainHead,
}

/// What the input of a next execution carries.
#[derive(Deserialize)]
struct Continues {
    #[serde(rename = "continue")]
    snapshot: Snapshot,
}

#[derive(Deserialize)]
struct Snapshot {
    run: Carries,
}

/// The chain that an event has seen.
fn seen_in(event: &HistoryEvent) -> Option<ChainHead> {
    let attributes = event.attributes.as_ref()?;
    if let Attributes::ActivityTaskCompletedEventAttributes(done) = attributes {
        return carried(done.result.as_ref());
    }
    if let Attributes::WorkflowExecutionCompletedEventAttributes(done) = attributes {
        return carried(done.result.as_ref());
    }
    let Attributes::WorkflowExecutionStartedEventAttributes(started) = attributes else { return None };
    let data = &started.input.as_ref()?.payloads.first()?.data;
    serde_json::from_slice::<Continues>(data).ok().map(|input| input.snapshot.run.audit)
}

fn carried(payloads: Option<&Payloads>) -> Option<ChainHead> {
    let data = &payloads?.payloads.first()?.data;
    serde_json::from_slice::<Carries>(data).ok().map(|carries| carries.audit)
}

#[cfg(test)]
mod tests {
    use mandate_domain::Digest;
    use temporalio_common::protos::temporal::api::{
        common::v1::Payload,
        history::v1::{ActivityTaskCompletedEventAttributes, WorkflowExecutionStartedEventAttributes},
    };

    use super::*;

    fn payloads(json: &serde_json::Value) -> Payloads {
        Payloads { payloads: vec![Payload { data: json.to_string().into_bytes(), ..Default::default() }] }
    }

    fn head(records: u64) -> ChainHead {
        ChainHead { records, head: Digest::from_bytes([7; 32]) }
    }

    fn event(attributes: Attributes) -> HistoryEvent {
        HistoryEvent { attributes: Some(attributes), ..Default::default() }
    }

    #[test]
    fn outputs_results_and_continued_inputs_say_what_was_seen_and_nothing_else_does() {
        let answered = |json: &serde_json::Value| {
            let result = Some(payloads(json));
            event(Attributes::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
                result,
                ..Default::default()
            }))
        };
        let started = |json: &serde_json::Value| {
            let input = Some(payloads(json));
            event(Attributes::WorkflowExecutionStartedEventAttributes(WorkflowExecutionStartedEventAttributes {
                input,
                ..Default::default()
            }))
        };
        let answer = serde_json::json!({ "outcome": "denied", "reason": "", "audit": head(3) });
        assert_eq!(seen_in(&answered(&answer)), Some(head(3)));
        let continued = serde_json::json!({ "continue": { "run": { "audit": head(9), "turn": 1 } } });
        assert_eq!(seen_in(&started(&continued)), Some(head(9)));
        let task = serde_json::json!({ "agent": "a/b/c", "audit": head(9) });
        assert_eq!((seen_in(&started(&task)), seen_in(&answered(&serde_json::json!(null)))), (None, None));
    }

    #[test]
    fn only_what_has_surely_ended_has_an_end() {
        let ended = WorkflowExecutionStatus::Terminated;
        let info = |status: WorkflowExecutionStatus| WorkflowExecutionInfo {
            execution: Some(WorkflowExecution { workflow_id: "w".into(), run_id: "r".into() }),
            status: status.into(),
            ..Default::default()
        };
        assert_eq!(standing_of(info(ended)).unwrap().end, Some(FoundEnd::Terminated));
        let open = [WorkflowExecutionStatus::Running, WorkflowExecutionStatus::Unspecified];
        for status in open {
            assert_eq!(standing_of(info(status)).unwrap().end, None);
        }
        assert!(standing_of(info(WorkflowExecutionStatus::ContinuedAsNew)).unwrap().is_continued);
    }
}
