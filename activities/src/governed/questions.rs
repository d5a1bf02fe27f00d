//! Questions of the agent to people: the built-in tool `ask_human`. Asking is an effect with an intent, and a person's
//! answer is its outcome; in between nothing is under way.

use std::time::Duration;

use mandate_domain::{
    EffectId, InstructionReview, KnownBy, QuestionId, RecordBody, ToolCallId, ToolCallOutcome, ToolDefinition,
    canonical, instruction::Question, policy::PersonAction,
};
use serde_json::Value;

use super::{
    Admitted, Governed, RUN_ENDED, RecordedPermit,
    call_tool::CheckedCall,
    ends::{Outcome, in_history},
    failpoint,
    review_instruction::{Checked, Heard, unknown_question},
    server_questions::server_asks,
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{Guard, on},
    store::{NewQuestion, QuestionRow, QuestionState, StoreError, Tx},
    tools::ToolAnswer,
};

/// Why an answer to a server's question does not count.
const UNFIT: &str = "the answer does not fit what is asked";

/// What the model reads where nobody answered.
const NOBODY_ANSWERED: &str =
    "Nobody answered in time. Go on without the answer, or say what cannot be done without it.";

impl Governed {
    /// Asks: writes the question and leaves the effect without an outcome, until a person answers.
    pub(super) async fn ask_question(
        &self,
        caller: &Caller,
        run: &Admitted,
        call: &CheckedCall<'_>,
        permit: &RecordedPermit,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let recorded = call.recorded;
        let asked = Value::Object(call.arguments.clone());
        let asked = String::from_utf8_lossy(&canonical::to_canonical(&asked)?).into_owned();
        let mut tx = self.begin(run).await?;
        // The model wrote the question after all that it had read, and whoever reads the history reads the question.
        let read = tx.facts().await?.classes;
        let address = tx.put_content(run.tenant(), &asked).await?;
        let shown = self.view(&mut tx).await?.content(run, in_history(run), address, &asked, &read);
        if shown.text.is_none() && shown.bytes <= run.row.opened.limits.inline_max_bytes.into() {
            drop(tx);
            let text = format!(
                "error: nobody was asked, since the question may repeat what people here may not read: {}",
                shown.shown()
            );
            let answer = ToolAnswer { text, structured: None, is_error: true };
            return self.settle_question(run, call.tool, recorded.id, permit.epoch(), &answer).await;
        }
        let wait_ms = run.row.opened.limits.approval_wait_max_secs.saturating_mul(1000);
        let expires_ms = caller.now_ms().saturating_add(wait_ms);
        let (call, input) = (recorded.id, &recorded.input);
        let row = tx.make_question(NewQuestion { call, input, asked: &asked, expires_ms, server: None }).await?;
        let body = RecordBody::QuestionAsked {
            question: row.id.clone(),
            effect: EffectId::Tool(recorded.id),
            input: recorded.input.clone(),
            expires_ms: row.expires_ms,
        };
        if tx.recorded(&format!("{}/asked", row.id)).await?.is_none() {
            self.append(&mut tx, run, format!("{}/asked", row.id), body).await?;
        }
        failpoint!("question.before_commit");
        tx.commit().await?;
        failpoint!("question.after_commit");
        Ok(ToolCallOutcome::AnswerRequired { question: question_of(row) })
    }

    async fn settle_question(
        &self,
        run: &Admitted,
        tool: &ToolDefinition,
        call: ToolCallId,
        epoch: u32,
        answer: &ToolAnswer,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let outcome = Outcome { epoch, known_by: KnownBy::Answer, answer, masked: None, took: Duration::ZERO };
        self.record_answer(run, call, tool, &outcome).await
    }

    pub(super) async fn take_answer(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        id: &QuestionId,
        text: &str,
    ) -> Result<InstructionReview, ActivityFailure> {
        let Some(row) = tx.question(id).await? else { return Ok(unknown_question(id)) };
        let end = tx.call_end(row.call).await?.map(|end| end.outcome);
        let asks = server_asks(&row)?;
        if let Some(RecordBody::Instructed { refused, .. }) = tx.recorded(&heard.key()).await? {
            return Ok(match (refused, end) {
                (None, Some(outcome)) => InstructionReview::Settled { outcome, note: None },
                (None, None) if asks.is_some() => InstructionReview::GoesOn,
                (refused, _) => InstructionReview::Refused { reason: refused.unwrap_or_else(|| answered(id)) },
            });
        }
        let tool = self.tool_of(run, row.call).await?;
        let checked = match (row.state, tool) {
            (QuestionState::Open, Some(tool)) => {
                self.check_instruction(tx, heard, PersonAction::Answer { run: run.about(), tool }).await?
            }
            (QuestionState::Open, None) => {
                Checked { refused: Some(format!("call `{}` names no tool of this run", row.call)), judged: None }
            }
            (QuestionState::Answered | QuestionState::Expired | QuestionState::Withdrawn, _) => {
                Checked { refused: Some(answered(id)), judged: None }
            }
        };
        let unfit = asks.as_ref().and_then(|asks| asks.told(text).err());
        let checked = match &unfit {
            // What does not fit repeats the answer, and the record holds no content.
            Some(_) if checked.refused.is_none() => Checked { refused: Some(UNFIT.to_owned()), ..checked },
            Some(_) | None => checked,
        };
        let refused = checked.refused.clone();
        self.record_instructed(tx, run, heard, checked).await?;
        match (refused, tool) {
            (None, Some(_)) if asks.is_some() => {
                tx.answer_server(id, text).await?;
                Ok(InstructionReview::GoesOn)
            }
            (None, Some(tool)) => {
                tx.set_question_state(id, QuestionState::Answered).await?;
                let answer = ToolAnswer { text: text.to_owned(), structured: None, is_error: false };
                let outcome = self.settle_with(tx, run, tool, &row, &answer, KnownBy::Person).await?;
                Ok(InstructionReview::Settled { outcome, note: None })
            }
            (Some(reason), _) if reason == UNFIT => {
                let why = unfit.unwrap_or_default();
                Ok(InstructionReview::Refused { reason: format!("{UNFIT}: {why}") })
            }
            (refused, _) => Ok(InstructionReview::Refused { reason: refused.unwrap_or_else(|| answered(id)) }),
        }
    }

    /// The time of a question is over.
    pub(super) async fn expire_question(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        run: &Admitted,
        id: &QuestionId,
    ) -> Result<InstructionReview, ActivityFailure> {
        let Some(row) = tx.question(id).await? else { return Ok(unknown_question(id)) };
        if let Some(end) = tx.call_end(row.call).await? {
            return Ok(InstructionReview::Settled { outcome: end.outcome, note: None });
        }
        if tx.is_closed() && on(Guard::ClosedRun) {
            return Ok(InstructionReview::Refused { reason: RUN_ENDED.to_owned() });
        }
        let Some(tool) = self.tool_of(run, row.call).await? else {
            return Ok(InstructionReview::Refused { reason: format!("call `{}` names no tool of this run", row.call) });
        };
        caller.not_before(row.expires_ms, id)?;
        tx.set_question_state(id, QuestionState::Expired).await?;
        let body = RecordBody::QuestionExpired { question: id.clone(), effect: EffectId::Tool(row.call) };
        self.append(tx, run, format!("{id}/expired"), body).await?;
        if let Some(asks) = server_asks(&row)? {
            let outcome = self.end_unanswered(tx, run, tool, &row, &asks).await?;
            return Ok(InstructionReview::Settled { outcome, note: None });
        }
        let answer = ToolAnswer { text: NOBODY_ANSWERED.to_owned(), structured: None, is_error: true };
        let outcome = self.settle_with(tx, run, tool, &row, &answer, KnownBy::Answer).await?;
        Ok(InstructionReview::Settled { outcome, note: None })
    }

    pub(super) async fn settle_with(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        tool: &ToolDefinition,
        row: &QuestionRow,
        answer: &ToolAnswer,
        known_by: KnownBy,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let effect = tx.effect(EffectId::Tool(row.call)).await?;
        let epoch =
            effect.ok_or_else(|| StoreError::Corrupt { what: format!("question `{}` has no intent", row.id) })?.epoch;
        let outcome = Outcome { epoch, known_by, answer, masked: None, took: Duration::ZERO };
        Ok(self.settle_call(tx, run, row.call, tool, &outcome).await?.outcome)
    }

    /// Gives up the question of a call that ends because its run does. Nobody answers it any more.
    pub(super) async fn withdraw_question(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<(), ActivityFailure> {
        let row = tx.question_of_call(call).await?.filter(|row| row.state == QuestionState::Open);
        let Some(row) = row else { return Ok(()) };
        tx.set_question_state(&row.id, QuestionState::Withdrawn).await?;
        if let Some(asks) = server_asks(&row)? {
            return self.withdrawn_from_server(tx, run, &row, &asks).await;
        }
        let effect = EffectId::Tool(call);
        let epoch = tx.effect(effect).await?.map_or(1, |row| row.epoch);
        if tx.release(effect, epoch).await? {
            self.record_not_sent(tx, run, effect, epoch, "the run ended before anybody answered").await?;
        }
        Ok(())
    }
}

pub(super) fn question_of(row: QuestionRow) -> Question {
    Question { id: row.id, call: row.call, asked: row.asked, expires_ms: row.expires_ms }
}

fn answered(id: &QuestionId) -> String {
    format!("question `{id}` does not wait for an answer any more")
}
