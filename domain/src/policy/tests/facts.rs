//! Policies over what happened: counted calls, sums, data classes.

use super::*;
use crate::{AuditRecord, ChainHead, EffectId, KnownBy, RecordBody, Resolution, RunChain, ToolCallId, Usage};

const CAP: &str = r#"
@id("refund.base")
permit (principal, action == Mandate::Action::"payments.refund", resource);
@id("refund.cap") @reason("one run refunds at most 500 EUR")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.facts.tools["payments.refund"].amounts.amount_cents > 50000 };
@id("refund.often") @reason("one run refunds at most three times")
forbid (principal, action == Mandate::Action::"payments.refund", resource)
when { context.facts.tools["payments.refund"].calls > 3 };
@id("models")
permit (principal, action == Mandate::Action::"invoke_model", resource);
@id("models.contact") @reason("contact data stays in the house")
forbid (principal, action == Mandate::Action::"invoke_model", resource in Mandate::Provider::"api.example.com")
when { context.classes.contains(Mandate::DataClass::"contact") };
@id("models.tokens") @reason("enough read")
forbid (principal, action == Mandate::Action::"invoke_model", resource) when { context.facts.tokens > 1000 };
"#;

fn call(index: u32) -> ToolCallId {
    ToolCallId::new(1, index)
}

fn amounts(cents: i64) -> BTreeMap<String, i64> {
    [("amount_cents".to_owned(), cents)].into()
}

fn intent(index: u32, epoch: u32, cents: i64) -> RecordBody {
    RecordBody::Intent {
        effect: EffectId::Tool(call(index)),
        target: "payments.refund".into(),
        input: crate::Address::from_bytes([1; 32]),
        epoch,
        approvals: vec![],
        amounts: amounts(cents),
        cost_micros: 7,
    }
}

fn outcome(effect: EffectId, is_error: bool, usage: Option<Usage>, classes: &[&str]) -> RecordBody {
    RecordBody::Outcome {
        effect,
        epoch: 1,
        known_by: KnownBy::Answer,
        result: crate::Address::from_bytes([2; 32]),
        is_error,
        usage,
        classes: classes.iter().map(|class| DataClass::parse(*class).unwrap()).collect(),
        withheld: vec![],
        duration_ms: 1,
    }
}

fn facts(bodies: &[RecordBody]) -> RunFacts {
    let mut facts = RunFacts::default();
    for body in bodies {
        facts.add(body);
    }
    facts
}

fn not_sent(index: u32, epoch: u32) -> RecordBody {
    RecordBody::NotSent { effect: EffectId::Tool(call(index)), epoch, reason: "gone".into() }
}

fn resolved(index: u32, resolution: Resolution) -> RecordBody {
    RecordBody::Resolved {
        policies: vec![],
        bundle: None,
        effect: EffectId::Tool(call(index)),
        resolution,
        by: PersonId::parse("bo").unwrap(),
        proof: crate::Proof::Claimed,
        evidence: None,
        refused: None,
        comment: None,
    }
}

fn late(index: u32) -> RecordBody {
    RecordBody::LateOutcome {
        effect: EffectId::Tool(call(index)),
        epoch: 1,
        result: crate::Address::from_bytes([3; 32]),
        may_have_doubled: false,
    }
}

/// Calls and sum in cents of refunds.
fn refunded(facts: &RunFacts) -> (i64, i64) {
    let sums = facts.of_tool(&ToolName::parse("payments.refund").unwrap());
    (sums.calls, sums.amounts.get("amount_cents").copied().unwrap_or_default())
}

#[test]
fn whatever_may_have_happened_counts_once_and_nothing_else_does() {
    for (bodies, expect) in [
        (vec![intent(0, 1, 100)], (1, 100)),
        (vec![intent(0, 1, 100), intent(0, 2, 100)], (1, 100)),
        (vec![intent(0, 1, 100), not_sent(0, 1)], (0, 0)),
        (vec![intent(0, 1, 100), not_sent(0, 1), intent(0, 2, 100)], (1, 100)),
        // The first attempt was not answered: only the second was surely not sent.
        (vec![intent(0, 1, 100), intent(0, 2, 100), not_sent(0, 2)], (1, 100)),
        (vec![intent(0, 1, 100), outcome(EffectId::Tool(call(0)), true, None, &[])], (1, 100)),
        (vec![intent(0, 1, 100), resolved(0, Resolution::DidNotHappen)], (0, 0)),
        (vec![intent(0, 1, 100), resolved(0, Resolution::Skip)], (1, 100)),
        (vec![intent(0, 1, 100), resolved(0, Resolution::Happened)], (1, 100)),
        (vec![intent(0, 1, 100), resolved(0, Resolution::DidNotHappen), late(0)], (1, 100)),
        (vec![intent(0, 1, 100), intent(1, 1, 250)], (2, 350)),
    ] {
        assert_eq!(refunded(&facts(&bodies)), expect, "{bodies:?}");
    }
}

#[test]
fn a_call_that_counts_already_counts_once_when_it_is_judged_again() {
    let refund = registry().tools.remove(&ToolName::parse("payments.refund").unwrap()).unwrap();
    let facts = facts(&[intent(0, 1, 100)]);
    assert_eq!(refunded(&facts.with_call(call(0), &refund, &amounts(100))), (1, 100));
    assert_eq!(refunded(&facts.with_call(call(1), &refund, &amounts(50))), (2, 150));
    assert_eq!(facts.cost_micros(), 7);
}

#[test]
fn a_denied_call_counts_as_a_denial_and_a_denied_notice_does_not() {
    let denied = |effect: &str| RecordBody::Decision {
        effect: effect.parse().unwrap(),
        target: "t".into(),
        input: crate::Address::from_bytes([1; 32]),
        outcome: crate::DecisionOutcome::Deny,
        policies: vec![],
        approved: vec![],
        bundle: crate::Digest::from_bytes([2; 32]),
        reason: "no policy permits this".into(),
    };
    assert_eq!(facts(&[denied("t1.0"), denied("m2"), denied("r1.asked")]).denials, 2);
}

#[test]
fn sums_saturate() {
    let facts = facts(&[intent(0, 1, i64::MAX), intent(1, 1, i64::MAX)]);
    assert_eq!(refunded(&facts), (2, i64::MAX));
    let decision = decide(&bundle(CAP), &facts, &refund(1), 2);
    assert_eq!(shown(&decision), "deny [refund.cap] one run refunds at most 500 EUR");
}

fn decide(bundle: &PolicyBundle, facts: &RunFacts, arguments: &Value, index: u32) -> PolicyDecision {
    let tool = &bundle.registry().tools[&ToolName::parse("payments.refund").unwrap()];
    let arguments = arguments.as_object().unwrap();
    let facts = facts.with_call(call(index), tool, &tool.amounts_of(arguments));
    bundle.decide(&PolicyRequest {
        agent: &AgentName::parse("acme/support/refunds").unwrap(),
        agent_owner: &PersonId::parse("owner@acme.example").unwrap(),
        on_behalf_of: &PersonId::parse("ana@acme.example").unwrap(),
        workflow_id: "w",
        action: PolicyAction::CallTool { tool, arguments },
        facts: &facts,
        approved: &BTreeSet::new(),
    })
}

fn ask_model(bundle: &PolicyBundle, model: &str, facts: &RunFacts) -> String {
    shown(&bundle.decide(&PolicyRequest {
        agent: &AgentName::parse("acme/support/refunds").unwrap(),
        agent_owner: &PersonId::parse("owner@acme.example").unwrap(),
        on_behalf_of: &PersonId::parse("ana@acme.example").unwrap(),
        workflow_id: "w",
        action: PolicyAction::InvokeModel { model: &ModelName::parse(model).unwrap() },
        facts,
        approved: &BTreeSet::new(),
    }))
}

#[test]
fn a_cap_over_the_run_counts_the_call_being_decided() {
    let bundle = bundle(CAP);
    let spent = facts(&[intent(0, 1, 30_000)]);
    assert_eq!(shown(&decide(&bundle, &spent, &refund(20_000), 1)), "allow [refund.base] permitted by `refund.base`");
    let over = "deny [refund.cap] one run refunds at most 500 EUR";
    assert_eq!(shown(&decide(&bundle, &spent, &refund(20_001), 1)), over);
    let often = facts(&[intent(0, 1, 1), intent(1, 1, 1), intent(2, 1, 1)]);
    assert_eq!(
        shown(&decide(&bundle, &often, &refund(1), 3)),
        "deny [refund.often] one run refunds at most three times"
    );
}

#[test]
fn what_was_read_limits_where_it_goes() {
    let bundle = bundle(CAP);
    let read = facts(&[outcome(EffectId::Tool(call(0)), false, None, &["contact"])]);
    assert_eq!(ask_model(&bundle, "other", &RunFacts::default()), "allow [models] permitted by `models`");
    assert_eq!(ask_model(&bundle, "other", &read), "deny [models.contact] contact data stays in the house");
    assert_eq!(ask_model(&bundle, "support", &read), "allow [models] permitted by `models`");
    let usage = Usage { input_tokens: 900, output_tokens: 101, ..Usage::default() };
    let long = facts(&[outcome(EffectId::Model(1), false, Some(usage), &[])]);
    assert_eq!(ask_model(&bundle, "support", &long), "deny [models.tokens] enough read");
    let unknown = facts(&[outcome(EffectId::Tool(call(0)), false, None, &["health"])]);
    assert_eq!(
        ask_model(&bundle, "support", &unknown),
        "deny [] the run has read data class `health`, which the policies in force do not know"
    );
}

/// Twenty calls of one turn against the cap: every order of deciding, sending, losing and answering, by seed.
#[test]
fn twenty_parallel_calls_never_pass_the_cap_in_a_thousand_schedules() {
    // Only what the rule is about: a larger registry makes each of some forty thousand decisions slower.
    static BUNDLE: std::sync::LazyLock<PolicyBundle> = std::sync::LazyLock::new(|| {
        let whole = registry();
        let tools = whole.tools.into_iter().filter(|(name, _)| name.as_str() == "payments.refund").collect();
        let text = CAP.split("@id(\"refund.often\")").next().unwrap();
        PolicyBundle::load(&[source("cap.cedar", text)], &Registry { tools, ..registry() }).unwrap()
    });
    let mut filled = 0;
    for seed in 0..1000 {
        let mut schedule = Schedule { state: seed, records: Vec::new(), facts: RunFacts::default() };
        schedule.run(&BUNDLE);
        let performed = schedule.performed();
        assert!(performed <= 50_000, "seed {seed}: {performed} in {:?}", schedule.records);
        filled += i64::from(performed > 40_000);
    }
    assert!(filled > 500, "the cap is reached in most schedules, or the test shows nothing: {filled}");
}

/// A run whose calls interleave as the seed says. Each recording transaction is one step, as the lock on the run's head
/// makes it.
struct Schedule {
    state: u64,
    records: Vec<RecordBody>,
    facts: RunFacts,
}

impl Schedule {
    /// `SplitMix64`: <https://prng.di.unimi.it/splitmix64.c>.
    fn next(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn record(&mut self, body: RecordBody) {
        self.facts.add(&body);
        self.records.push(body);
    }

    fn run(&mut self, bundle: &PolicyBundle) {
        let mut waiting: Vec<(u32, u32, i64)> =
            (0..20).map(|index| (index, 1, i64::try_from(self.next(90)).unwrap() * 100 + 100)).collect();
        let mut sent: Vec<(u32, u32, i64)> = Vec::new();
        while !waiting.is_empty() || !sent.is_empty() {
            let total = (waiting.len() + sent.len()) as u64;
            let pick = usize::try_from(self.next(total)).unwrap();
            if pick < waiting.len() {
                let (index, epoch, cents) = waiting.swap_remove(pick);
                if decide(bundle, &self.facts, &refund(cents), index).is_allowed() {
                    self.record(intent(index, epoch, cents));
                    sent.push((index, epoch, cents));
                }
            } else {
                let (index, epoch, cents) = sent.swap_remove(pick - waiting.len());
                match self.next(4) {
                    // Surely not sent: it is tried again.
                    0 if epoch < 4 => {
                        self.record(not_sent(index, epoch));
                        waiting.push((index, epoch + 1, cents));
                    }
                    // Lost: nobody knows.
                    1 => {}
                    failed => self.record(outcome(EffectId::Tool(call(index)), failed == 2, None, &[])),
                }
            }
        }
    }

    /// What the system of record may hold: every intent that was not given back.
    fn performed(&self) -> i64 {
        let mut cents: BTreeMap<(ToolCallId, u32), i64> = BTreeMap::new();
        for body in &self.records {
            if let RecordBody::Intent { effect: EffectId::Tool(call), epoch, amounts, .. } = body {
                cents.insert((*call, *epoch), amounts["amount_cents"]);
            }
            if let RecordBody::NotSent { effect: EffectId::Tool(call), epoch, .. } = body {
                cents.remove(&(*call, *epoch));
            }
        }
        cents.values().sum()
    }
}

#[test]
fn the_facts_of_a_chain_are_those_of_its_records() {
    let record = |body| AuditRecord {
        v: 1,
        run: RunChain { workflow_id: "w".into(), first_run_id: "r".into() },
        sequence: 1,
        previous: ChainHead::empty().head,
        time_micros: 0,
        key: "k".into(),
        who: crate::Who {
            agent: AgentName::parse("acme/support/refunds").unwrap(),
            agent_version: crate::Digest::from_bytes([0; 32]),
            on_behalf_of: PersonId::parse("ana").unwrap(),
            proof: crate::Proof::Claimed,
        },
        origin: crate::Origin { run_id: "r".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() },
        body,
    };
    let bodies = [intent(0, 1, 5), intent(1, 1, 6), not_sent(1, 1)];
    let records: Vec<_> = bodies.iter().cloned().map(record).collect();
    assert_eq!(RunFacts::of(&records), facts(&bodies));
}

#[test]
fn sums_of_a_tool_are_handed_over_wherever_a_policy_reads_them() {
    let refund = registry().tools.remove(&ToolName::parse("payments.refund").unwrap()).unwrap();
    let read = registry().tools.remove(&ToolName::parse("orders.read").unwrap()).unwrap();
    let model = ModelName::parse("support").unwrap();
    let decide = |bundle: &PolicyBundle, action: PolicyAction<'_>, facts: &RunFacts| {
        let (agent, person) = (AgentName::parse("acme/support/refunds").unwrap(), PersonId::parse("ana").unwrap());
        shown(&bundle.decide(&PolicyRequest {
            agent: &agent,
            agent_owner: &person,
            on_behalf_of: &person,
            workflow_id: "w",
            action,
            facts,
            approved: &BTreeSet::new(),
        }))
    };
    let none = RunFacts::default();
    let one = none.with_call(call(0), &refund, &amounts(100));
    let arguments = Map::new();
    let tool = || PolicyAction::CallTool { tool: &read, arguments: &arguments };
    let asked = || PolicyAction::InvokeModel { model: &model };
    for (scope, action) in [
        (r#"action in Mandate::Action::"call_tool""#, tool()),
        (r#"action in [Mandate::Action::"orders.read", Mandate::Action::"shop.price"]"#, tool()),
        (r#"action in [Mandate::Action::"orders.read", Mandate::Action::"invoke_model"]"#, asked()),
        (r#"action == Mandate::Action::"orders.read""#, tool()),
        (r#"action == Mandate::Action::"invoke_model""#, asked()),
    ] {
        for condition in [
            r#"context.facts.tools["payments.refund"].calls > 0"#,
            r#"context["facts"]["tools"]["payments.refund"]["amounts"]["amount_cents"] >= 100"#,
            r#"!(if context.facts.tokens > 5 then false else context.facts.tools["payments.refund"].calls == 0)"#,
            r#"principal == Mandate::Agent::"acme/sales/offers" || {"sums": context.facts.tools["payments.refund"]}.sums.calls == 1"#,
        ] {
            let bundle = bundle(&format!(
                "@id(\"all\") permit (principal is Mandate::Agent, action, resource);\n@id(\"stop\") @reason(\"stop\") \
                 forbid (principal is Mandate::Agent, {scope}, resource) when {{ {condition} }};"
            ));
            assert_eq!(decide(&bundle, action.clone(), &one), "deny [stop] stop", "{scope} {condition}");
            assert_eq!(decide(&bundle, action.clone(), &none), "allow [all] permitted by `all`", "{scope} {condition}");
        }
    }
}
