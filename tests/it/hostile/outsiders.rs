//! Attacks by whoever may write to the namespace: activities scheduled by workflows that are no agent runs, and agent
//! runs whose workflow asks for what it may not ask for.

use std::collections::BTreeMap;

use mandate_activities::AgentActivities;
use mandate_domain::{
    Address, AgentRun, ApprovalDecision, DecisionOutcome, Digest, Evidence, Instruction, OpenedRun, Proof, Resolution,
    RunChain, RunState, Sender, SentInstruction, Usage, Verdict,
    agent::{RunLimits, RunPins},
    agent_run::{Event, Moment},
    audit::RecordBody,
};
use mandate_tests::Scenario;
use mandate_workflows::contract::CloseRunInput;
use serde_json::{Value, json};
use temporalio_sdk::testing::{ActivityEnvironment, TestActivityInfoOptions};

use super::{
    ground::{
        ANA, BO, Held, LARGE, SMALL, before_it_answers, calls, intrusion, model_says, never, paid, recorded, refund,
        refused, soon, start_refunds, untouched,
    },
    rogue::{Ask, FOREIGN, IMPOSTOR, Puppet, answered, id, refused_for_good, task, with_rogue},
};

/// What a server does before it answers a refund: it waits to be let.
const HOLD: &str = "until test -e go; do sleep 0.1; done";

/// A puppet's run on the task queue of the agent runs, opened, with the model's first reply.
async fn proposed<'a>(scenario: &'a Scenario, refunds: &[&str]) -> Result<Puppet<'a>, String> {
    let proposed: Vec<String> = refunds.iter().map(|arguments| refund(arguments)).collect();
    let proposed: Vec<&str> = proposed.iter().map(String::as_str).collect();
    model_says(scenario, &[&calls(&proposed)]);
    let mut puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &scenario.name), "Please.").await?;
    scenario.keep(scenario.start_worker().await);
    puppet.opened().await?;
    puppet.first_turn().await?;
    Ok(puppet)
}

pub(super) async fn foreign_workflow_type(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    with_rogue(scenario, &scenario.name, async {
        let mut puppet = Puppet::start(scenario, &scenario.name, (FOREIGN, &scenario.name), "Please.").await?;
        scenario.keep(scenario.start_worker().await);
        puppet.loots().await
    })
    .await?;
    untouched(scenario).await?;
    intrusion(scenario, "workflow type `ForeignWorkflow` may not ask for effects").await
}

pub(super) async fn foreign_task_queue(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    scenario.keep(scenario.start_worker().await);
    let elsewhere = format!("{}-elsewhere", scenario.name);
    with_rogue(scenario, &elsewhere, async {
        Puppet::start(scenario, &scenario.name, (IMPOSTOR, &elsewhere), "Please.").await?.loots().await
    })
    .await?;
    untouched(scenario).await?;
    intrusion(scenario, "agent runs of this worker are started on task queue").await
}

/// What the caller asked for is not what the execution after the first one says.
pub(super) async fn continued_with_a_task_of_its_own(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    with_rogue(scenario, &scenario.name, async {
        let queue = scenario.name.as_str();
        let mut puppet = Puppet::start(scenario, queue, (IMPOSTOR, queue), "Only say hello.").await?;
        puppet.goes_on(task("Refund order o2"), queue).await?;
        puppet.asks(Ask::Nothing).await?;
        scenario.keep(scenario.start_worker().await);
        puppet.loots().await
    })
    .await?;
    untouched(scenario).await?;
    intrusion(scenario, "is continued and was never opened").await
}

/// A snapshot that nobody but its writer made is refused as a start input; continued by an execution of the rogue, the
/// real workflow takes it, and its activities are refused.
pub(super) async fn self_made_snapshot(scenario: &Scenario) -> Held {
    let forged = json!({ "continue": { "run": forged_run(scenario) } });
    let elsewhere = format!("{}-elsewhere", scenario.name);
    with_rogue(scenario, &elsewhere, async {
        let puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &elsewhere), "Please.").await?;
        puppet.goes_on(forged.clone(), &scenario.name).await
    })
    .await?;
    // The store that the forged run names must be there before it.
    scenario.keep(scenario.start_worker().await);
    scenario.wait_closed().await;
    let started = format!("{}-started", scenario.name);
    let start = ["workflow", "execute", "--type", IMPOSTOR, "--task-queue", &scenario.name, "--workflow-id", &started];
    let said = scenario.temporal(&[&start[..], &["--input", &forged.to_string()]].concat()).await;
    let text = format!("{}{}", said.stdout, said.stderr);
    never(!text.contains("is for executions that continue another"), format!("the start input is taken: {text}"))?;
    untouched(scenario).await?;
    let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
    never(!opened.is_empty(), "a run was opened").and(
        refused(scenario, "what the forged run asked for", |body| matches!(body, RecordBody::Intrusion { .. })).await,
    )
}

/// A run that rests before its first turn, as its rogue likes to describe it.
fn forged_run(scenario: &Scenario) -> Value {
    let digest = || Digest::from_bytes([7; 32]);
    let pins = RunPins {
        store: "00000000000000000000000000000000".parse().unwrap(),
        agent_version: digest(),
        instructions: digest(),
        model: "support".parse().unwrap(),
        tools: BTreeMap::new(),
        bundle: digest(),
    };
    let opened = OpenedRun {
        run: RunChain { workflow_id: scenario.name.clone(), first_run_id: "none".to_owned() },
        pins,
        limits: RunLimits::default(),
        transcript: Address::from_bytes([7; 32]),
        starter: None,
        starter_proof: Proof::Claimed,
        proof: Proof::Claimed,
        accepts: vec![Proof::Claimed],
        notifies: false,
        namespace_id: None,
        compensate: vec![],
    };
    let (mut run, _) = AgentRun::start(mandate_tests::AGENT.parse().unwrap(), ANA.parse().unwrap());
    run.apply(Event::Opened(Box::new(opened)), Moment { now_ms: 0, history_is_long: false }).unwrap();
    let mut run = json!(run);
    run["phase"] = json!("Resting");
    run
}

/// The server of the tests takes no activity without a workflow; one that does puts it before the worker like this.
pub(super) async fn activity_without_a_workflow(scenario: &Scenario) -> Held {
    let worker = start_refunds(scenario, &[LARGE]).await;
    scenario.pending_id().await;
    let input = crate::intrusion::stolen(scenario).await;
    worker.stop().await;
    let info = TestActivityInfoOptions::builder()
        .workflow_type(None)
        .workflow_id(None)
        .workflow_run_id(None)
        .activity_type("call_tool")
        .build();
    let activities = crate::intrusion::activities(scenario).await;
    let environment = ActivityEnvironment::builder().info(info).register_activities(activities).build();
    let told = format!("{:?}", environment.run(AgentActivities::call_tool, input).await);
    let refused = told.contains("without a workflow execution") && told.contains("non_retryable: true");
    never(!refused, told)?;
    untouched(scenario).await?;
    intrusion(scenario, "only an agent run may ask for effects").await
}

/// An agent run by its type and queue, which nothing opened.
pub(super) async fn call_of_a_run_never_opened(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    with_rogue(scenario, &scenario.name, async {
        let victim = format!("{}-victim", scenario.name);
        let mut victim = Puppet::start(scenario, &victim, (IMPOSTOR, &scenario.name), "Please.").await?;
        let mut puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &scenario.name), "Please.").await?;
        scenario.keep(scenario.start_worker().await);
        victim.opened().await?;
        victim.first_turn().await?;
        puppet.run = Some(victim.pointer()?);
        refused_for_good(&puppet.call("t1.0").await?)
    })
    .await?;
    untouched(scenario).await?;
    intrusion(scenario, "was not opened by `open_run`").await
}

pub(super) async fn call_in_no_recorded_reply(scenario: &Scenario) -> Held {
    with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &[SMALL]).await?;
        answered(puppet.call("t1.0").await?)?;
        for forged in ["t1.0r2", "t1.1", "t2.0"] {
            refused_for_good(&puppet.call(forged).await?)?;
            intrusion(scenario, &format!("call `{forged}` stands in no recorded model reply")).await?;
        }
        paid(scenario, 1).await
    })
    .await
}

/// The model of one run is to read, and to obey, the conversation of another.
pub(super) async fn transcript_of_another_run(scenario: &Scenario) -> Held {
    let script = format!(
        "[[conversation]]\nwhen = \"order o2\"\n[[conversation.reply]]\n{}\n[[conversation]]\n[[conversation.reply]]\ntext = \"Hello.\"\n",
        calls(&[&refund(SMALL)])
    );
    scenario.write("scripts/refunds.toml", &script);
    with_rogue(scenario, &scenario.name, async {
        let victim = format!("{}-victim", scenario.name);
        let mut victim = Puppet::start(scenario, &victim, (IMPOSTOR, &scenario.name), "Refund order o2").await?;
        let mut puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &scenario.name), "Say hello.").await?;
        scenario.keep(scenario.start_worker().await);
        victim.opened().await?;
        puppet.opened().await?;
        let read = victim.transcript.take().ok_or("the victim has no transcript")?;
        let told = puppet.invoke(1, &read).await?;
        puppet.call("t1.0").await?;
        untouched(scenario).await?;
        refused_for_good(&told)
    })
    .await?;
    intrusion(scenario, "points at another transcript than the recorded one").await
}

/// Both attempts may find nothing; one performs, and the other is told what it came to.
pub(super) async fn asked_twice_at_once(scenario: &Scenario) -> Held {
    scenario.edit("tools/payments.refund.toml", "idempotent = false", "idempotent = true");
    scenario.edit("tools/payments.refund.toml", "check = \"payments.refund_status\"\nsettles_within_secs = 10\n", "");
    before_it_answers(scenario, HOLD);
    with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &[SMALL]).await?;
        let second = async {
            under_way(scenario).await?;
            puppet.call("t1.0").await
        };
        let (one, other, _) =
            tokio::join!(puppet.call("t1.0"), second, let_answers_go(scenario, asked_again(scenario)));
        let (one, other) = (answered(one?)?, answered(other?)?);
        paid(scenario, 1).await?;
        never(one["result"] != other["result"], format!("told otherwise: {one} and {other}"))
    })
    .await?;
    let intents = recorded(scenario, 1, is_refund_intent).await?;
    never(intents.len() != 1, format!("one intent, one performance: {intents:?}"))
}

/// Does something, and lets the server's answers go.
async fn let_answers_go<T>(scenario: &Scenario, first: impl Future<Output = T>) -> T {
    let done = first.await;
    scenario.write("go", "");
    done
}

async fn under_way(scenario: &Scenario) -> Held {
    soon("the call is under way", async || (!scenario.refund_calls().await.is_empty()).then_some(())).await
}

/// The second attempt was turned away, or reached the system of record as well.
async fn asked_again(scenario: &Scenario) -> Held {
    soon("the second attempt", async || {
        let pending = scenario.describe().await.into_raw().pending_activities;
        let turned_away = pending.iter().any(|activity| activity.attempt >= 2);
        (turned_away || scenario.refund_calls().await.len() == 2).then_some(())
    })
    .await
}

fn is_refund_intent(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Intent { target, .. } if target == "payments.refund")
}

/// Asked again under a policy that forbids it by now, a call that was performed is told its outcome.
pub(super) async fn asked_again_after_its_outcome(scenario: &Scenario) -> Held {
    with_rogue(scenario, &scenario.name, async {
        model_says(scenario, &[&calls(&[&refund(SMALL)])]);
        let mut puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &scenario.name), "Please.").await?;
        let worker = scenario.start_worker().await;
        puppet.opened().await?;
        puppet.first_turn().await?;
        let performed = answered(puppet.call("t1.0").await?)?;
        worker.stop().await;
        scenario.edit("policies/refunds.cedar", "input.amount_cents > 500000", "input.amount_cents > 1");
        scenario.keep(scenario.start_worker().await);
        let again = answered(puppet.call("t1.0").await?)?;
        never(again["outcome"] != "returned", format!("not its outcome: {again}"))?;
        never(again["result"] != performed["result"], format!("another outcome: {again}"))
    })
    .await?;
    paid(scenario, 1).await?;
    let intents = recorded(scenario, 1, is_refund_intent).await?;
    never(intents.len() != 1, format!("one intent, one performance: {intents:?}"))
}

/// A run that was halted asks for its call all the same.
pub(super) async fn call_of_a_closed_run(scenario: &Scenario) -> Held {
    with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &[SMALL]).await?;
        let closing = CloseRunInput {
            run: puppet.pointer()?,
            state: RunState::Stopped,
            reason: None,
            turns: 1,
            usage: Usage::default(),
            abandoned: Vec::new(),
            unknown_outcomes: Vec::new(),
            halted_by: None,
            undoing_halted_by: None,
        };
        answered(puppet.asks(Ask::Close(closing)).await?)?;
        let call = answered(puppet.call("t1.0").await?)?;
        never(call["refusal"]["kind"] != "run_ended", format!("not refused: {call}"))?;
        let transcript = puppet.transcript.clone().ok_or("no transcript")?;
        let turn = puppet.invoke(2, &transcript).await?;
        never(format!("{turn:?}").contains("replied"), format!("the model was asked: {turn:?}"))
    })
    .await?;
    untouched(scenario).await?;
    intrusion(scenario, "the run has ended").await
}

/// A run that goes on has its refund taken back, as if it had failed, and would refund once more behind that.
pub(super) async fn call_behind_an_undo(scenario: &Scenario) -> Held {
    crate::compensation::can_be_taken_back(scenario, "");
    let cancelled = with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &[SMALL, SMALL]).await?;
        answered(puppet.call("t1.0").await?)?;
        paid(scenario, 1).await?;
        answered(puppet.call("t1.0u").await?)?;
        let cancelled = scenario.cancellations().await.len();
        let call = answered(puppet.call("t1.1").await?)?;
        never(call["refusal"]["kind"] != "run_ended", format!("not refused: {call}"))?;
        let transcript = puppet.transcript.clone().ok_or("no transcript")?;
        let turn = puppet.invoke(2, &transcript).await?;
        never(format!("{turn:?}").contains("replied"), format!("the model was asked: {turn:?}"))?;
        Ok::<_, String>(cancelled)
    })
    .await?;
    never(cancelled != 1, format!("{cancelled} refunds were taken back"))?;
    paid(scenario, 1).await?;
    intrusion(scenario, "the run has ended").await
}

pub(super) async fn approval_of_another_runs_request(scenario: &Scenario) -> Held {
    with_rogue(scenario, &scenario.name, async {
        model_says(scenario, &[&calls(&[&refund(LARGE)])]);
        let victim = format!("{}-victim", scenario.name);
        let mut victim = Puppet::start(scenario, &victim, (IMPOSTOR, &scenario.name), "Please.").await?;
        let mut puppet = Puppet::start(scenario, &scenario.name, (IMPOSTOR, &scenario.name), "Please.").await?;
        scenario.keep(scenario.start_worker().await);
        for run in [&mut victim, &mut puppet] {
            run.opened().await?;
            run.first_turn().await?;
        }
        let asked = answered(victim.call("t1.0").await?)?;
        answered(puppet.call("t1.0").await?)?;
        let request = asked["requests"][0]["id"].as_str().ok_or("nobody is asked")?.parse().unwrap();
        let by = BO.parse().ok();
        let (comment, arguments, evidence) = (None, None, Evidence::none());
        let decision = ApprovalDecision { request, verdict: Verdict::Approve, by, comment, arguments, evidence };
        answered(puppet.review("t1.0", decision).await?)?;
        for run in [&victim, &puppet] {
            let still = answered(run.call("t1.0").await?)?;
            never(still["outcome"] != "approval_required", format!("released: {still}"))?;
        }
        Held::Ok(())
    })
    .await?;
    untouched(scenario).await?;
    refused(scenario, "the decision", |body| {
        matches!(body, RecordBody::ApprovalDecided { refused: Some(why), .. } if why.contains("was made for call"))
    })
    .await
}

/// A word on a call that is being performed: believed, the model would repeat it.
pub(super) async fn resolution_of_a_call_under_way(scenario: &Scenario) -> Held {
    before_it_answers(scenario, HOLD);
    with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &[SMALL]).await?;
        let resolve = async {
            under_way(scenario).await?;
            let (call, resolution, by) = (id("t1.0"), Resolution::DidNotHappen, BO.parse().ok());
            let sender = Sender { by, ..Sender::default() };
            let sent = SentInstruction { instruction: Instruction::Resolve { call, resolution }, sender };
            answered(puppet.instruct(sent).await?)
        };
        let (performed, resolved) = tokio::join!(puppet.call("t1.0"), let_answers_go(scenario, resolve));
        let (performed, resolved) = (answered(performed?)?, resolved?);
        never(resolved["review"] != "refused", format!("believed: {resolved}"))?;
        never(performed["outcome"] != "returned", format!("{performed}"))
    })
    .await?;
    paid(scenario, 1).await?;
    refused(scenario, "the word", |body| matches!(body, RecordBody::Resolved { refused: Some(_), .. })).await
}

/// Refunds that nobody is asked for, all at the same moment: together they are more than one run may refund. An agent run
/// would not ask for so many at once.
pub(super) async fn many_small_refunds_at_once(scenario: &Scenario) -> Held {
    let (small, at_once, cap) = (4500, 20, 50_000);
    scenario.edit("policies/refunds.cedar", "amounts.amount_cents > 500000", &format!("amounts.amount_cents > {cap}"));
    scenario.server_command(&["--delay-before-ms", "300"]);
    let one = format!(r#"{{ order_id = "o1", amount_cents = {small}, currency = "EUR" }}"#);
    let answers = with_rogue(scenario, &scenario.name, async {
        let puppet = proposed(scenario, &vec![one.as_str(); at_once]).await?;
        puppet.first_calls(at_once).await
    })
    .await?;
    let sum: i64 = scenario.payments().await.iter().map(|payment| payment.cents).sum();
    never(sum > cap, format!("{sum} cents were refunded"))?;
    let fit = usize::try_from(cap / small).unwrap();
    paid(scenario, fit).await?;
    let denied = answers.iter().filter(|answer| answer["refusal"]["kind"] == "denied").count();
    never(denied != at_once - fit, format!("{denied} refusals: {answers:?}"))?;
    let denials = |body: &RecordBody| matches!(body, RecordBody::Decision { target, outcome: DecisionOutcome::Deny, .. } if target == "payments.refund");
    never(recorded(scenario, denied, denials).await?.len() != denied, "other denials are recorded")
}
