//! Policies decide as their text says, and what is wrong with them is reported where it stands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    BuiltinTool, GroupName, ProviderName, ToolName, ToolReach,
    approval::{Escalation, Gate, OnExpiry, Party},
};

mod authors;
mod facts;
mod gates;
mod lint;
mod people;

const REFUNDS: &str = r#"
@id("tools.read") @reason("Read-only tools inside the company boundary need no approval")
permit (principal is Mandate::Agent, action in Mandate::Action::"call_tool", resource)
when { resource.read_only && !resource.open_world };

@id("refund.base")
permit (principal in Mandate::Unit::"acme/support", action == Mandate::Action::"payments.refund", resource)
when { context.input.currency == "EUR" && context.on_behalf_of != principal.owner };

@id("refund.large") @decision("require_approval")
@approvers("finance-leads") @quorum("2") @four_eyes("requester,agent_owner") @expires("PT24H")
@reason("Refunds above EUR 100 need two finance leads")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.input.amount_cents > 10000 } unless { context.approved.contains("refund.large") };

@id("refund.noted") @decision("require_approval") @approvers("support, finance-leads") @reason("Notes are read first")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.input has note } unless { context.approved.contains("refund.noted") };

@id("refund.cap") @reason("Agents never refund more than EUR 5,000")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.input.amount_cents > 500000 };

@id("refund.bonus") @reason("Bonus and amount together stay below EUR 6,000")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.input has bonus_cents && context.input.amount_cents + context.input.bonus_cents > 600000 };

@id("price.high") @reason("Prices from 10.50 are set by people")
forbid (principal, action == Mandate::Action::"shop.price", resource)
when { context.input.price.greaterThanOrEqual(decimal("10.50")) };

@id("price.base")
permit (principal, action == Mandate::Action::"shop.price", resource)
when { context.input.tags.contains("sale") && context.input["odd name \"x\""].inner == true };

@id("models.all") @reason("Agents may use the configured models")
permit (principal, action == Mandate::Action::"invoke_model", resource == Mandate::Model::"support");
"#;

fn tool(name: &str, read_only: bool, input_schema: Value) -> ToolDefinition {
    ToolDefinition {
        name: ToolName::parse(name).unwrap(),
        description: String::new(),
        owner: PersonId::parse("payments@acme.example").unwrap(),
        read_only,
        destructive: !read_only,
        idempotent: false,
        open_world: false,
        check: None,
        settles_within_secs: None,
        undo: None,
        timeout_secs: 10,
        cost_micros: 0,
        amounts: Vec::new(),
        argument_classes: [].into(),
        result_classes: [].into(),
        input_schema,
        reach: ToolReach::Builtin { tool: BuiltinTool::CurrentTime },
    }
}

fn tools() -> BTreeMap<ToolName, ToolDefinition> {
    let refund = json!({ "type": "object", "additionalProperties": false,
        "required": ["order_id", "amount_cents", "currency"],
        "properties": {
            "order_id": { "type": "string" }, "amount_cents": { "type": "integer" },
            "bonus_cents": { "type": "integer" }, "currency": { "enum": ["EUR", "USD"] }, "note": { "type": "string" },
        } });
    let price = json!({ "type": "object", "additionalProperties": false, "required": ["price", "tags", "odd name \"x\""],
        "properties": {
            "price": { "type": "number" }, "tags": { "type": "array", "items": { "type": "string" } },
            "odd name \"x\"": { "type": "object", "required": ["inner"], "additionalProperties": false,
                "properties": { "inner": { "type": "boolean" } } },
            "either": { "anyOf": [{ "type": "string" }, { "type": "integer" }] },
            "there": { "$ref": "#/$defs/x" }, "mixed": { "type": ["string", "null"] }, "free": {},
            "a/b": { "type": "array", "items": { "type": "null" } }, "open": { "type": "object" },
        } });
    let read = json!({ "type": "object", "additionalProperties": false, "properties": {} });
    [tool("payments.refund", false, refund), tool("shop.price", false, price), tool("orders.read", true, read)]
        .map(|tool| (tool.name.clone(), tool))
        .into()
}

fn groups() -> BTreeMap<GroupName, Vec<PersonId>> {
    [
        ("finance-leads", vec!["bo@acme.example", "eve@acme.example"]),
        ("support", vec!["bo@acme.example"]),
        ("nobody", vec![]),
    ]
    .into_iter()
    .map(|(name, people)| {
        (GroupName::parse(name).unwrap(), people.into_iter().map(|p| PersonId::parse(p).unwrap()).collect())
    })
    .collect()
}

fn registry() -> Registry {
    let model = |name: &str, provider: &str| (ModelName::parse(name).unwrap(), ProviderName::parse(provider).unwrap());
    let mut tools = tools();
    tools.get_mut(&ToolName::parse("payments.refund").unwrap()).unwrap().amounts = vec!["amount_cents".into()];
    Registry {
        tools,
        groups: groups(),
        models: [model("support", "scripted"), model("other", "api.example.com")].into(),
        agents: [AgentName::parse("acme/support/refunds").unwrap(), AgentName::parse("acme/sales/offers").unwrap()]
            .into(),
        data_classes: [(DataClass::parse("contact").unwrap(), "names and addresses".into())].into(),
    }
}

fn source(path: &str, text: &str) -> PolicySource {
    PolicySource { path: path.to_owned(), text: text.to_owned(), scope: PolicyScope::Everybody }
}

fn load(text: &str) -> Result<PolicyBundle, Vec<LoadPolicyError>> {
    PolicyBundle::load(&[source("policies/refunds.cedar", text)], &registry())
}

fn bundle(text: &str) -> PolicyBundle {
    load(text).unwrap_or_else(|errors| panic!("{:#?}", errors.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

/// Asks for a tool call, or with the tool `model:<name>` for a model call.
fn ask(bundle: &PolicyBundle, target: &str, arguments: &Value, approved: &BTreeSet<PolicyId>) -> PolicyDecision {
    let model = target.strip_prefix("model:").map(|name| ModelName::parse(name).unwrap());
    let tools = registry().tools;
    let unregistered = tool("not.registered", true, json!({}));
    let arguments = arguments.as_object().cloned().unwrap_or_else(Map::new);
    let action = match &model {
        Some(model) => PolicyAction::InvokeModel { model },
        None => PolicyAction::CallTool {
            tool: ToolName::parse(target).ok().and_then(|name| tools.get(&name)).unwrap_or(&unregistered),
            arguments: &arguments,
        },
    };
    bundle.decide(&PolicyRequest {
        agent: &AgentName::parse("acme/support/refunds").unwrap(),
        agent_owner: &PersonId::parse("owner@acme.example").unwrap(),
        on_behalf_of: &PersonId::parse("ana@acme.example").unwrap(),
        workflow_id: "refund-\"o1\"",
        action,
        facts: &RunFacts::default(),
        approved,
    })
}

fn approved(ids: &[&str]) -> BTreeSet<PolicyId> {
    ids.iter().map(|id| PolicyId::parse(*id).unwrap()).collect()
}

fn shown(decision: &PolicyDecision) -> String {
    let ids = decision.policies.iter().map(PolicyId::as_str).collect::<Vec<_>>().join(",");
    let outcome = match &decision.outcome {
        PolicyOutcome::Allow => "allow",
        PolicyOutcome::Deny => "deny",
        PolicyOutcome::RequireApproval(_) => "ask",
    };
    format!("{outcome} [{ids}] {}", decision.reason)
}

fn check(bundle: &PolicyBundle, target: &str, arguments: &Value, ids: &[&str], expect: &str) {
    let decision = ask(bundle, target, arguments, &approved(ids));
    assert_eq!(shown(&decision), expect, "{target} {arguments} {ids:?}");
    assert_eq!(&decision.bundle, bundle.digest());
}

fn refund(cents: i64) -> Value {
    json!({ "order_id": "o1", "amount_cents": cents, "currency": "EUR" })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

#[test]
fn refunds_are_allowed_asked_about_or_denied() {
    let bundle = bundle(REFUNDS);
    let large = "Refunds above EUR 100 need two finance leads";
    let noted = with(refund(50_000), "note", json!("please"));
    for (arguments, ids, expect) in [
        (refund(5000), &[][..], "allow [refund.base] permitted by `refund.base`".to_owned()),
        (refund(50_000), &[], format!("ask [refund.large] {large}")),
        (refund(50_000), &["refund.large"], "allow [refund.base] permitted by `refund.base`".to_owned()),
        (refund(50_000), &["refund.noted"], format!("ask [refund.large] {large}")),
        (noted.clone(), &[], format!("ask [refund.large,refund.noted] {large}; Notes are read first")),
        (noted.clone(), &["refund.large"], "ask [refund.noted] Notes are read first".to_owned()),
        (refund(900_000), &[], "deny [refund.cap] Agents never refund more than EUR 5,000".to_owned()),
        (refund(900_000), &["refund.large"], "deny [refund.cap] Agents never refund more than EUR 5,000".to_owned()),
        (with(refund(50_000), "currency", json!("USD")), &[], "deny [] no policy permits this".to_owned()),
        (refund(5000), &["unheard.of"], "allow [refund.base] permitted by `refund.base`".to_owned()),
    ] {
        check(&bundle, "payments.refund", &arguments, ids, &expect);
    }
    let read = "allow [tools.read] Read-only tools inside the company boundary need no approval";
    check(&bundle, "orders.read", &json!({}), &[], read);
    check(&bundle, "model:support", &json!({}), &[], "allow [models.all] Agents may use the configured models");
    check(&bundle, "model:other", &json!({}), &[], "deny [] no policy permits this");
}

#[test]
fn the_gate_carries_what_its_policy_says() {
    let decision = ask(&bundle(REFUNDS), "payments.refund", &with(refund(50_000), "note", json!("x")), &approved(&[]));
    let group = |name: &str| GroupName::parse(name).unwrap();
    let large = Gate {
        id: PolicyId::parse("refund.large").unwrap(),
        approvers: vec![group("finance-leads")],
        quorum: 2,
        four_eyes: vec![Party::Requester, Party::AgentOwner],
        expires_secs: 86_400,
        reason: "Refunds above EUR 100 need two finance leads".into(),
        remind_secs: None,
        escalation: None,
        on_expiry: OnExpiry::Deny,
    };
    let noted = Gate {
        id: PolicyId::parse("refund.noted").unwrap(),
        approvers: vec![group("support"), group("finance-leads")],
        quorum: 1,
        four_eyes: vec![],
        expires_secs: 86_400,
        reason: "Notes are read first".into(),
        remind_secs: None,
        escalation: None,
        on_expiry: OnExpiry::Deny,
    };
    assert_eq!(decision.outcome, PolicyOutcome::RequireApproval(vec![large, noted]));
}

#[test]
fn each_gate_is_found_where_it_is_written() {
    let bundle = bundle(REFUNDS);
    let gates: Vec<_> =
        bundle.gates().map(|written| (written.gate.id.as_str(), written.span, written.source)).collect();
    assert_eq!(gates.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), ["refund.large", "refund.noted"]);
    for (id, span, source) in gates {
        assert!(source.text[span].starts_with(&format!("@id(\"{id}\")")), "{id}");
    }
}

#[test]
fn what_cannot_be_judged_is_denied_with_the_reason() {
    let bundle = bundle(REFUNDS);
    let price =
        |price: Value| json!({ "price": price, "tags": ["sale"], "odd name \"x\"": { "inner": true }, "free": [1] });
    let huge = with(refund(i64::MAX), "bonus_cents", json!(1));
    for (target, arguments, expect) in [
        ("shop.price", price(json!(10.4999)), "allow [price.base]"),
        ("shop.price", price(json!(-0.5)), "allow [price.base]"),
        ("shop.price", price(json!(10)), "allow [price.base]"),
        ("shop.price", price(json!(10.5)), "deny [price.high] Prices from 10.50 are set by people"),
        ("shop.price", price(json!(1.00001)), "deny [] argument `/price` has more than 4 digits after the point"),
        ("shop.price", price(json!(1e300)), "deny [] argument `/price` is too large a number"),
        ("shop.price", price(json!("10")), "deny [] argument `/price` is no number"),
        ("payments.refund", with(refund(1), "amount_cents", json!(100.0)), "allow [refund.base]"),
        (
            "payments.refund",
            with(refund(1), "amount_cents", json!(1.5)),
            "deny [] argument `/amount_cents` is no integer",
        ),
        (
            "payments.refund",
            with(refund(1), "amount_cents", json!(1e20)),
            "deny [] argument `/amount_cents` is too large",
        ),
        ("payments.refund", json!({ "order_id": "o1" }), "deny [] the request does not fit the policy schema"),
        ("payments.refund", huge, "deny [] argument `/amount_cents` is too large a number"),
        ("payments.refund", with(refund(1), "bonus_cents", json!(9_007_199_254_740_992_i64)), "deny [refund.bonus]"),
        ("not.registered", json!({}), "deny [] tool `not.registered` is not known to the policies in force"),
    ] {
        let decision = ask(&bundle, target, &arguments, &approved(&[]));
        assert!(shown(&decision).starts_with(expect), "{target} {arguments}: {}", shown(&decision));
    }
}

#[test]
fn what_policies_do_not_see_is_listed() {
    let bundle = bundle("");
    let listed: Vec<_> = bundle.unmapped().iter().map(|u| format!("{} {}: {}", u.tool, u.pointer, u.why)).collect();
    assert_eq!(
        listed,
        [
            "shop.price /properties/a~1b/items: its type has no Cedar form",
            "shop.price /properties/either: it combines schemas",
            "shop.price /properties/free: it has no type",
            "shop.price /properties/mixed: it has several types",
            "shop.price /properties/open/additionalProperties: properties that are not declared are allowed",
            "shop.price /properties/there: `$ref` is not followed",
        ]
    );
}

#[test]
fn an_empty_bundle_denies_everything() {
    check(&bundle(""), "orders.read", &json!({}), &[], "deny [] no policy permits this");
}

#[test]
fn a_misspelt_argument_is_reported_with_file_line_and_source() {
    let errors = load(&REFUNDS.replace("input.amount_cents > 10000 ", "input.amout_cents > 10000 ")).unwrap_err();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.to_string().starts_with("policies/refunds.cedar:14:8: "), "{error}");
    assert!(error.to_string().contains("amout_cents"), "{error}");
    let mut report = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
    handler.render_report(&mut report, error).unwrap();
    for part in [
        "policies/refunds.cedar:14:8",
        "when { context.input.amout_cents > 10000 }",
        "^^^^",
        "did you mean `amount_cents`?",
    ] {
        assert!(report.contains(part), "{part} is missing in {report}");
    }
}

fn gate_with(annotations: &str) -> String {
    format!(
        "@id(\"g\") @decision(\"require_approval\") {annotations}\nforbid (principal, action, resource) \
         unless {{ context.approved.contains(\"g\") }};"
    )
}

#[test]
fn each_load_rule_is_kept() {
    let anything = "(principal, action, resource)";
    let approvers = "@approvers(\"finance-leads\")";
    for (text, expect) in [
        (format!("permit {anything}"), "1:"),
        (format!("permit {anything};"), "1:1: the policy has no `@id`"),
        (format!("@id(\"a b\") permit {anything};"), "1:1: `a b` is not a valid policy id"),
        (
            format!("@id(\"a\") permit {anything};\n@id(\"a\") forbid {anything};"),
            "2:1: policy id `a` is used before, at policies/refunds.cedar:1:1",
        ),
        (format!("@id(\"a\")\n@resaon(\"x\") permit {anything};"), "2:1: unknown annotation `@resaon`"),
        (
            "@id(\"a\") permit (principal == ?principal, action, resource);".into(),
            "1:1: a policy template cannot be used here",
        ),
        (
            format!("@id(\"a\") @decision(\"ask\") forbid {anything};"),
            "1:10: `@decision` is `ask`; only `require_approval` is known",
        ),
        (
            gate_with(approvers).replace("\nforbid", "\npermit"),
            "1:10: `@decision(\"require_approval\")` stands on a `permit`",
        ),
        (format!("@id(\"a\") @quorum(\"2\") forbid {anything};"), "1:10: `@quorum` describes a gate"),
        (format!("@id(\"a\") @expires(\"PT1H\") permit {anything};"), "1:10: `@expires` describes a gate"),
        (gate_with(approvers).replace("contains(\"g\")", "contains(\"h\")"), "1:1: the gate does not open"),
        (gate_with(approvers).replace("unless", "when"), "1:1: the gate does not open"),
        (gate_with(approvers).replace("\") }", "\") || true }"), "1:1: the gate does not open"),
        (
            gate_with(approvers).replace("unless", "when { context.approved.contains(\"h\") } unless"),
            "1:1: `context.approved` may only stand in a gate",
        ),
        (
            format!("@id(\"a\") forbid {anything} unless {{ context.approved.contains(\"g\") }};"),
            "1:1: `context.approved` may only stand in a gate",
        ),
        (gate_with(""), "1:1: the gate has no `@approvers`"),
        (gate_with("@approvers(\" , \")"), "1:40: the gate has no `@approvers`"),
        (gate_with("@approvers(\"Group::x\")"), "1:40: `Group::x` is not a valid group name"),
        (gate_with("@approvers(\"finance-lead\")"), "1:40: approver group `finance-lead` is not configured"),
        (gate_with("@approvers(\"nobody\")"), "1:40: approver group `nobody` has no members"),
        (gate_with(&format!("{approvers}\n@quorum(\"0\")")), "2:1: `@quorum` is `0`"),
        (
            gate_with("@approvers(\"finance-leads,support\")\n@quorum(\"3\")"),
            "2:1: `@quorum` is 3, and the approver groups have 2 different members",
        ),
        (gate_with(&format!("{approvers}\n@four_eyes(\"requestor\")")), "2:1: `@four_eyes` names `requestor`"),
        (gate_with(&format!("{approvers}\n@four_eyes(\"\")")), "2:1: `@four_eyes` names ``"),
        (gate_with(&format!("{approvers}\n@expires(\"P31D\")")), "2:1: `@expires` is `P31D`"),
        (gate_with(&format!("{approvers}\n@expires(\"PT0S\")")), "2:1: `@expires` is `PT0S`"),
        (
            "@id(\"a\") permit (principal, action == Mandate::Action::\"payments.refnd\", resource);".into(),
            "1:39: for policy `a`, unrecognized action",
        ),
    ] {
        let errors = load(&text).err().unwrap_or_else(|| panic!("loaded: {text}"));
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expect = format!("policies/refunds.cedar:{expect}");
        assert!(all.iter().any(|error| error.starts_with(&expect)), "{text}\nwanted {expect}\ngot {all:#?}");
    }
}

#[test]
fn misspelt_words_come_with_a_suggestion() {
    for (text, expect) in [
        (gate_with("@approvers(\"finance-lead\")"), "did you mean `finance-leads`?"),
        (gate_with("@approver(\"finance-leads\")"), "did you mean `approvers`?"),
        (
            "@id(\"a\") permit (principal, action == Mandate::Action::\"payments.refnd\", resource);".into(),
            "payments.refund",
        ),
    ] {
        let errors = load(&text).unwrap_err();
        assert!(errors.iter().any(|e| e.suggestion().is_some_and(|s| s.contains(expect))), "{text}: {errors:?}");
    }
}

#[test]
fn all_errors_of_all_files_are_reported_in_order() {
    let sources = [
        source("b.cedar", "permit (principal, action, resource);"),
        source("a.cedar", "@id(\"x\") permit (principal, action, resource);\nnonsense"),
        source("c.cedar", "@id(\"x\") @no(\"\") permit (principal, action, resource) when { context.nothing };"),
    ];
    let errors = PolicyBundle::load(&sources, &registry()).unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.location().path.as_str()).collect();
    assert!(paths.is_sorted() && paths.contains(&"a.cedar") && paths.contains(&"b.cedar"), "{paths:?}");
    assert!(paths.iter().filter(|path| **path == "c.cedar").count() >= 2, "{errors:?}");
}

#[test]
fn a_tool_may_not_take_the_name_of_an_action() {
    let tool = tool("call_tool", true, json!({}));
    let errors =
        PolicyBundle::load(&[], &Registry { tools: [(tool.name.clone(), tool)].into(), ..registry() }).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "the tool registry: a tool may not be called `call_tool`: policies use that name for an action"
    );
}

#[test]
fn the_digest_is_that_of_schema_and_policies_whatever_their_order() {
    let a = source("a.cedar", "@id(\"a\") permit (principal, action, resource);");
    let b = source("b.cedar", "@id(\"b\") forbid (principal, action, resource) when { 1 == 2 };");
    let digest = |sources: &[PolicySource]| PolicyBundle::load(sources, &registry()).unwrap().digest().clone();
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
    assert_ne!(digest(&[a.clone(), b.clone()]), digest(std::slice::from_ref(&a)));
    let reason = source("a.cedar", "@id(\"a\") @reason(\"r\") permit (principal, action, resource);");
    assert_ne!(digest(&[a]), digest(&[reason]));
}

#[test]
fn a_bundle_is_shared_between_threads_and_prints_no_policy_text() {
    fn shared<T: Send + Sync>(_: &T) {}
    let bundle = bundle(REFUNDS);
    shared(&bundle);
    let text = format!("{bundle:?}");
    assert!(text.contains("refund.cap") && !text.contains("5,000"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_approval_opens_a_plain_forbid_or_replaces_a_permit(
        ids in proptest::collection::btree_set(
            proptest::sample::select(vec!["tools.read", "refund.base", "refund.large", "refund.noted", "refund.cap", "other"]), 0..6),
        cents in -1_000_000_i64..1_000_000,
        euro in any::<bool>(),
        note in proptest::option::of(".{0,8}"),
    ) {
        // Loading takes longer than all decisions together.
        static BUNDLE: std::sync::LazyLock<PolicyBundle> = std::sync::LazyLock::new(|| bundle(REFUNDS));
        let mut arguments = with(refund(cents), "currency", json!(if euro { "EUR" } else { "USD" }));
        if let Some(note) = &note {
            arguments = with(arguments, "note", json!(note));
        }
        let ids: Vec<_> = ids.into_iter().collect();
        let decision = ask(&BUNDLE, "payments.refund", &arguments, &approved(&ids));
        let needs_large = cents > 10_000 && !ids.contains(&"refund.large");
        let needs_noted = note.is_some() && !ids.contains(&"refund.noted");
        let expect = match () {
            () if cents > 500_000 || !euro => "deny",
            () if needs_large || needs_noted => "ask",
            () => "allow",
        };
        prop_assert!(shown(&decision).starts_with(expect), "{}", shown(&decision));
    }
}
