//! The schedule of the reconciler: made by the first worker that finds it missing. One that is there stays as it is, paused
//! or at another pace: it belongs to whoever operates the namespace.

use std::time::Duration;

use mandate_domain::render::shell_quote;
use mandate_workflows::RECONCILE_WORKFLOW_TYPE;
use temporalio_client::{
    UntypedWorkflow,
    schedules::{CreateScheduleOptions, ScheduleAction, ScheduleError, ScheduleOverlapPolicy, ScheduleSpec},
    tonic::Code,
};
use temporalio_common::data_converters::RawValue;

use crate::{connection::Temporal, output};

/// What the schedule says of itself.
const NOTE: &str = "closes runs whose executions ended from outside";

/// Id of the schedule for a task queue, and of the executions that it starts.
#[must_use]
pub fn reconciler_id(task_queue: &str) -> String {
    format!("{task_queue}-reconciler")
}

/// Makes the schedule if it is not there. Where that is not permitted, the command for an administrator is printed: the
/// worker runs all the same.
pub async fn ensure_reconciler(temporal: &Temporal, task_queue: &str, every_secs: u64) {
    let id = reconciler_id(task_queue);
    let workflow = UntypedWorkflow::new(RECONCILE_WORKFLOW_TYPE);
    let action = ScheduleAction::start_workflow(workflow, RawValue::new(Vec::new()), task_queue, &id);
    let options = CreateScheduleOptions::builder()
        .action(action)
        .spec(ScheduleSpec::from_interval(Duration::from_secs(every_secs)))
        .overlap_policy(ScheduleOverlapPolicy::Skip)
        .note(NOTE)
        .build();
    match temporal.client.create_schedule(&id, options).await {
        Ok(_) => tracing::info!(schedule = id, every_secs, "made the schedule of the reconciler"),
        Err(ScheduleError::Rpc(status)) if status.code() == Code::AlreadyExists => {}
        Err(error) => {
            output::note(format_args!(
                "cannot make the schedule of the reconciler ({error}). An administrator has to run:"
            ));
            output::note(format_args!("  {}", create_command(&temporal.namespace, task_queue, every_secs)));
        }
    }
}

/// The command with which an administrator makes the schedule.
#[must_use]
pub fn create_command(namespace: &str, task_queue: &str, every_secs: u64) -> String {
    let (id, namespace) = (shell_quote(&reconciler_id(task_queue)), shell_quote(namespace));
    let task_queue = shell_quote(task_queue);
    format!(
        "temporal schedule create --namespace {namespace} --schedule-id {id} --interval {every_secs}s --overlap-policy Skip \
         --workflow-id {id} --task-queue {task_queue} --type {RECONCILE_WORKFLOW_TYPE}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrator_gets_the_whole_command() {
        let expected = "temporal schedule create --namespace default --schedule-id 'our agents-reconciler' \
                        --interval 300s --overlap-policy Skip --workflow-id 'our agents-reconciler' \
                        --task-queue 'our agents' --type ReconcileWorkflow";
        assert_eq!(create_command("default", "our agents", 300), expected);
    }
}
