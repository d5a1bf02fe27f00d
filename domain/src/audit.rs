//! The audit record and the hash chain of one run. The store has a chain of its own, for what belongs to no run.
//!
//! Each record names its predecessor's hash inside its own hashed bytes, so an edited, removed, inserted or reordered
//! record breaks the chain from there on. The closing record names the run's state, and the workflow result carries
//! count and head, so a cut-off tail shows as well. Records hold digests and addresses, never content or secrets.

use serde::{Deserialize, Serialize};

use crate::{AgentName, Digest, PersonId, RunChain, ToolCallId, canonical};

mod body;
mod found;
mod notice;
pub mod verify;

pub use body::RecordBody;
pub use found::FoundEnd;
pub use notice::{NoticeId, NoticeKind, Noticed};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The payload says so, and nothing else does.
    Claimed,
    /// A signature by a key that configuration knows as the person's.
    Key,
    /// A token of the organisation's identity provider.
    Jwt,
    /// The identity that the Temporal server itself stamped on the event.
    Principal,
}

impl Proof {
    /// Every way, the weakest first.
    pub const ALL: [Self; 4] = [Self::Claimed, Self::Key, Self::Jwt, Self::Principal];

    /// The word in records and in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Key => "key",
            Self::Jwt => "jwt",
            Self::Principal => "principal",
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Proof {
    type Err = crate::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|proof| proof.as_str() == text);
        named.ok_or_else(|| crate::ids::refused("way of proof", text, "it is `claimed`, `key`, `jwt` or `principal`"))
    }
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

/// What an effect is: a model call of a turn, a tool call, or a notice to the configured webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectId {
    /// The model call of a turn: `m3`.
    Model(u32),
    /// A tool call: `t3.1`.
    Tool(ToolCallId),
    /// A notice: `r2.asked`.
    Notice(NoticeId),
}

impl std::fmt::Display for EffectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(turn) => write!(f, "m{turn}"),
            Self::Tool(call) => call.fmt(f),
            Self::Notice(notice) => notice.fmt(f),
        }
    }
}

impl std::str::FromStr for EffectId {
    type Err = crate::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('m').map(str::parse::<u32>) {
            Some(Ok(turn)) if format!("m{turn}") == text => Ok(Self::Model(turn)),
            Some(_) | None => text.parse().map(Self::Notice).or_else(|_| text.parse().map(Self::Tool)),
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

impl DecisionOutcome {
    /// The word in records and policy cases.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::RequireApproval => "require_approval",
        }
    }
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
    fn a_way_of_proof_is_written_as_it_is_read() {
        for proof in Proof::ALL {
            assert_eq!(proof.as_str().parse(), Ok(proof));
            assert_eq!(serde_json::to_value(proof).unwrap(), proof.as_str());
        }
        assert!("Claimed".parse::<Proof>().is_err());
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
