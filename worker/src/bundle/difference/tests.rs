//! Each kind of change, as a person reads it before it is made.

use std::collections::BTreeMap;

use mandate_domain::policy::{BundleFiles, PolicyScope, PolicySource, Registry};
use serde_json::json;

use super::*;

const POLICIES: &str = r#"@id("tools.all")
permit (principal, action in Mandate::Action::"call_tool", resource);

@id("refund.cap")
@reason("at most 100 EUR")
forbid (
  principal,
  action == Mandate::Action::"payments.refund",
  resource
)
when { context.input.amount_cents > 10000 };
"#;

fn files() -> BundleFiles {
    let tool = json!({
        "name": "payments.refund", "description": "Refund a part or all", "owner": "payments@acme.example",
        "read_only": false, "destructive": true, "idempotent": false, "open_world": false, "timeout_secs": 30,
        "reach": { "builtin": { "tool": "current_time" } },
        "input_schema": { "type": "object", "additionalProperties": false, "required": ["amount_cents"],
            "properties": { "amount_cents": { "type": "integer", "minimum": 1, "maximum": 1_000_000 } } },
    });
    let registry = json!({
        "tools": { "payments.refund": tool }, "models": { "support": "scripted" },
        "groups": { "finance-leads": ["bo@acme.example", "eve@acme.example"] },
        "agents": ["acme/support/refunds"], "data_classes": { "order": "orders" },
    });
    let source = PolicySource { path: "policies/a.cedar".into(), text: POLICIES.into(), scope: PolicyScope::default() };
    BundleFiles { sources: vec![source], registry: serde_json::from_value::<Registry>(registry).unwrap() }
}

fn load(files: &BundleFiles) -> PolicyBundle {
    PolicyBundle::load(&files.sources, &files.registry).unwrap()
}

/// The difference that an edit of the files makes.
fn check(edit: impl FnOnce(&mut BundleFiles), expected: &str) {
    let mut after = files();
    edit(&mut after);
    assert_eq!(Difference::between(Some(&load(&files())), &load(&after)).text(), expected);
}

#[test]
fn equal_bundles_do_not_differ() {
    check(|_| (), "");
    assert!(Difference::between(Some(&load(&files())), &load(&files())).is_empty());
}

#[test]
fn a_changed_policy_shows_the_lines_that_differ() {
    check(
        |files| files.sources[0].text = POLICIES.replace("10000", "20000"),
        "~ policy refund.cap\n      )\n    - when { context.input.amount_cents > 10000 };\n    \
         + when { context.input.amount_cents > 20000 };",
    );
}

#[test]
fn policies_that_come_and_go_are_shown_in_full() {
    check(
        |files| {
            let (kept, _) = POLICIES.split_once("\n@id(\"refund.cap\")").unwrap();
            files.sources[0].text = format!("{kept}@id(\"stop\") forbid (principal, action, resource);");
        },
        "- policy refund.cap\n    @id(\"refund.cap\")\n    @reason(\"at most 100 EUR\")\n    forbid (\n      principal,\n      \
         action == Mandate::Action::\"payments.refund\",\n      resource\n    )\n    \
         when { context.input.amount_cents > 10000 };\n\
         + policy stop\n    @id(\"stop\") forbid (principal, action, resource);",
    );
}

#[test]
fn a_changed_tool_names_its_attributes() {
    check(
        |files| {
            let tool = files.registry.tools.values_mut().next().unwrap();
            tool.timeout_secs = 31;
            tool.check = Some("payments.refund".parse().unwrap());
            tool.amounts = vec!["amount_cents".into()];
            tool.input_schema["properties"]["amount_cents"]["maximum"] = json!(2);
        },
        "~ tool payments.refund\n    timeout_secs: 30 → 31\n    input_schema:\n              \"minimum\": 1,\n      \
         -       \"maximum\": 1000000\n      +       \"maximum\": 2\n            }\n    \
         check: none → payments.refund\n    amounts:\n      + [\n      +   \"amount_cents\"\n      + ]",
    );
}

#[test]
fn groups_models_classes_and_agents_are_compared_by_name() {
    check(
        |files| {
            let registry = &mut files.registry;
            registry.groups.values_mut().next().unwrap().remove(1);
            registry.groups.insert("platform".parse().unwrap(), vec!["kim@acme.example".parse().unwrap()]);
            registry.models = BTreeMap::from([("support".parse().unwrap(), "api.example.com".parse().unwrap())]);
            registry.data_classes.insert("order".parse().unwrap(), "what was bought".into());
            registry.agents = ["acme/support/returns".parse().unwrap()].into();
        },
        "+ group platform\n    kim@acme.example\n~ group finance-leads\n    - eve@acme.example\n~ model support\n    \
         scripted → api.example.com\n~ data class order\n    orders → what was bought\n- agent acme/support/refunds\n\
         + agent acme/support/returns",
    );
}

#[test]
fn everything_is_new_where_nothing_was_before() {
    let difference = Difference::between(None, &load(&files()));
    let sections = [
        &difference.policies,
        &difference.tools,
        &difference.groups,
        &difference.models,
        &difference.data_classes,
        &difference.agents,
    ];
    let counts = sections.map(|section| (section.added.len(), section.removed.len(), section.changed.len()));
    assert_eq!(counts, [(2, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)]);
}

#[test]
fn text_of_the_files_cannot_move_the_cursor() {
    let mut after = files();
    after.sources[0].text = POLICIES.replace("at most", "at\u{1b}[2J most");
    let shown = Difference::between(Some(&load(&files())), &load(&after)).text();
    assert!(!shown.contains('\u{1b}') && shown.contains("\\u{1b}[2J"), "{shown}");
}
