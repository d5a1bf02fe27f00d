//! Verification of one chain: whether the records are whole and in order, and whether what they tell keeps the rules.
//!
//! It needs the records alone, so anybody who holds an export can do it. It reports every finding, never just the
//! first. What a chain cannot show by itself, that its tail was cut off, shows against a witness: the head that the
//! workflow's result carries. The store's own chain has no run and rules of its own: [`verify_own`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AuditRecord, ChainHead, DecisionOutcome, Digest, EffectId, KnownBy, RecordBody, Resolution, RunChain, canonical,
};

mod own;

pub use own::verify_own;

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its bytes: the canonical JSON of an [`AuditRecord`].
    pub canonical: Vec<u8>,
    /// The hash that was recorded with them.
    pub hash: Digest,
}

/// What verification came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Where the chain stands.
    pub head: ChainHead,
    /// Whether the run's closing record is there.
    pub closed: bool,
    /// All findings, in the order of the records.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Whether no rule is broken. Findings that are no violation may remain: someone has to look at those.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.findings.iter().any(Finding::is_violation)
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The bytes are no audit record in canonical form.
    #[error("record {sequence}: not a readable audit record: {reason}")]
    Unreadable {
        /// Its position.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not the ones that were hashed.
    #[error("record {sequence}: edited: its bytes do not have the recorded hash")]
    Edited {
        /// Its position.
        sequence: u64,
    },
    /// The record does not follow the one before it: something was removed, inserted, swapped or replaced.
    #[error("record {sequence}: chain broken: {reason}")]
    Broken {
        /// The position where it stands.
        sequence: u64,
        /// What does not follow.
        reason: String,
    },
    /// The record belongs to another run.
    #[error("record {sequence}: belongs to another run, `{run}`")]
    ForeignRecord {
        /// Its sequence number.
        sequence: u64,
        /// The run that it names.
        run: RunChain,
    },
    /// The chain does not reach what the witness saw.
    #[error("record {sequence}: the witness saw this record as the chain's head, and the chain has no such record")]
    CutOff {
        /// The last record that the witness knows of.
        sequence: u64,
    },
    /// The chain does not begin with the opening of the run.
    #[error("record {sequence}: the chain does not begin with the opening of the run")]
    NotOpened {
        /// The record that stands there instead.
        sequence: u64,
    },
    /// The run is opened a second time.
    #[error("record {sequence}: opens the run again")]
    OpenedAgain {
        /// Its sequence number.
        sequence: u64,
    },
    /// Something was done after the run was closed.
    #[error("record {sequence}: may not follow the closing record {closed_at}")]
    AfterClose {
        /// Its sequence number.
        sequence: u64,
        /// The closing record.
        closed_at: u64,
    },
    /// The record does not belong into this kind of chain: operator acts stand in the store's own chain alone, and of a
    /// run there stands nothing but attempts to intrude.
    #[error("record {sequence}: does not belong into this kind of chain")]
    Misplaced {
        /// Its sequence number.
        sequence: u64,
    },
    /// A bundle was applied that does not follow the one before it.
    #[error("record {sequence}: version {version} of the policy bundle does not follow the one before it")]
    BundleOutOfOrder {
        /// Its sequence number.
        sequence: u64,
        /// The version that it applies.
        version: u64,
    },
    /// Something was performed that no intent announced.
    #[error("record {sequence}: outcome of `{effect}` without an intent")]
    OutcomeWithoutIntent {
        /// Its sequence number.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
    /// Something was claimed that policy did not allow last.
    #[error("record {sequence}: intent of `{effect}` without an allow")]
    IntentWithoutAllow {
        /// Its sequence number.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
    /// Something was performed twice, or may have been.
    #[error("record {sequence}: `{effect}` was or may have been performed twice")]
    Doubled {
        /// The second outcome.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
    /// An intent has no outcome yet. Not a violation.
    #[error("record {sequence}: intent of `{effect}` has no outcome")]
    OpenIntent {
        /// The intent.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
    /// An answer came in late although a person had said that the call did not happen: if the model proposed it again, it
    /// may have happened twice.
    #[error("record {sequence}: `{effect}` was answered after a person had said that it did not happen")]
    WordContradicted {
        /// Where the late answer stands.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
    /// Nobody knows whether it happened. Not a violation: a person has to say.
    #[error("record {sequence}: nobody knows whether `{effect}` happened")]
    UnknownOutcome {
        /// The record that says so.
        sequence: u64,
        /// The effect.
        effect: EffectId,
    },
}

impl Finding {
    /// Whether a rule is broken. If not, someone has to look.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        match self {
            Self::OpenIntent { .. } | Self::UnknownOutcome { .. } | Self::WordContradicted { .. } => false,
            Self::Unreadable { .. }
            | Self::Edited { .. }
            | Self::Broken { .. }
            | Self::ForeignRecord { .. }
            | Self::CutOff { .. }
            | Self::NotOpened { .. }
            | Self::OpenedAgain { .. }
            | Self::AfterClose { .. }
            | Self::Misplaced { .. }
            | Self::BundleOutOfOrder { .. }
            | Self::OutcomeWithoutIntent { .. }
            | Self::IntentWithoutAllow { .. }
            | Self::Doubled { .. } => true,
        }
    }
}

/// Verifies the chain of `run`, records in the order of the log. `witness` is a head that somebody else kept.
#[must_use]
pub fn verify(run: &RunChain, records: &[StoredRecord], witness: Option<&ChainHead>) -> Verification {
    let mut walk = Walk::new(run, witness);
    for stored in records {
        walk.take(stored);
    }
    walk.finish()
}

/// What is known of one effect while the records are read.
#[derive(Debug, Default)]
struct EffectFacts {
    last_decision: Option<DecisionOutcome>,
    epochs: BTreeSet<u32>,
    /// Claims that neither an outcome nor "not sent" settled, with the record of the intent. By epoch: that a later
    /// claim sent nothing says nothing about an earlier one.
    open: BTreeMap<u32, u64>,
    unknown_at: Option<u64>,
    has_outcome: bool,
    /// A person said that it did not happen, or that nobody knows.
    denied_by_person: bool,
}

impl EffectFacts {
    fn settle(&mut self) {
        self.open.clear();
        self.unknown_at = None;
    }
}

#[derive(Debug)]
struct Walk<'a> {
    run: &'a RunChain,
    witness: Option<&'a ChainHead>,
    witness_seen: bool,
    head: ChainHead,
    opened: bool,
    closed_at: Option<u64>,
    effects: BTreeMap<EffectId, EffectFacts>,
    findings: Vec<Finding>,
}

impl<'a> Walk<'a> {
    fn new(run: &'a RunChain, witness: Option<&'a ChainHead>) -> Self {
        let head = ChainHead::empty();
        Self {
            run,
            witness,
            witness_seen: witness.is_none_or(|witness| *witness == head),
            head,
            opened: false,
            closed_at: None,
            effects: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    fn take(&mut self, stored: &StoredRecord) {
        if let Some(record) = self.read(stored) {
            self.judge(&record);
        }
    }

    /// Goes on to the next record of any chain; none if it cannot be read.
    fn read(&mut self, stored: &StoredRecord) -> Option<AuditRecord> {
        let position = self.head.records.saturating_add(1);
        if canonical::sha256(&stored.canonical) != stored.hash {
            self.findings.push(Finding::Edited { sequence: position });
        }
        let record = match read(&stored.canonical) {
            Ok(record) => {
                self.follow(position, &record);
                self.head = ChainHead { records: record.sequence, head: stored.hash.clone() };
                Some(record)
            }
            Err(reason) => {
                self.findings.push(Finding::Unreadable { sequence: position, reason });
                self.head = ChainHead { records: position, head: stored.hash.clone() };
                None
            }
        };
        self.witness_seen |= self.witness == Some(&self.head);
        record
    }

    /// The walk goes on from what the record says of itself, so that one break is one finding.
    fn follow(&mut self, position: u64, record: &AuditRecord) {
        if record.sequence != position {
            let reason = format!("it is numbered {} and stands at {position}", record.sequence);
            self.findings.push(Finding::Broken { sequence: position, reason });
        } else if record.previous != self.head.head {
            let reason = "it does not name the record before it".to_owned();
            self.findings.push(Finding::Broken { sequence: position, reason });
        }
        if record.run != *self.run {
            self.findings.push(Finding::ForeignRecord { sequence: record.sequence, run: record.run.clone() });
        }
    }

    fn judge(&mut self, record: &AuditRecord) {
        let sequence = record.sequence;
        self.judge_place(sequence, &record.body);
        match &record.body {
            RecordBody::Decision { effect, outcome, .. } => self.facts(*effect).last_decision = Some(*outcome),
            RecordBody::Intent { effect, epoch, .. } => self.intent(sequence, *effect, *epoch),
            RecordBody::Outcome { effect, epoch, known_by, .. } => {
                // What a check or a person says may be about any of the claims.
                let claim = match known_by {
                    KnownBy::Answer => Some(*epoch),
                    KnownBy::Check | KnownBy::Person => None,
                };
                self.outcome(sequence, *effect, claim);
            }
            RecordBody::LateOutcome { effect, epoch, may_have_doubled, .. } => {
                self.late_outcome(sequence, *effect, *epoch, *may_have_doubled);
            }
            RecordBody::NotSent { effect, epoch, .. } => {
                self.facts(*effect).open.remove(epoch);
            }
            RecordBody::OutcomeUnknown { effect, .. } => self.facts(*effect).unknown_at = Some(sequence),
            RecordBody::Resolved { effect, refused: None, resolution, .. } => {
                let facts = self.facts(*effect);
                facts.settle();
                facts.denied_by_person |= *resolution != Resolution::Happened;
            }
            RecordBody::RunClosed { unknown_outcomes, .. } => {
                for call in unknown_outcomes {
                    self.facts(EffectId::Tool(*call)).unknown_at = Some(sequence);
                }
                self.closed_at.get_or_insert(sequence);
            }
            RecordBody::RunOpened { .. }
            | RecordBody::CallRefused { .. }
            | RecordBody::ApprovalRequested { .. }
            | RecordBody::ApprovalDecided { .. }
            | RecordBody::ApprovalExpired { .. }
            | RecordBody::ApprovalEscalated { .. }
            | RecordBody::CallRevised { .. }
            | RecordBody::QuestionAsked { .. }
            | RecordBody::QuestionExpired { .. }
            | RecordBody::Instructed { .. }
            | RecordBody::Resolved { refused: Some(_), .. }
            | RecordBody::CallAbandoned { .. }
            | RecordBody::MessagesRefused { .. }
            | RecordBody::Intrusion { .. }
            | RecordBody::RunReconciled { .. }
            | RecordBody::RunReset { .. }
            | RecordBody::Halted { .. } => {}
            RecordBody::BundleApplied { .. }
            | RecordBody::Quarantined { .. }
            | RecordBody::QuarantineLifted { .. }
            | RecordBody::StoreBehindRun { .. }
            | RecordBody::OperatorRefused { .. } => self.findings.push(Finding::Misplaced { sequence }),
        }
    }

    fn judge_place(&mut self, sequence: u64, body: &RecordBody) {
        let opens = matches!(body, RecordBody::RunOpened { .. });
        let intrusion = matches!(body, RecordBody::Intrusion { .. });
        if opens && self.opened {
            self.findings.push(Finding::OpenedAgain { sequence });
        } else if !opens && !intrusion && !self.opened {
            self.findings.push(Finding::NotOpened { sequence });
        }
        // Said once: the records that follow a missing opening are not each a finding.
        self.opened |= opens || !intrusion;
        if let Some(closed_at) = self.closed_at
            && !may_follow_close(body)
        {
            self.findings.push(Finding::AfterClose { sequence, closed_at });
        }
    }

    fn facts(&mut self, effect: EffectId) -> &mut EffectFacts {
        self.effects.entry(effect).or_default()
    }

    fn intent(&mut self, sequence: u64, effect: EffectId, epoch: u32) {
        let facts = self.facts(effect);
        facts.epochs.insert(epoch);
        facts.open.insert(epoch, sequence);
        if facts.last_decision != Some(DecisionOutcome::Allow) {
            self.findings.push(Finding::IntentWithoutAllow { sequence, effect });
        }
    }

    fn outcome(&mut self, sequence: u64, effect: EffectId, claim: Option<u32>) {
        let facts = self.facts(effect);
        let announced = claim.map_or(!facts.epochs.is_empty(), |epoch| facts.epochs.contains(&epoch));
        let doubled = std::mem::replace(&mut facts.has_outcome, true);
        facts.settle();
        if !announced {
            self.findings.push(Finding::OutcomeWithoutIntent { sequence, effect });
        }
        if doubled {
            self.findings.push(Finding::Doubled { sequence, effect });
        }
    }

    fn late_outcome(&mut self, sequence: u64, effect: EffectId, epoch: u32, may_have_doubled: bool) {
        if !self.facts(effect).epochs.contains(&epoch) {
            self.findings.push(Finding::OutcomeWithoutIntent { sequence, effect });
        }
        if may_have_doubled {
            self.findings.push(Finding::Doubled { sequence, effect });
        }
        if self.facts(effect).denied_by_person {
            self.findings.push(Finding::WordContradicted { sequence, effect });
        }
    }

    fn finish(mut self) -> Verification {
        if self.head.records == 0 {
            self.findings.push(Finding::NotOpened { sequence: 1 });
        }
        for (effect, facts) in &self.effects {
            let effect = *effect;
            match (facts.unknown_at, facts.open.values().next_back()) {
                (Some(sequence), _) => self.findings.push(Finding::UnknownOutcome { sequence, effect }),
                (None, Some(&sequence)) => self.findings.push(Finding::OpenIntent { sequence, effect }),
                (None, None) => {}
            }
        }
        self.check_witness();
        Verification { head: self.head, closed: self.closed_at.is_some(), findings: self.findings }
    }

    fn check_witness(&mut self) {
        if let Some(witness) = self.witness
            && !self.witness_seen
        {
            self.findings.push(Finding::CutOff { sequence: witness.records });
        }
    }
}

/// Reads a record, and refuses bytes that writing it again would not give: doubled keys, unknown fields, spaces.
fn read(bytes: &[u8]) -> Result<AuditRecord, String> {
    let record: AuditRecord = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match canonical::to_canonical(&record) {
        Ok(again) if again == bytes => Ok(record),
        Ok(_) => Err("it is not in canonical form".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn may_follow_close(body: &RecordBody) -> bool {
    match body {
        RecordBody::Outcome { .. }
        | RecordBody::LateOutcome { .. }
        | RecordBody::NotSent { .. }
        | RecordBody::OutcomeUnknown { .. }
        | RecordBody::Resolved { .. }
        | RecordBody::ApprovalDecided { refused: Some(_), .. }
        | RecordBody::Instructed { refused: Some(_), .. }
        | RecordBody::MessagesRefused { .. }
        | RecordBody::RunReset { .. }
        | RecordBody::Intrusion { .. } => true,
        RecordBody::RunOpened { .. }
        | RecordBody::Decision { .. }
        | RecordBody::CallRefused { .. }
        | RecordBody::Intent { .. }
        | RecordBody::ApprovalRequested { .. }
        | RecordBody::ApprovalDecided { refused: None, .. }
        | RecordBody::ApprovalExpired { .. }
        | RecordBody::ApprovalEscalated { .. }
        | RecordBody::CallRevised { .. }
        | RecordBody::QuestionAsked { .. }
        | RecordBody::QuestionExpired { .. }
        | RecordBody::Instructed { refused: None, .. }
        | RecordBody::CallAbandoned { .. }
        | RecordBody::Halted { .. }
        | RecordBody::RunReconciled { .. }
        | RecordBody::RunClosed { .. }
        | RecordBody::StoreBehindRun { .. }
        | RecordBody::BundleApplied { .. }
        | RecordBody::Quarantined { .. }
        | RecordBody::QuarantineLifted { .. }
        | RecordBody::OperatorRefused { .. } => false,
    }
}

#[cfg(test)]
mod tests;
