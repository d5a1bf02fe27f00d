//! `call_tool`: one tool call along the path.

use std::time::{Duration, Instant};

use mandate_domain::{
    Address, ApprovalRequest, Arguments, EffectId, KnownBy, PolicyId, ProposedCall, RecordBody, Refusal, RefusalKind,
    ToolCallId, ToolCallOutcome, ToolDefinition,
    approval::Gate,
    canonical,
    policy::{PolicyAction, PolicyDecision, PolicyOutcome},
    tool::arguments::ArgumentsSchema,
};
use mandate_workflows::contract::{CallPurpose, CallToolInput, CallToolOutput};
use serde_json::{Map, Value};

use super::{
    Admitted, Governed, RUN_ENDED, RecordedPermit,
    claim::{Subject, left_open},
    ends::Outcome,
    failpoint,
    server_questions::Asked,
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{self, Guard, on},
    heartbeat::Heartbeat,
    store::{EffectRow, EffectState, MadeRequest, RevisionRow, StoreError, Tx},
    tools::{CallToolError, PrepareToolError, PreparedTool, Stop},
};

/// A call as it stands in a recorded reply of its run.
pub(super) struct RecordedCall {
    pub(super) id: ToolCallId,
    /// The tool that the model named, cut.
    pub(super) named: String,
    pub(super) input: Address,
    proposed: ProposedCall,
}

/// A call that may go on: its tool is pinned and unchanged, its arguments fit.
pub(super) struct CheckedCall<'a> {
    pub(super) recorded: &'a RecordedCall,
    pub(super) tool: &'a ToolDefinition,
    pub(super) arguments: &'a Map<String, Value>,
}

/// What the recording transaction decided.
enum Decided {
    Permitted(RecordedPermit),
    Ended(ToolCallOutcome),
}

impl Governed {
    /// Walks the path for one call.
    pub(crate) async fn call_tool(
        &self,
        caller: &Caller,
        input: &CallToolInput,
    ) -> Result<CallToolOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        let call = self.recorded_call(caller, &run, input.call).await?;
        let outcome = match input.purpose {
            CallPurpose::Perform => Box::pin(self.walk(caller, &run, &call)).await,
            CallPurpose::LookUp => self.look_up(&run, &call).await,
        };
        let outcome = match outcome {
            Err(ActivityFailure::Store(StoreError::EffectConflict { .. })) => {
                let reason = "effect_conflict: the effect was claimed before for another tool or other arguments";
                self.park(&run, call.id, reason.to_owned()).await?
            }
            outcome => outcome?,
        };
        let audit = self.head(&run).await?;
        Ok(CallToolOutput { outcome, audit })
    }

    /// The call that the input points at. One that no recorded reply proposed is refused and recorded.
    pub(super) async fn recorded_call(
        &self,
        caller: &Caller,
        run: &Admitted,
        id: ToolCallId,
    ) -> Result<RecordedCall, ActivityFailure> {
        let proposed = match id.undoes() {
            Some(undone) => self.undo_of(run, undone).await?,
            None => self.proposed_call(run, id).await?,
        };
        let Some(proposed) = proposed else {
            let reason = format!("call `{id}` stands in no recorded model reply of this run");
            return Err(self.intrusion(caller, reason).await?);
        };
        let input = arguments_address(run, &proposed.arguments);
        let named = if run.row.tools.iter().any(|tool| tool.name.as_str() == proposed.tool) {
            proposed.tool.clone()
        } else {
            let mut tx = self.begin(run).await?;
            self.view(&mut tx).await?.free_name(run, &proposed.tool, &tx.facts().await?.classes)
        };
        Ok(RecordedCall { id, named, input, proposed })
    }

    /// A call as the model proposed it, or as an approver revised that; none that stands in no recorded reply.
    pub(super) async fn proposed_call(
        &self,
        run: &Admitted,
        id: ToolCallId,
    ) -> Result<Option<ProposedCall>, ActivityFailure> {
        let proposed = self.proposed(run, id).await?;
        if id.revision == 1 || !on(Guard::RecordedCall) {
            return Ok(proposed);
        }
        let revision = self.store.revision(&run.chain, id).await?;
        let revised = |(proposed, revision): (ProposedCall, RevisionRow)| ProposedCall {
            arguments: Arguments::Object(revision.arguments),
            ..proposed
        };
        Ok(proposed.zip(revision).map(revised))
    }

    async fn walk(
        &self,
        caller: &Caller,
        run: &Admitted,
        call: &RecordedCall,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let checked = self.check_call(run, call)?;
        let (effect, locked, told) = {
            let mut tx = self.begin(run).await?;
            if let Some(end) = tx.call_end(call.id).await?
                && on(Guard::LookFirst)
            {
                return Ok(end.outcome);
            }
            let told = match self.asked_before(&mut tx, call.id).await? {
                Asked::Waits(asked) => return Ok(asked),
                Asked::Goes(told) => told,
            };
            let locked = match &checked {
                Ok(checked) => self.is_locked(&mut tx, checked.tool).await?,
                Err(_) => false,
            };
            (tx.effect(EffectId::Tool(call.id)).await?, locked, told)
        };
        if effect.is_none() && caller.origin().attempt > 1 {
            self.not_behind_history(caller, run).await?;
        }
        let checked = match checked {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(run, call, refusal).await,
        };
        let judged = effect.as_ref().map(|row| row.epoch);
        if let Some(row) = effect
            && on(Guard::Reconcile)
            && let Some(outcome) = self.reconcile(run, &checked, row).await?
        {
            return Ok(outcome);
        }
        let limit = Duration::from_secs(run.row.opened.limits.tool_timeout_max_secs);
        // A server in quarantine is neither started nor waited for: the decision refuses the call.
        let preparing = async {
            tokio::select! {
                biased;
                prepared = self.tools.prepare(checked.tool) => Ok(prepared),
                () = caller.cancelled() => Err(ActivityFailure::Cancelled),
            }
        };
        let prepared = match if locked { None } else { Some(preparing.await?) } {
            None => None,
            Some(Ok(prepared)) => Some(prepared.within(limit).until(Stop::when(caller.cancelled())).answering(told)),
            Some(Err(error @ PrepareToolError::Unreachable { .. })) => return Err(error.into()),
            Some(Err(error @ (PrepareToolError::Unknown { .. } | PrepareToolError::Changed { .. }))) => {
                let refusal = refusal(RefusalKind::ToolChanged, error.to_string());
                return self.refuse(run, call, refusal).await;
            }
        };
        match self.decide_and_record(caller, run, &checked, judged).await? {
            Decided::Permitted(permit) if checked.tool.asks_people() => {
                self.ask_question(caller, run, &checked, &permit).await
            }
            Decided::Permitted(permit) => self.perform(caller, run, &checked, &permit, prepared).await,
            Decided::Ended(outcome) => Ok(outcome),
        }
    }

    /// Is the tool offered and unchanged, and do the arguments fit? The model reads what does not.
    pub(super) fn check_call<'a>(
        &'a self,
        run: &'a Admitted,
        call: &'a RecordedCall,
    ) -> Result<Result<CheckedCall<'a>, Refusal>, ActivityFailure> {
        let unguarded = self.catalog.tools.values().filter(|_| !on(Guard::ToolOffered));
        // What undoes a call is not offered to the model, and is pinned all the same.
        let pinned =
            run.row.tools.iter().filter(|tool| call.id.undo || run.offered().any(|other| other.name == tool.name));
        let mut callable = pinned.chain(unguarded);
        let Some(tool) = callable.find(|tool| tool.name.as_str() == call.proposed.tool) else {
            let offered: Vec<_> = run.offered().map(|tool| tool.name.as_str()).collect();
            let reason =
                format!("tool `{}` is not offered to this agent; offered are: {}.", call.named, offered.join(", "));
            return Ok(Err(refusal(RefusalKind::ToolNotOffered, reason)));
        };
        let registered = self.catalog.tools.get(&tool.name);
        if registered != Some(tool) && on(Guard::ToolUnchanged) {
            let reason = format!("the definition of tool `{}` changed since this run began.", tool.name);
            return Ok(Err(refusal(RefusalKind::ToolChanged, reason)));
        }
        let tool = registered.unwrap_or(tool);
        let arguments = match &call.proposed.arguments {
            Arguments::Object(arguments) => arguments,
            Arguments::Malformed(why) if call.id.undo => {
                let reason = format!("The arguments of the undo cannot be formed: {why}.");
                return Ok(Err(refusal(RefusalKind::InvalidArguments, reason)));
            }
            Arguments::Malformed(_) => {
                let reason = "They are not a JSON object.".to_owned();
                return Ok(Err(refusal(RefusalKind::InvalidArguments, reason)));
            }
        };
        if let Err(invalid) = ArgumentsSchema::compile(&tool.input_schema)?.check(arguments)
            && on(Guard::ArgumentsFit)
        {
            return Ok(Err(refusal(RefusalKind::InvalidArguments, format!("{invalid}."))));
        }
        if let Err(unsendable) = tool.check_sendable(arguments) {
            return Ok(Err(refusal(RefusalKind::InvalidArguments, format!("{unsendable}."))));
        }
        Ok(Ok(CheckedCall { recorded: call, tool, arguments }))
    }

    /// Ends a call before policy is asked.
    async fn refuse(
        &self,
        run: &Admitted,
        call: &RecordedCall,
        refusal: Refusal,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let effect = EffectId::Tool(call.id);
        let mut tx = self.begin(run).await?;
        if let Some(row) = tx.effect(effect).await?
            && !matches!(row.state, EffectState::Released)
        {
            // Something was begun under the old definition: "not performed" would be a guess.
            drop(tx);
            return self.park(run, call.id, refusal.reason).await;
        }
        if tx.is_closed() && on(Guard::ClosedRun) {
            return self.run_ended(tx, run, call.id, false).await;
        }
        let body = RecordBody::CallRefused {
            effect,
            target: call.named.clone(),
            input: call.input.clone(),
            refusal: refusal.kind,
            reason: recorded_reason(&refusal),
        };
        let outcome = self.end_refused(&mut tx, run, call.id, refusal).await?;
        if tx.recorded(&format!("{effect}/refused")).await?.is_none() {
            self.append(&mut tx, run, format!("{effect}/refused"), body).await?;
        }
        tx.commit().await?;
        Ok(outcome)
    }

    /// Ends a call of a run that is closed. No refusal may follow the closing record: the store's own chain has it.
    async fn run_ended(
        &self,
        mut tx: Tx,
        run: &Admitted,
        call: ToolCallId,
        begun: bool,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        if begun {
            drop(tx);
            return self.park(run, call, format!("an earlier attempt was not answered, and {RUN_ENDED}")).await;
        }
        let refusal = refusal(RefusalKind::RunEnded, format!("{RUN_ENDED}."));
        let outcome = self.end_refused(&mut tx, run, call, refusal).await?;
        tx.commit().await?;
        self.store.record_intrusion(&run.origin, &format!("call `{call}` of run `{}`", run.chain), RUN_ENDED).await?;
        Ok(outcome)
    }

    /// The first durable write: facts, policy, approvals, decision, intent and claim in one transaction.
    async fn decide_and_record(
        &self,
        caller: &Caller,
        run: &Admitted,
        call: &CheckedCall<'_>,
        judged: Option<u32>,
    ) -> Result<Decided, ActivityFailure> {
        let recorded = call.recorded;
        let mut tx = self.begin(run).await?;
        // Another attempt may have ended the call while this one connected.
        if let Some(end) = tx.call_end(recorded.id).await? {
            return Ok(Decided::Ended(end.outcome));
        }
        let subject = Subject {
            effect: EffectId::Tool(recorded.id),
            target: call.tool.name.as_str(),
            input: &recorded.input,
            amounts: call.tool.amounts_of(call.arguments),
            cost_micros: call.tool.cost_micros,
            approved: tx.approved_gates(recorded.id, &recorded.input, caller.now_ms()).await?,
        };
        let effect = tx.effect(subject.effect).await?;
        let begun = effect.as_ref().is_some_and(|row| matches!(row.state, EffectState::Open));
        if let Some(outcome) = overtaken(&mut tx, effect.clone(), judged).await? {
            return Ok(Decided::Ended(outcome));
        }
        let undoes = !recorded.id.undo && run.is_undoing(&mut tx).await? && on(Guard::Undoing);
        if undoes || (tx.is_closed() && on(Guard::ClosedRun)) {
            return Ok(Decided::Ended(self.run_ended(tx, run, recorded.id, begun).await?));
        }
        let decision = self.decide(&mut tx, run, call, &subject).await?;
        self.record_decision(&mut tx, run, &subject, &decision).await?;
        match guards::enforced(&decision.outcome) {
            PolicyOutcome::Allow => {
                let approvals = tx.consume_approvals(recorded.id).await?;
                let last = effect.map_or(0, |row| row.epoch);
                let repeats = !call.tool.read_only && left_open(&mut tx, subject.effect, last).await?;
                let permit = self.claim(tx, caller, run, &subject, approvals).await?;
                Ok(Decided::Permitted(permit.repeating(repeats)))
            }
            PolicyOutcome::Deny | PolicyOutcome::RequireApproval(_) if begun => {
                tx.commit().await?;
                let reason = format!(
                    "an earlier attempt was not answered, and policy no longer allows another: {}",
                    decision.reason
                );
                Ok(Decided::Ended(self.park(run, recorded.id, reason).await?))
            }
            PolicyOutcome::Deny => {
                let denied = Refusal { policies: decision.policies, ..refusal(RefusalKind::Denied, decision.reason) };
                let outcome = self.end_refused(&mut tx, run, recorded.id, denied).await?;
                tx.commit().await?;
                Ok(Decided::Ended(outcome))
            }
            PolicyOutcome::RequireApproval(gates) => {
                let requests = self.ask(&mut tx, caller, run, call, gates).await?;
                tx.commit().await?;
                Ok(Decided::Ended(ToolCallOutcome::ApprovalRequired { requests }))
            }
        }
    }

    async fn decide(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: &CheckedCall<'_>,
        subject: &Subject<'_>,
    ) -> Result<PolicyDecision, ActivityFailure> {
        let mut facts = tx.facts().await?.with_call(call.recorded.id, call.tool, &subject.amounts);
        facts.classes.extend(self.undone_classes(run, call.recorded.id).await?);
        let action = PolicyAction::CallTool { tool: call.tool, arguments: call.arguments };
        let decision = self.judge(tx, run, action, &facts, &subject.approved).await?;
        if !decision.is_allowed() {
            return Ok(decision);
        }
        Ok(self.denied_for_approver(tx, call.recorded.id, subject.input).await?.unwrap_or(decision))
    }

    /// One request for each gate that is not open yet. What lapsed before it was used is asked anew.
    async fn ask(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        run: &Admitted,
        call: &CheckedCall<'_>,
        gates: &[Gate],
    ) -> Result<Vec<ApprovalRequest>, ActivityFailure> {
        let recorded = call.recorded;
        for lapsed in tx.lapse_requests(recorded.id, caller.now_ms()).await? {
            self.record_expired(tx, run, recorded.id, &lapsed).await?;
        }
        let wait_max_secs = run.row.opened.limits.approval_wait_max_secs;
        let made = tx.make_requests(recorded.id, gates, &recorded.input, caller.now_ms(), wait_max_secs).await?;
        let view = self.view(tx).await?;
        let mut requests = Vec::with_capacity(made.len());
        for (made, gate) in made.into_iter().zip(gates) {
            let MadeRequest { id, digest, expires_ms } = made;
            let body = RecordBody::ApprovalRequested {
                request: id.clone(),
                effect: EffectId::Tool(recorded.id),
                input: recorded.input.clone(),
                gate: gate.clone(),
                digest: Some(digest.clone()),
                expires_ms,
            };
            if tx.recorded(&format!("{id}/asked")).await?.is_none() {
                self.append(tx, run, format!("{id}/asked"), body).await?;
            }
            requests.push(ApprovalRequest {
                id,
                call: recorded.id,
                tool: call.tool.name.to_string(),
                arguments: recorded.input.clone(),
                gate: gate.clone(),
                arguments_shown: view.card(run, call.tool, call.arguments, &gate.approvers),
                digest: Some(digest),
                expires_ms,
            });
        }
        Ok(requests)
    }

    async fn perform(
        &self,
        caller: &Caller,
        run: &Admitted,
        call: &CheckedCall<'_>,
        permit: &RecordedPermit,
        prepared: Option<PreparedTool>,
    ) -> Result<ToolCallOutcome, ActivityFailure> {
        let began = Instant::now();
        let not_sent = |reason: String| Err(CallToolError::NotSent { tool: call.tool.name.to_string(), reason });
        let built_in = self.call_builtin(run, call.tool, permit, call.arguments).await?;
        let (answer, masked) = match (built_in, prepared) {
            (Some(Ok(built_in)), _) => (Ok(built_in.answer), built_in.masked),
            (Some(Err(late)), _) => (not_sent(late.to_string()), None),
            (None, Some(prepared)) => (self.tools.call(permit, prepared, call.arguments).await, None),
            (None, None) => (not_sent("it came out of quarantine just now".to_owned()), None),
        };
        failpoint!("tool.after_effect");
        if let Err(CallToolError::OutcomeUnknown { tool, wrote, .. }) = &answer
            && !wrote.is_empty()
        {
            tracing::warn!(tool, call = %call.recorded.id, wrote, "what the server of a lost call wrote last");
        }
        match answer {
            Ok(answer) => {
                let outcome = Outcome {
                    epoch: permit.epoch(),
                    known_by: KnownBy::Answer,
                    answer: &answer,
                    masked: masked.as_ref(),
                    took: began.elapsed(),
                };
                self.record_answer(run, call.recorded.id, call.tool, &outcome).await
            }
            Err(CallToolError::Asks { asks, .. }) => self.ask_for_server(caller, run, call, permit, &asks).await,
            Err(error @ (CallToolError::NotSent { .. } | CallToolError::Declined { .. })) => {
                self.give_back(run, permit, &error.to_string()).await?;
                caller.not_cancelled()?;
                Err(error.into())
            }
            Err(error @ (CallToolError::OutcomeUnknown { .. } | CallToolError::Unavailable { .. })) => {
                self.unanswered(run, call, error).await
            }
        }
    }
}

/// Whether another attempt was here between the look and the lock: both may have found nothing, and connecting takes
/// time. Only the claim of the `judged` epoch was found to have run out; any other open one is somebody's.
async fn overtaken(
    tx: &mut Tx,
    effect: Option<EffectRow>,
    judged: Option<u32>,
) -> Result<Option<ToolCallOutcome>, ActivityFailure> {
    let Some(row) = effect else { return Ok(None) };
    match row.state {
        EffectState::Open if Some(row.epoch) != judged => {
            let wait = row.send_by.time_left(&tx.now().await?);
            Err(ActivityFailure::Claimed { effect: row.effect, holder: row.holder, wait })
        }
        EffectState::Unknown { reason } => Ok(Some(ToolCallOutcome::OutcomeUnknown { reason })),
        // Settled with its end in the same transaction, which was looked for before.
        EffectState::Open | EffectState::Released | EffectState::Settled { .. } => Ok(None),
    }
}

/// A reason for the audit log, which holds no content: what is wrong with arguments repeats them.
fn recorded_reason(refusal: &Refusal) -> String {
    if refusal.kind == RefusalKind::InvalidArguments {
        "the arguments do not fit the tool's schema".to_owned()
    } else {
        refusal.reason.clone()
    }
}

/// A refusal that no policy made.
pub(super) fn refusal(kind: RefusalKind, reason: String) -> Refusal {
    Refusal { kind, policies: Vec::<PolicyId>::new(), reason }
}

/// Arguments without a canonical form get the address of their text: they are refused, and the record still names them.
pub(super) fn arguments_address(run: &Admitted, arguments: &Arguments) -> Address {
    match arguments {
        Arguments::Object(object) => {
            let bytes = canonical::to_canonical(object);
            run.key.address(&bytes.unwrap_or_else(|_| Value::Object(object.clone()).to_string().into_bytes()))
        }
        Arguments::Malformed(text) => run.key.address(text.as_bytes()),
    }
}
