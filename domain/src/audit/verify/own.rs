//! Verification of the store's own chain: operator acts, and attempts to intrude that belong to no run.

use super::{ChainHead, Digest, Finding, RecordBody, RunChain, StoredRecord, Verification, Walk};

/// Verifies the store's own chain, records in the order of the log. `witness` is a head that somebody else kept. A chain
/// without records holds: nothing was done yet.
#[must_use]
pub fn verify_own(chain: &RunChain, records: &[StoredRecord], witness: Option<&ChainHead>) -> Verification {
    let mut walk = Walk::new(chain, witness);
    let mut active = None;
    for stored in records {
        if let Some(record) = walk.read(stored) {
            walk.findings.extend(judge(record.sequence, record.body, &mut active));
        }
    }
    walk.check_witness();
    Verification { head: walk.head, closed: false, findings: walk.findings }
}

/// The bundle that was applied last.
type Active = Option<(u64, Digest)>;

fn judge(sequence: u64, body: RecordBody, active: &mut Active) -> Option<Finding> {
    match body {
        RecordBody::BundleApplied { version, digest, previous, .. } => {
            let before = active.replace((version, digest));
            let (last, was_active) = before.map_or((0, None), |(version, digest)| (version, Some(digest)));
            let follows = last.checked_add(1) == Some(version) && was_active == previous;
            (!follows).then_some(Finding::BundleOutOfOrder { sequence, version })
        }
        RecordBody::Quarantined { .. }
        | RecordBody::QuarantineLifted { .. }
        | RecordBody::OperatorRefused { .. }
        | RecordBody::StoreBehindRun { .. }
        | RecordBody::Intrusion { .. } => None,
        RecordBody::RunOpened { .. }
        | RecordBody::Decision { .. }
        | RecordBody::CallRefused { .. }
        | RecordBody::Intent { .. }
        | RecordBody::Outcome { .. }
        | RecordBody::LateOutcome { .. }
        | RecordBody::NotSent { .. }
        | RecordBody::OutcomeUnknown { .. }
        | RecordBody::ApprovalRequested { .. }
        | RecordBody::ApprovalDecided { .. }
        | RecordBody::ApprovalExpired { .. }
        | RecordBody::ApprovalEscalated { .. }
        | RecordBody::CallRevised { .. }
        | RecordBody::QuestionAsked { .. }
        | RecordBody::QuestionExpired { .. }
        | RecordBody::Instructed { .. }
        | RecordBody::Resolved { .. }
        | RecordBody::CallAbandoned { .. }
        | RecordBody::MessagesRefused { .. }
        | RecordBody::Halted { .. }
        | RecordBody::RunReconciled { .. }
        | RecordBody::RunReset { .. }
        | RecordBody::RunClosed { .. } => Some(Finding::Misplaced { sequence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AgentName, AuditRecord, EffectId, Origin, PersonId, PolicyId, Proof, QuarantineTarget, Who, audit::link,
        canonical,
    };

    fn chain() -> RunChain {
        RunChain { workflow_id: "mandate-store".into(), first_run_id: "0".repeat(32) }
    }

    fn person() -> PersonId {
        PersonId::parse("olga@acme.example").unwrap()
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    fn applied(version: u64, content: u8, previous: Option<u8>) -> RecordBody {
        RecordBody::BundleApplied {
            version,
            digest: digest(content),
            previous: previous.map(digest),
            by: person(),
            proof: Proof::Claimed,
            policies: vec![PolicyId::parse("operators.apply").unwrap()],
            rollback: false,
        }
    }

    fn target() -> QuarantineTarget {
        "tool:payments.refund".parse().unwrap()
    }

    fn quarantined() -> RecordBody {
        let (by, proof, bundle) = (person(), Proof::Claimed, Some(digest(1)));
        RecordBody::Quarantined { target: target(), by, proof, policies: vec![], bundle, reason: "leak".into() }
    }

    fn lifted() -> RecordBody {
        let (by, proof) = (person(), Proof::Claimed);
        RecordBody::QuarantineLifted { target: target(), by, proof, policies: vec![], bundle: None }
    }

    fn refused() -> RecordBody {
        RecordBody::OperatorRefused {
            action: "lift".into(),
            target: target().to_string(),
            by: person(),
            proof: Proof::Claimed,
            policies: vec![],
            bundle: Some(digest(1)),
            reason: "no policy permits it".into(),
        }
    }

    fn intrusion() -> RecordBody {
        RecordBody::Intrusion { what: "call_tool".into(), reason: "a foreign workflow".into() }
    }

    fn linked(bodies: Vec<RecordBody>) -> Vec<StoredRecord> {
        let mut head = ChainHead::empty();
        let link_next = |(index, body)| {
            let who = Who {
                agent: AgentName::parse("mandate/store/operators").unwrap(),
                agent_version: digest(0),
                on_behalf_of: person(),
                proof: Proof::Claimed,
            };
            let origin = Origin { run_id: String::new(), activity_id: String::new(), attempt: 1, worker: "w".into() };
            let (key, previous) = (format!("{index}"), head.head.clone());
            let record =
                AuditRecord { v: 1, run: chain(), sequence: 0, previous, time_micros: 1, key, who, origin, body };
            let linked = link(&head, record).unwrap();
            head = linked.chain_head();
            StoredRecord { canonical: linked.canonical, hash: linked.hash }
        };
        bodies.into_iter().enumerate().map(link_next).collect()
    }

    fn check(bodies: Vec<RecordBody>, expect: &[Finding]) {
        let verification = verify_own(&chain(), &linked(bodies), None);
        assert_eq!((verification.findings.as_slice(), verification.closed), (expect, false));
        assert_eq!(verification.holds(), expect.is_empty());
    }

    #[test]
    fn operator_acts_and_intrusions_hold_and_so_does_nothing() {
        check(vec![], &[]);
        check(vec![intrusion(), applied(1, 1, None), quarantined(), refused(), lifted(), applied(2, 2, Some(1))], &[]);
    }

    #[test]
    fn bundles_follow_each_other() {
        let out = |sequence, version| [Finding::BundleOutOfOrder { sequence, version }];
        check(vec![applied(2, 1, None)], &out(1, 2));
        check(vec![applied(1, 1, Some(9))], &out(1, 1));
        check(vec![applied(1, 1, None), applied(3, 2, Some(1))], &out(2, 3));
        check(vec![applied(1, 1, None), applied(2, 2, None)], &out(2, 2));
        check(vec![applied(1, 1, None), applied(2, 2, Some(3)), applied(3, 3, Some(2))], &out(2, 2));
    }

    #[test]
    fn neither_kind_of_chain_takes_records_of_the_other() {
        let misplaced = [Finding::Misplaced { sequence: 1 }];
        check(vec![RecordBody::NotSent { effect: EffectId::Model(1), epoch: 1, reason: "late".into() }], &misplaced);
        for body in [applied(1, 1, None), quarantined(), lifted(), refused()] {
            let findings = super::super::verify(&chain(), &linked(vec![body]), None).findings;
            assert!(findings.contains(&misplaced[0]), "{findings:?}");
        }
    }

    #[test]
    fn whatever_was_done_to_a_record_is_found() {
        let good = || linked(vec![applied(1, 1, None), quarantined(), lifted()]);
        let head = ChainHead { records: 3, head: good()[2].hash.clone() };
        assert!(verify_own(&chain(), &good(), Some(&head)).holds());
        let edits: [fn(&mut Vec<StoredRecord>); 6] = [
            |records| records[1].canonical[20] ^= 1,
            |records| {
                let text = String::from_utf8(records[1].canonical.clone()).unwrap().replace("leak", "none");
                records[1] = StoredRecord { hash: canonical::sha256(text.as_bytes()), canonical: text.into_bytes() };
            },
            |records| drop(records.remove(1)),
            |records| records.swap(1, 2),
            |records| records.truncate(2),
            Vec::clear,
        ];
        for edit in edits {
            let mut records = good();
            edit(&mut records);
            assert!(!verify_own(&chain(), &records, Some(&head)).holds(), "{records:?}");
        }
    }
}
