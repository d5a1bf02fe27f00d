//! Verification finds whatever was done to a chain.

use proptest::prelude::*;

use std::collections::BTreeMap;

use super::*;
use crate::{
    Address, AgentName, ModelName, Origin, PersonId, PolicyId, Proof, RequestId, Resolution, RunState, StoreId,
    ToolCallId, Usage, Verdict, Who, audit::link,
};

fn run() -> RunChain {
    RunChain { workflow_id: "refund-o1".into(), first_run_id: "run-1".into() }
}

fn address(byte: u8) -> Address {
    Address::from_bytes([byte; 32])
}

fn record(body: RecordBody) -> AuditRecord {
    AuditRecord {
        v: 1,
        run: run(),
        sequence: 0,
        previous: ChainHead::empty().head,
        time_micros: 1,
        key: "key".into(),
        who: Who {
            agent: AgentName::parse("acme/support/refunds").unwrap(),
            agent_version: Digest::from_bytes([1; 32]),
            on_behalf_of: PersonId::parse("ana@acme.example").unwrap(),
            proof: Proof::Claimed,
        },
        origin: Origin { run_id: "run-1".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() },
        body,
    }
}

fn opened() -> RecordBody {
    RecordBody::RunOpened {
        policies: vec![],
        started_by: None,
        started_by_proof: None,
        started_by_evidence: None,
        evidence: None,
        prompt: address(1),
        model: ModelName::parse("support").unwrap(),
        instructions: Digest::from_bytes([2; 32]),
        tools: Digest::from_bytes([3; 32]),
        bundle: Digest::from_bytes([4; 32]),
        store: StoreId::parse("0".repeat(32)).unwrap(),
    }
}

fn decision(effect: EffectId, outcome: DecisionOutcome) -> RecordBody {
    RecordBody::Decision {
        approved: vec![],
        effect,
        target: "payments.refund".into(),
        input: address(5),
        outcome,
        policies: vec![PolicyId::parse("refund.base").unwrap()],
        bundle: Digest::from_bytes([4; 32]),
        reason: "small".into(),
    }
}

fn allow(effect: EffectId) -> RecordBody {
    decision(effect, DecisionOutcome::Allow)
}

fn intent(effect: EffectId, epoch: u32) -> RecordBody {
    RecordBody::Intent {
        effect,
        target: "payments.refund".into(),
        input: address(5),
        epoch,
        approvals: vec![],
        amounts: BTreeMap::new(),
        cost_micros: 0,
    }
}

fn outcome_by(known_by: KnownBy, effect: EffectId, epoch: u32) -> RecordBody {
    RecordBody::Outcome {
        effect,
        epoch,
        known_by,
        result: address(6),
        is_error: false,
        usage: None,
        classes: vec![],
        withheld: vec![],
        duration_ms: 3,
    }
}

fn outcome(effect: EffectId, epoch: u32) -> RecordBody {
    outcome_by(KnownBy::Answer, effect, epoch)
}

fn late(effect: EffectId, epoch: u32, may_have_doubled: bool) -> RecordBody {
    RecordBody::LateOutcome { effect, epoch, result: address(7), may_have_doubled }
}

fn not_sent(effect: EffectId, epoch: u32) -> RecordBody {
    RecordBody::NotSent { effect, epoch, reason: "the claim ran out".into() }
}

fn unknown(effect: EffectId) -> RecordBody {
    RecordBody::OutcomeUnknown { effect, reason: "no answer".into() }
}

fn resolved(effect: EffectId, refused: Option<&str>) -> RecordBody {
    RecordBody::Resolved {
        policies: vec![],
        bundle: None,
        effect,
        resolution: Resolution::Skip,
        by: PersonId::parse("bo@acme.example").unwrap(),
        proof: Proof::Claimed,
        evidence: None,
        refused: refused.map(str::to_owned),
        comment: None,
    }
}

fn decided(effect: EffectId, refused: Option<&str>) -> RecordBody {
    RecordBody::ApprovalDecided {
        policies: vec![],
        bundle: None,
        request: RequestId::parse("r1-abcdef").unwrap(),
        effect,
        verdict: Verdict::Approve,
        by: PersonId::parse("bo@acme.example").unwrap(),
        proof: Proof::Claimed,
        evidence: None,
        refused: refused.map(str::to_owned),
        comment: None,
        arguments: None,
    }
}

fn intrusion() -> RecordBody {
    RecordBody::Intrusion { what: "a foreign workflow".into(), reason: "not this run".into() }
}

fn closed(unknown_outcomes: Vec<ToolCallId>) -> RecordBody {
    let usage = Usage::default();
    RecordBody::RunClosed { state: RunState::Completed, reason: None, turns: 1, usage, unknown_outcomes }
}

const T: EffectId = EffectId::Tool(ToolCallId { turn: 1, index: 0, revision: 1, undo: false });
const M: EffectId = EffectId::Model(1);

fn chain(bodies: Vec<RecordBody>) -> Vec<StoredRecord> {
    linked(bodies.into_iter().map(record).collect())
}

fn linked(records: Vec<AuditRecord>) -> Vec<StoredRecord> {
    let mut head = ChainHead::empty();
    let mut stored = Vec::new();
    for record in records {
        let linked = link(&head, record).unwrap();
        head = linked.chain_head();
        stored.push(StoredRecord { canonical: linked.canonical, hash: linked.hash });
    }
    stored
}

/// A run with an approval, a claim that was given back, and a second claim that was performed.
fn good() -> Vec<StoredRecord> {
    chain(vec![
        opened(),
        allow(M),
        intent(M, 1),
        outcome(M, 1),
        decision(T, DecisionOutcome::RequireApproval),
        decided(T, None),
        allow(T),
        intent(T, 1),
        not_sent(T, 1),
        allow(T),
        intent(T, 2),
        outcome(T, 2),
        closed(vec![]),
    ])
}

fn head_of(records: &[StoredRecord]) -> ChainHead {
    records.last().map_or_else(ChainHead::empty, |last| ChainHead {
        records: u64::try_from(records.len()).unwrap(),
        head: last.hash.clone(),
    })
}

/// What the chain of these bodies shows.
fn check(bodies: Vec<RecordBody>, expect: &[Finding]) {
    let records = chain(bodies);
    let verification = verify(&run(), &records, Some(&head_of(&records)));
    assert_eq!(verification.findings, expect);
    assert_eq!(verification.holds(), !expect.iter().any(Finding::is_violation));
}

#[test]
fn a_good_chain_holds_with_and_without_a_witness() {
    let records = good();
    let early = head_of(&records[..4]);
    for witness in [None, Some(&head_of(&records)), Some(&early), Some(&ChainHead::empty())] {
        let verification = verify(&run(), &records, witness);
        assert_eq!(verification, Verification { head: head_of(&records), closed: true, findings: vec![] });
    }
    assert!(!verify(&run(), &records[..5], None).closed);
}

#[test]
fn a_chain_begins_with_the_opening_of_the_run() {
    check(vec![intrusion(), opened()], &[]);
    check(vec![], &[Finding::NotOpened { sequence: 1 }]);
    check(vec![allow(T), allow(T)], &[Finding::NotOpened { sequence: 1 }]);
    check(vec![opened(), opened()], &[Finding::OpenedAgain { sequence: 2 }]);
}

#[test]
fn records_of_another_run_are_foreign() {
    let other = RunChain { workflow_id: "refund-o2".into(), first_run_id: "run-2".into() };
    let records = linked(vec![record(opened()), AuditRecord { run: other.clone(), ..record(allow(T)) }]);
    assert_eq!(verify(&run(), &records, None).findings, [Finding::ForeignRecord { sequence: 2, run: other }]);
}

#[test]
fn only_late_news_may_follow_the_close() {
    let open = || vec![opened(), allow(T), intent(T, 1), closed(vec![])];
    let settled = || vec![opened(), allow(T), intent(T, 1), outcome(T, 1), closed(vec![])];
    let after = |mut bodies: Vec<RecordBody>, body| {
        bodies.push(body);
        bodies
    };
    for body in [outcome(T, 1), not_sent(T, 1), resolved(T, None)] {
        check(after(open(), body), &[]);
    }
    let summary = RecordBody::MessagesRefused { count: 2, last_reason: "no such request".into() };
    for body in [late(T, 1, false), decided(T, Some("closed")), summary, intrusion()] {
        check(after(settled(), body), &[]);
    }
    for body in [allow(T), decided(T, None), closed(vec![])] {
        check(after(settled(), body), &[Finding::AfterClose { sequence: 6, closed_at: 5 }]);
    }
}

#[test]
fn effects_are_allowed_announced_and_performed_once() {
    let begin = || vec![opened(), allow(T), intent(T, 1)];
    let then = |bodies: &[RecordBody]| begin().into_iter().chain(bodies.iter().cloned()).collect::<Vec<_>>();
    check(vec![opened(), intent(T, 1), outcome(T, 1)], &[Finding::IntentWithoutAllow { sequence: 2, effect: T }]);
    check(
        vec![opened(), allow(T), decision(T, DecisionOutcome::Deny), intent(T, 1), outcome(T, 1)],
        &[Finding::IntentWithoutAllow { sequence: 4, effect: T }],
    );
    check(
        vec![opened(), allow(M), intent(T, 1), outcome(T, 1)],
        &[Finding::IntentWithoutAllow { sequence: 3, effect: T }],
    );
    check(vec![opened(), outcome(T, 1)], &[Finding::OutcomeWithoutIntent { sequence: 2, effect: T }]);
    check(then(&[outcome(T, 2)]), &[Finding::OutcomeWithoutIntent { sequence: 4, effect: T }]);
    check(then(&[outcome_by(KnownBy::Person, T, 2)]), &[]);
    check(then(&[outcome(T, 1), outcome(T, 1)]), &[Finding::Doubled { sequence: 5, effect: T }]);
    check(then(&[outcome(T, 1), late(T, 1, true)]), &[Finding::Doubled { sequence: 5, effect: T }]);
    check(then(&[outcome(T, 1), late(T, 2, false)]), &[Finding::OutcomeWithoutIntent { sequence: 5, effect: T }]);
}

#[test]
fn what_someone_has_to_look_at_is_no_violation() {
    let begin = || vec![opened(), allow(T), intent(T, 1)];
    let then = |bodies: &[RecordBody]| begin().into_iter().chain(bodies.iter().cloned()).collect::<Vec<_>>();
    let call = ToolCallId::new(1, 0);
    check(begin(), &[Finding::OpenIntent { sequence: 3, effect: T }]);
    check(then(&[not_sent(T, 1)]), &[]);
    check(then(&[intent(T, 2), not_sent(T, 2)]), &[Finding::OpenIntent { sequence: 3, effect: T }]);
    check(then(&[unknown(T)]), &[Finding::UnknownOutcome { sequence: 4, effect: T }]);
    check(then(&[unknown(T), outcome(T, 1)]), &[]);
    check(then(&[unknown(T), resolved(T, None)]), &[]);
    check(then(&[unknown(T), resolved(T, Some("no"))]), &[Finding::UnknownOutcome { sequence: 4, effect: T }]);
    check(then(&[closed(vec![call])]), &[Finding::UnknownOutcome { sequence: 4, effect: T }]);
    check(then(&[closed(vec![call]), resolved(T, None)]), &[]);
}

#[test]
fn bytes_that_are_no_record_are_unreadable() {
    let mut records = good();
    let spaced = [b" ", records[3].canonical.as_slice()].concat();
    for bytes in [b"{}".to_vec(), b"\xff".to_vec(), vec![], spaced] {
        // Hashed again, as whoever owns the database can.
        records[3] = StoredRecord { hash: canonical::sha256(&bytes), canonical: bytes };
        let findings = verify(&run(), &records, None).findings;
        assert!(matches!(findings[0], Finding::Unreadable { sequence: 4, .. }), "{findings:?}");
        assert!(findings.iter().any(|finding| matches!(finding, Finding::Broken { sequence: 5, .. })), "{findings:?}");
    }
}

#[test]
fn every_message_names_the_sequence_number() {
    let mut bodies = vec![outcome(T, 1), opened(), intent(T, 1), outcome(T, 1), unknown(M), closed(vec![]), allow(T)];
    bodies.push(opened());
    let mut records = chain(bodies);
    records[1].canonical[5] ^= 1;
    records.remove(3);
    let far = ChainHead { records: 99, head: Digest::from_bytes([9; 32]) };
    let findings = verify(&run(), &records, Some(&far)).findings;
    assert!(findings.len() >= 7, "{findings:?}");
    for finding in findings {
        let text = finding.to_string();
        let number = text.strip_prefix("record ").and_then(|rest| rest.split_once(':')).map(|(number, _)| number);
        assert!(number.is_some_and(|number| number.parse::<u64>().is_ok()), "{text}");
    }
}

/// A single change to a log.
#[derive(Debug, Clone)]
enum Tampering {
    Edit { byte: prop::sample::Index, bit: u8 },
    EditAndHash { byte: prop::sample::Index },
    Hash,
    Remove,
    Repeat { at: prop::sample::Index },
    Forge { body: usize },
    Swap { with: prop::sample::Index },
    Truncate,
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0_u8..8).prop_map(|(byte, bit)| Tampering::Edit { byte, bit }),
        any::<prop::sample::Index>().prop_map(|byte| Tampering::EditAndHash { byte }),
        Just(Tampering::Hash),
        Just(Tampering::Remove),
        any::<prop::sample::Index>().prop_map(|at| Tampering::Repeat { at }),
        (0_usize..3).prop_map(|body| Tampering::Forge { body }),
        any::<prop::sample::Index>().prop_map(|with| Tampering::Swap { with }),
        Just(Tampering::Truncate),
    ]
}

/// The log after the change at `at`; the same log where the change happens to change nothing.
fn tampered(mut records: Vec<StoredRecord>, at: usize, how: &Tampering) -> Vec<StoredRecord> {
    match how {
        Tampering::Edit { byte, bit } => {
            let byte = byte.index(records[at].canonical.len());
            records[at].canonical[byte] ^= 1 << bit;
        }
        Tampering::EditAndHash { byte } => {
            let byte = byte.index(records[at].canonical.len());
            records[at].canonical[byte] ^= 1;
            records[at].hash = canonical::sha256(&records[at].canonical);
        }
        Tampering::Hash => records[at].hash = Digest::from_bytes([0xee; 32]),
        Tampering::Remove => {
            records.remove(at);
        }
        Tampering::Repeat { at: to } => {
            let copy = records[at].clone();
            records.insert(to.index(records.len() + 1), copy);
        }
        Tampering::Forge { body } => {
            let body = [intrusion(), allow(T), outcome(T, 2)][*body].clone();
            let forged = link(&head_of(&records[..at]), record(body)).unwrap();
            records.insert(at, StoredRecord { canonical: forged.canonical, hash: forged.hash });
        }
        Tampering::Swap { with } => {
            let with = with.index(records.len());
            records.swap(at, with);
        }
        Tampering::Truncate => records.truncate(at),
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_single_change_is_found(at in 0_usize..13, how in tampering()) {
        let records = good();
        let after = tampered(records.clone(), at, &how);
        let verification = verify(&run(), &after, Some(&head_of(&records)));
        prop_assert_eq!(verification.holds(), after == records, "{:?}", verification.findings);
    }
}
