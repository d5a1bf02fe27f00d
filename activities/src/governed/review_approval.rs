//! `review_approval`: is this decision one that counts? Who decided is proved first; then it is checked and recorded in
//! one transaction.

use mandate_domain::{
    ApprovalDecision, Arguments, EffectId, Gate, PersonId, Proof, RecordBody, Refusal, RefusalKind, RequestId, Review,
    Statement, ToolCallId, ToolCallOutcome, Verdict,
    approval::{Arrival, Decider, Parties, Party, admit_decision},
    policy::{PersonAction, PolicyDecision},
    proof::DecisionSaid,
    render,
};
use mandate_workflows::contract::{ReviewApprovalInput, ReviewApprovalOutput, ReviewSubject};

use super::{
    Admitted, Governed, RUN_ENDED,
    call_tool::{arguments_address, refusal},
    failpoint,
    identify::{Said, SentMessage, Signed, put_words},
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{self, Guard, on},
    heartbeat::Heartbeat,
    store::{RequestRow, RequestState, Tx},
};

/// What the record says of a decision about a request that was decided before.
const ALREADY_DECIDED: &str = "the request was decided already";

/// A decision that is being reviewed.
pub(super) struct Decided<'a> {
    pub(super) call: ToolCallId,
    pub(super) decision: &'a ApprovalDecision,
    pub(super) signed: &'a Signed,
    /// When it is reviewed, by the server's clock.
    now_ms: u64,
    /// Key of its record.
    key: String,
}

/// What the review of a decision found.
struct Reviewed {
    /// What policy says of whoever decided, if it was asked.
    judged: Option<PolicyDecision>,
    /// Why the decision does not count, if it does not.
    refused: Option<String>,
}

impl Governed {
    /// Reviews a decision, an expiry or an escalation.
    pub(crate) async fn review_approval(
        &self,
        caller: &Caller,
        input: &ReviewApprovalInput,
    ) -> Result<ReviewApprovalOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        caller.not_cancelled()?;
        let call = input.call;
        let (tx, review) = match &input.subject {
            ReviewSubject::Decision { decision, ordinal, arrival } => {
                let signed = self.signed(caller, &run, decision, arrival.as_ref()).await?;
                let mut key = format!("{}/decided/{ordinal}", decision.request);
                let mut tx = self.begin(&run).await?;
                // Behind a reset the numbers are given out again: what is recorded of another decision is not this one's.
                if let Some(RecordBody::ApprovalDecided { verdict, by, comment, arguments, .. }) =
                    tx.recorded(&key).await?
                    && let Some(arrival) = arrival
                {
                    let said = decision.comment.as_deref().map(|words| run.key.address(words.as_bytes()));
                    let changed =
                        decision.arguments.clone().map(|changed| arguments_address(&run, &Arguments::Object(changed)));
                    if (verdict, by, comment, arguments) != (decision.verdict, signed.by.clone(), said, changed) {
                        key = format!("{key}/{}", arrival.run_id);
                    }
                }
                let decided = Decided { call, decision, signed: &signed, now_ms: caller.now_ms(), key };
                let review = self.review_decision(&mut tx, &run, &decided).await?;
                (tx, review)
            }
            ReviewSubject::Expiry { request } => {
                let mut tx = self.begin(&run).await?;
                let review = self.review_expiry(&mut tx, caller, &run, (call, request)).await?;
                (tx, review)
            }
            ReviewSubject::Escalation { request } => {
                let mut tx = self.begin(&run).await?;
                let review = self.review_escalation(&mut tx, caller, &run, (call, request)).await?;
                (tx, review)
            }
        };
        failpoint!("review.before_commit");
        let audit = tx.commit().await?;
        failpoint!("review.after_commit");
        Ok(ReviewApprovalOutput { review, audit })
    }

    /// Who decided. The statement names the request's own digest, as the store has it.
    async fn signed(
        &self,
        caller: &Caller,
        run: &Admitted,
        decision: &ApprovalDecision,
        arrival: Option<&Arrival>,
    ) -> Result<Signed, ActivityFailure> {
        let row = self.begin(run).await?.request(&decision.request).await?;
        // A request that is not there has no digest to prove anything over; the review refuses it.
        let digest = row.as_ref().map_or_else(|| run.key.address(b"no such request"), |row| row.digest.clone());
        let statement = Statement::decision(&DecisionSaid {
            request: &decision.request,
            request_digest: &digest,
            verdict: decision.verdict,
            comment: decision.comment.as_deref(),
            arguments: decision.arguments.as_ref(),
        });
        let verdict = decision.verdict;
        let is_same = |payload: mandate_workflows::lenient::Lenient| {
            payload.decision(verdict).or_else(|_| payload.decide()).is_ok_and(|sent| sent == *decision)
        };
        let sent = SentMessage {
            said: Said::Decision(verdict),
            claimed_by: decision.by.as_ref(),
            evidence: &decision.evidence,
            statement,
            arrival,
            expires_ms: row.and_then(|row| row.expires_ms),
            is_same: &is_same,
        };
        self.identify(caller, run, sent).await
    }

    async fn review_decision(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        decided: &Decided<'_>,
    ) -> Result<Review, ActivityFailure> {
        let (call, decision) = (decided.call, decided.decision);
        let row = tx.request(&decision.request).await?.filter(|row| row.call == call);
        // The answer of an earlier attempt may have been lost: the same decision is told the same.
        if let Some(RecordBody::ApprovalDecided { refused, verdict, arguments, .. }) = tx.recorded(&decided.key).await?
        {
            if refused.is_none() && arguments.is_some() {
                return Ok(Review::Revised { call: call.revised() });
            }
            return self.recorded_review(tx, call, row, refused, verdict, &decision.request).await;
        }
        let mut judged = None;
        let refused = match &row {
            None => Some(format!("no request `{}` was made for call `{call}`", decision.request)),
            Some(row) if row.state != RequestState::Open && on(Guard::RequestOpen) => Some(ALREADY_DECIDED.to_owned()),
            Some(_) if tx.is_closed() && on(Guard::ClosedRun) => Some(RUN_ENDED.to_owned()),
            Some(row) => self.refuse_decision(tx, run, row, decided, &mut judged).await?,
        };
        let reviewed = Reviewed { judged, refused: refused.clone() };
        self.record_decided(tx, run, decided, reviewed).await?;
        match (refused, row) {
            (Some(reason), _) if reason == ALREADY_DECIDED => Ok(Review::AlreadyDecided),
            (Some(reason), _) => Ok(Review::Refused { reason }),
            (None, Some(row)) => self.count(tx, run, &row, decided).await,
            (None, None) => Ok(Review::AlreadyDecided),
        }
    }

    /// The rule that keeps this decision from counting, if there is one: its proof's, the gate's, or a policy's.
    async fn refuse_decision(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &RequestRow,
        decided: &Decided<'_>,
        judged: &mut Option<PolicyDecision>,
    ) -> Result<Option<String>, ActivityFailure> {
        let (decision, signed) = (decided.decision, decided.signed);
        if signed.why_not().is_some() {
            return Ok(signed.why_not());
        }
        // Used up in any case. Whoever just decides twice is told so below, and not that a proof is good once.
        let used_before = signed.keeps_from_counting(tx, &decided.key).await?;
        let approved_by = tx.votes(&row.id).await?;
        let editor = tx.revision(row.call).await?.map(|revision| revision.editor);
        let parties = parties_of(run, editor);
        let groups = self.policy.in_force(tx).await?.registry().groups_of(&signed.by);
        let verdict = decision.verdict;
        let person = Decider { by: &signed.by, proof: signed.proof, member_of: &groups, verdict };
        let broken = admit_decision(&row.gate, row.escalated, person, &parties, &approved_by).err().unwrap_or_default();
        if let Some(refused) = broken.iter().find(|broken| guards::refuses(broken)) {
            return Ok(Some(refused.to_string()));
        }
        if used_before.is_some() {
            return Ok(used_before);
        }
        let Some(tool) = self.tool_of(run, row.call).await? else {
            return Ok(Some(format!("call `{}` names no tool of this run", row.call)));
        };
        let action = PersonAction::Decide { run: run.about(), tool, gate: &row.gate.id, verdict: decision.verdict };
        let said = self.judge_person(tx, &signed.by, action).await?;
        let refused = (!said.is_allowed() && on(Guard::Decider))
            .then(|| format!("policy does not let `{}` decide: {}", signed.by, said.reason));
        *judged = Some(said);
        match (refused, &decision.arguments) {
            (None, Some(arguments)) => Self::refuse_edit(run, row, tool, arguments),
            (refused, _) => Ok(refused),
        }
    }

    async fn record_decided(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        decided: &Decided<'_>,
        reviewed: Reviewed,
    ) -> Result<(), ActivityFailure> {
        let (decision, signed) = (decided.decision, decided.signed);
        let comment = put_words(tx, run, decision.comment.as_deref()).await?;
        // What has no canonical form is refused, and the record names it all the same.
        let arguments = decision.arguments.clone().map(|changed| arguments_address(run, &Arguments::Object(changed)));
        let body = RecordBody::ApprovalDecided {
            request: decision.request.clone(),
            effect: EffectId::Tool(decided.call),
            verdict: decision.verdict,
            by: signed.by.clone(),
            proof: signed.proof,
            evidence: signed.evidence.clone(),
            policies: reviewed.judged.as_ref().map(|judged| judged.policies.clone()).unwrap_or_default(),
            bundle: reviewed.judged.map(|judged| judged.bundle),
            refused: reviewed.refused,
            comment,
            arguments,
        };
        self.append(tx, run, decided.key.clone(), body).await
    }

    async fn count(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &RequestRow,
        decided: &Decided<'_>,
    ) -> Result<Review, ActivityFailure> {
        match (decided.decision.verdict, &decided.decision.arguments) {
            (Verdict::Approve, Some(arguments)) => self.revise(tx, run, row, decided, arguments).await,
            (Verdict::Approve, None) => {
                tx.vote(&row.id, &decided.signed.by).await?;
                let review = counted(tx, row).await?;
                if matches!(review, Review::Counted { quorum_reached: true, .. }) {
                    tx.approve_request(&row.id, decided.now_ms).await?;
                }
                Ok(review)
            }
            (Verdict::Reject, _) => {
                tx.set_request_state(&row.id, RequestState::Rejected).await?;
                tx.withdraw_requests(row.call).await?;
                let refusal = Refusal { policies: vec![row.gate.id.clone()], ..rejected(decided.decision) };
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
        caller: &Caller,
        run: &Admitted,
        (call, id): (ToolCallId, &RequestId),
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
                caller.not_before(row.expires_ms.unwrap_or_default(), id)?;
                tx.set_request_state(id, RequestState::Expired).await?;
                tx.withdraw_requests(call).await?;
                self.record_expired(tx, run, call, id).await?;
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

    pub(super) async fn record_expired(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        id: &RequestId,
    ) -> Result<(), ActivityFailure> {
        let body = RecordBody::ApprovalExpired { request: id.clone(), effect: EffectId::Tool(call) };
        self.append(tx, run, format!("{id}/expired"), body).await
    }

    /// Lets further people decide, and shows the arguments as all who may can see them.
    async fn review_escalation(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        run: &Admitted,
        (call, id): (ToolCallId, &RequestId),
    ) -> Result<Review, ActivityFailure> {
        let row = tx.request(id).await?.filter(|row| row.call == call && row.state == RequestState::Open);
        let Some((row, escalation)) = row.and_then(|row| Some((row.clone(), row.gate.escalation?))) else {
            return Ok(Review::AlreadyDecided);
        };
        if tx.is_closed() {
            return Ok(Review::Refused { reason: RUN_ENDED.to_owned() });
        }
        let wait_secs = row.gate.expires_secs.min(run.row.opened.limits.approval_wait_max_secs);
        let left_ms = wait_secs.saturating_sub(escalation.after_secs).saturating_mul(1000);
        caller.not_before(row.expires_ms.unwrap_or_default().saturating_sub(left_ms), id)?;
        let Some(arguments) = self.arguments_of(run, call).await? else {
            return Ok(Review::Refused { reason: format!("call `{call}` has no arguments to show") });
        };
        let Some(tool) = self.tool_of(run, call).await? else {
            return Ok(Review::Refused { reason: format!("call `{call}` names no tool of this run") });
        };
        tx.escalate_request(id).await?;
        let body =
            RecordBody::ApprovalEscalated { request: id.clone(), effect: EffectId::Tool(call), to: escalation.to };
        self.append(tx, run, format!("{id}/escalated"), body).await?;
        let arguments_shown = self.view(tx).await?.card(run, tool, &arguments, &row.gate.deciders(true));
        Ok(Review::Escalated { arguments_shown })
    }
}

/// The parties of a run. Whoever starts a run for themselves is proved as the person it acts for.
fn parties_of(run: &Admitted, editor: Option<PersonId>) -> Parties {
    let (requester, opened) = (run.row.on_behalf_of.clone(), &run.row.opened);
    let starter_proof = if opened.starter.is_some() { opened.starter_proof } else { opened.proof };
    let claimed = [(Party::Requester, opened.proof), (Party::Starter, starter_proof)];
    let unproved = claimed.into_iter().filter(|(_, proof)| *proof == Proof::Claimed).map(|(party, _)| party).collect();
    let starter = opened.starter.clone().unwrap_or_else(|| requester.clone());
    Parties { requester, agent_owner: run.row.definition.owner.clone(), starter, editor, unproved }
}

async fn counted(tx: &mut Tx, row: &RequestRow) -> Result<Review, ActivityFailure> {
    let votes = u32::try_from(tx.votes(&row.id).await?.len()).unwrap_or(u32::MAX);
    Ok(Review::Counted { votes, quorum_reached: votes >= row.gate.quorum })
}

fn result_of(outcome: ToolCallOutcome) -> Option<mandate_domain::Content> {
    match outcome {
        ToolCallOutcome::Returned { result, .. } | ToolCallOutcome::Refused { result, .. } => Some(result),
        ToolCallOutcome::ApprovalRequired { .. }
        | ToolCallOutcome::AnswerRequired { .. }
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
