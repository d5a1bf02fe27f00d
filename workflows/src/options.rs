//! One table: timeouts, heartbeat, retries and Web UI summary of each activity.
//!
//! Every activity heartbeats, so a dead worker is noticed after `heartbeat_timeout_secs` whatever the effect may take, and
//! is retried until an outage has lasted `outage_max_secs`. What must not be retried says so in its failure.

use std::time::Duration;

use mandate_domain::{
    RequestId, RunLimits, ToolCallId,
    agent_run::{Call, Word},
    audit::NoticeId,
    render,
};
use temporalio_workflow::{
    ActivityCancellationType, ActivityCloseTimeouts, ActivityOptions, RetryPolicy, WorkflowCancellationToken,
};

/// Time for everything in an activity that is not the effect itself: connecting, store, policy.
const MARGIN: Duration = Duration::from_mins(1);
/// One attempt of an activity that only touches the store.
const STORE_ATTEMPT: Duration = Duration::from_mins(1);
/// How long the store is asked what became of a lost call. The outage has lasted long already.
const LOOK_UP: Duration = Duration::from_mins(5);
/// One attempt of telling the webhook.
const NOTIFY_ATTEMPT: Duration = Duration::from_secs(30);
/// How long it is tried. Whoever waits for people shows in Temporal's own list as well.
const NOTIFY_FOR: Duration = Duration::from_hours(1);
/// Longest summary in characters. Temporal shows one line.
const SUMMARY_CHARS_MAX: usize = 100;

/// What an activity may take and how it shows.
struct Row {
    attempt: Duration,
    overall: Duration,
    summary: String,
}

impl Row {
    fn options(self, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
        let retries = RetryPolicy::builder()
            .initial_interval(Duration::from_secs(1))
            .backoff_coefficient(2.0)
            .maximum_interval(Duration::from_secs(30))
            .build();
        let timeouts = ActivityCloseTimeouts::ScheduleAndStartToClose {
            schedule_to_close: self.overall.max(self.attempt),
            start_to_close: self.attempt,
        };
        let summary: String = render::escape_line(&self.summary).chars().take(SUMMARY_CHARS_MAX).collect();
        ActivityOptions::with_close_timeouts(timeouts)
            .heartbeat_timeout(Duration::from_secs(limits.heartbeat_timeout_secs))
            .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
            .cancellation_token(token)
            .retry_policy(retries)
            .summary(summary)
            .build()
    }
}

fn outage(limits: &RunLimits) -> Duration {
    Duration::from_secs(limits.outage_max_secs)
}

pub(crate) fn open_run(agent: &str, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
    Row { attempt: STORE_ATTEMPT + MARGIN, overall: outage(limits), summary: format!("open · {agent}") }
        .options(limits, token)
}

pub(crate) fn invoke_model(
    turn: u32,
    model: &str,
    limits: &RunLimits,
    token: WorkflowCancellationToken,
) -> ActivityOptions {
    let attempt = Duration::from_secs(limits.model_timeout_secs) + MARGIN;
    Row { attempt, overall: outage(limits) + attempt, summary: format!("turn {turn} · {model}") }.options(limits, token)
}

pub(crate) fn call_tool(
    call: &Call,
    released_by: Option<&RequestId>,
    limits: &RunLimits,
    token: WorkflowCancellationToken,
) -> ActivityOptions {
    let timeout = call.timeout_secs.unwrap_or(limits.tool_timeout_max_secs).min(limits.tool_timeout_max_secs);
    let attempt = Duration::from_secs(timeout) + MARGIN;
    let released = released_by.map(|request| format!(" · released by {request}")).unwrap_or_default();
    let undoes = call.id.undoes().map(|undone| format!(" · undoes {undone}")).unwrap_or_default();
    let summary = format!("{}{undoes}{released}", call.tool);
    Row { attempt, overall: outage(limits) + attempt, summary }.options(limits, token)
}

pub(crate) fn look_up(call: ToolCallId, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
    Row { attempt: STORE_ATTEMPT, overall: LOOK_UP, summary: format!("what became of {call}?") }.options(limits, token)
}

pub(crate) fn review_approval(
    request: &RequestId,
    limits: &RunLimits,
    token: WorkflowCancellationToken,
) -> ActivityOptions {
    Row { attempt: STORE_ATTEMPT, overall: outage(limits), summary: format!("review {request}") }.options(limits, token)
}

pub(crate) fn review_instruction(word: &Word, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
    let summary = match word {
        Word::Sent { sent, .. } => {
            let about = sent.instruction.about().map(|about| format!(" {about}")).unwrap_or_default();
            format!("{}{about}", sent.instruction.kind().as_str())
        }
        Word::Expiry { question } => format!("expire {question}"),
    };
    Row { attempt: STORE_ATTEMPT, overall: outage(limits), summary }.options(limits, token)
}

pub(crate) fn notify(notice: NoticeId, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
    Row { attempt: NOTIFY_ATTEMPT, overall: NOTIFY_FOR, summary: format!("notify {notice}") }.options(limits, token)
}

pub(crate) fn close_run(state: &str, limits: &RunLimits, token: WorkflowCancellationToken) -> ActivityOptions {
    Row { attempt: STORE_ATTEMPT, overall: outage(limits), summary: format!("close · {state}") }.options(limits, token)
}
