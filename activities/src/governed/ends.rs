//! The one end of each call, and the outcome of each effect.

use std::{collections::BTreeSet, time::Duration};

use mandate_domain::{
    Address, BuiltinTool, Content, DataClass, EffectId, KnownBy, MaskedText, RecordBody, Recovery, Refusal,
    RefusalKind, ToolCallId, ToolCallOutcome, ToolDefinition,
};
use serde_json::json;

use super::{Admitted, Governed, failpoint, view::Place};
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
    /// Puts a text of the runtime where the model will read it.
    pub(super) async fn put(&self, tx: &mut Tx, run: &Admitted, text: &str) -> Result<Content, ActivityFailure> {
        self.put_classed(tx, run, in_history(run), text, &BTreeSet::new()).await
    }

    /// Puts a text that carries data where the model will read it. What stands in history is what may be shown there.
    pub(super) async fn put_classed(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        place: Place,
        text: &str,
        classes: &BTreeSet<DataClass>,
    ) -> Result<Content, ActivityFailure> {
        let address = tx.put_content(run.tenant(), text).await?;
        Ok(self.view(tx).await?.content(run, place, address, text, classes))
    }

    /// Ends a call without performing it. If it had ended before, that end stands.
    pub(super) async fn end_refused(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        refusal: Refusal,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        // What is wrong with arguments repeats them, and the model wrote them after all that it had read.
        let repeats = refusal.kind == RefusalKind::InvalidArguments;
        let mut classes = if repeats { tx.facts().await?.classes } else { BTreeSet::new() };
        classes.extend(self.undone_classes(run, call).await?);
        let result = self.put_classed(tx, run, in_history(run), &refusal_text(&refusal), &classes).await?;
        // The model reads the whole text; beside it in history a short form does.
        let reason = if repeats && result.text.is_none() { result.shown() } else { &refusal.reason };
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
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
        call: ToolCallId,
        tool: &ToolDefinition,
        outcome: &Outcome<'_>,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut wait = Duration::from_millis(100);
        for _ in 1..RECORD_TRIES {
            match self.try_record_answer(run, call, tool, outcome).await {
                Err(ActivityFailure::Store(error)) if error.may_pass() => {
                    tracing::warn!(%call, %error, "the outcome could not be recorded; trying again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                done => return done,
            }
        }
        self.try_record_answer(run, call, tool, outcome).await
    }

    async fn try_record_answer(
        &self,
        run: &Admitted,
        call: ToolCallId,
        tool: &ToolDefinition,
        outcome: &Outcome<'_>,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let settled = self.settle_call(&mut tx, run, call, tool, outcome).await?;
        tx.commit().await?;
        failpoint!("tool.after_outcome");
        self.count_settled(EffectId::Tool(call), outcome.answer, settled.whether);
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
        let raw = tx.put_content(run.tenant(), &outcome.answer.text).await?;
        let (result, masked) = self.render(tx, run, call, tool, outcome).await?;
        let stored = json!({ "result": raw, "is_error": is_error });
        let whether = tx.settle(effect, epoch, &stored, outcome.known_by).await?;
        match whether {
            Settled::First => {
                let duration_ms = u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX);
                let (result, known_by) = (raw, outcome.known_by);
                let (classes, withheld) = (masked.shown.into_iter().collect(), masked.withheld.into_iter().collect());
                let body = RecordBody::Outcome {
                    effect,
                    epoch,
                    known_by,
                    result,
                    is_error,
                    usage: None,
                    classes,
                    withheld,
                    duration_ms,
                };
                self.append(tx, run, format!("{effect}/outcome/{epoch}"), body).await?;
            }
            Settled::Late => self.record_late(tx, run, effect, tool, epoch, raw).await?,
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

    /// What the model reads of an answer, and what of that may stand in history. A submitted answer is the run's own.
    async fn render(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        tool: &ToolDefinition,
        outcome: &Outcome<'_>,
    ) -> Result<(Content, MaskedText), ActivityFailure> {
        let answer = outcome.answer;
        let mut masked = match outcome.masked {
            Some(masked) => masked.clone(),
            None => self.view(tx).await?.of_answer(run, tool, &answer.text, answer.structured.as_ref()),
        };
        let content = if tool.reach.builtin() == Some(BuiltinTool::SubmitAnswer) {
            let read = tx.facts().await?.classes;
            self.put_classed(tx, run, Place::Answer, &masked.text, &read).await?
        } else {
            let mut classes = masked.shown.clone();
            if answer.is_error && outcome.masked.is_none() {
                // A tool's error repeats arguments, and the model wrote these after all that it had read.
                classes.extend(tx.facts().await?.classes);
                classes.extend(self.undone_classes(run, call).await?);
                // What is read of it later, page by page, carries the same.
                masked.shown.extend(classes.iter().cloned());
            }
            self.put_classed(tx, run, in_history(run), &masked.text, &classes).await?
        };
        Ok((content, masked))
    }

    async fn record_late(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        effect: EffectId,
        tool: &ToolDefinition,
        epoch: u32,
        result: Address,
    ) -> Result<(), ActivityFailure> {
        let counted = tx.effect(effect).await?.and_then(|row| match row.state {
            EffectState::Settled { epoch, .. } => Some(epoch),
            EffectState::Open | EffectState::Released | EffectState::Unknown { .. } => None,
        });
        // The same epoch twice is one performance that two sources told of.
        let may_have_doubled = counted != Some(epoch) && tool.recovery() != Recovery::CallAgain;
        let body = RecordBody::LateOutcome { effect, epoch, result, may_have_doubled };
        self.append(tx, run, format!("{effect}/late/{epoch}"), body).await
    }

    /// Parks a call: nobody knows whether it happened.
    pub(super) async fn park(
        &self,
        run: &Admitted,
        call: ToolCallId,
        reason: String,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let (outcome, first) = self.park_in(&mut tx, run, call, reason).await?;
        tx.commit().await?;
        if first {
            self.metrics.effect_ended(EffectId::Tool(call), EffectResult::Unknown);
        }
        Ok(outcome)
    }

    /// The same within a transaction, and whether it was not parked before. A call that has its end keeps it.
    pub(super) async fn park_in(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        reason: String,
    ) -> Result<(ToolCallOutcome, bool), ActivityFailure> {
        let effect = EffectId::Tool(call);
        if let Some(row) = tx.call_end(call).await? {
            return Ok((row.outcome, false));
        }
        let known = self.known_of(tx, run, call).await?;
        let reason = if known.is_empty() { reason } else { format!("{reason}; {known}") };
        tx.mark_unknown(effect, &reason).await?;
        let first = tx.recorded(&format!("{effect}/unknown")).await?.is_none();
        if first {
            let body = RecordBody::OutcomeUnknown { effect, reason: reason.clone() };
            self.append(tx, run, format!("{effect}/unknown"), body).await?;
        }
        Ok((ToolCallOutcome::OutcomeUnknown { reason }, first))
    }
}

/// Inline up to the run's bound.
pub(super) fn in_history(run: &Admitted) -> Place {
    let inline_max_bytes = usize::try_from(run.row.opened.limits.inline_max_bytes).unwrap_or(usize::MAX);
    Place::History { inline_max_bytes }
}

/// What is written as an effect's outcome.
pub(super) struct Outcome<'a> {
    pub(super) epoch: u32,
    pub(super) known_by: KnownBy,
    pub(super) answer: &'a ToolAnswer,
    /// How much of it the model may read, where that is known already.
    pub(super) masked: Option<&'a MaskedText>,
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
        RefusalKind::InvalidArguments => {
            format!("Not performed: the arguments are in error. {reason} Correct them and call again.")
        }
        RefusalKind::ToolNotOffered | RefusalKind::ToolChanged | RefusalKind::RunEnded | RefusalKind::Revised => {
            format!("Not performed: {reason}")
        }
        RefusalKind::ResolvedByPerson => reason.clone(),
    }
}
