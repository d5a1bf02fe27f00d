//! `mandate approvals`: what waits for people, over all runs. Found by Temporal's own query, read from each run's own.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use mandate_domain::render;
use mandate_workflows::snapshot::PendingRequest;
use serde::Serialize;
use temporalio_client::WorkflowListOptions;

use crate::{
    cli::{Global, Listing},
    connection::{self, Temporal},
    output::{self, Exit, OutputFormat},
};

/// The inbox, as a person would type it too.
const INBOX: &str = "MandateState = 'AwaitingApproval' AND ExecutionStatus = 'Running'";
/// Most runs that are listed.
const RUNS_MAX: usize = 500;
/// How many runs are asked at once.
const ASKED_AT_ONCE: usize = 8;

/// One request and the run it waits in.
#[derive(Debug, Serialize)]
struct Waiting {
    workflow_id: String,
    run_id: String,
    #[serde(flatten)]
    request: PendingRequest,
}

/// Lists the requests.
///
/// # Errors
/// When Temporal cannot be asked. A run that gives no answer is named on stderr.
pub async fn approvals(global: &Global, options: &Listing) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let listing = WorkflowListOptions::builder().limit(RUNS_MAX).build();
    let runs: Vec<_> = temporal
        .client
        .list_workflows(INBOX, listing)
        .map_ok(|run| (run.id().to_owned(), run.run_id().to_owned()))
        .try_collect()
        .await
        .map_err(|error| anyhow::anyhow!("cannot list runs: {error}"))?;
    let asked = stream::iter(runs).map(|run| requests_of(&temporal, run)).buffered(ASKED_AT_ONCE);
    let waiting: Vec<Waiting> = asked.flat_map(stream::iter).collect().await;
    match options.output {
        OutputFormat::Json => output::json(&waiting)?,
        OutputFormat::Text if waiting.is_empty() => output::note("nothing waits for people"),
        OutputFormat::Text => output::data(text(&waiting))?,
    }
    Ok(Exit::Done)
}

async fn requests_of(temporal: &Temporal, (workflow_id, run_id): (String, String)) -> Vec<Waiting> {
    let handle = temporal.execution(&workflow_id, &run_id);
    let pending: anyhow::Result<Vec<PendingRequest>> = temporal.query(&handle, "pending").await;
    let one = |request| Waiting { workflow_id: workflow_id.clone(), run_id: run_id.clone(), request };
    match pending {
        Ok(pending) => pending.into_iter().map(one).collect(),
        Err(error) => {
            output::note(format_args!("warning: {error:#}"));
            Vec::new()
        }
    }
}

fn text(waiting: &[Waiting]) -> String {
    let row = |waiting: &Waiting| {
        let request = &waiting.request;
        [
            request.request_id.clone(),
            render::escape_line(&waiting.workflow_id),
            render::escape_line(&request.tool),
            render::escape_line(&request.arguments),
            request.approvers.join(", "),
            request.deadline.clone(),
        ]
    };
    output::table(["REQUEST", "WORKFLOW", "TOOL", "ARGUMENTS", "APPROVERS", "UNTIL (UTC)"], waiting.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> [Waiting; 1] {
        let request = crate::commands::decide::tests::pending("r1-7f3a9c");
        [Waiting { workflow_id: "refund-\u{1b}[2J".into(), run_id: "run".into(), request }]
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let shown = text(&waiting());
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(shown.contains("r1-7f3a9c") && shown.contains("refund-\\u{1b}[2J"), "{shown}");
        assert!(shown.contains("finance-leads") && shown.contains("2026-11-22 10:00:00"), "{shown}");
    }

    #[test]
    fn json_is_one_flat_object_a_request() {
        let value = serde_json::to_value(waiting()).unwrap();
        assert_eq!(value[0]["request_id"], "r1-7f3a9c");
        assert_eq!(value[0]["run_id"], "run");
    }
}
