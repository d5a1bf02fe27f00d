//! `review_approval`: is this decision one that counts? Checked and recorded in one transaction.

use mandate_domain::{
    ApprovalDecision, EffectId, Gate, Proof, RecordBody, Refusal, RefusalKind, RequestId, Review, ToolCallId,
    ToolCallOutcome, Verdict,
    approval::{Parties, admit_decision},
    policy::{PersonAction, PolicyDecision},
    render,
};
use mandate_workflows::contract::{ReviewApprovalInput, ReviewApprovalOutput, ReviewSubject};

use super::{Admitted, Governed, RUN_ENDED, call_tool::refusal, failpoint};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{self, Guard, on},
    heartbeat::Heartbeat,
    store::{RequestRow, RequestState, Tx},
};

/// What the record says of a decision about a request that was decided before.
const ALREADY_DECIDED: &str = "the request was decided already";

/// What the review of a decision found.
struct Reviewed {
    call: ToolCallId,
    /// What policy says of whoever decided, if it was asked.
    judged: Option<PolicyDecision>,
    /// Why the decision does not count, if it does not.
    refused: Option<String>,
}

impl Governed {
    /// Reviews a decision or an expiry.
    pub(crate) async fn review_approval(
        &self,
        caller: &Caller,
        input: &ReviewApprovalInput,
    ) -> Result<ReviewApprovalOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller.context());
        let run = self.admit(caller, &input.run).await?;
        caller.not_cancelled()?;
        let mut tx = self.begin(&run).await?;
        let review = match &input.subject {
            ReviewSubject::Decision { decision, ordinal } => {
                self.review_decision(&mut tx, &run, input.call, decision, *ordinal).await?
            }
            ReviewSubject::Expiry { request } => self.review_expiry(&mut tx, &run, input.call, request).await?,
        };
        failpoint!("review.before_commit");
        let audit = tx.commit().await?;
        failpoint!("review.after_commit");
        Ok(ReviewApprovalOutput { review, audit })
    }

    async fn review_decision(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        decision: &ApprovalDecision,
        ordinal: u32,
    ) -> Result<Review, ActivityFailure> {
        let key = format!("{}/decided/{ordinal}", decision.request);
        let row = tx.request(&decision.request).await?.filter(|row| row.call == call);
        // The answer of an earlier attempt may have been lost: the same decision is told the same.
        if let Some(RecordBody::ApprovalDecided { refused, verdict, .. }) = tx.recorded(&key).await? {
            return self.recorded_review(tx, call, row, refused, verdict, &decision.request).await;
        }
        let mut judged = None;
        let refused = match &row {
            None => Some(format!("no request `{}` was made for call `{call}`", decision.request)),
            Some(row) if row.state != RequestState::Open && on(Guard::RequestOpen) => Some(ALREADY_DECIDED.to_owned()),
            Some(_) if tx.is_closed() && on(Guard::ClosedRun) => Some(RUN_ENDED.to_owned()),
            Some(row) => self.refuse_decision(tx, run, row, decision, &mut judged).await?,
        };
        self.record_decided(tx, run, decision, key, Reviewed { call, judged, refused: refused.clone() }).await?;
        match (refused, row) {
            (Some(reason), _) if reason == ALREADY_DECIDED => Ok(Review::AlreadyDecided),
            (Some(reason), _) => Ok(Review::Refused { reason }),
            (None, Some(row)) => self.count(tx, run, &row, decision).await,
            (None, None) => Ok(Review::AlreadyDecided),
        }
    }

    /// The rule that keeps this person from deciding, if there is one: the gate's, or a policy's.
    async fn refuse_decision(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &RequestRow,
        decision: &ApprovalDecision,
        judged: &mut Option<PolicyDecision>,
    ) -> Result<Option<String>, ActivityFailure> {
        let approved_by = tx.votes(&row.id).await?;
        let parties =
            Parties { requester: run.row.on_behalf_of.clone(), agent_owner: run.row.definition.owner.clone() };
        let groups = self.policy.in_force(tx).await?.registry().groups_of(&decision.by);
        let admitted = admit_decision(&row.gate, &decision.by, &groups, &parties, &approved_by);
        if let Some(refused) = admitted.err().filter(guards::refuses) {
            return Ok(Some(refused.to_string()));
        }
        let Some(tool) = self.tool_of(run, row.call).await? else {
            return Ok(Some(format!("call `{}` names no tool of this run", row.call)));
        };
        let action = PersonAction::Decide { run: run.about(), tool, gate: &row.gate.id, verdict: decision.verdict };
        let decided = self.judge_person(tx, &decision.by, action).await?;
        let refused = (!decided.is_allowed() && on(Guard::Decider))
            .then(|| format!("policy does not let `{}` decide: {}", decision.by, decided.reason));
        *judged = Some(decided);
        Ok(refused)
    }

    async fn record_decided(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        decision: &ApprovalDecision,
        key: String,
        reviewed: Reviewed,
    ) -> Result<(), ActivityFailure> {
        let comment = match &decision.comment {
            Some(text) => Some(tx.put_content(run.tenant(), text).await?),
            None => None,
        };
        let body = RecordBody::ApprovalDecided {
            request: decision.request.clone(),
            effect: EffectId::Tool(reviewed.call),
            verdict: decision.verdict,
            by: decision.by.clone(),
            proof: Proof::Claimed,
            policies: reviewed.judged.as_ref().map(|judged| judged.policies.clone()).unwrap_or_default(),
            bundle: reviewed.judged.map(|judged| judged.bundle),
            refused: reviewed.refused,
            comment,
        };
        self.append(tx, run, key, body).await
    }

    async fn count(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &RequestRow,
        decision: &ApprovalDecision,
    ) -> Result<Review, ActivityFailure> {
        match decision.verdict {
            Verdict::Approve => {
                tx.vote(&row.id, &decision.by).await?;
                let review = counted(tx, row).await?;
                if matches!(review, Review::Counted { quorum_reached: true, .. }) {
                    tx.set_request_state(&row.id, RequestState::Approved).await?;
                }
                Ok(review)
            }
            Verdict::Reject => {
                tx.set_request_state(&row.id, RequestState::Rejected).await?;
                tx.withdraw_requests(row.call).await?;
                let refusal = Refusal { policies: vec![row.gate.id.clone()], ..rejected(decision) };
                let outcome = self.end_refused(tx, run, row.call, refusal).await?;
                Ok(result_of(outcome).map_or(Review::AlreadyDecided, |result| Review::Rejected { result }))
            }
        }
    }

    async fn recorded_review(
        &self,
        tx: &mut Tx,
        call: ToolCallId,
        row: Option<RequestRow>,
        refused: Option<String>,
        verdict: Verdict,
        request: &RequestId,
    ) -> Result<Review, ActivityFailure> {
        match (refused, verdict, row) {
            (Some(reason), _, _) if reason == ALREADY_DECIDED => Ok(Review::AlreadyDecided),
            (Some(reason), _, _) => Ok(Review::Refused { reason }),
            (None, Verdict::Approve, Some(row)) => counted(tx, &row).await,
            (None, Verdict::Reject, _) => {
                let end = tx.call_end(call).await?.and_then(|end| result_of(end.outcome));
                Ok(end.map_or(Review::AlreadyDecided, |result| Review::Rejected { result }))
            }
            (None, Verdict::Approve, None) => Ok(Review::Refused { reason: format!("no request `{request}`") }),
        }
    }

    async fn review_expiry(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        id: &RequestId,
    ) -> Result<Review, ActivityFailure> {
        let Some(row) = tx.request(id).await?.filter(|row| row.call == call) else {
            return Ok(Review::Refused { reason: format!("no request `{id}` was made for call `{call}`") });
        };
        match row.state {
            RequestState::Open | RequestState::Approved if tx.is_closed() => {
                Ok(Review::Refused { reason: RUN_ENDED.to_owned() })
            }
            // An approval too is good until the request's time is over.
            RequestState::Open | RequestState::Approved => {
                tx.set_request_state(id, RequestState::Expired).await?;
                tx.withdraw_requests(call).await?;
                let body = RecordBody::ApprovalExpired { request: id.clone(), effect: EffectId::Tool(call) };
                self.append(tx, run, format!("{id}/expired"), body).await?;
                let expired = expired(&row.gate);
                let outcome = self.end_refused(tx, run, call, expired).await?;
                Ok(result_of(outcome).map_or(Review::AlreadyDecided, |result| Review::Expired { result }))
            }
            RequestState::Expired => {
                let end = tx.call_end(call).await?.and_then(|end| result_of(end.outcome));
                Ok(end.map_or(Review::AlreadyDecided, |result| Review::Expired { result }))
            }
            RequestState::Rejected | RequestState::Withdrawn | RequestState::Consumed => Ok(Review::AlreadyDecided),
        }
    }
}

async fn counted(tx: &mut Tx, row: &RequestRow) -> Result<Review, ActivityFailure> {
    let votes = u32::try_from(tx.votes(&row.id).await?.len()).unwrap_or(u32::MAX);
    Ok(Review::Counted { votes, quorum_reached: votes >= row.gate.quorum })
}

fn result_of(outcome: ToolCallOutcome) -> Option<mandate_domain::Content> {
    match outcome {
        ToolCallOutcome::Returned { result, .. } | ToolCallOutcome::Refused { result, .. } => Some(result),
        ToolCallOutcome::ApprovalRequired { .. }
        | ToolCallOutcome::OutcomeUnknown { .. }
        | ToolCallOutcome::NotPerformed => None,
    }
}

fn rejected(decision: &ApprovalDecision) -> Refusal {
    let comment = decision.comment.as_deref().map(|text| format!(" Their comment: {}", render::escape_line(text)));
    refusal(RefusalKind::Rejected, format!("It was rejected by an approver.{}", comment.unwrap_or_default()))
}

fn expired(gate: &Gate) -> Refusal {
    let reason = format!("The gate was `{}`: {}", gate.id, gate.reason);
    Refusal { policies: vec![gate.id.clone()], ..refusal(RefusalKind::Expired, reason) }
}
