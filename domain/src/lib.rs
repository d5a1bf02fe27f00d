//! Vocabulary and every decision of mandate. No I/O, no clock, no randomness, no async, no Temporal: a rule that lives
//! here is tested without any of them.
//!
//! Reading order: [`agent`] (what a run is asked and answers), [`agent_run`] (the run as a state machine),
//! [`tool`] and [`model`] (what it calls), [`policy`] (what it may call), [`approval`] (who else decides),
//! [`instruction`] (what else people say), [`compensation`] (what is undone when a run does not complete),
//! [`proof`] (who says so), [`reveal`] (what of the data is shown), [`quarantine`] (what nothing may touch), [`audit`]
//! (what is recorded), [`facts`] (what the records sum up to), [`ids`] and [`canonical`] (names and digests).

pub mod agent;
pub mod agent_run;
pub mod approval;
pub mod audit;
pub mod canonical;
pub mod compensation;
pub mod facts;
pub mod ids;
pub mod instruction;
pub mod model;
pub mod policy;
pub mod proof;
pub mod quarantine;
pub mod render;
pub mod reveal;
pub mod tool;

pub use agent::{
    AgentDefinition, AgentResult, AgentTask, EndReason, INLINE_ONCE_BYTES_MAX, OpenedRun, PerformedCall, RunLimits,
    RunPins, RunState,
};
pub use agent_run::AgentRun;
pub use approval::{ApprovalDecision, ApprovalRequest, Gate, Resolution, Review, Verdict};
pub use audit::{AuditRecord, ChainHead, DecisionOutcome, EffectId, KnownBy, Origin, Proof, RecordBody, Who};
pub use canonical::AddressKey;
pub use compensation::{CompensateOn, Undo, UndoSummary, UndoneCall};
pub use facts::{RunFacts, ToolFacts};
pub use ids::{
    Address, AgentName, DataClass, Digest, FieldPath, GroupName, ModelName, ParseIdError, PersonId, PolicyId,
    ProviderName, QuestionId, RequestId, RunChain, ServerName, StoreId, ToolCallId, ToolName,
};
pub use instruction::{Instruction, InstructionReview, Question, Sender, SentInstruction};
pub use model::{
    Arguments, CallSummary, Content, Message, ModelReply, ModelRequest, ModelTurn, OfferedTool, ProposedCall, Usage,
};
pub use proof::{Evidence, PublicKey, Statement};
pub use quarantine::{QuarantineTarget, Quarantined};
pub use reveal::{FieldClasses, Masked, MaskedText};
pub use tool::{BuiltinTool, Recovery, Refusal, RefusalKind, ToolCallOutcome, ToolDefinition, ToolReach};
