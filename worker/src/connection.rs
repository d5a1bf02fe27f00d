//! The connection to Temporal: its own settings under its own names (`TEMPORAL_ADDRESS`, `temporal.toml`, …), with flags
//! before them, and what commands ask of one run, as JSON.

use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, TryStreamExt as _};
use mandate_domain::{AgentResult, render};
use mandate_workflows::{
    WORKFLOW_TYPE,
    snapshot::{PendingRequest, Status},
};
use serde::{Serialize, de::DeserializeOwned};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, RpcOptions, UntypedQuery, UntypedSignal, UntypedUpdate,
    UntypedWorkflow, WorkflowDescribeOptions, WorkflowExecuteUpdateOptions, WorkflowExecution, WorkflowExecutionInfo,
    WorkflowExecutionStatus, WorkflowGetResultOptions, WorkflowHandle, WorkflowIdConflictPolicy, WorkflowListOptions,
    WorkflowQueryOptions, WorkflowSignalOptions, WorkflowStartOptions,
    envconfig::ClientConfigProfile,
    errors::{
        WorkflowGetResultError, WorkflowInteractionError, WorkflowQueryError, WorkflowStartError, WorkflowUpdateError,
    },
};
use temporalio_common::{
    data_converters::RawValue,
    envconfig::{LoadClientConfigProfileOptions, load_client_config_profile},
    protos::temporal::api::{
        common::v1::Payload,
        failure::v1::{Failure, failure::FailureInfo},
    },
    telemetry::metrics::TemporalMeter,
};

use crate::{
    cli::Global,
    output::{Refused, UsageError},
};

/// How long one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take with all attempts of the client.
const REACH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one question may take. It is answered by a worker, so a missing one shows here.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_ADDRESS: &str = "localhost:7233";
const DEFAULT_NAMESPACE: &str = "default";

/// Where Temporal is, before anything is sent to it.
#[derive(Debug)]
pub struct Target {
    profile: ClientConfigProfile,
    /// Where the frontend listens.
    pub address: String,
    /// The namespace.
    pub namespace: String,
    /// Whether somebody named an address or a profile.
    pub configured: bool,
    meter: Option<TemporalMeter>,
}

/// A connected client and where it is connected to.
#[derive(Clone)]
pub struct Temporal {
    /// The client.
    pub client: Client,
    /// Where the frontend listens.
    pub address: String,
    /// The namespace.
    pub namespace: String,
}

/// A started or existing execution.
pub type Handle = WorkflowHandle<Client, UntypedWorkflow>;

/// No answer where Temporal should be. Start it, or name where it is.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach Temporal at `{address}`: {why}. {}", Self::ADVICE)]
pub struct Unreachable {
    /// Where it should be.
    pub address: String,
    /// Why not.
    pub why: String,
}

impl Unreachable {
    /// What to do.
    pub const ADVICE: &str = "Start one with `temporal server start-dev`, or name another with --address, \
                              TEMPORAL_ADDRESS or a profile in temporal.toml";
}

/// Where an execution stands, as Temporal itself knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its run id.
    pub run_id: String,
    /// Run id of the first execution of its chain, from servers that say so.
    pub first_run_id: Option<String>,
    /// Whether it is open.
    pub is_open: bool,
    /// Whether another execution continues it.
    pub is_continued: bool,
}

/// How an execution ended.
#[derive(Debug)]
pub struct Ended {
    /// What the run answers, also when it failed or was cancelled.
    pub result: Option<AgentResult>,
    /// What Temporal says of an end that is no completion.
    pub failure: Option<String>,
}

/// Temporal's settings: flags, then the environment, then `temporal.toml`, then Temporal's defaults.
///
/// # Errors
/// [`UsageError`] when they cannot be understood.
pub fn target(global: &Global) -> Result<Target, UsageError> {
    let wanted = LoadClientConfigProfileOptions::builder().maybe_config_file_profile(global.profile.clone()).build();
    let mut profile = load_client_config_profile(wanted, None)
        .map_err(|error| UsageError(format!("cannot read the Temporal profile: {error}")))?;
    profile.address = global.address.clone().or(profile.address).filter(|address| !address.is_empty());
    profile.namespace = global.namespace.clone().or(profile.namespace).filter(|namespace| !namespace.is_empty());
    let named = std::env::var_os("TEMPORAL_PROFILE").is_some_and(|profile| !profile.is_empty());
    Ok(Target {
        configured: profile.address.is_some() || global.profile.is_some() || named,
        address: profile.address.clone().unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
        namespace: profile.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        profile,
        meter: None,
    })
}

/// Reads the settings and connects.
///
/// # Errors
/// One message that names the address and what to do.
pub async fn connect(global: &Global) -> anyhow::Result<Temporal> {
    target(global)?.connect().await
}

impl Target {
    /// Lets the connection count its requests.
    #[must_use]
    pub fn measured(self, meter: Option<TemporalMeter>) -> Self {
        Self { meter, ..self }
    }

    /// Connects.
    ///
    /// # Errors
    /// One message that names the address and what to do.
    pub async fn connect(self) -> anyhow::Result<Temporal> {
        let Self { profile, address, namespace, meter, configured: _ } = self;
        let mut options = ConnectionOptions::try_from(profile)
            .map_err(|error| UsageError(format!("cannot use the Temporal settings: {error}")))?;
        options.connect_timeout = Some(CONNECT_TIMEOUT);
        options.metrics_meter = meter;
        let connected = tokio::time::timeout(REACH_TIMEOUT, Connection::connect(options)).await;
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(unreachable(&address, &innermost(&error))),
            Err(_) => return Err(unreachable(&address, &format!("no answer within {REACH_TIMEOUT:?}"))),
        };
        let client = Client::new(connection, ClientOptions::new(namespace.clone()).build())
            .map_err(|error| anyhow::anyhow!("cannot use the connection: {error}"))?;
        Ok(Temporal { client, address, namespace })
    }
}

fn unreachable(address: &str, why: &str) -> anyhow::Error {
    Unreachable { address: address.to_owned(), why: why.to_owned() }.into()
}

/// The cause at the bottom: the client's own texts above it are debug output.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl Temporal {
    /// The newest execution under a workflow id.
    #[must_use]
    pub fn handle(&self, workflow_id: &str) -> Handle {
        self.client.get_workflow_handle::<UntypedWorkflow>(workflow_id)
    }

    /// One execution.
    #[must_use]
    pub fn execution(&self, workflow_id: &str, run_id: &str) -> Handle {
        let info = WorkflowExecutionInfo::builder()
            .namespace(self.namespace.clone())
            .workflow_id(workflow_id)
            .run_id(run_id)
            .build();
        info.bind_untyped(self.client.clone())
    }

    /// Starts a run.
    ///
    /// # Errors
    /// When one with this id is open, or Temporal refuses it.
    pub async fn start(
        &self,
        workflow_id: &str,
        task_queue: &str,
        task: &mandate_domain::AgentTask,
    ) -> anyhow::Result<Handle> {
        let options = WorkflowStartOptions::new(task_queue, workflow_id)
            .id_conflict_policy(WorkflowIdConflictPolicy::Fail)
            .static_summary(format!("{} for {}", task.agent, render::escape_line(task.on_behalf_of.as_str())))
            .build();
        let workflow = UntypedWorkflow::new(WORKFLOW_TYPE);
        match self.client.start_workflow(workflow, raw(task)?, options).await {
            Ok(handle) => Ok(handle),
            Err(WorkflowStartError::AlreadyStarted { .. }) => Err(Refused(format!(
                "a run with workflow id `{}` is open already; follow it with `mandate status`, or choose another id",
                render::escape_line(workflow_id)
            ))
            .into()),
            Err(WorkflowStartError::Rpc(status)) => anyhow::bail!("cannot start the run: {}", status.message()),
            Err(error) => anyhow::bail!("cannot start the run: {error}"),
        }
    }

    /// Asks a run.
    ///
    /// # Errors
    /// When there is no such run, no worker answers, or the answer cannot be read.
    pub async fn query<T: DeserializeOwned>(&self, handle: &Handle, name: &str) -> anyhow::Result<T> {
        let question = RpcOptions::builder().timeout(QUESTION_TIMEOUT).build();
        let options = WorkflowQueryOptions::builder().rpc_options(question).build();
        let answer = handle.query(UntypedQuery::new(name), RawValue::new(Vec::new()), options).await;
        let workflow_id = &handle.info().workflow_id;
        match answer {
            Ok(answer) => decode(&answer).with_context(|| format!("query `{name}`")),
            Err(WorkflowQueryError::NotFound(_)) => Err(self.not_found(workflow_id)),
            Err(WorkflowQueryError::Rpc(status)) => Err(anyhow::anyhow!(
                "`{}` gives no answer: {}; is a worker running on its task queue?",
                render::escape_line(workflow_id),
                status.message()
            )),
            Err(error) => Err(anyhow::anyhow!("`{}` gives no answer: {error}", render::escape_line(workflow_id))),
        }
    }

    /// Where a run stands, as it says itself; none before it has begun.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn status(&self, handle: &Handle) -> anyhow::Result<Option<Status>> {
        self.query(handle, "status").await
    }

    /// The requests of a run that wait for people.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn pending(&self, handle: &Handle) -> anyhow::Result<Vec<PendingRequest>> {
        self.query(handle, "pending").await
    }

    /// Lists executions that a list filter finds, at most so many.
    ///
    /// # Errors
    /// When Temporal cannot be asked, or does not understand the filter.
    pub async fn list(&self, filter: &str, limit: usize) -> anyhow::Result<Vec<WorkflowExecution>> {
        let options = WorkflowListOptions::builder().limit(limit).build();
        let listed = self.client.list_workflows(filter, options).try_collect().await;
        listed.map_err(|error| anyhow::anyhow!("cannot list runs: {}", innermost(&error)))
    }

    /// Lists all executions that a list filter finds. Temporal is asked for the next page once those before are read.
    pub fn list_all(&self, filter: &str) -> impl Stream<Item = anyhow::Result<WorkflowExecution>> + use<> {
        let listed = self.client.list_workflows(filter, WorkflowListOptions::default());
        listed.map_err(|error| anyhow::anyhow!("cannot list runs: {}", innermost(&error)))
    }

    /// Asks Temporal, and no worker, where an execution stands.
    ///
    /// # Errors
    /// When there is no such execution or Temporal cannot be asked.
    pub async fn standing(&self, handle: &Handle) -> anyhow::Result<Standing> {
        let question = RpcOptions::builder().timeout(QUESTION_TIMEOUT).build();
        let options = WorkflowDescribeOptions::builder().rpc_options(question).build();
        let described = match handle.describe(options).await {
            Ok(described) => described,
            Err(WorkflowInteractionError::NotFound(_)) => return Err(self.not_found(&handle.info().workflow_id)),
            Err(WorkflowInteractionError::Rpc(status)) => anyhow::bail!("cannot look at the run: {}", status.message()),
            Err(error) => anyhow::bail!("cannot look at the run: {error}"),
        };
        let info = described.raw_description.workflow_execution_info.as_ref();
        let first_run_id = info.map(|info| info.first_run_id.clone()).filter(|first| !first.is_empty());
        let status = described.status();
        Ok(Standing {
            run_id: described.run_id().to_owned(),
            first_run_id,
            is_open: matches!(status, WorkflowExecutionStatus::Running | WorkflowExecutionStatus::Paused),
            is_continued: status == WorkflowExecutionStatus::ContinuedAsNew,
        })
    }

    /// Sends an update and waits for what came of it.
    ///
    /// # Errors
    /// [`Refused`] with the reason when the run does not take it.
    pub async fn update<T: DeserializeOwned>(
        &self,
        handle: &Handle,
        name: &str,
        input: &impl Serialize,
    ) -> anyhow::Result<T> {
        let options = WorkflowExecuteUpdateOptions::default();
        match handle.execute_update(UntypedUpdate::new(name), raw(input)?, options).await {
            Ok(answer) => decode(&answer).with_context(|| format!("update `{name}`")),
            Err(WorkflowUpdateError::NotFound(_)) => Err(self.not_found(&handle.info().workflow_id)),
            Err(WorkflowUpdateError::Failed(failure)) => Err(Refused(failure.message).into()),
            Err(WorkflowUpdateError::Rpc(status)) => anyhow::bail!("update `{name}`: {}", status.message()),
            Err(error) => anyhow::bail!("update `{name}`: {error}"),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no open run under the id.
    pub async fn signal(&self, handle: &Handle, name: &str, input: &impl Serialize) -> anyhow::Result<()> {
        match handle.signal(UntypedSignal::new(name), raw(input)?, WorkflowSignalOptions::default()).await {
            Ok(()) => Ok(()),
            Err(WorkflowInteractionError::NotFound(_)) => Err(self.not_found(&handle.info().workflow_id)),
            Err(WorkflowInteractionError::Rpc(status)) => anyhow::bail!("signal `{name}`: {}", status.message()),
            Err(error) => anyhow::bail!("signal `{name}`: {error}"),
        }
    }

    /// Waits until a run has ended, over continue-as-new.
    ///
    /// # Errors
    /// When there is no such run or Temporal cannot be asked.
    pub async fn ended(&self, handle: &Handle) -> anyhow::Result<Ended> {
        let ended = |result, failure: &str| Ok(Ended { result, failure: Some(failure.to_owned()) });
        match handle.get_result(WorkflowGetResultOptions::default()).await {
            Ok(answer) => Ok(Ended { result: Some(decode(&answer).context("the run's result")?), failure: None }),
            Err(WorkflowGetResultError::Failed(error)) => {
                let failure = error.failure();
                ended(result_of(failure), &failure.message)
            }
            Err(WorkflowGetResultError::Cancelled { details }) => {
                ended(details.raw().first().and_then(from_payload), "the workflow execution was cancelled")
            }
            Err(WorkflowGetResultError::Terminated { .. }) => ended(None, "the workflow execution was terminated"),
            Err(WorkflowGetResultError::TimedOut) => ended(None, "the workflow execution timed out"),
            Err(WorkflowGetResultError::NotFound(_)) => Err(self.not_found(&handle.info().workflow_id)),
            Err(WorkflowGetResultError::Rpc(status)) => anyhow::bail!("cannot follow the run: {}", status.message()),
            Err(error) => anyhow::bail!("cannot follow the run: {error}"),
        }
    }

    fn not_found(&self, workflow_id: &str) -> anyhow::Error {
        let (workflow_id, namespace) = (render::escape_line(workflow_id), &self.namespace);
        anyhow::anyhow!("no open run `{workflow_id}` in namespace `{namespace}` at `{}`", self.address)
    }
}

fn raw(value: &impl Serialize) -> anyhow::Result<RawValue> {
    let metadata = std::collections::HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]);
    Ok(RawValue::new(vec![Payload { metadata, data: serde_json::to_vec(value)?, ..Payload::default() }]))
}

fn decode<T: DeserializeOwned>(answer: &RawValue) -> anyhow::Result<T> {
    let data = answer.payloads.first().map_or(&b"null"[..], |payload| &payload.data);
    Ok(serde_json::from_slice(if data.is_empty() { b"null" } else { data })?)
}

fn from_payload(payload: &Payload) -> Option<AgentResult> {
    serde_json::from_slice(&payload.data).ok()
}

/// A failed run carries its result as the details of its failure.
fn result_of(failure: &Failure) -> Option<AgentResult> {
    let FailureInfo::ApplicationFailureInfo(info) = failure.failure_info.as_ref()? else { return None };
    info.details.as_ref()?.payloads.first().and_then(from_payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_environment() {
        let global = Global {
            folder: ".".into(),
            address: Some("temporal.acme.example:7233".into()),
            namespace: Some("agents".into()),
            profile: None,
            log_format: crate::telemetry::LogFormat::Text,
        };
        let target = target(&global).unwrap();
        assert_eq!((target.address.as_str(), target.namespace.as_str()), ("temporal.acme.example:7233", "agents"));
        assert!(target.configured);
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        drop(taken);
        let mut profile = ClientConfigProfile::default();
        profile.address = Some(address.clone());
        let namespace = "default".to_owned();
        let target = Target { profile, address: address.clone(), namespace, configured: true, meter: None };
        let error = target.connect().await.err().unwrap().to_string();
        assert!(error.contains(&address) && error.contains("TEMPORAL_ADDRESS"), "{error}");
    }

    #[test]
    fn a_missing_answer_is_null() {
        assert_eq!(decode::<Option<u32>>(&RawValue::new(Vec::new())).unwrap(), None);
        assert_eq!(decode::<u32>(&raw(&7).unwrap()).unwrap(), 7);
    }
}
