//! `review_instruction`: a person says what became of a call whose outcome is unknown. The store is looked at first: an
//! outcome that came in meanwhile settles the call, and the person is told.

use mandate_domain::{
    Content, EffectId, KnownBy, PersonId, Proof, RecordBody, RefusalKind, Resolution, ToolCallId, ToolCallOutcome,
    policy::{PersonAction, PolicyDecision},
};
use mandate_workflows::contract::{Instruction, ReviewInstructionInput, ReviewInstructionOutput};
use serde_json::json;

use super::{Admitted, Governed, call_tool::refusal};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{Guard, on},
    heartbeat::Heartbeat,
    store::{EffectState, Tx},
};

/// A person's word on a call.
struct Word<'a> {
    call: ToolCallId,
    resolution: Resolution,
    by: &'a PersonId,
    comment: Option<&'a str>,
    ordinal: u32,
}

impl Governed {
    /// Reviews an instruction.
    pub(crate) async fn review_instruction(
        &self,
        caller: &Caller,
        input: &ReviewInstructionInput,
    ) -> Result<ReviewInstructionOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller.context());
        let run = self.admit(caller, &input.run).await?;
        caller.not_cancelled()?;
        let Instruction::Resolve { call, resolution, by, comment } = &input.instruction;
        let word =
            Word { call: *call, resolution: *resolution, by, comment: comment.as_deref(), ordinal: input.ordinal };
        let mut tx = self.begin(&run).await?;
        let (settled, refused) = self.resolve(&mut tx, &run, &word).await?;
        let audit = tx.commit().await?;
        Ok(ReviewInstructionOutput { settled, refused, audit })
    }

    async fn resolve(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        word: &Word<'_>,
    ) -> Result<(Option<ToolCallOutcome>, Option<String>), ActivityFailure> {
        let effect = EffectId::Tool(word.call);
        let key = format!("{}/resolved/{}", word.call, word.ordinal);
        let end = tx.call_end(word.call).await?.map(|end| end.outcome);
        // The answer of an earlier attempt may have been lost: the same word is told the same.
        if let Some(RecordBody::Resolved { refused, .. }) = tx.recorded(&key).await? {
            return Ok((end, refused));
        }
        let unknown = tx.effect(effect).await?.is_some_and(|row| matches!(row.state, EffectState::Unknown { .. }));
        let mut judged = None;
        let refused = if end.is_some() {
            Some("an outcome had come in meanwhile; it stands".to_owned())
        } else if !unknown && on(Guard::UnknownOutcome) {
            Some(format!("the outcome of call `{}` is not unknown", word.call))
        } else if *word.by == run.row.on_behalf_of && on(Guard::Resolver) {
            Some(format!("`{}` is the person the run acts for and may not say what became of its calls", word.by))
        } else {
            self.refuse_word(tx, run, word, &mut judged).await?
        };
        self.record_resolved(tx, run, word, key, refused.clone(), judged).await?;
        if refused.is_some() {
            return Ok((end, refused));
        }
        Ok((Some(self.settle_by_word(tx, run, word).await?), None))
    }

    /// Why policy keeps this person from saying what became of the call, if it does.
    async fn refuse_word(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        word: &Word<'_>,
        judged: &mut Option<PolicyDecision>,
    ) -> Result<Option<String>, ActivityFailure> {
        let Some(tool) = self.tool_of(run, word.call).await? else {
            return Ok(Some(format!("call `{}` names no tool of this run", word.call)));
        };
        let action = PersonAction::Resolve { run: run.about(), tool };
        let decided = self.judge_person(tx, word.by, action).await?;
        let refused = format!("policy does not let `{}` say what became of it: {}", word.by, decided.reason);
        let refused = (!decided.is_allowed() && on(Guard::Resolver)).then_some(refused);
        *judged = Some(decided);
        Ok(refused)
    }

    async fn record_resolved(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        word: &Word<'_>,
        key: String,
        refused: Option<String>,
        judged: Option<PolicyDecision>,
    ) -> Result<(), ActivityFailure> {
        let comment = match word.comment {
            Some(text) => Some(tx.put_content(run.tenant(), text).await?),
            None => None,
        };
        let (effect, resolution, by) = (EffectId::Tool(word.call), word.resolution, word.by.clone());
        let policies = judged.as_ref().map(|judged| judged.policies.clone()).unwrap_or_default();
        let bundle = judged.map(|judged| judged.bundle);
        let body =
            RecordBody::Resolved { effect, resolution, by, proof: Proof::Claimed, policies, bundle, refused, comment };
        self.append(tx, run, key, body).await
    }

    async fn settle_by_word(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        word: &Word<'_>,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let effect = EffectId::Tool(word.call);
        let epoch = tx.effect(effect).await?.map_or(1, |row| row.epoch);
        tx.settle(effect, epoch, &json!({ "person": word.resolution }), KnownBy::Person).await?;
        match word.resolution {
            Resolution::Happened => {
                let text =
                    "A person confirmed that this call was performed; its result is not known. Do not repeat it.";
                let result: Content = self.put(tx, run, text).await?;
                let outcome = ToolCallOutcome::Returned { result: result.clone(), is_error: false };
                tx.end_call(word.call, &result.address, &outcome).await?;
                Ok(outcome)
            }
            Resolution::DidNotHappen => {
                let text = "Not performed: a person confirmed that this call did not happen. It may be proposed again.";
                self.end_refused(tx, run, word.call, refusal(RefusalKind::ResolvedByPerson, text.to_owned())).await
            }
            Resolution::Skip => {
                let text = "Nobody knows whether this call was performed. Go on without it and do not repeat it.";
                self.end_refused(tx, run, word.call, refusal(RefusalKind::ResolvedByPerson, text.to_owned())).await
            }
        }
    }
}
