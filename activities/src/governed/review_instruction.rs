//! `review_instruction`: what a person tells a run, and the end of a question's time. Who says it is proved first; then it
//! is checked and recorded in one transaction. The store is looked at first: an outcome that came in meanwhile settles a
//! call, and the person is told.

use mandate_domain::{
    Content, EffectId, Instruction, InstructionReview, KnownBy, QuestionId, RecordBody, RefusalKind, Resolution,
    SentInstruction, ToolCallId, ToolCallOutcome,
    agent_run::Word,
    approval::Arrival,
    policy::{PersonAction, PolicyDecision},
};
use mandate_workflows::{
    contract::{ReviewInstructionInput, ReviewInstructionOutput},
    lenient::Lenient,
};
use serde_json::json;

use super::{
    Admitted, Governed, RUN_ENDED,
    call_tool::refusal,
    failpoint,
    identify::{Said, SentMessage, Signed, put_words},
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{Guard, on},
    heartbeat::Heartbeat,
    store::{EffectState, StoreError, Tx},
};

/// What the model reads where an outcome came in before a person's word.
const CAME_IN: &str = "an outcome had come in meanwhile; it stands";

/// An instruction that is being reviewed.
pub(super) struct Heard<'a> {
    pub(super) sent: &'a SentInstruction,
    pub(super) signed: &'a Signed,
    pub(super) ordinal: u32,
    key: String,
}

impl Heard<'_> {
    /// Key of its record.
    pub(super) fn key(&self) -> String {
        self.key.clone()
    }
}

/// Key of the record of an instruction: by its number in the run. Behind a reset the numbers are given out again, and
/// what another message of that number was told counts for that one alone: this one is known by its execution too.
async fn key_of(
    tx: &mut Tx,
    run: &Admitted,
    (sent, arrival): (&SentInstruction, &Arrival),
    signed: &Signed,
    ordinal: u32,
) -> Result<String, ActivityFailure> {
    let key = match &sent.instruction {
        Instruction::Resolve { call, .. } => format!("{call}/resolved/{ordinal}"),
        Instruction::Answer { .. } | Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume => {
            format!("instruction/{ordinal}")
        }
    };
    let other = match tx.recorded(&key).await? {
        Some(RecordBody::Instructed { instruction, about, text, by, .. }) => {
            let said = sent.instruction.text().map(|text| run.key.address(text.as_bytes()));
            instruction != sent.instruction.kind()
                || about != sent.instruction.about()
                || text != said
                || by != signed.by
        }
        Some(RecordBody::Resolved { resolution: recorded, by, .. }) => {
            let same = matches!(&sent.instruction, Instruction::Resolve { resolution, .. } if *resolution == recorded);
            !same || by != signed.by
        }
        Some(_) | None => false,
    };
    Ok(if other { format!("{key}/{}", arrival.run_id) } else { key })
}

/// What kept an instruction from counting, and what policy said, if it was asked.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) refused: Option<String>,
    pub(super) judged: Option<PolicyDecision>,
}

impl Governed {
    /// Reviews an instruction, or the end of a question's time.
    pub(crate) async fn review_instruction(
        &self,
        caller: &Caller,
        input: &ReviewInstructionInput,
    ) -> Result<ReviewInstructionOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        caller.not_cancelled()?;
        let (tx, review) = match &input.word {
            Word::Expiry { question } => {
                let mut tx = self.begin(&run).await?;
                let review = self.expire_question(&mut tx, caller, &run, question).await?;
                (tx, review)
            }
            Word::Sent { sent, arrival } => {
                let signed = self.heard_from(caller, &run, sent, arrival).await?;
                let mut tx = self.begin(&run).await?;
                let key = key_of(&mut tx, &run, (sent, arrival), &signed, input.ordinal).await?;
                let heard = Heard { sent, signed: &signed, ordinal: input.ordinal, key };
                let review = self.review_heard(&mut tx, &run, &heard).await?;
                (tx, review)
            }
        };
        failpoint!("instruction.before_commit");
        let audit = tx.commit().await?;
        failpoint!("instruction.after_commit");
        Ok(ReviewInstructionOutput { review, audit })
    }

    async fn heard_from(
        &self,
        caller: &Caller,
        run: &Admitted,
        sent: &SentInstruction,
        arrival: &Arrival,
    ) -> Result<Signed, ActivityFailure> {
        let (instruction, sender) = (&sent.instruction, &sent.sender);
        let about = instruction.about();
        let statement = Self::instruction_statement(
            run,
            instruction.kind(),
            about.as_deref(),
            instruction.text(),
            sender.message_id.as_deref(),
        );
        let expires_ms = match instruction {
            Instruction::Answer { question, .. } => {
                self.begin(run).await?.question(question).await?.map(|row| row.expires_ms)
            }
            Instruction::Resolve { .. } | Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume => None,
        };
        let is_same = |payload: Lenient| read_again(&payload, instruction).is_ok_and(|other| other == *sent);
        let message = SentMessage {
            said: Said::Instruction(instruction.kind()),
            claimed_by: sender.by.as_ref(),
            evidence: &sender.evidence,
            statement,
            arrival: Some(arrival),
            expires_ms,
            is_same: &is_same,
        };
        self.identify(caller, run, message).await
    }

    async fn review_heard(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
    ) -> Result<InstructionReview, ActivityFailure> {
        match &heard.sent.instruction {
            Instruction::Resolve { call, resolution } => self.resolve(tx, run, heard, *call, *resolution).await,
            Instruction::Answer { question, text } => self.take_answer(tx, run, heard, question, text).await,
            Instruction::Steer { .. } => self.take_in(tx, run, heard, PersonAction::Steer { run: run.about() }).await,
            Instruction::Pause => self.take_in(tx, run, heard, PersonAction::Pause { run: run.about() }).await,
            Instruction::Resume => self.take_in(tx, run, heard, PersonAction::Resume { run: run.about() }).await,
        }
    }

    /// A further instruction, pause or resume.
    async fn take_in(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        action: PersonAction<'_>,
    ) -> Result<InstructionReview, ActivityFailure> {
        let refused = match tx.recorded(&heard.key()).await? {
            // The answer of an earlier attempt may have been lost: the same instruction is told the same.
            Some(RecordBody::Instructed { refused, .. }) => refused,
            Some(_) => return Err(StoreError::KeyConflict { key: heard.key() }.into()),
            None => {
                let checked = self.check_instruction(tx, heard, action).await?;
                let refused = checked.refused.clone();
                self.record_instructed(tx, run, heard, checked).await?;
                refused
            }
        };
        if let Some(reason) = refused {
            return Ok(InstructionReview::Refused { reason });
        }
        let Some(text) = heard.sent.instruction.text() else { return Ok(InstructionReview::Taken { message: None }) };
        let message = self.put(tx, run, text).await?;
        tx.accept_instruction(heard.ordinal, &message.address, &heard.signed.by).await?;
        Ok(InstructionReview::Taken { message: Some(message) })
    }

    /// What keeps an instruction from counting: the end of the run, its proof, or policy.
    pub(super) async fn check_instruction(
        &self,
        tx: &mut Tx,
        heard: &Heard<'_>,
        action: PersonAction<'_>,
    ) -> Result<Checked, ActivityFailure> {
        let refused = |reason: String| Ok(Checked { refused: Some(reason), judged: None });
        if tx.is_closed() && on(Guard::ClosedRun) {
            return refused(RUN_ENDED.to_owned());
        }
        if let Some(reason) = heard.signed.keeps_from_counting(tx, &heard.key()).await? {
            return refused(reason);
        }
        let by = &heard.signed.by;
        let judged = self.judge_person(tx, by, action).await?;
        let kind = heard.sent.instruction.kind().as_str();
        let reason = format!("policy does not let `{by}` {kind}: {}", judged.reason);
        Ok(Checked { refused: (!judged.is_allowed() && on(Guard::Instructor)).then_some(reason), judged: Some(judged) })
    }

    pub(super) async fn record_instructed(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        checked: Checked,
    ) -> Result<(), ActivityFailure> {
        let (instruction, signed) = (&heard.sent.instruction, heard.signed);
        let text = put_words(tx, run, instruction.text()).await?;
        let comment = put_words(tx, run, heard.sent.sender.comment.as_deref()).await?;
        let body = RecordBody::Instructed {
            instruction: instruction.kind(),
            about: instruction.about(),
            text,
            by: signed.by.clone(),
            proof: signed.proof,
            evidence: signed.evidence.clone(),
            policies: checked.judged.as_ref().map(|judged| judged.policies.clone()).unwrap_or_default(),
            bundle: checked.judged.map(|judged| judged.bundle),
            refused: checked.refused,
            comment,
        };
        self.append(tx, run, heard.key(), body).await
    }

    async fn resolve(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        call: ToolCallId,
        resolution: Resolution,
    ) -> Result<InstructionReview, ActivityFailure> {
        let end = tx.call_end(call).await?.map(|end| end.outcome);
        // The answer of an earlier attempt may have been lost: the same word is told the same.
        if let Some(RecordBody::Resolved { refused, .. }) = tx.recorded(&heard.key()).await? {
            return Ok(settled_or_refused(end, refused));
        }
        let unknown =
            tx.effect(EffectId::Tool(call)).await?.is_some_and(|row| matches!(row.state, EffectState::Unknown { .. }));
        let by = &heard.signed.by;
        let checked = if end.is_some() {
            Checked { refused: Some(CAME_IN.to_owned()), judged: None }
        } else if !unknown && on(Guard::UnknownOutcome) {
            Checked { refused: Some(format!("the outcome of call `{call}` is not unknown")), judged: None }
        } else if let Some(reason) = heard.signed.keeps_from_counting(tx, &heard.key()).await? {
            Checked { refused: Some(reason), judged: None }
        } else if *by == run.row.on_behalf_of && on(Guard::Resolver) {
            let reason = format!("`{by}` is the person the run acts for and may not say what became of its calls");
            Checked { refused: Some(reason), judged: None }
        } else {
            self.check_word(tx, run, heard, call).await?
        };
        let refused = checked.refused.clone();
        self.record_resolved(tx, run, heard, (call, resolution), checked).await?;
        if refused.is_some() {
            return Ok(settled_or_refused(end, refused));
        }
        let outcome = self.settle_by_word(tx, run, call, resolution).await?;
        Ok(InstructionReview::Settled { outcome, note: None })
    }

    /// Why policy keeps this person from saying what became of the call, if it does.
    async fn check_word(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        call: ToolCallId,
    ) -> Result<Checked, ActivityFailure> {
        let by = &heard.signed.by;
        let Some(tool) = self.tool_of(run, call).await? else {
            return Ok(Checked { refused: Some(format!("call `{call}` names no tool of this run")), judged: None });
        };
        let judged = self.judge_person(tx, by, PersonAction::Resolve { run: run.about(), tool }).await?;
        let refused = format!("policy does not let `{by}` say what became of it: {}", judged.reason);
        Ok(Checked { refused: (!judged.is_allowed() && on(Guard::Resolver)).then_some(refused), judged: Some(judged) })
    }

    async fn record_resolved(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        heard: &Heard<'_>,
        (call, resolution): (ToolCallId, Resolution),
        checked: Checked,
    ) -> Result<(), ActivityFailure> {
        let comment = put_words(tx, run, heard.sent.sender.comment.as_deref()).await?;
        let body = RecordBody::Resolved {
            effect: EffectId::Tool(call),
            resolution,
            by: heard.signed.by.clone(),
            proof: heard.signed.proof,
            evidence: heard.signed.evidence.clone(),
            policies: checked.judged.as_ref().map(|judged| judged.policies.clone()).unwrap_or_default(),
            bundle: checked.judged.map(|judged| judged.bundle),
            refused: checked.refused,
            comment,
        };
        self.append(tx, run, heard.key(), body).await
    }

    async fn settle_by_word(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
        resolution: Resolution,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let effect = EffectId::Tool(call);
        let epoch = tx.effect(effect).await?.map_or(1, |row| row.epoch);
        tx.settle(effect, epoch, &json!({ "person": resolution }), KnownBy::Person).await?;
        match resolution {
            Resolution::Happened => {
                let text =
                    "A person confirmed that this call was performed; its result is not known. Do not repeat it.";
                let result: Content = self.put(tx, run, text).await?;
                let outcome = ToolCallOutcome::Returned { result: result.clone(), is_error: false };
                tx.end_call(call, &result.address, &outcome).await?;
                Ok(outcome)
            }
            Resolution::DidNotHappen => {
                let text = "Not performed: a person confirmed that this call did not happen. It may be proposed again.";
                self.end_refused(tx, run, call, refusal(RefusalKind::ResolvedByPerson, text.to_owned())).await
            }
            Resolution::Skip => {
                let text = "Nobody knows whether this call was performed. Go on without it and do not repeat it.";
                self.end_refused(tx, run, call, refusal(RefusalKind::ResolvedByPerson, text.to_owned())).await
            }
        }
    }
}

/// An outcome that had come in stands, whatever the person said of it.
fn settled_or_refused(end: Option<ToolCallOutcome>, refused: Option<String>) -> InstructionReview {
    match (end, refused) {
        (Some(outcome), note) => InstructionReview::Settled { outcome, note },
        (None, reason) => {
            InstructionReview::Refused { reason: reason.unwrap_or_else(|| "the call stays unresolved".to_owned()) }
        }
    }
}

/// A payload in history, read as an instruction of the same kind.
fn read_again(payload: &Lenient, kind: &Instruction) -> Result<SentInstruction, String> {
    match kind {
        Instruction::Answer { .. } => payload.answer(),
        Instruction::Resolve { .. } => payload.resolution(),
        Instruction::Steer { .. } => payload.steer(),
        Instruction::Pause => payload.plain(Instruction::Pause),
        Instruction::Resume => payload.plain(Instruction::Resume),
    }
}

/// The id in a message of the runtime.
pub(super) fn unknown_question(id: &QuestionId) -> InstructionReview {
    InstructionReview::Refused { reason: format!("no question `{id}` was asked in this run") }
}
