//! `mandate approve` and `mandate reject`: a decision with the exact arguments in view. Needs Temporal, never the
//! store's credentials: the card comes from the run's own query, rendered and masked when the request was made.

use anyhow::Context as _;
use mandate_domain::{RequestId, Statement, Verdict, agent_run::Answer, proof::DecisionSaid};
use mandate_workflows::snapshot::{PendingRequest, Status};
use serde_json::{Map, Value};

use super::{
    ask,
    sender::Sender,
    tell::{TAKEN_WITHIN, has_ended, not_taken, said, until},
};
use crate::{
    cli::{Approve, Decide, Global, ToRun},
    connection::{self, Handle, Temporal},
    output::{self, Exit, Refused, UsageError},
};

mod edit;
mod revision;

use edit::Change;

/// Approves a request, as it is or with other arguments.
///
/// # Errors
/// [`Refused`] when no such request is pending, the decision does not count, or arguments are to be changed that are not
/// shown whole; [`UsageError`] for a way of proof that the run does not accept, and without a terminal and without
/// `--yes`.
pub async fn approve(global: &Global, options: Approve) -> anyhow::Result<Exit> {
    let Approve { decide: options, edit, arguments } = options;
    let change = match arguments {
        Some(arguments) => Change::Given(arguments),
        None if edit => Change::Editor,
        None => Change::Nothing,
    };
    decide(global, options, Verdict::Approve, &change).await
}

/// Rejects a request.
///
/// # Errors
/// As [`approve`].
pub async fn reject(global: &Global, options: Decide) -> anyhow::Result<Exit> {
    decide(global, options, Verdict::Reject, &Change::Nothing).await
}

/// Shows the card, asks for confirmation, sends the decision and prints what came of it.
async fn decide(global: &Global, options: Decide, verdict: Verdict, change: &Change) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let Decide { run: ToRun { workflow_id, sender, yes }, request } = options;
    let handle = temporal.handle(&workflow_id);
    let pending = temporal.pending(&handle).await?;
    let request = choose(&pending, request.as_ref())?;
    let sender = Sender::new(sender, &request.accepts)?;
    output::note(&request.card);
    let arguments = match edit::arguments(change, request)? {
        edit::Edited::Kept => None,
        edit::Edited::Changed(arguments) => Some(arguments),
        edit::Edited::GivenUp => return Ok(ask::nothing_was_sent()),
    };
    let decision = Decision { request, verdict, arguments: arguments.as_ref() };
    let ready = sender.ready(|| decision.statement(sender.comment()))?;
    if !yes && !ask::confirm(&decision.question())? {
        return Ok(ask::nothing_was_sent());
    }
    let mut said_so = decision.fields();
    let answer = if sender.is_known_by_the_server() {
        decision.signal(&temporal, &handle, &ready.message(said_so).await?).await?
    } else {
        said_so.insert("verdict".to_owned(), verdict.as_str().into());
        send(&temporal, &handle, &ready.message(said_so).await?).await?
    };
    let exit = said(answer)?;
    if decision.arguments.is_some() {
        revision::report(&temporal, &handle, request.call.revised()).await?;
    }
    Ok(exit)
}

/// Sends a decision by the update `decide`, which waits for its review.
///
/// # Errors
/// [`Refused`] when the run does not take it.
pub(super) async fn send(temporal: &Temporal, handle: &Handle, decision: &Value) -> anyhow::Result<Answer> {
    temporal.update(handle, "decide", decision).await
}

/// What is going to be said.
struct Decision<'a> {
    request: &'a PendingRequest,
    verdict: Verdict,
    arguments: Option<&'a Map<String, Value>>,
}

impl Decision<'_> {
    fn question(&self) -> String {
        let (verdict, id) = (self.verdict.as_str(), &self.request.request_id);
        let changed = if self.arguments.is_some() { " with these arguments" } else { "" };
        format!("{verdict} {id}{changed}?")
    }

    fn statement(&self, comment: Option<&str>) -> anyhow::Result<Statement> {
        let PendingRequest { request_id, digest, .. } = self.request;
        let request: RequestId = request_id.parse()?;
        let request_digest = digest.as_ref().context("this request is of an older worker and cannot be proved")?;
        let (verdict, arguments) = (self.verdict, self.arguments);
        let said = DecisionSaid { request: &request, request_digest, verdict, comment, arguments };
        Ok(Statement::decision(&said)?)
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::from_iter([("request_id".to_owned(), Value::from(self.request.request_id.as_str()))]);
        if let Some(arguments) = self.arguments {
            fields.insert("arguments".to_owned(), Value::Object(arguments.clone()));
        }
        fields
    }

    /// Sends it as a signal, which has no answer: the run shows what came of it.
    async fn signal(&self, temporal: &Temporal, handle: &Handle, message: &Value) -> anyhow::Result<Answer> {
        let before = temporal.status(handle).await?;
        let refused_before = before.map_or(0, |status| status.refused_messages);
        temporal.signal(handle, self.verdict.as_str(), message).await?;
        let answer = until(TAKEN_WITHIN, async || {
            let status = temporal.status(handle).await?;
            let pending = temporal.pending(handle).await?;
            Ok(status.and_then(|status| seen(self.request, refused_before, &status, &pending)))
        });
        answer.await?.with_context(not_taken)
    }
}

/// What came of a decision, if anything did.
fn seen(request: &PendingRequest, refused_before: u64, status: &Status, pending: &[PendingRequest]) -> Option<Answer> {
    let id = &request.request_id;
    let now = pending.iter().find(|now| now.request_id == *id);
    match now {
        None if has_ended(status) => {
            Some(Answer::Accepted { detail: format!("`{id}` does not wait any more: the run has ended") })
        }
        None => Some(Answer::Accepted { detail: format!("`{id}` is decided") }),
        Some(now) if now.votes > request.votes => {
            let detail = format!("counted; {} of {} approved so far", now.votes, now.quorum);
            Some(Answer::Accepted { detail })
        }
        Some(_) if status.refused_messages > refused_before => {
            Some(Answer::Refused { reason: status.last_refusal.clone().unwrap_or_else(|| "refused".to_owned()) })
        }
        Some(_) => None,
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

#[cfg(test)]
pub(super) mod tests {
    use mandate_workflows::lenient::Lenient;
    use serde_json::json;

    use super::*;
    use crate::commands::tell::tests::status;

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
    fn the_run_reads_the_decision_that_was_shown_and_signed() {
        let request = PendingRequest { digest: Some("ab".repeat(32).parse().unwrap()), ..pending("r1-abcdef") };
        let arguments = json!({ "order_id": "o2" }).as_object().cloned().unwrap();
        let decision = Decision { request: &request, verdict: Verdict::Approve, arguments: Some(&arguments) };
        assert_eq!(decision.question(), "approve r1-abcdef with these arguments?");
        assert_eq!(decision.statement(None).unwrap().nonce(), "ab".repeat(32));
        let read = Lenient::json(Value::Object(decision.fields()).to_string().into_bytes());
        let read = read.decision(Verdict::Approve).unwrap();
        assert_eq!((read.request.as_str(), read.arguments), ("r1-abcdef", Some(arguments)));
        let older = Decision { request: &pending("r1-abcdef"), verdict: Verdict::Reject, arguments: None };
        assert!(older.statement(None).is_err() && older.question() == "reject r1-abcdef?");
    }

    #[test]
    fn what_came_of_a_signal_shows_in_the_run() {
        let request = pending("r1-aaaaaa");
        let seen = |more: Value, pending: &[PendingRequest]| seen(&request, 2, &status(&more), pending);
        let counted = PendingRequest { votes: 1, quorum: 2, ..request.clone() };
        let same = [request.clone()];
        let accepted = |detail: &str| Some(Answer::Accepted { detail: detail.into() });
        assert_eq!(seen(json!({ "refused_messages": 2 }), &same), None);
        assert_eq!(seen(json!({}), &[pending("r2-bbbbbb")]), accepted("`r1-aaaaaa` is decided"));
        let ended = accepted("`r1-aaaaaa` does not wait any more: the run has ended");
        assert_eq!(seen(json!({ "state": "Cancelled" }), &[]), ended);
        assert_eq!(seen(json!({ "refused_messages": 3 }), &[counted]), accepted("counted; 1 of 2 approved so far"));
        let refused = json!({ "refused_messages": 3, "last_refusal": "not yours" });
        assert_eq!(seen(refused, &same), Some(Answer::Refused { reason: "not yours".into() }));
    }
}
