//! The one end of each call, and the outcome of each effect.

use std::time::Duration;

use mandate_domain::{
    Content, EffectId, KnownBy, RecordBody, Recovery, Refusal, RefusalKind, ToolCallId, ToolCallOutcome, ToolDefinition,
};
use serde_json::json;

use super::{Admitted, Governed, RecordedPermit, failpoint};
use crate::{
    failure::ActivityFailure,
    metrics::EffectResult,
    store::{EffectState, EndedCall, Settled, Tx},
    tools::ToolAnswer,
};

/// How long the outcome of a performed effect is tried to be written before the attempt gives up. Whoever comes next
/// finds the intent and reconciles.
const RECORD_TRIES: u32 = 8;
/// Longest reason of a refusal in an activity's output, in characters.
const REASON_CHARS_MAX: usize = 200;

impl Governed {
    /// Puts text where the model will read it.
    pub(super) async fn put(&self, tx: &mut Tx, run: &Admitted, text: &str) -> Result<Content, ActivityFailure> {
        let address = tx.put_content(run.tenant(), text).await?;
        let inline = usize::try_from(run.row.opened.limits.inline_max_bytes).unwrap_or(usize::MAX);
        Ok(Content::describe(address, text, inline))
    }

    /// Ends a call without performing it. If it had ended before, that end stands.
    pub(super) async fn end_refused(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        refusal: Refusal,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let result = self.put(tx, run, &refusal_text(&refusal)).await?;
        // The model reads the whole text; beside it in history a short form does.
        let reason = refusal.reason.chars().take(REASON_CHARS_MAX).collect();
        let outcome = ToolCallOutcome::Refused { result: result.clone(), refusal: Refusal { reason, ..refusal } };
        Ok(match tx.end_call(call, &result.address, &outcome).await? {
            EndedCall::First => outcome,
            EndedCall::AlreadyEnded(row) => row.outcome,
        })
    }

    /// Writes what a tool answered. Tried again until it lands: the effect has happened, and only this says so.
    pub(super) async fn record_answer(
        &self,
        run: &Admitted,
        permit: &RecordedPermit,
        call: ToolCallId,
        tool: &ToolDefinition,
        answer: &ToolAnswer,
        duration: Duration,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut wait = Duration::from_millis(100);
        for _ in 1..RECORD_TRIES {
            match self.try_record_answer(run, permit, call, tool, answer, duration).await {
                Err(ActivityFailure::Store(error)) if error.may_pass() => {
                    tracing::warn!(%call, %error, "the outcome could not be recorded; trying again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                done => return done,
            }
        }
        self.try_record_answer(run, permit, call, tool, answer, duration).await
    }

    async fn try_record_answer(
        &self,
        run: &Admitted,
        permit: &RecordedPermit,
        call: ToolCallId,
        tool: &ToolDefinition,
        answer: &ToolAnswer,
        duration: Duration,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let recorded = Outcome { epoch: permit.epoch(), known_by: KnownBy::Answer, answer, took: duration };
        let settled = self.settle_call(&mut tx, run, call, tool, &recorded).await?;
        tx.commit().await?;
        failpoint!("tool.after_outcome");
        self.count_settled(permit.effect(), answer, settled.whether);
        Ok(settled.outcome)
    }

    /// Settles a call's effect within a transaction. The first outcome counts; another is recorded as late.
    pub(super) async fn settle_call(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        tool: &ToolDefinition,
        outcome: &Outcome<'_>,
    ) -> Result<SettledCall, ActivityFailure> {
        let effect = EffectId::Tool(call);
        let (epoch, is_error) = (outcome.epoch, outcome.answer.is_error);
        let result = self.put(tx, run, &outcome.answer.text).await?;
        let stored = json!({ "result": result.address, "is_error": is_error });
        let whether = tx.settle(effect, epoch, &stored, outcome.known_by).await?;
        match whether {
            Settled::First => {
                let duration_ms = u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX);
                let (result, known_by) = (result.address.clone(), outcome.known_by);
                let body = RecordBody::Outcome {
                    effect,
                    epoch,
                    known_by,
                    result,
                    is_error,
                    usage: None,
                    classes: Vec::new(),
                    withheld: Vec::new(),
                    duration_ms,
                };
                self.append(tx, run, format!("{effect}/outcome/{epoch}"), body).await?;
            }
            Settled::Late => self.record_late(tx, run, effect, tool, epoch, &result).await?,
        }
        let returned = ToolCallOutcome::Returned { result: result.clone(), is_error };
        let outcome = match tx.end_call(call, &result.address, &returned).await? {
            EndedCall::First => returned,
            EndedCall::AlreadyEnded(row) => row.outcome,
        };
        Ok(SettledCall { outcome, whether })
    }

    /// Counts an answer once its transaction is durable. A late one was counted when the first outcome was.
    pub(super) fn count_settled(&self, effect: EffectId, answer: &ToolAnswer, whether: Settled) {
        match whether {
            Settled::First => self.metrics.effect_ended(effect, EffectResult::of_answer(answer.is_error)),
            Settled::Late => {}
        }
    }

    async fn record_late(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        effect: EffectId,
        tool: &ToolDefinition,
        epoch: u32,
        result: &Content,
    ) -> Result<(), ActivityFailure> {
        let counted = tx.effect(effect).await?.and_then(|row| match row.state {
            EffectState::Settled { epoch, .. } => Some(epoch),
            EffectState::Open | EffectState::Released | EffectState::Unknown { .. } => None,
        });
        // The same epoch twice is one performance that two sources told of.
        let may_have_doubled = counted != Some(epoch) && tool.recovery() != Recovery::CallAgain;
        let body = RecordBody::LateOutcome { effect, epoch, result: result.address.clone(), may_have_doubled };
        self.append(tx, run, format!("{effect}/late/{epoch}"), body).await
    }

    /// Parks a call: nobody knows whether it happened.
    pub(super) async fn park(
        &self,
        run: &Admitted,
        call: ToolCallId,
        reason: String,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let effect = EffectId::Tool(call);
        let mut tx = self.begin(run).await?;
        if let Some(row) = tx.call_end(call).await? {
            return Ok(row.outcome);
        }
        tx.mark_unknown(effect, &reason).await?;
        let first = tx.recorded(&format!("{effect}/unknown")).await?.is_none();
        if first {
            let body = RecordBody::OutcomeUnknown { effect, reason: reason.clone() };
            self.append(&mut tx, run, format!("{effect}/unknown"), body).await?;
        }
        tx.commit().await?;
        if first {
            self.metrics.effect_ended(effect, EffectResult::Unknown);
        }
        Ok(ToolCallOutcome::OutcomeUnknown { reason })
    }
}

/// What is written as an effect's outcome.
pub(super) struct Outcome<'a> {
    pub(super) epoch: u32,
    pub(super) known_by: KnownBy,
    pub(super) answer: &'a ToolAnswer,
    pub(super) took: Duration,
}

/// A call after its effect was settled.
pub(super) struct SettledCall {
    pub(super) outcome: ToolCallOutcome,
    /// Whether this was the effect's first outcome.
    pub(super) whether: Settled,
}

/// What the model reads of a refusal.
fn refusal_text(refusal: &Refusal) -> String {
    let reason = &refusal.reason;
    match refusal.kind {
        RefusalKind::Denied => format!("Not performed: policy denies this call. {reason}"),
        RefusalKind::Rejected => format!("Not performed: a person rejected this call. {reason}"),
        RefusalKind::Expired => format!("Not performed: nobody decided about this call in time (expired). {reason}"),
        RefusalKind::ToolNotOffered => format!("Not performed: {reason}"),
        RefusalKind::InvalidArguments => {
            format!("Not performed: the arguments are in error. {reason} Correct them and call again.")
        }
        RefusalKind::ToolChanged | RefusalKind::RunEnded => {
            format!("Not performed: {reason}")
        }
        RefusalKind::ResolvedByPerson => reason.clone(),
    }
}
