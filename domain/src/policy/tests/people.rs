//! Acts of people, and who sees data.

use super::*;

const PEOPLE: &str = r#"
@id("start") permit (principal, action == Mandate::Action::"start_run", resource in Mandate::Unit::"acme/support")
when { principal == context.on_behalf_of };
@id("decide") permit (principal in Mandate::Group::"finance-leads", action in Mandate::Action::"decide", resource);
@id("decide.large") @reason("eve does not decide this gate")
forbid (principal == Mandate::User::"eve@acme.example", action == Mandate::Action::"approve", resource)
when { context.gate == "refund.large" };
@id("resolve") permit (principal in Mandate::Group::"support", action == Mandate::Action::"resolve", resource)
when { context.agent in Mandate::Tenant::"acme" && principal != context.on_behalf_of };
@id("lock") permit (principal, action == Mandate::Action::"quarantine", resource);
@id("unlock") permit (principal in Mandate::Group::"finance-leads", action in Mandate::Action::"operate", resource);
@id("apply.forward") forbid (principal, action == Mandate::Action::"apply", resource) when { context.rollback };
@id("gate") @decision("require_approval") @approvers("support") forbid (principal == Mandate::User::"bo@acme.example",
action == Mandate::Action::"lift_quarantine", resource) unless { context.approved.contains("gate") };

@id("see.agent") permit (principal in Mandate::Tenant::"acme", action == Mandate::Action::"reveal", resource);
@id("see.outside") forbid (principal, action == Mandate::Action::"reveal", resource == Mandate::DataClass::"contact")
when { context has model && context.model in Mandate::Provider::"api.example.com" };
@id("see.card") permit (principal == Mandate::Group::"support", action == Mandate::Action::"reveal",
resource == Mandate::DataClass::"contact");
@id("see.history") permit (principal == Mandate::Audience::"history", action == Mandate::Action::"reveal",
resource == Mandate::DataClass::"unclassified");
"#;

fn person(text: &str) -> PersonId {
    PersonId::parse(format!("{text}@acme.example")).unwrap()
}

fn act(who: &str, action: PersonAction<'_>) -> String {
    shown(&bundle(PEOPLE).decide_person(&PersonRequest { person: &person(who), action }))
}

#[test]
fn acts_of_people_are_judged_like_those_of_agents() {
    let (agent, owner, ana) = (AgentName::parse("acme/support/refunds").unwrap(), person("owner"), person("ana"));
    let run = RunOf { agent: &agent, agent_owner: &owner, on_behalf_of: &ana, workflow_id: "w" };
    let registry = registry();
    let tool = &registry.tools[&ToolName::parse("payments.refund").unwrap()];
    let (large, target) = (PolicyId::parse("refund.large").unwrap(), "tool:payments.refund".parse().unwrap());
    let decide = |verdict| PersonAction::Decide { run, tool, gate: &large, verdict };
    let nobody = "deny [] no policy permits this";
    assert_eq!(act("ana", PersonAction::StartRun { run }), "allow [start] permitted by `start`");
    assert_eq!(act("bo", PersonAction::StartRun { run }), nobody);
    let sales = AgentName::parse("acme/sales/offers").unwrap();
    assert_eq!(act("ana", PersonAction::StartRun { run: RunOf { agent: &sales, ..run } }), nobody);
    assert_eq!(act("bo", decide(Verdict::Approve)), "allow [decide] permitted by `decide`");
    assert_eq!(act("eve", decide(Verdict::Approve)), "deny [decide.large] eve does not decide this gate");
    assert_eq!(act("eve", decide(Verdict::Reject)), "allow [decide] permitted by `decide`");
    assert_eq!(act("ana", decide(Verdict::Approve)), nobody);
    assert_eq!(act("bo", PersonAction::Resolve { run, tool }), "allow [resolve] permitted by `resolve`");
    assert_eq!(act("ana", PersonAction::Quarantine(&target)), "allow [lock] permitted by `lock`");
    assert_eq!(act("eve", PersonAction::LiftQuarantine(&target)), "allow [unlock] permitted by `unlock`");
    assert_eq!(
        act("bo", PersonAction::LiftQuarantine(&target)),
        "deny [gate] a gate asks for approval, which only a tool call can wait for"
    );
    assert_eq!(act("bo", PersonAction::Apply { rollback: false }), "allow [unlock] permitted by `unlock`");
    assert_eq!(act("bo", PersonAction::Apply { rollback: true }), "deny [apply.forward] forbidden by `apply.forward`");
}

#[test]
fn everything_that_can_be_quarantined_can_be_judged() {
    for text in [
        "agent:acme/gone/agent",
        "tool:gone",
        "tool:orders.read",
        "server:gone",
        "model:gone",
        "person:ana@acme.example",
    ] {
        let target = text.parse().unwrap();
        assert_eq!(act("ana", PersonAction::Quarantine(&target)), "allow [lock] permitted by `lock`", "{text}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_denied_and_says_so() {
    // The owner of an agent that is gone from the configuration is not known.
    let text = "@id(\"own\") permit (principal, action == Mandate::Action::\"quarantine\", resource is Mandate::Agent) \
                when { resource.owner == principal };\n@id(\"all\") permit (principal, action, resource);";
    let target = "agent:acme/gone/agent".parse().unwrap();
    let request = PersonRequest { person: &person("ana"), action: PersonAction::Quarantine(&target) };
    let decision = shown(&bundle(text).decide_person(&request));
    assert!(decision.starts_with("deny [] policy `own` could not be evaluated"), "{decision}");
}

#[test]
fn who_sees_data_is_default_deny() {
    let bundle = bundle(PEOPLE);
    let (agent, owner) = (AgentName::parse("acme/support/refunds").unwrap(), person("owner"));
    let classes = ["contact", "unclassified", "unheard-of"].map(|class| DataClass::parse(class).unwrap()).into();
    let sees = |viewer: &Viewer<'_>| {
        let seen = bundle.revealed(viewer, &person("ana"), &classes);
        seen.iter().map(DataClass::as_str).collect::<Vec<_>>().join(",")
    };
    let model = |name: &str| ModelName::parse(name).unwrap();
    let through = |name: &str| sees(&Viewer::Agent { agent: &agent, agent_owner: &owner, model: &model(name) });
    assert_eq!(through("support"), "contact,unclassified");
    assert_eq!(through("other"), "unclassified");
    assert_eq!(through("unheard-of"), "");
    assert_eq!(sees(&Viewer::Group(&GroupName::parse("support").unwrap())), "contact");
    assert_eq!(sees(&Viewer::Group(&GroupName::parse("finance-leads").unwrap())), "");
    assert_eq!(sees(&Viewer::History), "unclassified");
    assert_eq!(sees(&Viewer::Answer), "");
}

#[test]
fn a_policy_is_given_back_as_it_was_written() {
    let bundle = bundle(PEOPLE);
    let texts = bundle.policy_texts();
    assert_eq!(texts.len(), bundle.policies().count());
    let start = texts[&PolicyId::parse("start").unwrap()].as_str();
    assert!(PEOPLE.trim_start().starts_with(start) && start.ends_with("context.on_behalf_of };"), "{start}");
}
