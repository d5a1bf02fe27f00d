//! What a gate says beside who decides: when people are reminded, who is asked as well, what the end of its time leads
//! to, and who is excluded.

use super::*;

const APPROVERS: &str = "@approvers(\"finance-leads\")";

/// The gate of a policy with these annotations, beside its approvers.
fn gate(annotations: &str) -> Gate {
    let text = format!(
        "@id(\"base\") permit (principal, action, resource);\n{}",
        gate_with(&format!("{APPROVERS} {annotations}"))
    );
    let decision = ask(&bundle(&text), "orders.read", &json!({}), &approved(&[]));
    let PolicyOutcome::RequireApproval(mut gates) = decision.outcome else { panic!("{}", decision.reason) };
    assert_eq!(gates.len(), 1);
    gates.remove(0)
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

#[test]
fn a_gate_that_says_nothing_more_reminds_nobody_and_denies_at_its_end() {
    let gate = gate("");
    assert_eq!((gate.remind_secs, gate.escalation, gate.on_expiry), (None, None, OnExpiry::Deny));
    assert_eq!(gate.four_eyes, []);
}

#[test]
fn a_gate_says_when_people_are_reminded() {
    for (annotations, secs) in [
        ("@remind(\"PT8H\")", 8 * 3600),
        ("@remind(\"PT23H59M59S\")", 24 * 3600 - 1),
        ("@expires(\"P30D\") @remind(\"P29DT23H\")", (29 * 24 + 23) * 3600),
        ("@expires(\"PT2S\") @remind(\"PT1S\")", 1),
    ] {
        assert_eq!(gate(annotations).remind_secs, Some(secs), "{annotations}");
    }
}

#[test]
fn a_gate_says_who_is_asked_as_well_and_when() {
    let one = gate("@escalate(\"PT12H\") @escalate_to(\"support\")").escalation;
    assert_eq!(one, Some(Escalation { after_secs: 12 * 3600, to: vec![group("support")] }));
    let gate = gate("@escalate(\"PT1M\") @escalate_to(\" finance-leads, support \") @expires(\"PT1H\")");
    let escalation = gate.escalation.as_ref().unwrap();
    assert_eq!(escalation.to, [group("finance-leads"), group("support")]);
    assert_eq!(gate.deciders(false), [group("finance-leads")]);
    assert_eq!(gate.deciders(true), [group("finance-leads"), group("support")], "each group once");
}

#[test]
fn a_gate_says_what_the_end_of_its_time_leads_to() {
    assert_eq!(gate("@on_expiry(\"deny\")").on_expiry, OnExpiry::Deny);
    assert_eq!(gate("@on_expiry(\"halt\")").on_expiry, OnExpiry::Halt);
}

#[test]
fn a_gate_excludes_whoever_started_the_run_or_changed_the_arguments() {
    assert_eq!(gate("@four_eyes(\"starter, editor\")").four_eyes, [Party::Starter, Party::Editor]);
    let all = gate("@four_eyes(\"requester,agent_owner,starter,editor\")").four_eyes;
    assert_eq!(all, Party::ALL);
}

#[test]
fn each_rule_about_waiting_is_kept() {
    let wait = "it is an ISO 8601 duration from PT1S to less than that of `@expires`, such as PT8H";
    let parties = "known are `requester`, `agent_owner`, `starter` and `editor`";
    for (annotations, expect) in [
        ("@remind(\"8h\")", format!("2:1: `@remind` is `8h`; {wait}")),
        ("@remind(\"\")", format!("2:1: `@remind` is ``; {wait}")),
        ("@remind(\"PT0S\")", format!("2:1: `@remind` is `PT0S`; {wait}")),
        ("@remind(\"PT24H\")", format!("2:1: `@remind` is `PT24H`; {wait}")),
        ("@expires(\"PT1H\")\n@remind(\"PT1H\")", format!("3:1: `@remind` is `PT1H`; {wait}")),
        ("@expires(\"never\")\n@remind(\"P30D\")", format!("3:1: `@remind` is `P30D`; {wait}")),
        ("@escalate(\"PT24H\") @escalate_to(\"support\")", format!("2:1: `@escalate` is `PT24H`; {wait}")),
        ("@escalate(\"soon\") @escalate_to(\"support\")", format!("2:1: `@escalate` is `soon`; {wait}")),
        ("@escalate(\"PT1H\")", "2:1: `@escalate` needs `@escalate_to`".into()),
        ("@escalate_to(\"support\")", "2:1: `@escalate_to` needs `@escalate`".into()),
        ("@escalate(\"PT1H\")\n@escalate_to(\" , \")", "3:1: `@escalate_to` names no group".into()),
        ("@escalate(\"PT1H\")\n@escalate_to(\"board\")", "3:1: approver group `board` is not configured".into()),
        ("@escalate(\"PT1H\")\n@escalate_to(\"nobody\")", "3:1: approver group `nobody` has no members".into()),
        ("@escalate(\"PT1H\")\n@escalate_to(\"a::b\")", "3:1: `a::b` is not a valid group name".into()),
        ("@on_expiry(\"allow\")", "2:1: `@on_expiry` is `allow`; it is `deny` or `halt`".into()),
        ("@on_expiry(\"\")", "2:1: `@on_expiry` is ``; it is `deny` or `halt`".into()),
        ("@four_eyes(\"starter, editors\")", format!("2:1: `@four_eyes` names `editors`; {parties}")),
        ("@four_eyes(\"owner\")", format!("2:1: `@four_eyes` names `owner`; {parties}")),
    ] {
        let text = gate_with(&format!("{APPROVERS}\n{annotations}"));
        let errors = load(&text).err().unwrap_or_else(|| panic!("loaded: {text}"));
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expect = format!("policies/refunds.cedar:{expect}");
        assert!(all.iter().any(|error| error.starts_with(&expect)), "{text}\nwanted {expect}\ngot {all:#?}");
    }
}

#[test]
fn what_describes_a_gate_stands_on_a_gate() {
    for annotation in ["remind", "escalate", "escalate_to", "on_expiry"] {
        let text = format!("@id(\"a\") @{annotation}(\"PT1H\") forbid (principal, action, resource);");
        let errors = load(&text).err().unwrap_or_else(|| panic!("loaded: {text}"));
        let expect = format!("policies/refunds.cedar:1:10: `@{annotation}` describes a gate, and this policy is none");
        assert!(errors.iter().any(|error| error.to_string().starts_with(&expect)), "{text}: {errors:?}");
    }
}

#[test]
fn misspelt_words_about_waiting_come_with_a_suggestion() {
    for (annotations, expect) in [
        ("@on_expiry(\"hlat\")", "did you mean `halt`?"),
        ("@on_expire(\"halt\")", "did you mean `on_expiry`?"),
        ("@remnd(\"PT1H\")", "did you mean `remind`?"),
        ("@escalate(\"PT1H\") @escalate_to(\"suport\")", "did you mean `support`?"),
        ("@escalate(\"PT1H\") @escalateto(\"support\")", "did you mean `escalate_to`?"),
        ("@four_eyes(\"editr\")", "did you mean `editor`?"),
    ] {
        let errors = load(&gate_with(&format!("{APPROVERS} {annotations}"))).unwrap_err();
        assert!(errors.iter().any(|e| e.suggestion().is_some_and(|s| s.contains(expect))), "{annotations}: {errors:?}");
    }
}
