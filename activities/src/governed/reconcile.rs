//! An intent without an outcome: what may be done about it depends on the tool, and "it did not happen" is never
//! assumed.

use std::time::Duration;

use mandate_domain::{EffectId, KnownBy, Recovery, RefusalKind, ToolCallOutcome, ToolName};

use super::{
    Admitted, Governed, RecordedPermit,
    call_tool::{CheckedCall, RecordedCall, refusal},
    ends::Outcome,
    judge::targets_of,
    permit::idempotency_key,
    server_questions::Asked,
};
use crate::{
    failure::ActivityFailure,
    guards::{Guard, on},
    metrics::EffectResult,
    store::{EffectRow, EffectState},
    tools::{CallToolError, CheckAnswer, PreparedTool, ToolAnswer},
};

/// After so many claims without an answer a person is asked, also about a tool that may be called again.
const EPOCHS_MAX: u32 = 10;
/// How long a check tool may be asked under one permit.
const CHECK_WITHIN: Duration = Duration::from_mins(1);

impl Governed {
    /// Looks at an effect that was begun before. None: it may be decided about again.
    pub(super) async fn reconcile(
        &self,
        run: &Admitted,
        call: &CheckedCall<'_>,
        row: EffectRow,
    ) -> Result<Option<ToolCallOutcome>, ActivityFailure> {
        match row.state {
            EffectState::Released => return Ok(None),
            EffectState::Unknown { reason } => return Ok(Some(ToolCallOutcome::OutcomeUnknown { reason })),
            // Settled with its end in the same transaction: the look at the call's end has found it.
            EffectState::Settled { .. } => {
                let reason = "the effect has an outcome, and its call has no end".to_owned();
                return Ok(Some(ToolCallOutcome::OutcomeUnknown { reason }));
            }
            EffectState::Open => {}
        }
        let left = row.send_by.time_left(&self.store.now().await?);
        if !left.is_zero() && on(Guard::LiveClaim) {
            return Err(ActivityFailure::Claimed { effect: row.effect, holder: row.holder, wait: left });
        }
        match call.tool.recovery() {
            Recovery::CallAgain if row.epoch < EPOCHS_MAX => Ok(None),
            Recovery::CallAgain => {
                let reason = format!("the tool has not answered in {EPOCHS_MAX} attempts");
                self.park(run, call.recorded.id, reason).await.map(Some)
            }
            Recovery::Check { with, settles_within_secs } => {
                self.check(run, call, &row, &with, settles_within_secs).await
            }
            Recovery::AskPerson => {
                let reason = "the call was sent, or may have been, and was not answered";
                self.park(run, call.recorded.id, reason.to_owned()).await.map(Some)
            }
        }
    }

    /// Asks the check tool.
    async fn check(
        &self,
        run: &Admitted,
        call: &CheckedCall<'_>,
        row: &EffectRow,
        with: &ToolName,
        settles_within_secs: Option<u64>,
    ) -> Result<Option<ToolCallOutcome>, ActivityFailure> {
        if let Some(reason) = self.keeps_from_asking(run, with).await? {
            return self.park(run, call.recorded.id, reason).await.map(Some);
        }
        let asked_at = self.store.now().await?;
        let key = call.tool.key_as_sent(idempotency_key(&run.chain, row.effect));
        let answer = self.ask_check_tool(run, row, with, &key).await?;
        if answer.happened {
            return self.settle_checked(run, call, row, answer).await.map(Some);
        }
        let Some(settles_within) = settles_within_secs.map(Duration::from_secs) else {
            let reason =
                format!("`{with}` says that it has not happened, and no time is stated after which that is final");
            return self.park(run, call.recorded.id, reason).await.map(Some);
        };
        let wait = row.send_by.time_left_after(settles_within, &asked_at);
        if !wait.is_zero() {
            return Err(ActivityFailure::NotSettled { effect: row.effect, wait });
        }
        let mut tx = self.begin(run).await?;
        if tx.release(row.effect, row.epoch).await? {
            let reason = format!("`{with}` says that it did not happen");
            self.record_not_sent(&mut tx, run, row.effect, row.epoch, &reason).await?;
            tx.commit().await?;
            self.metrics.effect_ended(row.effect, EffectResult::NotSent);
        }
        Ok(None)
    }

    /// Why the check tool may not be asked, if it or its server is in quarantine. The agent and its person are not looked
    /// at: what became of their calls is worth knowing then above all, and asking does nothing in their name.
    async fn keeps_from_asking(&self, run: &Admitted, with: &ToolName) -> Result<Option<String>, ActivityFailure> {
        let Some(definition) = self.catalog.tools.get(with) else { return Ok(None) };
        let mut tx = self.begin(run).await?;
        let denied = self.quarantined(&mut tx, &targets_of(definition)).await?;
        Ok(denied.map(|denied| format!("`{with}` is not asked whether it happened: {}", denied.reason)))
    }

    async fn ask_check_tool(
        &self,
        run: &Admitted,
        row: &EffectRow,
        with: &ToolName,
        key: &str,
    ) -> Result<CheckAnswer, ActivityFailure> {
        let Some(definition) = self.catalog.tools.get(with) else {
            let reason = format!("check tool `{with}` is no longer registered");
            return Err(CallToolError::NotSent { tool: with.to_string(), reason }.into());
        };
        let prepared: PreparedTool = self.tools.prepare(definition).await?.within(CHECK_WITHIN);
        // The question changes nothing and is part of the recorded effect: it goes out under that effect's epoch.
        let send_by = std::time::Instant::now() + CHECK_WITHIN;
        let permit = RecordedPermit::new(run.chain.clone(), row.effect, row.epoch, send_by);
        Ok(self.tools.check(&permit, prepared, key).await?)
    }

    async fn settle_checked(
        &self,
        run: &Admitted,
        call: &CheckedCall<'_>,
        row: &EffectRow,
        answer: CheckAnswer,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let text = answer
            .result
            .map_or_else(|| "It happened; its result is not known.".to_owned(), |result| result.to_string());
        let answer = ToolAnswer { text, structured: None, is_error: false };
        let mut tx = self.begin(run).await?;
        let outcome =
            Outcome { epoch: row.epoch, known_by: KnownBy::Check, answer: &answer, masked: None, took: Duration::ZERO };
        let settled = self.settle_call(&mut tx, run, call.recorded.id, call.tool, &outcome).await?;
        tx.commit().await?;
        self.count_settled(row.effect, &answer, settled.whether);
        Ok(settled.outcome)
    }

    /// A call that this attempt sent and that was not answered.
    pub(super) async fn unanswered(
        &self,
        run: &Admitted,
        call: &CheckedCall<'_>,
        error: CallToolError,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        match call.tool.recovery() {
            // The next attempt reconciles, when the claim has run out.
            Recovery::CallAgain | Recovery::Check { .. } => Err(error.into()),
            Recovery::AskPerson => self.park(run, call.recorded.id, error.to_string()).await,
        }
    }

    /// What the store knows of a call whose activity was lost for good. Performs nothing, and sees to it that nothing is
    /// performed later: an attempt that was cut off may still be on its way to the decision.
    pub(super) async fn look_up(
        &self,
        run: &Admitted,
        call: &RecordedCall,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        if let Some(end) = tx.call_end(call.id).await? {
            return Ok(not_performed(&end.outcome).unwrap_or(end.outcome));
        }
        if let Asked::Waits(asked) = self.asked_before(&mut tx, call.id).await? {
            return Ok(asked);
        }
        match tx.effect(EffectId::Tool(call.id)).await?.map(|row| row.state) {
            None | Some(EffectState::Released) => {
                let refusal = refusal(RefusalKind::RunEnded, "the run stopped before it was performed.".to_owned());
                self.end_refused(&mut tx, run, call.id, refusal).await?;
                tx.commit().await?;
                Ok(ToolCallOutcome::NotPerformed)
            }
            Some(EffectState::Unknown { reason }) => Ok(ToolCallOutcome::OutcomeUnknown { reason }),
            Some(EffectState::Open | EffectState::Settled { .. }) => {
                drop(tx);
                let reason = "the call was begun, and its activity was lost before it was answered";
                self.park(run, call.id, reason.to_owned()).await
            }
        }
    }
}

/// An end that an earlier look-up wrote: the same question is answered the same.
fn not_performed(outcome: &ToolCallOutcome) -> Option<ToolCallOutcome> {
    match outcome {
        ToolCallOutcome::Refused { refusal, .. } if refusal.kind == RefusalKind::RunEnded => {
            Some(ToolCallOutcome::NotPerformed)
        }
        ToolCallOutcome::Refused { .. }
        | ToolCallOutcome::Returned { .. }
        | ToolCallOutcome::ApprovalRequired { .. }
        | ToolCallOutcome::AnswerRequired { .. }
        | ToolCallOutcome::OutcomeUnknown { .. }
        | ToolCallOutcome::NotPerformed => None,
    }
}
