//! What becomes of a call whose arguments an approver changed: policy is asked anew, so it may wait again, go through, or
//! be refused.

use std::time::Duration;

use mandate_domain::{ToolCallId, render};
use mandate_workflows::snapshot::{PendingRequest, Status};
use serde::Deserialize;

use crate::{
    commands::tell::{has_ended, until},
    connection::{Handle, Temporal},
    output,
};

/// How long it is followed.
const FOLLOWED: Duration = Duration::from_secs(20);

/// A message of the query `transcript`.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    call: Option<ToolCallId>,
    preview: String,
}

/// What became of it.
#[derive(Debug)]
enum Came<'a> {
    /// People decide about it as well.
    Waits(&'a PendingRequest),
    /// The agent reads this result.
    Ended(&'a Line),
    /// Nobody knows whether it happened.
    Unknown,
    /// The run is paused, or has ended.
    Stands(&'a Status),
}

/// Follows the revision for a while, and prints what became of it.
///
/// # Errors
/// When stdout cannot be written.
pub(super) async fn report(temporal: &Temporal, handle: &Handle, call: ToolCallId) -> anyhow::Result<()> {
    let told = until(FOLLOWED, async || {
        let status = temporal.status(handle).await?;
        let pending = temporal.pending(handle).await?;
        let lines: Vec<Line> = temporal.query(handle, "transcript").await?;
        Ok(status.as_ref().and_then(|status| came(call, status, &pending, &lines)).map(|came| text(call, &came)))
    });
    match told.await {
        Ok(Some(told)) => output::data(told)?,
        Ok(None) => output::note(format_args!("{call} is under way; `mandate status` shows where the run stands")),
        // The approval counts all the same.
        Err(error) => output::note(format_args!("warning: {}", output::chain(&error))),
    }
    Ok(())
}

fn came<'a>(
    call: ToolCallId,
    status: &'a Status,
    pending: &'a [PendingRequest],
    lines: &'a [Line],
) -> Option<Came<'a>> {
    let waits = || pending.iter().find(|request| request.call == call).map(Came::Waits);
    let ended = || lines.iter().find(|line| line.call == Some(call)).map(Came::Ended);
    let unknown = || status.unknown_outcomes.contains(&call).then_some(Came::Unknown);
    let stands = || (status.paused || has_ended(status)).then_some(Came::Stands(status));
    waits().or_else(ended).or_else(unknown).or_else(stands)
}

fn text(call: ToolCallId, came: &Came<'_>) -> String {
    match came {
        Came::Waits(request) => {
            let (id, groups) = (&request.request_id, request.approvers.join(", "));
            format!("{call} waits again: request {id}, gate {}, by {groups}", request.gate)
        }
        Came::Ended(line) => format!("{call} has ended, and the agent reads: {}", render::escape_line(&line.preview)),
        Came::Unknown => format!("nobody knows whether {call} happened; `mandate resolve --help`"),
        Came::Stands(status) if status.paused => format!("{call} is held: the run is paused"),
        Came::Stands(status) => format!("the run has ended: {}", status.state),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::{decide::tests::pending, tell::tests::status};

    fn check(more: &serde_json::Value, requests: &[PendingRequest], expected: Option<&str>) {
        let call: ToolCallId = "t2.0r2".parse().unwrap();
        let lines = json!([
            { "role": "assistant", "digest": "a", "preview": "I refund it" },
            { "role": "tool", "call": more.get("line").cloned().unwrap_or("t2.0".into()), "preview": "denied:\nby a rule" },
        ]);
        let (lines, status): (Vec<Line>, _) = (serde_json::from_value(lines).unwrap(), status(more));
        let came = came(call, &status, requests, &lines).map(|came| text(call, &came));
        assert_eq!(came.as_deref(), expected, "{more}");
    }

    #[test]
    fn a_changed_call_waits_again_or_ends() {
        let again = PendingRequest { call: "t2.0r2".parse().unwrap(), ..pending("r2-bbbbbb") };
        let other = pending("r1-aaaaaa");
        check(&json!({}), std::slice::from_ref(&other), None);
        let waits = "t2.0r2 waits again: request r2-bbbbbb, gate refund.large, by finance-leads";
        check(&json!({}), &[other, again], Some(waits));
        check(&json!({ "line": "t2.0r2" }), &[], Some("t2.0r2 has ended, and the agent reads: denied:\\nby a rule"));
        let unknown = Some("nobody knows whether t2.0r2 happened; `mandate resolve --help`");
        check(&json!({ "unknown_outcomes": ["t2.0r2"] }), &[], unknown);
        check(&json!({ "paused": true }), &[], Some("t2.0r2 is held: the run is paused"));
        check(&json!({ "state": "Stopped" }), &[], Some("the run has ended: Stopped"));
    }
}
