//! Who may decide, case by case, and gates of older programs.

use super::*;

fn person(text: &str) -> PersonId {
    PersonId::parse(text).unwrap()
}

fn group(text: &str) -> GroupName {
    GroupName::parse(text).unwrap()
}

fn gate() -> Gate {
    Gate {
        id: PolicyId::parse("refund.large").unwrap(),
        approvers: vec![group("finance-leads")],
        quorum: 2,
        four_eyes: Party::ALL.to_vec(),
        expires_secs: 60,
        reason: "large".into(),
        remind_secs: None,
        escalation: Some(Escalation { after_secs: 30, to: vec![group("board")] }),
        on_expiry: OnExpiry::Deny,
    }
}

fn check_at(gate: &Gate, proof: Proof, by: &str, groups: &[&str], approved_by: &[&str]) -> Vec<String> {
    check_verdict(gate, Verdict::Approve, proof, by, groups, approved_by)
}

fn check_verdict(
    gate: &Gate,
    verdict: Verdict,
    proof: Proof,
    by: &str,
    groups: &[&str],
    approved_by: &[&str],
) -> Vec<String> {
    check_parties(gate, verdict, proof, by, (groups, approved_by), &[])
}

fn check_parties(
    gate: &Gate,
    verdict: Verdict,
    proof: Proof,
    by: &str,
    (groups, approved_by): (&[&str], &[&str]),
    unproved: &[Party],
) -> Vec<String> {
    let parties = Parties {
        requester: person("ana"),
        agent_owner: person("owner"),
        starter: person("starter"),
        editor: Some(person("editor")),
        unproved: unproved.to_vec(),
    };
    let groups: Vec<_> = groups.iter().map(|name| group(name)).collect();
    let approved: Vec<_> = approved_by.iter().map(|p| person(p)).collect();
    let by = person(by);
    let decider = Decider { by: &by, proof, member_of: &groups, verdict };
    let admitted = admit_decision(gate, false, decider, &parties, &approved);
    admitted.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn check(by: &str, groups: &[&str], approved_by: &[&str]) -> Vec<String> {
    check_at(&gate(), Proof::Key, by, groups, approved_by)
}

#[test]
fn a_member_decides_once_and_the_parties_never() {
    assert_eq!(check("bo", &["finance-leads"], &[]), Vec::<String>::new());
    assert_eq!(check("bo", &["finance-leads"], &["eve"]), Vec::<String>::new());
    assert_eq!(check("bo", &["finance-leads"], &["bo"]), ["`bo` has approved this request already"]);
    let rejects = check_verdict(&gate(), Verdict::Reject, Proof::Key, "bo", &["finance-leads"], &["bo"]);
    assert_eq!(rejects, Vec::<String>::new(), "whoever approved may think better of it");
    assert_eq!(check("bo", &["sales"], &[]), ["`bo` is in none of the approver groups (finance-leads)"]);
    let parties = [
        ("ana", "the person the run acts for"),
        ("owner", "the owner of the agent"),
        ("starter", "the person who started the run"),
        ("editor", "the person who changed the arguments"),
    ];
    for (by, role) in parties {
        let expected = format!("`{by}` is {role} and may not decide this request (four eyes)");
        assert_eq!(check(by, &["finance-leads"], &[]), [expected]);
    }
}

#[test]
fn four_eyes_need_parties_who_are_proved_and_one_rejection_does_not() {
    let check = |gate: &Gate, verdict| {
        let unproved = [Party::Requester, Party::Starter];
        check_parties(gate, verdict, Proof::Key, "bo", (&["finance-leads"], &[]), &unproved)
    };
    let broken = check(&gate(), Verdict::Approve);
    assert!(broken.len() == 2 && broken[0].contains("it is not proved who the person the run acts for is"));
    assert_eq!(check(&gate(), Verdict::Reject), Vec::<String>::new());
    let owner_alone = Gate { four_eyes: vec![Party::AgentOwner], ..gate() };
    assert_eq!(check(&owner_alone, Verdict::Approve), Vec::<String>::new());
}

#[test]
fn claims_hold_neither_a_quorum_nor_four_eyes() {
    let claimed = |gate: &Gate| check_at(gate, Proof::Claimed, "bo", &["finance-leads"], &[]);
    assert!(claimed(&gate())[0].contains("more than one approver"));
    let four_eyes = Gate { quorum: 1, ..gate() };
    assert!(claimed(&four_eyes)[0].contains("four eyes"));
    assert_eq!(claimed(&Gate { four_eyes: vec![], ..four_eyes }), Vec::<String>::new());
}

#[test]
fn further_groups_decide_from_the_escalation_on() {
    assert_eq!(gate().deciders(false), [group("finance-leads")]);
    assert_eq!(gate().deciders(true), [group("finance-leads"), group("board")]);
}

#[test]
fn a_gate_of_an_older_record_is_read() {
    let older = r#"{"id":"g","approvers":["a"],"quorum":1,"four_eyes":["requester"],"expires_secs":60,"reason":"r"}"#;
    let gate: Gate = serde_json::from_str(older).unwrap();
    assert_eq!((gate.remind_secs, gate.on_expiry), (None, OnExpiry::Deny));
    assert_eq!(serde_json::to_string(&gate).unwrap(), older);
}
