//! What authors ask of policies: which apply, what a case comes to, what would have become of past runs.

use serde_json::Value;

use super::*;
use crate::{
    Address, AuditRecord, ChainHead, DecisionOutcome, Digest, EffectId, Origin, Proof, RecordBody, RequestId, RunChain,
    RunFacts, StoreId, ToolCallId, ToolFacts, Who,
    policy::{
        applying::{Applying, Says},
        backtest::{NotReplayable, PastRun, Replayed, backtest},
        case::{Answered, Asked, CaseRun, PolicyCase},
    },
};

fn agent() -> AgentName {
    AgentName::parse("acme/support/refunds").unwrap()
}

fn person(name: &str) -> PersonId {
    PersonId::parse(format!("{name}@acme.example")).unwrap()
}

fn id(text: &str) -> PolicyId {
    PolicyId::parse(text).unwrap()
}

fn registered(name: &str) -> ToolDefinition {
    registry().tools[&ToolName::parse(name).unwrap()].clone()
}

fn listed(applying: &[Applying]) -> Vec<String> {
    let word = |says: &Says| match says {
        Says::Allow => "allow",
        Says::Ask(_) => "ask",
        Says::Deny => "deny",
    };
    let line = |one: &Applying| {
        let when = one.condition.as_deref().unwrap_or("always");
        format!("{} {} {when}", word(&one.says), one.policy)
    };
    applying.iter().map(line).collect()
}

#[test]
fn a_policy_applies_where_its_scope_fits_and_the_registry_does_not_rule_it_out() {
    let bundle = bundle(REFUNDS);
    let of = |tool: &str| listed(&bundle.applying_to_tool(&agent(), &person("owner"), &registered(tool)).unwrap());
    assert_eq!(of("orders.read"), ["allow tools.read always"]);
    assert_eq!(
        of("payments.refund"),
        [
            "allow refund.base when { context.input.currency == \"EUR\" && context.on_behalf_of != principal.owner }",
            "ask refund.large when { context.input.amount_cents > 10000 }",
            "ask refund.noted when { context.input has note }",
            "deny refund.bonus when { context.input has bonus_cents && context.input.amount_cents + \
             context.input.bonus_cents > 600000 }",
            "deny refund.cap when { context.input.amount_cents > 500000 }",
        ]
    );
    let sales = AgentName::parse("acme/sales/offers").unwrap();
    let elsewhere = bundle.applying_to_tool(&sales, &person("owner"), &registered("payments.refund")).unwrap();
    assert!(!listed(&elsewhere).iter().any(|line| line.contains("refund.base")), "{elsewhere:?}");
    let model = |name: &str| {
        let model = ModelName::parse(name).unwrap();
        listed(&bundle.applying_to_model(&agent(), &person("owner"), &model).unwrap())
    };
    assert_eq!(model("support"), ["allow models.all always"]);
    assert_eq!(model("other"), Vec::<String>::new());
    let gone = ModelName::parse("gone").unwrap();
    assert!(bundle.applying_to_model(&agent(), &person("owner"), &gone).is_err());
}

#[test]
fn conditions_are_shown_as_written_without_comments_and_closed_by_what_is_known() {
    let text = r#"
@id("odd") @reason("permit (x) // no comment")
permit (principal, action in Mandate::Action::"call_tool", resource) // who
when { // why
  context.on_behalf_of ==   Mandate::User::"a) // ; \" b"
} unless { false };
@id("own") permit (principal, action == Mandate::Action::"reveal", resource)
when { [Mandate::DataClass::"unclassified"].contains(resource) && principal != Mandate::Audience::"answer" };
@id("read") forbid (principal, action in Mandate::Action::"call_tool", resource)
when { !resource.read_only || resource.destructive } unless { resource.open_world || resource.idempotent };
"#;
    let bundle = bundle(text);
    let tool = |name: &str| listed(&bundle.applying_to_tool(&agent(), &person("owner"), &registered(name)).unwrap());
    let odd = r#"allow odd when { context.on_behalf_of == Mandate::User::"a) // ; \" b" } unless { false }"#;
    assert_eq!(tool("orders.read"), [odd]);
    assert_eq!(tool("payments.refund"), [odd, "deny read always"]);
    let sees = |viewer: &Viewer<'_>, class: &str| {
        let class = DataClass::parse(class).unwrap();
        let applying = bundle.applying_to_viewer(viewer, &person("ana"), &class).unwrap();
        listed(&applying).contains(&"allow own always".to_owned())
    };
    assert!(sees(&Viewer::History, "unclassified"));
    assert!(!sees(&Viewer::History, "contact") && !sees(&Viewer::Answer, "unclassified"));
}

fn refund(cents: i64) -> Map<String, Value> {
    let Value::Object(arguments) = json!({ "order_id": "o1", "amount_cents": cents, "currency": "EUR" }) else {
        panic!("an object")
    };
    arguments
}

fn call(cents: i64, before: RunFacts) -> Asked {
    let run = CaseRun {
        agent: agent(),
        agent_owner: person("owner"),
        on_behalf_of: person("ana"),
        workflow_id: "w".to_owned(),
    };
    let tool = Box::new(registered("payments.refund"));
    Asked::CallTool { run, tool, arguments: refund(cents), before, approved: BTreeSet::new() }
}

const CAPPED: &str = r#"
@id("base") permit (principal, action, resource);
@id("cap") @reason("in all") forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.facts.tools["payments.refund"].amounts.amount_cents > 1000 };
@id("failures") forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.facts.tools["payments.refund"].failures > 1 || context.facts.tools["payments.refund"].calls > 4 };
"#;

#[test]
fn a_case_says_each_way_in_which_the_answer_is_another() {
    let bundle = bundle(CAPPED);
    let expected = Answered::Decided(DecisionOutcome::Allow);
    let case = |asked, policies: Option<&[&str]>, reason: Option<&str>| PolicyCase {
        asked,
        expected: expected.clone(),
        policies: policies.map(|ids| ids.iter().map(|text| id(text)).collect()),
        reason: reason.map(str::to_owned),
    };
    let (answer, wrong) = case(call(1000, RunFacts::default()), Some(&["base"]), None).check(&bundle);
    assert_eq!((answer.policies.len(), wrong), (1, vec![]));
    let (_, wrong) = case(call(1001, RunFacts::default()), Some(&["base"]), Some("other")).check(&bundle);
    let expected =
        ["expected allow, got deny", "expected by base, got by cap", "expected a reason with `other`, got `in all`"];
    assert_eq!(wrong, expected);
}

#[test]
fn earlier_calls_of_a_case_count_beside_the_one_that_is_asked() {
    let bundle = bundle(CAPPED);
    let answered = |cents, calls, failures, sum: i64| {
        let sums = ToolFacts { calls, failures, amounts: [("amount_cents".to_owned(), sum)].into() };
        let before = RunFacts::default().with_earlier_calls(&registered("payments.refund"), &sums);
        let case = PolicyCase {
            asked: call(cents, before),
            expected: Answered::Decided(DecisionOutcome::Allow),
            policies: None,
            reason: None,
        };
        let (answer, _) = case.check(&bundle);
        answer.policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(answered(100, 3, 1, 900), "base");
    assert_eq!(answered(101, 3, 1, 900), "cap");
    assert_eq!(answered(100, 3, 2, 0), "failures");
    assert_eq!(answered(100, 4, 0, 0), "failures");
}

// Backtest: a chain written by hand.

fn digest() -> Digest {
    Digest::from_bytes([1; 32])
}

fn address() -> Address {
    Address::from_bytes([2; 32])
}

fn chain(bodies: Vec<RecordBody>) -> Vec<AuditRecord> {
    let record = |(index, body): (usize, RecordBody)| AuditRecord {
        v: 1,
        run: RunChain { workflow_id: "w".into(), first_run_id: "r".into() },
        sequence: index as u64 + 1,
        previous: ChainHead::empty().head,
        time_micros: 100 + index as u64,
        key: index.to_string(),
        who: Who { agent: agent(), agent_version: digest(), on_behalf_of: person("ana"), proof: Proof::Claimed },
        origin: Origin { run_id: "r".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() },
        body,
    };
    bodies.into_iter().enumerate().map(record).collect()
}

fn decision(call: &str, target: &str, outcome: DecisionOutcome, by: &[&str], approved: &[&str]) -> RecordBody {
    RecordBody::Decision {
        effect: call.parse().unwrap(),
        target: target.to_owned(),
        input: address(),
        outcome,
        policies: by.iter().map(|text| id(text)).collect(),
        approved: approved.iter().map(|text| id(text)).collect(),
        bundle: digest(),
        reason: "then".to_owned(),
    }
}

fn intent(call: &str, cents: i64) -> RecordBody {
    RecordBody::Intent {
        effect: call.parse().unwrap(),
        target: "payments.refund".to_owned(),
        input: address(),
        epoch: 1,
        approvals: vec![],
        amounts: [("amount_cents".to_owned(), cents)].into(),
        cost_micros: 0,
    }
}

fn replayed(policies: &str, bodies: Vec<RecordBody>, arguments: &[(&str, i64)], since: u64) -> Vec<Replayed> {
    let (agent, owner, ana, records) = (agent(), person("owner"), person("ana"), chain(bodies));
    let arguments = arguments.iter().map(|(call, cents)| (call.parse::<ToolCallId>().unwrap(), refund(*cents)));
    let arguments = arguments.collect();
    let past = PastRun {
        agent: &agent,
        agent_owner: &owner,
        on_behalf_of: &ana,
        workflow_id: "w",
        tools: &[],
        records: &records,
        arguments: &arguments,
    };
    backtest(&bundle(policies), &past, since)
}

fn changes(replayed: &[Replayed]) -> Vec<String> {
    let line = |one: &Replayed| {
        let now = one.now.as_ref().unwrap();
        let policies: Vec<_> = now.policies.iter().map(ToString::to_string).collect();
        let (then, now) = (one.then.outcome.as_str(), now.outcome.as_str());
        format!("{} #{} {then} -> {now} by {}", one.subject, one.sequence, policies.join(" "))
    };
    replayed.iter().filter(|one| one.differs()).map(line).collect()
}

const TARGET: &str = "payments.refund";

#[test]
fn each_decision_is_asked_with_the_facts_as_they_stood() {
    use DecisionOutcome::Allow;
    let bodies = || {
        vec![
            decision("m1", "support", Allow, &["base"], &[]),
            decision("t1.0", TARGET, Allow, &["base"], &[]),
            // What was recorded as the amount counts only where the arguments are gone.
            intent("t1.0", 1),
            decision("t1.1", TARGET, Allow, &["base"], &[]),
            intent("t1.1", 600),
            decision("t2.0", TARGET, Allow, &["base"], &[]),
        ]
    };
    let all = replayed(CAPPED, bodies(), &[("t1.0", 600), ("t1.1", 600), ("t2.0", 1)], 0);
    assert_eq!(changes(&all), ["t1.1 #4 allow -> deny by cap", "t2.0 #6 allow -> deny by cap"]);
    assert_eq!(all.len(), 4, "{all:?}");
    let gone = replayed(CAPPED, bodies(), &[("t1.1", 600), ("t2.0", 399)], 0);
    assert_eq!(changes(&gone), Vec::<String>::new(), "1 + 600 + 399");
    let missing: Vec<_> = gone.iter().filter_map(|one| one.now.as_ref().err()).collect();
    assert_eq!(missing, [&NotReplayable::NoArguments]);
    let late = replayed(CAPPED, bodies(), &[("t1.0", 600), ("t1.1", 600), ("t2.0", 1)], 105);
    assert_eq!(changes(&late), ["t2.0 #6 allow -> deny by cap"], "earlier records count and are not asked");
    assert_eq!(late.len(), 1);
}

#[test]
fn a_call_is_listed_at_the_first_decision_that_would_be_another() {
    use DecisionOutcome::{Allow, RequireApproval};
    let bodies = || {
        vec![
            decision("t1.0", TARGET, RequireApproval, &["refund.large"], &[]),
            decision("t1.0", TARGET, Allow, &["refund.base"], &["refund.large"]),
        ]
    };
    let same = replayed(REFUNDS, bodies(), &[("t1.0", 20_000)], 0);
    assert_eq!((changes(&same), same.len()), (vec![], 1));
    let loose = REFUNDS.replace("amount_cents > 10000", "amount_cents > 20000");
    let loosened = replayed(&loose, bodies(), &[("t1.0", 20_000)], 0);
    assert_eq!(changes(&loosened), ["t1.0 #1 require_approval -> allow by refund.base"]);
    let other = REFUNDS.replace("refund.large", "refund.grand");
    let asked = replayed(&other, bodies(), &[("t1.0", 20_000)], 0);
    assert_eq!(changes(&asked), ["t1.0 #1 require_approval -> require_approval by refund.grand"]);
}

#[test]
fn what_cannot_be_asked_again_says_why() {
    use DecisionOutcome::{Allow, Deny};
    let mut quarantined = decision("t1.1", TARGET, Deny, &[], &[]);
    if let RecordBody::Decision { reason, .. } = &mut quarantined {
        *reason = "`tool:payments.refund` is in quarantine: leak".to_owned();
    }
    let bodies = vec![
        decision("t1.0", "gone", Allow, &["base"], &[]),
        quarantined,
        decision("t1.2", "shop.price", Allow, &["base"], &[]),
        decision("m2", "gone", Allow, &["base"], &[]),
    ];
    let all = replayed(CAPPED, bodies, &[("t1.0", 1), ("t1.1", 1), ("t1.2", 1)], 0);
    let said: Vec<_> = all.iter().map(|one| one.now.as_ref().map(|said| said.reason.clone())).collect();
    assert_eq!(
        said[..3],
        [Err(&NotReplayable::Incomplete), Err(&NotReplayable::Quarantine), Err(&NotReplayable::DoesNotFit)]
    );
    assert_eq!(said[3].as_deref(), Ok("model `gone` is not known to the policies in force"));
    assert!(all[3].differs());
}

#[test]
fn acts_of_people_are_asked_again_too() {
    let opened = RecordBody::RunOpened {
        prompt: address(),
        model: ModelName::parse("support").unwrap(),
        instructions: digest(),
        tools: digest(),
        bundle: digest(),
        started_by: Some(person("bo")),
        started_by_proof: Some(Proof::Claimed),
        started_by_evidence: None,
        evidence: None,
        policies: vec![id("start")],
        store: StoreId::parse("0".repeat(32)).unwrap(),
    };
    let bundle_of = registry();
    let gate = Gate {
        id: id("refund.large"),
        approvers: bundle_of.groups.keys().take(1).cloned().collect(),
        quorum: 1,
        four_eyes: vec![],
        expires_secs: 60,
        reason: "large".to_owned(),
        remind_secs: None,
        escalation: None,
        on_expiry: OnExpiry::Deny,
    };
    let request = RequestId::parse("r1-7f3a9c").unwrap();
    let effect = EffectId::Tool(ToolCallId::new(1, 0));
    let asked = RecordBody::ApprovalRequested {
        request: request.clone(),
        effect,
        input: address(),
        gate,
        digest: None,
        expires_ms: None,
    };
    let decided = |by: &str, bundle: Option<Digest>| RecordBody::ApprovalDecided {
        request: request.clone(),
        effect,
        verdict: Verdict::Approve,
        by: person(by),
        proof: Proof::Claimed,
        evidence: None,
        policies: vec![id("decide")],
        bundle,
        refused: None,
        comment: None,
        arguments: None,
    };
    let bodies = vec![
        opened,
        decision("t1.0", TARGET, DecisionOutcome::RequireApproval, &["large"], &[]),
        asked,
        decided("mallory", None),
        decided("bo", Some(digest())),
    ];
    let text = r#"@id("x") @decision("require_approval") @approvers("support")
forbid (principal, action == Mandate::Action::"payments.refund", resource) unless { context.approved.contains("x") };
@id("y") permit (principal, action in Mandate::Action::"call_tool", resource);"#;
    let all = replayed(text, bodies, &[("t1.0", 1)], 0);
    assert_eq!(
        changes(&all),
        [
            "start #1 allow -> deny by ",
            "t1.0 #2 require_approval -> require_approval by x",
            "r1-7f3a9c by bo@acme.example #5 allow -> deny by ",
        ]
    );
    assert_eq!(all.len(), 3, "where no policy was asked there is nothing to ask again");
}
