//! What a policy may not do although Cedar lets it.

use super::*;

fn errors(text: &str, scope: PolicyScope) -> Vec<String> {
    let source = PolicySource { path: "p.cedar".into(), text: text.into(), scope };
    let errors = PolicyBundle::load(&[source], &registry()).err().unwrap_or_default();
    errors.iter().map(|e| format!("{e} ({})", e.suggestion().unwrap_or_default())).collect()
}

fn check(text: &str, expect: &str) {
    let errors = errors(text, PolicyScope::Everybody);
    assert!(errors.iter().any(|error| error.contains(expect)), "{text}\nwanted {expect}\ngot {errors:#?}");
}

fn refunds_when(condition: &str) -> String {
    format!(
        "@id(\"a\") forbid (principal, action == Mandate::Action::\"payments.refund\", resource)\nwhen {{ {condition} }};"
    )
}

#[test]
fn what_a_policy_names_has_to_be_configured() {
    let call = "action in Mandate::Action::\"call_tool\"";
    for (text, expect) in [
        (
            format!("@id(\"a\") permit (principal, {call}, resource == Mandate::Tool::\"payments.refnd\");"),
            "p.cedar:1:96: `Mandate::Tool::\"payments.refnd\"` is not configured (did you mean `payments.refund`?)",
        ),
        (
            format!("@id(\"a\") permit (principal in Mandate::Unit::\"acme/suport\", {call}, resource);"),
            "(did you mean `acme/support`?)",
        ),
        (
            format!("@id(\"a\") permit (principal in Mandate::Tenant::\"zeta\", {call}, resource);"),
            "`Mandate::Tenant::\"zeta\"` is not configured (known are acme)",
        ),
        (
            format!("@id(\"a\") permit (principal == Mandate::Agent::\"acme/support/refund\", {call}, resource);"),
            "(did you mean `acme/support/refunds`?)",
        ),
        (
            "@id(\"a\") permit (principal in Mandate::Group::\"finance-lead\", \
             action == Mandate::Action::\"apply\", resource);"
                .into(),
            "(did you mean `finance-leads`?)",
        ),
        (
            "@id(\"a\") permit (principal, action == Mandate::Action::\"invoke_model\", \
             resource in Mandate::Provider::\"api.exmaple.com\");"
                .into(),
            "(did you mean `api.example.com`?)",
        ),
        (refunds_when("context.facts.classes.contains(Mandate::DataClass::\"contcat\")"), "contcat"),
        (refunds_when("context.facts.tools[\"payments.refnd\"].calls > 1"), "payments.refnd"),
        (refunds_when("context.facts.tools[\"payments.refund\"].amounts.amount_cent > 1"), "amount_cent"),
    ] {
        check(&text, expect);
    }
}

#[test]
fn a_policy_that_can_fail_when_it_is_evaluated_is_not_loaded() {
    for condition in [
        "context.input.amount_cents * context.input.amount_cents > 5",
        "-(context.facts.tokens * 2000) < 0",
        "context.input.amount_cents * 4000 > 5",
        "(if context.input has note then context.input.amount_cents else 1) * 2000 > 1",
        "9223372036854775807 + context.input.amount_cents > 0",
    ] {
        check(&refunds_when(condition), "p.cedar:1:1: the sum may overflow when it is evaluated");
    }
    for condition in [
        "context.input.amount_cents + context.facts.tokens * 1000 > 5",
        "context.input.amount_cents - context.facts.tokens > 5",
        "-context.input.amount_cents < 5",
        "context.input.amount_cents * (2 + 3) > 5",
    ] {
        assert_eq!(errors(&refunds_when(condition), PolicyScope::Everybody), Vec::<String>::new(), "{condition}");
    }
    check(&refunds_when("context.input.note == \"x\""), "note");
    check(
        &refunds_when("datetime(\"2026-01-01\").offset(duration(\"1d\")) > datetime(\"2026-01-01\")"),
        "p.cedar:2:31: `offset` can fail when it is evaluated",
    );
}

#[test]
fn a_lower_level_may_only_forbid_and_only_to_its_own() {
    let scope = || PolicyScope::Below("acme/support".into());
    let rest = "action, resource);";
    for text in [
        format!("@id(\"a\") forbid (principal in Mandate::Unit::\"acme/support\", {rest}"),
        format!("@id(\"a\") forbid (principal == Mandate::Agent::\"acme/support/refunds\", {rest}"),
        format!("@id(\"a\") forbid (principal is Mandate::Agent in Mandate::Unit::\"acme/support\", {rest}"),
    ] {
        assert_eq!(errors(&text, scope()), Vec::<String>::new(), "{text}");
    }
    for (text, expect) in [
        (
            format!("@id(\"a\")\npermit (principal in Mandate::Unit::\"acme/support\", {rest}"),
            "p.cedar:2:1: a policy of `acme/support` may only forbid",
        ),
        (
            format!("@id(\"a\") forbid (principal, {rest}"),
            "p.cedar:1:18: a policy of `acme/support` has to name it as its principal \
             (write `principal in Mandate::Unit::\"acme/support\"`)",
        ),
        (format!("@id(\"a\") forbid (principal in Mandate::Tenant::\"acme\", {rest}"), "has to name it"),
        (format!("@id(\"a\") forbid (principal == Mandate::Agent::\"acme/sales/offers\", {rest}"), "has to name it"),
        (format!("@id(\"a\") forbid (principal is Mandate::Agent, {rest}"), "has to name it"),
        (format!("@id(\"a\") forbid (principal in Mandate::Group::\"support\", {rest}"), "has to name it"),
    ] {
        let errors = errors(&text, scope());
        assert!(errors.iter().any(|error| error.contains(expect)), "{text}\nwanted {expect}\ngot {errors:#?}");
    }
}
