//! `invoke_model`: one model call along the path. A model call changes nothing outside, so one that was not answered is
//! asked again under a new epoch; a recorded reply is returned, not asked for again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mandate_domain::{
    Address, Arguments, BuiltinTool, CallSummary, DataClass, EffectId, KnownBy, Message, ModelReply, ModelRequest,
    ModelTurn, OfferedTool, ProposedCall, RecordBody, RunFacts, ToolCallId, ToolCallOutcome, ToolDefinition,
    policy::{PolicyAction, PolicyOutcome},
};
use mandate_workflows::contract::{InvokeModelInput, InvokeModelOutput, ModelCallOutcome};
use serde_json::json;

use super::{
    Admitted, Governed, RUN_ENDED, RecordedPermit,
    call_tool::arguments_address,
    claim::Subject,
    cut::cut_for_model,
    ends::in_history,
    failpoint,
    view::{Place, View},
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{self, Guard, on},
    heartbeat::Heartbeat,
    metrics::EffectResult,
    models::{ModelError, ModelProvider},
    store::{EffectState, ReplyRow, Settled, StoreError, Tx},
};

/// From this attempt of a turn on, an answer that breaks the protocol is final.
const BROKEN_ANSWER_FINAL_FROM: u32 = 3;

/// What the recording transaction came to.
enum Decided {
    Permitted { permit: RecordedPermit, told: Told },
    Ended(ModelCallOutcome),
}

/// What the model is told: the transcript up to `head`, as the bundle that permitted the call shows it.
struct Told {
    view: View,
    facts: RunFacts,
    head: Address,
}

/// What a turn appends to the transcript: results, then instructions.
fn appended(input: &InvokeModelInput) -> Vec<Address> {
    input.append.iter().chain(&input.instructions).cloned().collect()
}

fn submits_answer(tool: &ToolDefinition) -> bool {
    tool.reach.builtin() == Some(BuiltinTool::SubmitAnswer)
}

/// An agent that is to submit its answers cannot give one beside the gate: a reply without calls is taken as a call of
/// that tool, without a confidence.
fn through_submission(run: &Admitted, reply: ModelReply) -> ModelReply {
    let submits = |tool: &&ToolDefinition| submits_answer(tool) && reply.calls.is_empty() && on(Guard::Submission);
    let Some(tool) = run.row.tools.iter().find(submits) else { return reply };
    let answer = serde_json::Value::String(reply.text.clone().unwrap_or_default());
    let arguments = serde_json::Map::from_iter([("answer".to_owned(), answer)]);
    let call = ProposedCall { tool: tool.name.to_string(), arguments: Arguments::Object(arguments), provider_id: None };
    ModelReply { text: None, calls: vec![call], ..reply }
}

impl Governed {
    /// Walks the path for the model call of one turn.
    pub(crate) async fn invoke_model(
        &self,
        caller: &Caller,
        input: &InvokeModelInput,
    ) -> Result<InvokeModelOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        let outcome = self.model_turn(caller, &run, input).await?;
        let audit = self.head(&run).await?;
        Ok(InvokeModelOutput { outcome, audit })
    }

    async fn model_turn(
        &self,
        caller: &Caller,
        run: &Admitted,
        input: &InvokeModelInput,
    ) -> Result<ModelCallOutcome, ActivityFailure> {
        if let Some(outcome) = self.recorded_reply(caller, run, input).await? {
            return Ok(outcome);
        }
        let Some(provider) = self.models.get(&run.row.definition.model) else {
            let reason = format!("model `{}` is not configured on this worker", run.row.definition.model);
            return Ok(ModelCallOutcome::Failed { reason });
        };
        let (permit, told) = match self.decide_model(caller, run, input).await? {
            Decided::Permitted { permit, told } => (permit, told),
            Decided::Ended(outcome) => return Ok(outcome),
        };
        self.ask_model(caller, run, input, provider, &permit, told).await
    }

    /// The recorded reply of the turn, if it was asked the same.
    async fn recorded_reply(
        &self,
        caller: &Caller,
        run: &Admitted,
        input: &InvokeModelInput,
    ) -> Result<Option<ModelCallOutcome>, ActivityFailure> {
        let Some(row) = self.store.reply(&run.chain, input.turn).await? else { return Ok(None) };
        if row.before == input.transcript && row.append == appended(input) {
            return Ok(Some(ModelCallOutcome::Replied(self.recorded_turn(run, &row).await?)));
        }
        let reason = format!("turn {} was asked before with another transcript", input.turn);
        Err(self.intrusion(caller, reason).await?)
    }

    /// The first durable write.
    async fn decide_model(
        &self,
        caller: &Caller,
        run: &Admitted,
        input: &InvokeModelInput,
    ) -> Result<Decided, ActivityFailure> {
        let effect = EffectId::Model(input.turn);
        let mut tx = self.begin(run).await?;
        let undoes = run.is_undoing(&mut tx).await? && on(Guard::Undoing);
        if undoes || (tx.is_closed() && on(Guard::ClosedRun)) {
            // A reset workflow execution, or an attempt that outlived its run.
            drop(tx);
            let what = format!("turn {} of run `{}`", input.turn, run.chain);
            self.store.record_intrusion(&run.origin, &what, RUN_ENDED).await?;
            return Ok(Decided::Ended(ModelCallOutcome::Failed { reason: RUN_ENDED.to_owned() }));
        }
        if let Some(row) = tx.effect(effect).await? {
            match row.state {
                EffectState::Settled { outcome, .. } => {
                    drop(tx);
                    // Another attempt may have recorded its reply since this one looked.
                    let replied = self.recorded_reply(caller, run, input).await?;
                    return Ok(Decided::Ended(replied.unwrap_or_else(|| settled_failure(&outcome))));
                }
                EffectState::Open => {
                    let wait = row.send_by.time_left(&tx.now().await?);
                    if !wait.is_zero() {
                        return Err(ActivityFailure::Claimed { effect, holder: row.holder, wait });
                    }
                }
                EffectState::Released | EffectState::Unknown { .. } => {}
            }
        }
        let head = match self.append_results(&mut tx, run, input).await? {
            Ok(head) => head,
            Err(reason) => {
                drop(tx);
                return Err(self.intrusion(caller, reason).await?);
            }
        };
        let model = &run.row.definition.model;
        let told = Told { view: self.view(&mut tx).await?, facts: tx.facts().await?, head: head.clone() };
        let facts = told.facts.with_model_call();
        let subject = Subject {
            effect,
            target: model.as_str(),
            input: &head,
            amounts: BTreeMap::new(),
            cost_micros: 0,
            approved: BTreeSet::new(),
        };
        let action = PolicyAction::InvokeModel { model };
        let decision = self.judge(&mut tx, run, action, &facts, &subject.approved).await?;
        self.record_decision(&mut tx, run, &subject, &decision).await?;
        match guards::enforced(&decision.outcome) {
            PolicyOutcome::Allow => {
                let permit = self.claim(tx, caller, run, &subject, Vec::new()).await?;
                Ok(Decided::Permitted { permit, told })
            }
            PolicyOutcome::Deny => {
                tx.commit().await?;
                Ok(Decided::Ended(ModelCallOutcome::Denied { reason: decision.reason }))
            }
            PolicyOutcome::RequireApproval(_) => {
                tx.commit().await?;
                let reason = format!(
                    "policy asks for approval of a model call, which only tools can wait for: {}",
                    decision.reason
                );
                Ok(Decided::Ended(ModelCallOutcome::Denied { reason }))
            }
        }
    }

    /// Appends the results of the last turn, as the store has them. The pointer must say the same.
    async fn append_results(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        input: &InvokeModelInput,
    ) -> Result<Result<Address, String>, ActivityFailure> {
        let (before, calls) = match input.turn.checked_sub(1) {
            None => return Ok(Err("turns are counted from 1".to_owned())),
            Some(0) => (run.row.opened.transcript.clone(), 0),
            Some(last) => match self.store.reply(&run.chain, last).await? {
                Some(row) => (row.after, row.reply.calls.len()),
                None => return Ok(Err(format!("turn {last} has no recorded reply"))),
            },
        };
        let before = if on(Guard::Transcript) { before } else { input.transcript.clone() };
        if before != input.transcript {
            return Ok(Err(format!("turn {} points at another transcript than the recorded one", input.turn)));
        }
        let mut head = before;
        let mut ends = Vec::with_capacity(calls);
        for index in 0..u32::try_from(calls).unwrap_or(u32::MAX) {
            let call = tx.last_revision(ToolCallId::new(input.turn - 1, index)).await?;
            let Some(end) = tx.call_end(call).await? else {
                return Ok(Err(format!("call `{call}` has no recorded result")));
            };
            let changed = self.changed_arguments(tx, run, call).await?;
            let message = self.result_message(run, call, &end.message, &end.outcome, changed).await?;
            head = tx.append_message(run.tenant(), Some(&head), &message).await?;
            ends.push(end.message);
        }
        if ends != input.append {
            return Ok(Err("other results than the recorded ones".to_owned()));
        }
        self.append_instructions(tx, run, input, head).await
    }

    /// Appends what people told the run since the last turn, each once.
    async fn append_instructions(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        input: &InvokeModelInput,
        mut head: Address,
    ) -> Result<Result<Address, String>, ActivityFailure> {
        let delivered = tx.deliver_instructions(input.turn, &input.instructions).await?;
        let Some(delivered) = delivered.or_else(|| (!on(Guard::InstructionAccepted)).then(Vec::new)) else {
            return Ok(Err("an instruction that nobody accepted, or that the model has read before".to_owned()));
        };
        let said = delivered.iter().map(|row| (Some(&row.said_by), &row.content));
        let unchecked = input.instructions.iter().skip(delivered.len()).map(|content| (None, content));
        for (by, content) in said.chain(unchecked) {
            let text = self.store.content(run.tenant(), content).await?;
            let Some(text) = text else { return Ok(Err("an instruction without content".to_owned())) };
            let from = by.map_or_else(String::new, |by| format!(" of {by}"));
            let message = Message::User { text: format!("A further instruction{from}:\n\n{text}") };
            head = tx.append_message(run.tenant(), Some(&head), &message).await?;
        }
        Ok(Ok(head))
    }

    async fn result_message(
        &self,
        run: &Admitted,
        call: ToolCallId,
        address: &Address,
        outcome: &ToolCallOutcome,
        changed: Option<String>,
    ) -> Result<Message, ActivityFailure> {
        let text = self.store.content(run.tenant(), address).await?;
        let text =
            text.ok_or_else(|| StoreError::Corrupt { what: format!("the result of call `{call}` is missing") })?;
        let is_error = match outcome {
            ToolCallOutcome::Returned { is_error, .. } => *is_error,
            ToolCallOutcome::Refused { .. }
            | ToolCallOutcome::ApprovalRequired { .. }
            | ToolCallOutcome::AnswerRequired { .. }
            | ToolCallOutcome::OutcomeUnknown { .. }
            | ToolCallOutcome::NotPerformed => true,
        };
        let text = cut_for_model(run, call, changed.unwrap_or_default() + &text);
        // The model knows the call under the id of the first revision.
        Ok(Message::Tool { call: call.proposed(), text, is_error })
    }

    /// What the model is told of arguments that an approver put in place of its own.
    async fn changed_arguments(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<Option<String>, ActivityFailure> {
        // What the model proposed is what it reads of a call that nobody changed: there is nothing to look for.
        if call.revision == 1 {
            return Ok(None);
        }
        let (revision, tool) = (tx.revision(call).await?, self.tool_of(run, call).await?);
        let Some((revision, tool)) = revision.zip(tool) else { return Ok(None) };
        let arguments = self.view(tx).await?.arguments_for_agent(run, tool, &revision.arguments);
        Ok(Some(format!("An approver changed the arguments of this call to {arguments}.\n\n")))
    }

    async fn ask_model(
        &self,
        caller: &Caller,
        run: &Admitted,
        input: &InvokeModelInput,
        provider: &dyn ModelProvider,
        permit: &RecordedPermit,
        told: Told,
    ) -> Result<ModelCallOutcome, ActivityFailure> {
        let request = self.model_request(run, &told).await?;
        let began = Instant::now();
        let limit = Duration::from_secs(run.row.opened.limits.model_timeout_secs);
        let unreachable = |reason: String| Err(ModelError::Unreachable { reason });
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(limit, provider.complete(permit, &request)) => {
                answer.unwrap_or_else(|_| unreachable(format!("no answer within {} s", limit.as_secs())))
            }
            // It changes nothing outside: a model whose answer nobody waits for is not waited for here either.
            () = caller.cancelled() => unreachable("it was to stop before it answered".to_owned()),
        };
        failpoint!("model.after_effect");
        match answer {
            Ok(reply) => {
                let reply = through_submission(run, reply);
                self.record_reply(run, input, permit, &told, &reply, began.elapsed()).await
            }
            Err(error @ ModelError::NotSent { .. }) => {
                self.give_back(run, permit, &error.to_string()).await?;
                Err(error.into())
            }
            Err(ModelError::Refused { reason }) => {
                self.record_refusal(run, input, permit, reason, began.elapsed()).await
            }
            Err(ModelError::Protocol { reason }) if permit.epoch() >= BROKEN_ANSWER_FINAL_FROM => {
                let reason = format!("attempt {} was answered with what breaks the protocol: {reason}", permit.epoch());
                self.record_refusal(run, input, permit, reason, began.elapsed()).await
            }
            Err(
                error @ (ModelError::RateLimited { .. }
                | ModelError::Overloaded { .. }
                | ModelError::Unreachable { .. }
                | ModelError::Protocol { .. }),
            ) => Err(error.into()),
        }
    }

    async fn model_request(&self, run: &Admitted, told: &Told) -> Result<ModelRequest, ActivityFailure> {
        let messages = self.store.transcript(run.tenant(), &told.head).await?;
        let messages = told.view.transcript(run, messages, &told.facts);
        let tools = run.offered().map(|tool| OfferedTool {
            name: tool.name.to_string(),
            description: tool.description.clone(),
            input_schema: tool.input_schema.clone(),
        });
        Ok(ModelRequest { messages, tools: tools.collect() })
    }

    /// The second durable write: reply, transcript, outcome.
    async fn record_reply(
        &self,
        run: &Admitted,
        input: &InvokeModelInput,
        permit: &RecordedPermit,
        told: &Told,
        reply: &ModelReply,
        took: Duration,
    ) -> Result<ModelCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let message = Message::Assistant { text: reply.text.clone(), calls: reply.calls.clone() };
        let after = tx.append_message(run.tenant(), Some(&told.head), &message).await?;
        let stored = json!({ "transcript": after });
        let (effect, epoch) = (permit.effect(), permit.epoch());
        match tx.settle(effect, epoch, &stored, KnownBy::Answer).await? {
            Settled::First => {
                tx.record_reply(input.turn, &input.transcript, &appended(input), &after, reply).await?;
                let body = outcome_record(permit, after.clone(), Some(reply.usage), &told.facts.classes, took);
                self.append(&mut tx, run, format!("{effect}/outcome/{epoch}"), body).await?;
            }
            Settled::Late => {
                // Another attempt's answer counts: this one is recorded, and the run goes on with that one.
                return self.late_answer(tx, run, input, permit, after).await;
            }
        }
        let turn = self.turn_of(&mut tx, run, &after, reply).await?;
        tx.commit().await?;
        failpoint!("model.after_outcome");
        self.metrics.effect_ended(effect, EffectResult::Answered);
        Ok(ModelCallOutcome::Replied(turn))
    }

    async fn late_answer(
        &self,
        mut tx: Tx,
        run: &Admitted,
        input: &InvokeModelInput,
        permit: &RecordedPermit,
        result: Address,
    ) -> Result<ModelCallOutcome, ActivityFailure> {
        let (effect, epoch) = (permit.effect(), permit.epoch());
        let body = RecordBody::LateOutcome { effect, epoch, result, may_have_doubled: false };
        self.append(&mut tx, run, format!("{effect}/late/{epoch}"), body).await?;
        let row = tx.effect(effect).await?;
        tx.commit().await?;
        if let Some(reply) = self.store.reply(&run.chain, input.turn).await? {
            return Ok(ModelCallOutcome::Replied(self.recorded_turn(run, &reply).await?));
        }
        let outcome = row.and_then(|row| match row.state {
            EffectState::Settled { outcome, .. } => Some(outcome),
            EffectState::Open | EffectState::Released | EffectState::Unknown { .. } => None,
        });
        Ok(settled_failure(&outcome.unwrap_or_default()))
    }

    /// The provider will not answer: that is the outcome, and asking again does not help.
    async fn record_refusal(
        &self,
        run: &Admitted,
        input: &InvokeModelInput,
        permit: &RecordedPermit,
        reason: String,
        took: Duration,
    ) -> Result<ModelCallOutcome, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let result = tx.put_content(run.tenant(), &reason).await?;
        let (effect, epoch) = (permit.effect(), permit.epoch());
        match tx.settle(effect, epoch, &json!({ "refused": reason }), KnownBy::Answer).await? {
            Settled::First => {
                let body = outcome_record(permit, result, None, &BTreeSet::new(), took);
                self.append(&mut tx, run, format!("{effect}/outcome/{epoch}"), body).await?;
            }
            Settled::Late => return self.late_answer(tx, run, input, permit, result).await,
        }
        tx.commit().await?;
        self.metrics.effect_ended(effect, EffectResult::Error);
        Ok(ModelCallOutcome::Failed { reason })
    }

    /// A recorded reply as history has it.
    async fn recorded_turn(&self, run: &Admitted, row: &ReplyRow) -> Result<ModelTurn, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        self.turn_of(&mut tx, run, &row.after, &row.reply).await
    }

    async fn turn_of(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        after: &Address,
        reply: &ModelReply,
    ) -> Result<ModelTurn, ActivityFailure> {
        let place = if reply.calls.is_empty() { Place::Answer } else { in_history(run) };
        // A reply carries the classes of everything that its model had read.
        let read = tx.facts().await?.classes;
        let text = match &reply.text {
            Some(text) => Some(self.put_classed(tx, run, place, text, &read).await?),
            None => None,
        };
        let view = self.view(tx).await?;
        let calls = reply.calls.iter().map(|call| {
            let tool = run.offered().find(|tool| tool.name.as_str() == call.tool);
            CallSummary {
                tool: tool.map_or_else(|| view.free_name(run, &call.tool, &read), |tool| tool.name.to_string()),
                arguments: arguments_address(run, &call.arguments),
                timeout_secs: tool.map(|tool| tool.timeout_secs),
                submits_answer: tool.is_some_and(submits_answer),
                undo: tool.and_then(|tool| run.undo_summary(tool)),
            }
        });
        Ok(ModelTurn { transcript: after.clone(), text, calls: calls.collect(), usage: reply.usage })
    }
}

fn outcome_record(
    permit: &RecordedPermit,
    result: Address,
    usage: Option<mandate_domain::Usage>,
    read: &BTreeSet<DataClass>,
    took: Duration,
) -> RecordBody {
    RecordBody::Outcome {
        effect: permit.effect(),
        epoch: permit.epoch(),
        known_by: KnownBy::Answer,
        result,
        is_error: usage.is_none(),
        usage,
        classes: read.iter().cloned().collect(),
        withheld: Vec::new(),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A model effect that is settled without a recorded reply was refused by the provider.
fn settled_failure(outcome: &serde_json::Value) -> ModelCallOutcome {
    let reason = outcome.get("refused").and_then(|reason| reason.as_str()).unwrap_or("the model gave no usable answer");
    ModelCallOutcome::Failed { reason: reason.to_owned() }
}
