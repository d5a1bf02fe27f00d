//! `mandate approve` and `mandate reject`: a decision with the exact arguments in view. Needs Temporal, never the
//! store's credentials: the card comes from the run's own query, rendered and masked when the request was made.

use std::io::{self, BufRead as _, IsTerminal as _};

use mandate_domain::{RequestId, Verdict, agent_run::Answer, render};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::json;

use crate::{
    cli::{Decide, Global},
    connection::{self, Handle, Temporal},
    output::{self, Exit, Refused, UsageError},
};

/// Shows the card, asks for confirmation, sends the decision and prints the answer.
///
/// # Errors
/// [`Refused`] when no such request is pending or the decision does not count; [`UsageError`] without a terminal
/// and without `--yes`.
pub async fn decide(global: &Global, options: Decide, verdict: Verdict) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let handle = temporal.handle(&options.workflow_id);
    let pending: Vec<PendingRequest> = temporal.query(&handle, "pending").await?;
    let request = choose(&pending, options.request.as_ref())?;
    output::note(&request.card);
    let word = match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
    };
    if !options.yes && !confirm(&format!("{word} {}?", request.request_id))? {
        output::note("nothing was sent");
        return Ok(Exit::Denied);
    }
    let decision = json!({
        "request_id": request.request_id, "verdict": verdict, "by": options.by, "comment": options.comment,
    });
    let answer = send(&temporal, &handle, &decision).await?;
    said(answer)
}

/// Sends a decision by the update `decide`, which waits for its review.
///
/// # Errors
/// [`Refused`] when the run does not take it.
pub(super) async fn send(temporal: &Temporal, handle: &Handle, decision: &serde_json::Value) -> anyhow::Result<Answer> {
    temporal.update(handle, "decide", decision).await
}

fn said(answer: Answer) -> anyhow::Result<Exit> {
    match answer {
        Answer::Accepted { detail } => {
            output::data(render::escape_line(&detail))?;
            Ok(Exit::Done)
        }
        Answer::AlreadyDecided => Err(Refused("the request was decided before; nothing changed".to_owned()).into()),
        Answer::Refused { reason } => Err(Refused(render::escape_line(&reason)).into()),
    }
}

/// The request that is meant.
fn choose<'a>(pending: &'a [PendingRequest], wanted: Option<&RequestId>) -> anyhow::Result<&'a PendingRequest> {
    let ids = || pending.iter().map(|request| request.request_id.as_str()).collect::<Vec<_>>().join(", ");
    match (pending, wanted) {
        ([], _) => Err(Refused("no request is pending in this run".to_owned()).into()),
        ([only], None) => Ok(only),
        (_, None) => {
            Err(UsageError(format!("{} requests are pending; add --request: {}", pending.len(), ids())).into())
        }
        (_, Some(wanted)) => pending
            .iter()
            .find(|request| request.request_id == wanted.as_str())
            .ok_or_else(|| Refused(format!("request `{wanted}` is not pending; pending: {}", ids())).into()),
    }
}

/// Asks on the terminal.
///
/// # Errors
/// [`UsageError`] where there is none.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(
            UsageError("there is no terminal to ask on; read what is shown above and add --yes".to_owned()).into()
        );
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::commands) fn pending(id: &str) -> PendingRequest {
        serde_json::from_value(json!({
            "request_id": id, "call": "t2.0", "tool": "payments.refund", "arguments": "{\"order_id\":\"o1\\u001b\"}",
            "arguments_digest": "ab".repeat(32), "gate": "refund.large", "reason": "large", "approvers": ["finance-leads"],
            "votes": 0, "quorum": 1, "deadline": "2026-11-22 10:00:00", "card": "card", "commands": ["approve it", "reject it"],
        }))
        .unwrap()
    }

    fn check(ids: &[&str], wanted: Option<&str>) -> Result<String, String> {
        let all: Vec<_> = ids.iter().map(|id| pending(id)).collect();
        let wanted = wanted.map(|id| id.parse::<RequestId>().unwrap());
        choose(&all, wanted.as_ref()).map(|request| request.request_id.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_request_may_be_left_out_while_only_one_is_pending() {
        assert_eq!(check(&["r1-aaaaaa"], None), Ok("r1-aaaaaa".into()));
        assert_eq!(check(&["r1-aaaaaa", "r2-bbbbbb"], Some("r2-bbbbbb")), Ok("r2-bbbbbb".into()));
        assert_eq!(check(&[], None), Err("no request is pending in this run".into()));
        let both = Err("2 requests are pending; add --request: r1-aaaaaa, r2-bbbbbb".into());
        assert_eq!(check(&["r1-aaaaaa", "r2-bbbbbb"], None), both);
        let missing = Err("request `r3-cccccc` is not pending; pending: r1-aaaaaa".into());
        assert_eq!(check(&["r1-aaaaaa"], Some("r3-cccccc")), missing);
    }

    #[test]
    fn a_decision_that_does_not_count_is_a_refusal() {
        assert_eq!(said(Answer::Accepted { detail: "x".into() }).unwrap(), Exit::Done);
        for answer in [Answer::AlreadyDecided, Answer::Refused { reason: "no".into() }] {
            assert!(said(answer).unwrap_err().is::<Refused>());
        }
    }
}
