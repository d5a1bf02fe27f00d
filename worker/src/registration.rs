//! What a worker registers: the workflow, the activities, and the search attributes that runs set.

use std::{collections::HashMap, time::Duration};

use mandate_activities::AgentActivities;
use mandate_workflows::{AgentWorkflow, ReconcileWorkflow};
use temporalio_client::tonic::IntoRequest as _;
use temporalio_common::protos::temporal::api::{
    enums::v1::IndexedValueType,
    operatorservice::v1::{AddSearchAttributesRequest, ListSearchAttributesRequest},
};
use temporalio_sdk::WorkerOptions;

use crate::{connection::Temporal, output, search_attributes::SEARCH_ATTRIBUTES};

/// How long activities may go on after the worker was asked to end.
const GRACEFUL_SHUTDOWN: Duration = Duration::from_secs(10);
/// How often heartbeats are sent at most. The SDK's own default is four fifths of the heartbeat timeout, which would leave
/// a second of five for the way to the server.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// How long a workflow task waits for the worker that has its run cached. A killed worker costs this much.
const STICKY_TIMEOUT: Duration = Duration::from_secs(3);
/// How many runs a worker keeps at hand: as many as it carries out activities for at once. One that waits for people costs
/// memory and nothing else; one that was put away is replayed from its short history when somebody decides.
const CACHED_RUNS_MAX: usize = 100;

/// The options of a worker on `task_queue`.
///
/// # Errors
/// When the workflow cannot be registered: a defect.
pub fn worker_options(task_queue: &str, activities: AgentActivities) -> anyhow::Result<WorkerOptions> {
    Ok(WorkerOptions::new(task_queue)
        .register_workflow::<AgentWorkflow>()?
        .register_workflow::<ReconcileWorkflow>()?
        .register_activities(activities)
        .graceful_shutdown_period(GRACEFUL_SHUTDOWN)
        .sticky_queue_schedule_to_start_timeout(STICKY_TIMEOUT)
        .max_cached_workflows(CACHED_RUNS_MAX)
        .max_heartbeat_throttle_interval(HEARTBEAT_EVERY)
        .default_heartbeat_throttle_interval(HEARTBEAT_EVERY)
        .build())
}

/// Registers the search attributes that the namespace lacks. Where that is not permitted, the command for an
/// administrator is printed: the worker starts all the same, and runs retry until it was done.
pub async fn ensure_search_attributes(temporal: &Temporal) {
    let missing = match missing_search_attributes(temporal).await {
        Ok(missing) if missing.is_empty() => return,
        Ok(missing) => missing,
        // Whoever may not list may not add either: nothing is known to be missing, so all of it is said.
        Err(_) => SEARCH_ATTRIBUTES.to_vec(),
    };
    if let Err(why) = add(temporal, &missing).await {
        output::note(format_args!("cannot register search attributes ({why}). An administrator has to run:"));
        output::note(format_args!("  {}", create_command(&temporal.namespace, &missing)));
    }
}

/// The search attributes that the namespace lacks, by name and type.
///
/// # Errors
/// The server's words when they cannot be listed.
pub async fn missing_search_attributes(temporal: &Temporal) -> Result<Vec<(&'static str, &'static str)>, String> {
    let request = ListSearchAttributesRequest { namespace: temporal.namespace.clone() };
    let mut operator = temporal.client.connection().operator_service();
    let known = operator.list_search_attributes(request.into_request()).await;
    let known = known.map_err(|status| status.message().to_owned())?.into_inner().custom_attributes;
    Ok(SEARCH_ATTRIBUTES.into_iter().filter(|(name, _)| !known.contains_key(*name)).collect())
}

async fn add(temporal: &Temporal, missing: &[(&str, &str)]) -> Result<(), String> {
    let search_attributes: HashMap<String, i32> =
        missing.iter().map(|(name, kind)| ((*name).to_owned(), indexed_type(kind) as i32)).collect();
    let request = AddSearchAttributesRequest { search_attributes, namespace: temporal.namespace.clone() };
    let mut operator = temporal.client.connection().operator_service();
    let added = operator.add_search_attributes(request.into_request()).await;
    added.map(|_| ()).map_err(|status| status.message().to_owned())
}

fn indexed_type(kind: &str) -> IndexedValueType {
    match kind {
        "KeywordList" => IndexedValueType::KeywordList,
        "Int" => IndexedValueType::Int,
        _ => IndexedValueType::Keyword,
    }
}

/// The command with which an administrator registers search attributes.
#[must_use]
pub fn create_command(namespace: &str, attributes: &[(&str, &str)]) -> String {
    let namespace = mandate_domain::render::shell_quote(namespace);
    let attributes: Vec<_> = attributes.iter().map(|(name, kind)| format!("--name {name} --type {kind}")).collect();
    format!("temporal operator search-attribute create --namespace {namespace} {}", attributes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_number() {
        for (_, kind) in SEARCH_ATTRIBUTES {
            assert_eq!(indexed_type(kind).as_str_name().replace('_', "").to_lowercase(), {
                format!("indexedvaluetype{}", kind.to_lowercase())
            });
        }
    }

    #[test]
    fn the_administrator_gets_the_whole_command() {
        let shown = create_command("our agents", &[("MandateState", "Keyword"), ("MandateCostMicros", "Int")]);
        let expected = "temporal operator search-attribute create --namespace 'our agents' \
                        --name MandateState --type Keyword --name MandateCostMicros --type Int";
        assert_eq!(shown, expected);
    }
}
