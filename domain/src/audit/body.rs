//! What an audit record can say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ChainHead, DecisionOutcome, EffectId, FoundEnd, KnownBy, Proof};
use crate::{
    Address, DataClass, Digest, EndReason, GroupName, ModelName, PersonId, PolicyId, QuarantineTarget, QuestionId,
    RefusalKind, RequestId, Resolution, RunChain, RunState, StoreId, ToolCallId, Usage, Verdict, approval::Gate,
    proof::InstructionKind,
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecordBody {
    /// The run began.
    RunOpened {
        /// Address of the prompt.
        prompt: Address,
        /// The configured model.
        model: ModelName,
        /// Digest of the instructions.
        instructions: Digest,
        /// Digest over the definitions of all offered tools.
        tools: Digest,
        /// The policy bundle in force.
        bundle: Digest,
        /// Who started it, if it was somebody else than the person it acts for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_by: Option<PersonId>,
        /// How whoever started it was proved; absent for a claim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_by_proof: Option<Proof>,
        /// What proved the person that it acts for, in a line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// What proved who started it, if it was somebody else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_by_evidence: Option<String>,
        /// The policies that let them start it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<PolicyId>,
        /// The store.
        store: StoreId,
    },
    /// Policy decided about an effect.
    Decision {
        /// The effect.
        effect: EffectId,
        /// Tool or model.
        target: String,
        /// Address of what was decided about: canonical arguments or model request.
        input: Address,
        /// What it said.
        outcome: DecisionOutcome,
        /// The policies that determined it.
        policies: Vec<PolicyId>,
        /// The gates that were open: what people had approved when it was decided.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approved: Vec<PolicyId>,
        /// The bundle.
        bundle: Digest,
        /// In a sentence.
        reason: String,
    },
    /// A call was refused before policy was asked: unknown tool, broken arguments, a bound.
    CallRefused {
        /// The call.
        effect: EffectId,
        /// The tool that the model named, cut to 64 bytes.
        target: String,
        /// Address of the arguments.
        input: Address,
        /// Why.
        refusal: RefusalKind,
        /// In a sentence.
        reason: String,
    },
    /// An effect is about to be performed. Durable before it is sent.
    Intent {
        /// The effect.
        effect: EffectId,
        /// Tool or model.
        target: String,
        /// Address of the input.
        input: Address,
        /// 1 for the first claim, one more for each that took over.
        epoch: u32,
        /// The approvals that were consumed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<RequestId>,
        /// The arguments that the registry names as amounts: what sums over the run are made of.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        amounts: BTreeMap<String, i64>,
        /// What the registry says that one call costs, in millionths of the organisation's currency.
        #[serde(default, skip_serializing_if = "crate::model::is_zero")]
        cost_micros: u64,
    },
    /// What came of an effect: the first outcome, which counts.
    Outcome {
        /// The effect.
        effect: EffectId,
        /// The epoch that performed it.
        epoch: u32,
        /// How it is known.
        known_by: KnownBy,
        /// Address of what came back.
        result: Address,
        /// MCP `isError`, or a provider's refusal.
        is_error: bool,
        /// Tokens, for a model call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// Data classes that the model is shown of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        classes: Vec<DataClass>,
        /// Data classes that were masked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        withheld: Vec<DataClass>,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// An outcome that came after another one counted already. Never dropped.
    LateOutcome {
        /// The effect.
        effect: EffectId,
        /// The epoch that performed it.
        epoch: u32,
        /// Address of what came back.
        result: Address,
        /// Whether a second performance may have changed something: false for read-only and idempotent tools.
        may_have_doubled: bool,
    },
    /// A claim was given back before anything was sent.
    NotSent {
        /// The effect.
        effect: EffectId,
        /// The epoch.
        epoch: u32,
        /// Why.
        reason: String,
    },
    /// Nobody knows whether the call happened; a person has to say.
    OutcomeUnknown {
        /// The effect.
        effect: EffectId,
        /// What is known.
        reason: String,
    },
    /// People were asked.
    ApprovalRequested {
        /// The request.
        request: RequestId,
        /// The call.
        effect: EffectId,
        /// Address of the canonical arguments.
        input: Address,
        /// The gate.
        gate: Gate,
        /// The keyed digest that a proof has to name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Address>,
        /// Until when it can be decided, in milliseconds since 1970-01-01 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_ms: Option<u64>,
    },
    /// A person decided about a request.
    ApprovalDecided {
        /// The request.
        request: RequestId,
        /// The call.
        effect: EffectId,
        /// What they said.
        verdict: Verdict,
        /// Who.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// What proved it, in a line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// The policies that said whether this person may.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
        /// Whether it counts; if not, why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// Address of the comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<Address>,
        /// Address of the canonical arguments that they put in place of the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<Address>,
    },
    /// A request ran out of time.
    ApprovalExpired {
        /// The request.
        request: RequestId,
        /// The call.
        effect: EffectId,
    },
    /// Nobody had decided about a request for a while, and further people may from here on.
    ApprovalEscalated {
        /// The request.
        request: RequestId,
        /// The call.
        effect: EffectId,
        /// The further groups.
        to: Vec<GroupName>,
    },
    /// An approver changed the arguments of a call: it ended, and this revision of it is judged afresh.
    CallRevised {
        /// The revision.
        effect: EffectId,
        /// The call that it replaces.
        replaces: EffectId,
        /// Address of the new canonical arguments.
        input: Address,
        /// The request whose decision changed them.
        request: RequestId,
        /// Who changed them.
        by: PersonId,
    },
    /// The agent asked people a question.
    QuestionAsked {
        /// The question.
        question: QuestionId,
        /// The call.
        effect: EffectId,
        /// Address of the canonical arguments: question, context, options.
        input: Address,
        /// Until when it can be answered, in milliseconds since 1970-01-01 UTC.
        expires_ms: u64,
    },
    /// Nobody answered in time.
    QuestionExpired {
        /// The question.
        question: QuestionId,
        /// The call.
        effect: EffectId,
    },
    /// A person told the run something: an answer, a further instruction, pause or resume.
    Instructed {
        /// What kind.
        instruction: InstructionKind,
        /// What it is about: a question.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<String>,
        /// Address of what they said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Address>,
        /// Who.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// What proved it, in a line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// The policies that said whether this person may.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
        /// Whether it counts; if not, why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// Address of the comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<Address>,
    },
    /// A person said what became of a call with unknown outcome.
    Resolved {
        /// The call.
        effect: EffectId,
        /// What they said.
        resolution: Resolution,
        /// Who.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// What proved it, in a line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// The policies that said whether this person may.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
        /// Whether it counts; if not, why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// Address of the comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<Address>,
    },
    /// A call ended without being performed because its run ended.
    CallAbandoned {
        /// The call.
        effect: EffectId,
        /// In a sentence.
        reason: String,
    },
    /// Signals that could not be read or named nothing pending, over the whole run so far.
    MessagesRefused {
        /// How many.
        count: u64,
        /// The last reason.
        last_reason: String,
    },
    /// Something asked for an effect that it may not ask for, or stands where it may not stand: a foreign workflow, a
    /// forged pointer, an active policy bundle that cannot be used.
    Intrusion {
        /// What was asked.
        what: String,
        /// Why it was refused.
        reason: String,
    },
    /// An operator halted the run. It acted at once and is recorded here.
    Halted {
        /// Who.
        by: PersonId,
        /// How that was proved. It counts without a proof too: stopping must be easy.
        proof: Proof,
        /// What proved it, in a line, or why what they sent does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// Their words, at most 200 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// The run ended. Only late outcomes and refused decisions may follow.
    RunClosed {
        /// Terminal state.
        state: RunState,
        /// Why, if it did not complete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<EndReason>,
        /// Model calls.
        turns: u32,
        /// Tokens over the run.
        usage: Usage,
        /// Calls whose outcome nobody knows.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown_outcomes: Vec<ToolCallId>,
    },
    /// The reconciler found that the run's execution had ended without closing it. The closing record follows.
    RunReconciled {
        /// How Temporal reports the execution.
        found: FoundEnd,
        /// Run id of the execution.
        run_id: String,
        /// In a sentence.
        detail: String,
    },
    /// The run was reset from outside: another execution carries it on from an earlier point.
    RunReset {
        /// Run id of the execution that carries it on.
        run_id: String,
        /// Run id of the execution that was reset.
        original_run_id: String,
    },
    /// Temporal's history of a run has seen records that this store does not have: it is an older copy, and what was
    /// under way when it was copied may have happened. Stands in the store's own chain.
    StoreBehindRun {
        /// The run.
        run: RunChain,
        /// What the history has seen.
        seen: ChainHead,
        /// How many records of the run stand here.
        found: u64,
    },
    /// A policy bundle became the active one. Stands in the store's own chain, as all operator acts do.
    BundleApplied {
        /// Its version: one more than the version before.
        version: u64,
        /// The bundle.
        digest: Digest,
        /// The bundle that was active before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<Digest>,
        /// Who applied it.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// The policies that permitted it; none where no policy was asked.
        policies: Vec<PolicyId>,
        /// Whether older content was put back.
        rollback: bool,
    },
    /// An operator put something into quarantine: nothing that touches it is performed from here on.
    Quarantined {
        /// What.
        target: QuarantineTarget,
        /// Who.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// The policies that permitted it; none where no policy was asked.
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
        /// Their words.
        reason: String,
    },
    /// An operator lifted a quarantine.
    QuarantineLifted {
        /// What it was on.
        target: QuarantineTarget,
        /// Who.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// The policies that permitted it; none where no policy was asked.
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
    },
    /// Somebody asked for an operator act that they may not do. Nothing was changed.
    OperatorRefused {
        /// The act: `apply`, `rollback`, `quarantine`, `lift`.
        action: String,
        /// What it was to be done to: `tool:payments.refund`, `bundle:<digest>`.
        target: String,
        /// Who asked.
        by: PersonId,
        /// How that was proved.
        proof: Proof,
        /// The policies that refused it; none where none permitted it.
        policies: Vec<PolicyId>,
        /// The bundle that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Digest>,
        /// In a sentence.
        reason: String,
    },
}
