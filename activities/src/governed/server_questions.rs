//! What a tool's server asks for in a call goes before people, through the gate of `ask_human`. Nothing waits in between: the
//! call is made again with what they say.
//!
//! A server of a newer protocol revision says that it has not performed the call: the claim is given back. With an older one
//! the call came to an error because the question was put off. It counts, unless the tool may be called again by its kind
//! and people answer.

use std::{collections::BTreeSet, time::Duration};

use mandate_domain::{
    EffectId, KnownBy, RecordBody, Recovery, RefusalKind, ToolCallId, ToolCallOutcome, ToolDefinition, canonical,
};

use super::{
    Admitted, Governed, RecordedPermit,
    call_tool::{CheckedCall, refusal},
    claim::left_open,
    ends::{Outcome, in_history},
    failpoint,
    questions::question_of,
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    store::{EffectState, NewQuestion, QuestionRow, QuestionState, StoreError, Tx},
    tools::{CallToolError, ServerAsks, Told, ToolAnswer},
};

/// How often the server of one call may ask.
const ROUNDS_MAX: u32 = 8;
/// Recorded of the claim of a call that its server did not perform yet.
const ASKS_FIRST: &str = "its server asks for input before it performs the call";

/// What a call has asked so far.
pub(super) enum Asked {
    /// It waits for people.
    Waits(ToolCallOutcome),
    /// What its server is told, when it asked for something.
    Goes(Option<Told>),
}

impl Governed {
    /// What a call has asked so far.
    pub(super) async fn asked_before(&self, tx: &mut Tx, call: ToolCallId) -> Result<Asked, ActivityFailure> {
        let Some(row) = tx.question_of_call(call).await? else { return Ok(Asked::Goes(None)) };
        if row.state == QuestionState::Open {
            return Ok(Asked::Waits(ToolCallOutcome::AnswerRequired { question: question_of(row) }));
        }
        let (Some(asks), Some(answer)) = (server_asks(&row)?, &row.answer) else { return Ok(Asked::Goes(None)) };
        let told =
            asks.told(answer).map_err(|why| StoreError::corrupt(format_args!("answer to `{}`: {why}", row.id)))?;
        Ok(Asked::Goes(Some(told)))
    }

    /// Asks people what the server asks for.
    pub(super) async fn ask_for_server(
        &self,
        caller: &Caller,
        run: &Admitted,
        call: &CheckedCall<'_>,
        permit: &RecordedPermit,
        asks: &ServerAsks,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        if let Some(answer) = &asks.answered
            && call.tool.recovery() != Recovery::CallAgain
        {
            // The call was made and has come to an error. It is not made twice.
            return self.settle_asking(run, call, permit, answer).await;
        }
        let effect = EffectId::Tool(call.recorded.id);
        let question = asks.question(&call.tool.name);
        let shown = String::from_utf8_lossy(&canonical::to_canonical(&question)?).into_owned();
        let mut tx = self.begin(run).await?;
        if let Some(answer) = self.cannot_be_asked(&mut tx, run, call, &shown).await? {
            drop(tx);
            return self.settle_asking(run, call, permit, &answer).await;
        }
        let stands = tx.effect(effect).await?;
        if !stands.is_some_and(|row| row.epoch == permit.epoch() && matches!(row.state, EffectState::Open)) {
            // Another attempt took over, or the run was closed: what it finds counts.
            let (tool, asks) = (call.tool.name.to_string(), Box::new(asks.clone()));
            return Err(CallToolError::Asks { tool, asks }.into());
        }
        let wait_ms = run.row.opened.limits.approval_wait_max_secs.saturating_mul(1000);
        let input = tx.put_content(run.tenant(), &shown).await?;
        let server = serde_json::to_string(asks).map_err(StoreError::corrupt)?;
        let new = NewQuestion {
            call: call.recorded.id,
            input: &input,
            asked: &shown,
            expires_ms: caller.now_ms().saturating_add(wait_ms),
            server: Some(&server),
        };
        let row = tx.make_question(new).await?;
        let body = RecordBody::QuestionAsked { question: row.id.clone(), effect, input, expires_ms: row.expires_ms };
        self.append(&mut tx, run, format!("{}/asked", row.id), body).await?;
        let before = permit.epoch().saturating_sub(1);
        if asks.answered.is_none()
            && !left_open(&mut tx, effect, before).await?
            && tx.release(effect, permit.epoch()).await?
        {
            self.record_not_sent(&mut tx, run, effect, permit.epoch(), ASKS_FIRST).await?;
        }
        failpoint!("question.before_commit");
        tx.commit().await?;
        failpoint!("question.after_commit");
        Ok(ToolCallOutcome::AnswerRequired { question: question_of(row) })
    }

    /// Why people are not asked, as the model reads it.
    async fn cannot_be_asked(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: &CheckedCall<'_>,
        shown: &str,
    ) -> Result<Option<ToolAnswer>, ActivityFailure> {
        let tool = &call.tool.name;
        let error = |why: String| Some(ToolAnswer { text: format!("error: {why}"), structured: None, is_error: true });
        if tx.questions_of_call(call.recorded.id).await? >= ROUNDS_MAX {
            return Ok(error(format!(
                "the server of `{tool}` asks for the {ROUNDS_MAX}th time; nobody is asked again"
            )));
        }
        // The server wrote it after it had read the arguments, which the model wrote after all that it had read.
        let mut classes: BTreeSet<_> = tx.facts().await?.classes;
        classes.extend(call.tool.result_classes.values().cloned());
        let address = tx.put_content(run.tenant(), shown).await?;
        let content = self.view(tx).await?.content(run, in_history(run), address, shown, &classes);
        if content.text.is_some() {
            return Ok(None);
        }
        let most = u64::from(run.row.opened.limits.inline_max_bytes);
        let why = if content.bytes > most {
            format!("the question has more than {most} bytes")
        } else {
            format!("it may repeat what people here may not read: {}", content.shown())
        };
        Ok(error(format!("the server of `{tool}` asks for input, and nobody was asked: {why}")))
    }

    async fn settle_asking(
        &self,
        run: &Admitted,
        call: &CheckedCall<'_>,
        permit: &RecordedPermit,
        answer: &ToolAnswer,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let (epoch, took) = (permit.epoch(), Duration::ZERO);
        let outcome = Outcome { epoch, known_by: KnownBy::Answer, answer, masked: None, took };
        self.record_answer(run, call.recorded.id, call.tool, &outcome).await
    }

    /// The end of a call whose server's question nobody answered in time.
    pub(super) async fn end_unanswered(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        tool: &ToolDefinition,
        row: &QuestionRow,
        asks: &ServerAsks,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        if let Some(answer) = &asks.answered {
            return self.settle_with(tx, run, tool, row, answer, KnownBy::Answer).await;
        }
        let effect = tx.effect(EffectId::Tool(row.call)).await?;
        if effect.is_some_and(|effect| matches!(effect.state, EffectState::Open)) {
            let reason = "an earlier attempt was not answered, and nobody said in time what its server asks for";
            return Ok(self.park_in(tx, run, row.call, reason.to_owned()).await?.0);
        }
        let reason = format!("the server of `{}` asks for input, and nobody answered in time.", tool.name);
        self.end_refused(tx, run, row.call, refusal(RefusalKind::Expired, reason)).await
    }

    /// The run ends, and nobody answers any more. A call that came to an error has that for its outcome.
    pub(super) async fn withdrawn_from_server(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &QuestionRow,
        asks: &ServerAsks,
    ) -> Result<(), ActivityFailure> {
        if let (Some(answer), Some(tool)) = (&asks.answered, self.tool_of(run, row.call).await?) {
            self.settle_with(tx, run, tool, row, answer, KnownBy::Answer).await?;
        }
        Ok(())
    }
}

/// What a question's server asks for; nothing where the agent asks.
pub(super) fn server_asks(row: &QuestionRow) -> Result<Option<ServerAsks>, StoreError> {
    let Some(server) = &row.server else { return Ok(None) };
    let asks = serde_json::from_str(server);
    asks.map(Some).map_err(|error| StoreError::corrupt(format_args!("question `{}`: {error}", row.id)))
}
