//! The audit record and the hash chain of one run.
//!
//! Each record names its predecessor's hash inside its own hashed bytes, so an edited, removed, inserted or reordered
//! record breaks the chain from there on. The closing record names the run's state, and the workflow result carries
//! count and head, so a cut-off tail shows as well. Records hold digests and addresses, never content or secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Address, AgentName, DataClass, Digest, EndReason, ModelName, PersonId, PolicyId, RefusalKind, RequestId,
    Resolution, RunChain, RunState, StoreId, ToolCallId, Usage, Verdict, approval::Gate, canonical,
};

pub mod verify;

/// Number of records and hash of the last one: where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Number of records.
    pub records: u64,
    /// Hash of the last record; [`ChainHead::empty`] before the first.
    pub head: Digest,
}

impl ChainHead {
    /// Before the first record.
    #[must_use]
    pub fn empty() -> Self {
        Self { records: 0, head: Digest::from_bytes([0; 32]) }
    }
}

/// One record. What is hashed is the canonical JSON (RFC 8785) of this whole struct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Version of this format.
    pub v: u32,
    /// The chain.
    pub run: RunChain,
    /// Position in the chain; the first is 1.
    pub sequence: u64,
    /// Hash of the record before.
    pub previous: Digest,
    /// When, by the clock of the worker that wrote it: microseconds since 1970-01-01 UTC. Order is by `sequence`.
    pub time_micros: u64,
    /// What makes the record unique in its run, so that writing it twice is a no-op: `t1.0/intent/1`.
    pub key: String,
    /// The agent, its version, and the person it acts for.
    pub who: Who,
    /// The Temporal run id, activity id and attempt that wrote it.
    pub origin: Origin,
    /// What happened.
    pub body: RecordBody,
}

/// On whose authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The agent.
    pub agent: AgentName,
    /// Digest over its whole definition.
    pub agent_version: Digest,
    /// The person it acts for.
    pub on_behalf_of: PersonId,
    /// How that person was proved.
    pub proof: Proof,
}

/// How an identity was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The payload says so, and nothing else does.
    Claimed,
}

/// Where a record was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Temporal run id of the execution.
    pub run_id: String,
    /// Temporal activity id.
    pub activity_id: String,
    /// Attempt of that activity, from 1.
    pub attempt: u32,
    /// Identity of the worker.
    pub worker: String,
}

/// What an effect is: a model call of a turn or a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectId {
    /// The model call of a turn: `m3`.
    Model(u32),
    /// A tool call: `t3.1`.
    Tool(ToolCallId),
}

impl std::fmt::Display for EffectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(turn) => write!(f, "m{turn}"),
            Self::Tool(call) => call.fmt(f),
        }
    }
}

impl std::str::FromStr for EffectId {
    type Err = crate::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('m').map(str::parse::<u32>) {
            Some(Ok(turn)) if format!("m{turn}") == text => Ok(Self::Model(turn)),
            Some(_) | None => text.parse().map(Self::Tool),
        }
    }
}

impl Serialize for EffectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EffectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What policy said, as the record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionOutcome {
    /// It may be performed.
    Allow,
    /// It may not.
    Deny,
    /// People decide first.
    RequireApproval,
}

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
        /// Whether it counts; if not, why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// Address of the comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<Address>,
    },
    /// A request ran out of time.
    ApprovalExpired {
        /// The request.
        request: RequestId,
        /// The call.
        effect: EffectId,
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
    /// Something asked for an effect that it may not ask for: a foreign workflow, a forged pointer.
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
        /// How that was proved.
        proof: Proof,
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
}

/// How an outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// It answered.
    Answer,
    /// The check tool said that it happened.
    Check,
    /// A person said what happened.
    Person,
}

/// A record that does not belong where it is to be appended. A defect of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The record has no canonical form.
    #[error("audit record `{key}` has no canonical form")]
    NotCanonical {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: canonical::CanonicalError,
    },
}

/// A record as it stands in the log: its bytes and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedRecord {
    /// The record.
    pub record: AuditRecord,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// SHA-256 of those bytes.
    pub hash: Digest,
}

impl LinkedRecord {
    /// Where the chain stands after this record.
    #[must_use]
    pub fn chain_head(&self) -> ChainHead {
        ChainHead { records: self.record.sequence, head: self.hash.clone() }
    }
}

/// Puts a record behind `head`: gives it its sequence number and its predecessor, and hashes it.
///
/// # Errors
/// [`LinkError`] when the record has no canonical form.
pub fn link(head: &ChainHead, mut record: AuditRecord) -> Result<LinkedRecord, LinkError> {
    record.sequence = head.records + 1;
    record.previous = head.head.clone();
    let canonical = canonical::to_canonical(&record)
        .map_err(|source| LinkError::NotCanonical { key: record.key.clone(), source })?;
    let hash = canonical::sha256(&canonical);
    Ok(LinkedRecord { record, canonical, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, time_micros: u64) -> AuditRecord {
        AuditRecord {
            v: 1,
            run: RunChain { workflow_id: "refund-o1".into(), first_run_id: "run-1".into() },
            sequence: 77,
            previous: Digest::from_bytes([7; 32]),
            time_micros,
            key: key.to_owned(),
            who: Who {
                agent: AgentName::parse("acme/support/refunds").unwrap(),
                agent_version: Digest::from_bytes([1; 32]),
                on_behalf_of: PersonId::parse("ana@acme.example").unwrap(),
                proof: Proof::Claimed,
            },
            origin: Origin { run_id: "run-1".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() },
            body: RecordBody::MessagesRefused { count: 1, last_reason: "unreadable".into() },
        }
    }

    #[test]
    fn a_linked_record_follows_the_head_whatever_it_said_before() {
        let first = link(&ChainHead::empty(), record("a", 1)).unwrap();
        assert_eq!((first.record.sequence, &first.record.previous), (1, &ChainHead::empty().head));
        let second = link(&first.chain_head(), record("b", 2)).unwrap();
        assert_eq!((second.record.sequence, &second.record.previous), (2, &first.hash));
        assert_eq!(second.chain_head(), ChainHead { records: 2, head: second.hash });
    }

    #[test]
    fn the_bytes_are_canonical_carry_the_link_and_have_the_hash() {
        let linked = link(&ChainHead::empty(), record("a", 1)).unwrap();
        assert_eq!(canonical::sha256(&linked.canonical), linked.hash);
        assert_eq!(serde_json::from_slice::<AuditRecord>(&linked.canonical).unwrap(), linked.record);
        let text = String::from_utf8(linked.canonical).unwrap();
        assert!(text.starts_with(r#"{"body":{"count":1,"kind":"messages_refused""#), "{text}");
        assert!(text.contains(r#""sequence":1,"time_micros":1,"v":1"#), "{text}");
    }

    #[test]
    fn any_difference_changes_the_hash() {
        let hash = |head: &ChainHead, record| link(head, record).unwrap().hash;
        let empty = ChainHead::empty();
        let other = ChainHead { records: 0, head: Digest::from_bytes([1; 32]) };
        assert_eq!(hash(&empty, record("a", 1)), hash(&empty, record("a", 1)));
        assert_ne!(hash(&empty, record("a", 1)), hash(&empty, record("a", 2)));
        assert_ne!(hash(&empty, record("a", 1)), hash(&other, record("a", 1)));
    }

    #[test]
    fn a_record_without_a_canonical_form_is_refused_by_its_key() {
        let error = link(&ChainHead::empty(), record("a", u64::MAX)).unwrap_err();
        assert_eq!(error.to_string(), "audit record `a` has no canonical form");
    }
}
