//! `ReconcileWorkflow`: started by a schedule, it compares the store with what Temporal reports, page by page. Its activity
//! does all of it; the workflow only turns the pages, so that one that fails is tried again alone.
//!
//! Whoever may start workflows may start it: it takes no word of its input for true, and asks for nothing that the
//! schedule would not ask for.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use temporalio_macros::{activity_definitions, workflow, workflow_methods};
use temporalio_workflow::{
    ActivityCloseTimeouts, ActivityOptions, ContinueAsNewOptions, RetryPolicy, WorkflowContext, WorkflowResult,
};

use crate::lenient::Lenient;

/// Workflow type, as a Temporal user writes it.
pub const RECONCILE_WORKFLOW_TYPE: &str = "ReconcileWorkflow";

/// Pages of one execution; then it continues as new.
const PAGES_MAX: u32 = 50;
/// One page: some dozens of runs, and for each a few questions to the server and perhaps to a check tool.
const PAGE_ATTEMPT: Duration = Duration::from_mins(10);
/// How long one page is tried. The schedule begins anew anyway.
const PAGE_FOR: Duration = Duration::from_mins(30);
/// A worker that sends no heartbeat for so long is taken for dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the comparison stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// At the store's open runs behind this position.
    Open {
        /// The position.
        after: u64,
    },
    /// At the runs that Temporal lists.
    Listed {
        /// How many pages of them were read.
        pages: u32,
        /// What the server gave for the next one, in base64.
        token: String,
    },
}

/// Input and output of a whole comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Where it goes on; from the beginning where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// What was found so far.
    #[serde(default)]
    pub found: Reconciled,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconciled {
    /// Open runs of the store that were looked at.
    pub checked: u64,
    /// Runs that were closed.
    pub closed: u64,
    /// Runs that were marked as reset.
    pub reset: u64,
    /// Runs whose history has seen more than the store has.
    pub store_behind_run: u64,
    /// Runs that have ended and hold something that is not settled yet: the next comparison closes them.
    pub later: u64,
    /// Runs of which Temporal knows nothing, and which may belong to another namespace.
    pub unknown: u64,
    /// Runs that could not be looked at.
    pub failed: u64,
    /// The first of those that need somebody, with why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How many notes are kept.
pub const NOTES_MAX: usize = 20;

impl Reconciled {
    /// Both together.
    #[must_use]
    pub fn plus(mut self, more: Self) -> Self {
        let Self { checked, closed, reset, store_behind_run, later, unknown, failed, notes } = more;
        self.checked += checked;
        self.closed += closed;
        self.reset += reset;
        self.store_behind_run += store_behind_run;
        self.later += later;
        self.unknown += unknown;
        self.failed += failed;
        self.notes.extend(notes);
        self.notes.truncate(NOTES_MAX);
        self
    }
}

/// Input of `reconcile_runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRunsInput {
    /// Where the page begins.
    pub cursor: Cursor,
}

/// Output of `reconcile_runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRunsOutput {
    /// What was found on the page.
    pub found: Reconciled,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

#[expect(missing_docs, clippy::must_use_candidate, reason = "the macro makes public items of each declaration")]
mod declarations {
    use super::{ReconcileRunsInput, ReconcileRunsOutput, activity_definitions};

    /// The declaration. Its body is never run: `activities` binds the implementation.
    pub struct ReconcileActivities;

    #[activity_definitions]
    impl ReconcileActivities {
        /// Compares a page of runs with what Temporal reports.
        #[activity(name = "reconcile_runs")]
        pub fn reconcile_runs(_input: ReconcileRunsInput) -> ReconcileRunsOutput {
            unimplemented!()
        }
    }

    pub use reconcile_activities::ReconcileRuns;
}

pub use declarations::{ReconcileActivities, ReconcileRuns};

/// One comparison as a workflow execution.
#[workflow]
#[derive(Default)]
pub struct ReconcileWorkflow;

#[expect(missing_docs, clippy::missing_errors_doc, reason = "the macros make public items of each handler")]
mod handlers {
    use super::{Lenient, ReconcileWorkflow, Reconciled, WorkflowContext, WorkflowResult, compare, workflow_methods};

    #[workflow_methods]
    impl ReconcileWorkflow {
        #[run(name = "ReconcileWorkflow")]
        pub async fn run(ctx: &mut WorkflowContext<Self>, input: Lenient) -> WorkflowResult<Reconciled> {
            compare(ctx, input.reconciliation()).await
        }
    }
}

async fn compare(ctx: &WorkflowContext<ReconcileWorkflow>, input: Reconciliation) -> WorkflowResult<Reconciled> {
    let Reconciliation { cursor, mut found } = input;
    let mut cursor = cursor.unwrap_or(Cursor::Open { after: 0 });
    for _ in 0..PAGES_MAX {
        let page = ctx.execute_activity(ReconcileRuns, ReconcileRunsInput { cursor: cursor.clone() }, options(&cursor));
        let ReconcileRunsOutput { found: more, next } = page.await?;
        found = found.plus(more);
        let Some(next) = next else { return Ok(found) };
        cursor = next;
    }
    let rest = serde_json::to_vec(&Reconciliation { cursor: Some(cursor), found }).unwrap_or_default();
    match ctx.continue_as_new(Lenient::json(rest), ContinueAsNewOptions::default())? {}
}

fn options(cursor: &Cursor) -> ActivityOptions {
    let summary = match cursor {
        Cursor::Open { after } => format!("open runs behind {after}"),
        Cursor::Listed { pages, .. } => format!("runs that Temporal lists, page {}", pages + 1),
    };
    let retries = RetryPolicy::builder()
        .initial_interval(Duration::from_secs(1))
        .backoff_coefficient(2.0)
        .maximum_interval(Duration::from_secs(30))
        .build();
    let timeouts =
        ActivityCloseTimeouts::ScheduleAndStartToClose { schedule_to_close: PAGE_FOR, start_to_close: PAGE_ATTEMPT };
    ActivityOptions::with_close_timeouts(timeouts)
        .heartbeat_timeout(HEARTBEAT_TIMEOUT)
        .retry_policy(retries)
        .summary(summary)
        .build()
}
