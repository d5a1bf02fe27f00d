//! `mandate resolve`: says what became of a call whose outcome nobody knows, and waits until the run took or refused it.

use std::time::Duration;

use mandate_domain::{ToolCallId, render};
use mandate_workflows::snapshot::Status;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Global, Resolve},
    connection::{self, Handle, Temporal},
    output::{self, Exit, Refused},
};

/// How often the run is asked.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How long the run may take to review the word of a person.
const TAKEN_WITHIN: Duration = Duration::from_mins(1);

/// Sends the signal and waits for what it comes to.
///
/// # Errors
/// [`Refused`] when the call's outcome is not unknown, or the word does not count.
pub async fn resolve(global: &Global, options: Resolve) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let handle = temporal.handle(&options.workflow_id);
    let before: Option<Status> = temporal.query(&handle, "status").await?;
    let refused_before = before.as_ref().map_or(0, |status| status.refused_messages);
    if !before.is_some_and(|status| status.unknown_outcomes.contains(&options.call)) {
        return Err(Refused(format!("the outcome of call `{}` is not unknown in this run", options.call)).into());
    }
    let input = json!({
        "call": options.call, "resolution": options.resolution, "by": options.by, "comment": options.comment,
    });
    temporal.signal(&handle, "resolve", &input).await?;
    wait(&temporal, &handle, options.call, refused_before).await?;
    output::data(format_args!("{} is settled", options.call))?;
    Ok(Exit::Done)
}

async fn wait(temporal: &Temporal, handle: &Handle, call: ToolCallId, refused_before: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + TAKEN_WITHIN;
    loop {
        let status: Option<Status> = temporal.query(handle, "status").await?;
        match status.map(|status| seen(&status, call, refused_before)) {
            Some(Seen::Settled) => return Ok(()),
            Some(Seen::Refused(reason)) => return Err(Refused(reason).into()),
            Some(Seen::Open) | None => {}
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the run did not take it within {TAKEN_WITHIN:?}; ask `mandate status`"
        );
        sleep(POLL_EVERY).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Settled,
    Refused(String),
    Open,
}

fn seen(status: &Status, call: ToolCallId, refused_before: u64) -> Seen {
    if !status.unknown_outcomes.contains(&call) {
        Seen::Settled
    } else if status.refused_messages > refused_before {
        Seen::Refused(render::escape_line(status.last_refusal.as_deref().unwrap_or("refused")))
    } else {
        Seen::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unknown: &[&str], refused: u64) -> Seen {
        let status = serde_json::from_value(json!({
            "state": "OutcomeUnknown", "agent": "a/b/c", "turn": 1, "tool_calls": 1,
            "usage": { "input_tokens": 0, "output_tokens": 0 }, "audit_records": 1, "waiting": [],
            "unknown_outcomes": unknown, "refused_messages": refused, "last_refusal": "not yours",
        }));
        seen(&status.unwrap(), ToolCallId::new(1, 0), 2)
    }

    #[test]
    fn a_word_is_taken_when_the_call_is_no_longer_unknown() {
        assert_eq!(check(&[], 2), Seen::Settled);
        assert_eq!(check(&["t1.0"], 2), Seen::Open);
        assert_eq!(check(&["t1.0"], 3), Seen::Refused("not yours".into()));
    }
}
