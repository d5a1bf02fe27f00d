//! The webhook is told of requests and questions, once each, and a run never waits for it.

use std::{collections::BTreeSet, fs};

use futures::future::join_all;
use mandate_domain::{
    DecisionOutcome, EffectId,
    audit::{AuditRecord, RecordBody},
};
use mandate_tests::{Delivery, Receiver, Scenario, run, until};

const PERMIT_FILE: &str = "policies/notify.cedar";
const LASTS: &str = r#"@expires("PT24H")"#;
const ASKED: &str = "mandate.request.asked";
const EXPIRED: &str = "mandate.request.expired";
const BO: &str = "bo@acme.example";

/// The refunds example with a webhook at `url`, and a gate that has these annotations in place of its own expiry.
async fn telling(name: &str, url: &str, gate: &str) -> Scenario {
    let scenario = Scenario::new(name).await.telling(url);
    scenario.edit("policies/refunds.cedar", LASTS, gate);
    scenario
}

/// The effect of a record about a notice, as it is written: `r1.asked`.
fn notice(record: &AuditRecord) -> Option<String> {
    let effect = match &record.body {
        RecordBody::Decision { effect, .. }
        | RecordBody::Intent { effect, .. }
        | RecordBody::Outcome { effect, .. }
        | RecordBody::NotSent { effect, .. } => *effect,
        _ => return None,
    };
    matches!(effect, EffectId::Notice(_)).then(|| effect.to_string())
}

/// What is recorded of notices, of one kind of record.
async fn recorded(scenario: &Scenario, pick: impl Fn(&RecordBody) -> bool) -> Vec<String> {
    scenario.records_where(pick).await.iter().filter_map(notice).collect()
}

async fn delivered(scenario: &Scenario) -> Vec<String> {
    recorded(scenario, |body| matches!(body, RecordBody::Outcome { is_error: false, .. })).await
}

fn ids(deliveries: &[Delivery]) -> BTreeSet<&str> {
    deliveries.iter().map(|delivery| delivery.id.as_str()).collect()
}

#[test]
fn a_request_its_reminder_its_escalation_and_its_end_arrive_once_each() {
    run(async {
        let receiver = Receiver::new();
        let gate = "@expires(\"PT15S\")\n@remind(\"PT1S\")\n@escalate(\"PT3S\")\n@escalate_to(\"platform\")";
        let scenario = telling("notices", &receiver.url(), gate).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        assert!(scenario.answer().await.contains("Nobody decided"));

        // Each is an activity of its own, so a busy machine may tell them in another order.
        let arrived = receiver.deliveries();
        let mut events: Vec<_> = arrived.iter().map(Delivery::event).collect();
        events.sort_unstable();
        assert_eq!(events, [ASKED, "mandate.request.escalated", EXPIRED, "mandate.request.reminder"], "{arrived:#?}");
        assert_eq!(ids(&arrived).len(), 4, "each has an id of its own");
        let request = arrived[0].body["data"]["request_id"].as_str().unwrap();
        assert!(request.starts_with("r1-"), "{request}");
        for delivery in &arrived {
            let data = &delivery.body["data"];
            assert_eq!((&data["workflow_id"], &data["request_id"]), (&"notices".into(), &request.into()));
            assert_eq!((&data["tool"], &data["gate"]), (&"payments.refund".into(), &"refund.large".into()), "{data}");
            assert!(data["reason"].as_str().unwrap().contains("100 EUR") && data["expires_at"].is_string(), "{data}");
            for never in ["50000", "ana@acme.example", "the customer returned"] {
                assert!(!data.to_string().contains(never), "`{never}` leaves the house: {data}");
            }
            let escalated = ["mandate.request.escalated", EXPIRED].contains(&delivery.event());
            assert_eq!(data["approver_groups"].as_array().unwrap().len(), 1 + usize::from(escalated), "{data}");
            for verb in [0, 1] {
                assert_eq!(delivery.command(verb).contains(request), delivery.event() != EXPIRED, "{data}");
            }
        }
        let mut told = delivered(&scenario).await;
        told.sort_unstable();
        assert_eq!(told, ["r1.asked", "r1.escalated", "r1.expired", "r1.reminder"]);
        let intents = recorded(&scenario, |body| matches!(body, RecordBody::Intent { .. })).await;
        assert_eq!(intents.len(), 4, "{intents:?}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn the_command_that_is_told_releases_the_call() {
    run(async {
        let receiver = Receiver::new();
        let scenario = telling("notice-command", &receiver.url(), LASTS).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let asked = until("the request is told", async || receiver.deliveries().pop()).await;
        let command = asked.command(0).replace("YOUR-ID", BO);
        let shell = format!("temporal() {{ \"{}\" \"$@\"; }}\n{command}", scenario.server.cli().display());
        scenario.server.shell(&shell).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
    });
}

#[test]
fn a_question_is_told_without_what_is_asked() {
    run(async {
        let receiver = Receiver::new();
        let scenario = telling("notice-question", &receiver.url(), LASTS).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o6").await;
        let asked = until("the question is told", async || receiver.deliveries().pop()).await;
        let data = &asked.body["data"];
        assert_eq!((asked.event(), &data["tool"]), ("mandate.question.asked", &"people.ask".into()));
        let question = data["question_id"].as_str().unwrap();
        assert!(asked.command(0).contains(question) && asked.command(0).contains("answer"), "{data}");
        assert!(!data.to_string().contains("How much"), "{data}");
        let answer = serde_json::json!({ "question_id": question, "text": "90.00 EUR", "by": BO });
        scenario.signal("answer", &answer.to_string()).await.ok();
        assert!(scenario.answer().await.contains("90.00 EUR for order o6"));
        assert_eq!((receiver.deliveries().len(), delivered(&scenario).await), (1, vec!["q1.asked".to_owned()]));
        scenario.audit_verify().await.ok();
    });
}

/// What the pending activity `notify` said when it failed.
async fn failed(scenario: &Scenario) -> String {
    until("telling the webhook failed", async || {
        let raw = scenario.describe().await.into_raw();
        let is_one = |name: &str| name == "notify";
        let pending = raw.pending_activities.into_iter();
        let mut pending = pending.filter(|one| one.activity_type.as_ref().is_some_and(|kind| is_one(&kind.name)));
        Some(pending.find(|one| one.attempt >= 2)?.last_failure?.message)
    })
    .await
}

#[test]
fn a_receiver_that_is_down_is_told_later() {
    run(async {
        let closed = Receiver::closed();
        let scenario = telling("notice-later", &closed.url(), LASTS).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let failure = failed(&scenario).await;
        assert!(failure.contains("the webhook was not told: no connection"), "{failure}");
        assert!(!failure.contains("http"), "the URL may be a secret: {failure}");
        let receiver = closed.listen();
        let told = until("the request is told", async || delivered(&scenario).await.pop()).await;
        assert_eq!((told.as_str(), receiver.deliveries().len()), ("r1.asked", 1));
        assert!(!recorded(&scenario, |body| matches!(body, RecordBody::NotSent { .. })).await.is_empty());
        scenario.approve(&scenario.pending_id().await, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(receiver.deliveries().len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_missing_secret_is_waited_for() {
    run(async {
        let receiver = Receiver::new();
        let scenario = telling("notice-secret", &receiver.url(), LASTS).await;
        scenario.edit("mandate.toml", "env:HOOK_SECRET", "file:hook.secret");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let failure = failed(&scenario).await;
        assert!(failure.contains("hook.secret"), "{failure}");
        assert_eq!(recorded(&scenario, |body| matches!(body, RecordBody::Intent { .. })).await, Vec::<String>::new());
        scenario.write("hook.secret", Receiver::SECRET);
        until("the request is told", async || delivered(&scenario).await.pop()).await;
        assert_eq!(receiver.events(ASKED).len(), 1);
    });
}

#[test]
fn what_no_policy_permits_is_not_told_and_the_run_goes_on() {
    run(async {
        let receiver = Receiver::new();
        let scenario = telling("notice-denied", &receiver.url(), LASTS).await;
        fs::remove_file(scenario.path(PERMIT_FILE)).unwrap();
        let said = scenario.mandate(&["check"]).await;
        assert!(said.code == 0 && said.stderr.contains("no policy names the action `notify`"), "{said:?}");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let denied = async || {
            let is_denied = |body: &RecordBody| {
                let RecordBody::Decision { outcome, target, .. } = body else { return false };
                *outcome == DecisionOutcome::Deny && target == "notifications"
            };
            scenario.records_where(is_denied).await
        };
        let records = until("the notice is denied", async || Some(denied().await).filter(|all| !all.is_empty())).await;
        assert_eq!(records.iter().filter_map(notice).collect::<Vec<_>>(), ["r1.asked"]);
        scenario.approve(&scenario.pending_id().await, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!((receiver.deliveries(), denied().await.len()), (Vec::new(), 1));
        let intents = recorded(&scenario, |body| matches!(body, RecordBody::Intent { .. })).await;
        assert!(intents.is_empty(), "{intents:?}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_receiver_that_never_takes_anything_keeps_no_run_from_its_end() {
    run(async {
        let receiver = Receiver::new();
        receiver.answers(500);
        let scenario = telling("notice-500", &receiver.url(), r#"@expires("PT2S")"#).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        assert!(scenario.answer().await.contains("Nobody decided"));
        let expired = receiver.events(EXPIRED);
        assert!(expired.len() >= 2, "it is tried again: {:?}", receiver.deliveries());
        assert_eq!(ids(&expired).len(), 1, "{expired:?}");
        assert!(expired.iter().all(|delivery| delivery.body == expired[0].body), "{expired:#?}");
        assert_eq!(delivered(&scenario).await, Vec::<String>::new());
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("look") && verified.contains("intent of `r1.expired`"), "{verified}");
    });
}

#[test]
fn a_receiver_that_is_gone_is_told_once() {
    run(async {
        let receiver = Receiver::new();
        receiver.answers(410);
        let scenario = telling("notice-410", &receiver.url(), LASTS).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let refused = |body: &RecordBody| matches!(body, RecordBody::Outcome { is_error: true, .. });
        let told = until("the refusal is recorded", async || recorded(&scenario, refused).await.pop()).await;
        assert_eq!((told.as_str(), receiver.deliveries().len()), ("r1.asked", 1));
        scenario.approve(&scenario.pending_id().await, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(receiver.deliveries().len(), 1);
        scenario.audit_verify().await.ok();
    });
}

/// The points at which a worker is killed while it tells the webhook, and how often the message arrives.
const POINTS: [(&str, usize); 4] = [
    ("notice.before_intent", 1),
    ("notice.after_intent", 1),
    // It was taken, and only the receiver knows.
    ("notice.after_effect", 2),
    ("notice.after_outcome", 1),
];

async fn survives((point, times): (&'static str, usize)) {
    let receiver = Receiver::new();
    let name = format!("notice-kill-{}", point.replace(['.', '_'], "-"));
    let scenario = telling(&name, &receiver.url(), LASTS).await;
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut first = scenario.worker_with_env(&env).await;
    scenario.start_run("Refund order o1").await;
    let code = until(&format!("the worker dies at {point}"), async || first.ended()).await;
    assert_eq!(code, 137, "{point}: SIGKILL");
    let _second = scenario.start_worker().await;
    until(&format!("the request is told after {point}"), async || delivered(&scenario).await.pop()).await;
    scenario.approve(&scenario.pending_id().await, BO).await;
    assert!(scenario.answer().await.contains("500.00 EUR"), "{point}");
    let arrived = receiver.deliveries();
    assert_eq!((arrived.len(), ids(&arrived).len()), (times, 1), "{point}: {arrived:#?}");
    assert!(arrived.iter().all(|delivery| delivery.body == arrived[0].body), "{point}: {arrived:#?}");
    assert_eq!(delivered(&scenario).await, ["r1.asked"], "{point}");
    scenario.audit_verify().await.ok();
}

#[test]
fn wherever_a_worker_dies_a_message_keeps_its_id() {
    run(async {
        join_all(POINTS.map(survives)).await;
    });
}

#[test]
fn a_reminder_that_nobody_gets_is_warned_of() {
    run(async {
        let scenario = Scenario::new("notice-warning").await;
        scenario.edit("policies/refunds.cedar", LASTS, "@expires(\"PT24H\")\n@remind(\"PT1H\")");
        let said = scenario.mandate(&["check"]).await;
        assert!(said.code == 0 && said.stderr.contains("warning: gate `refund.large` has `@remind`"), "{said:?}");
    });
}
