//! The crash matrix: a worker dies by SIGKILL at every registered point of the governed path, for every kind of tool and on
//! both engines, and another one goes on. What happened is read from the systems of record.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use mandate_activities::failpoints;
use mandate_domain::audit::RecordBody;
use mandate_tests::{On, Receiver, Scenario, run, until_among_many};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::frozen::registered_as;

/// How many cells are tried at the same time, whatever their kind and engine: with more of them each takes longer than it
/// waits.
static AT_ONCE: Semaphore = Semaphore::const_new(8);
/// How soon after the kill the next attempt or workflow task has to start. It takes five seconds; the others of the matrix
/// keep the machine busy meanwhile.
const RESUMES_WITHIN: Duration = Duration::from_secs(30);
const BO: &str = "bo@acme.example";

/// The kind of the first tool that a run calls: the one that meets the points of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadOnly,
    Idempotent,
    Checkable,
    Plain,
}

impl Kind {
    const ALL: [Self; 4] = [Self::ReadOnly, Self::Idempotent, Self::Checkable, Self::Plain];

    /// What the registry says of the payment.
    fn lines(self) -> &'static str {
        match self {
            Self::ReadOnly | Self::Checkable => {
                "read_only = false\nidempotent = false\ncheck = \"payments.refund_status\"\nsettles_within_secs = 5"
            }
            Self::Idempotent => "read_only = false\nidempotent = true",
            Self::Plain => "read_only = false\nidempotent = false",
        }
    }

    /// What the record must say of the first call, and how often its server was to hear of it.
    fn expected(self, point: &str) -> (&'static [&'static str], usize) {
        match (self, point) {
            (Self::ReadOnly | Self::Idempotent, "tool.after_intent") => {
                (&["intent 1", "intent 2", "outcome 2 Answer"], 1)
            }
            (Self::ReadOnly | Self::Idempotent, "tool.after_effect") => {
                (&["intent 1", "intent 2", "outcome 2 Answer"], 2)
            }
            (Self::Checkable, "tool.after_intent") => (&["intent 1", "not sent 1", "intent 2", "outcome 2 Answer"], 1),
            (Self::Checkable, "tool.after_effect") => (&["intent 1", "outcome 1 Check"], 1),
            (Self::Plain, "tool.after_intent") => (&["intent 1", "unknown", "resolved DidNotHappen"], 0),
            (Self::Plain, "tool.after_effect") => (&["intent 1", "unknown", "resolved Happened"], 1),
            _ => (&["intent 1", "outcome 1 Answer"], 1),
        }
    }
}

#[test]
fn the_matrix_has_every_point_with_every_kind_on_both_engines() {
    let engines = [On::Sqlite, On::Postgres];
    assert_eq!(failpoints::ALL.len() * Kind::ALL.len() * engines.len(), 176, "a new point needs a look at the matrix");
}

#[test]
fn with_a_read_only_tool_and_a_file() {
    every_point(Kind::ReadOnly, On::Sqlite);
}

#[test]
fn with_a_read_only_tool_and_a_database() {
    every_point(Kind::ReadOnly, On::Postgres);
}

#[test]
fn with_an_idempotent_tool_and_a_file() {
    every_point(Kind::Idempotent, On::Sqlite);
}

#[test]
fn with_an_idempotent_tool_and_a_database() {
    every_point(Kind::Idempotent, On::Postgres);
}

#[test]
fn with_a_checkable_tool_and_a_file() {
    every_point(Kind::Checkable, On::Sqlite);
}

#[test]
fn with_a_checkable_tool_and_a_database() {
    every_point(Kind::Checkable, On::Postgres);
}

#[test]
fn with_a_plain_tool_and_a_file() {
    every_point(Kind::Plain, On::Sqlite);
}

#[test]
fn with_a_plain_tool_and_a_database() {
    every_point(Kind::Plain, On::Postgres);
}

/// All points are tried before the test fails.
fn every_point(kind: Kind, on: On) {
    run(async {
        let tried = join_all(failpoints::ALL.into_iter().map(|point| dies_at(point, kind, on))).await;
        assert_eq!(tried.len(), failpoints::ALL.len());
        let failed: Vec<_> = tried.into_iter().flatten().collect();
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

/// What goes wrong in a cell.
async fn dies_at(point: &'static str, kind: Kind, on: On) -> Option<String> {
    let _place = AT_ONCE.acquire().await.unwrap();
    let tried = tokio::task::spawn_blocking(move || run(survives(point, kind, on))).await;
    tried.err().map(|panic| match panic.into_panic().downcast::<String>() {
        Ok(text) => format!("{point}, {kind:?}, {on:?}: {text}"),
        Err(_) => format!("{point}, {kind:?}, {on:?}: panicked"),
    })
}

async fn survives(point: &str, kind: Kind, on: On) {
    let receiver = Receiver::new();
    let scenario = world(point, kind, on, &receiver).await;
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut first = scenario.worker_with_env(&env).await;
    scenario.start("Refund order o1").await;
    let mut people = People::default();
    let code = until_among_many(&format!("the worker dies at {point}"), async || {
        people.act(&scenario).await;
        first.ended()
    })
    .await;
    assert_eq!(code, 137, "SIGKILL");
    let killed: SystemTime = fs::metadata(&mark).unwrap().modified().unwrap();
    let _second = scenario.start_worker().await;
    until_among_many(&format!("the run goes on after {point}"), async || {
        people.act(&scenario).await;
        (scenario.attribute("MandateState").await?.as_str()? == "Completed").then_some(())
    })
    .await;

    until_among_many("the run is closed", async || scenario.describe().await.close_time().map(drop)).await;
    let answer = scenario.answer().await;
    assert!(answer.contains("I looked after order o1."), "{answer}");
    let (walk, heard) = kind.expected(point);
    let calls = if kind == Kind::ReadOnly { scenario.read_calls().await } else { scenario.refund_calls().await };
    assert_eq!(calls.len(), heard, "{calls:?}");
    let paid = if kind == Kind::ReadOnly { 1 } else { heard.min(1) };
    let payments = scenario.payments().await;
    assert_eq!(payments.len(), paid, "no effect twice, and none lost: {payments:?}");
    assert_eq!(walked(&scenario).await, walk);
    let told = receiver.deliveries();
    assert!(told.iter().all(|delivery| !delivery.id.is_empty()) && !told.is_empty(), "{told:?}");
    let verified = scenario.audit_verify().await;
    assert_eq!(verified.code, 0, "{verified:?}");
    let resumed = scenario.history().await.started_after(killed).expect("something starts after the kill");
    assert!(resumed < RESUMES_WITHIN, "the next attempt started {resumed:?} after the kill");
}

/// The refunds example with a run that passes every point: it pays with the leave of a person, of which a webhook is told,
/// then asks a question.
async fn world(point: &str, kind: Kind, on: On, receiver: &Receiver) -> Scenario {
    let name = format!("kill-{}-{kind:?}-{on:?}", point.replace(['.', '_'], "-")).to_lowercase();
    let scenario = Scenario::on(on, &name).await.telling(&receiver.url());
    scenario.edit("mandate.toml", "[limits]", "[limits]\nheartbeat_timeout_secs = 2");
    registered_as(&scenario, kind.lines());
    if kind != Kind::Idempotent {
        // A refund that is sent twice is paid twice.
        scenario.server_command(&["--forget-keys"]);
    }
    let read = if kind == Kind::ReadOnly {
        "[[conversation.reply]]\ncalls = [{ tool = \"orders.read\", arguments = { order_id = \"o1\" } }]\n"
    } else {
        ""
    };
    let script = format!(
        r#"
[[conversation]]
{read}
[[conversation.reply]]
calls = [{{ tool = "payments.refund", arguments = {{ order_id = "o1", amount_cents = 50000, currency = "EUR" }} }}]
[[conversation.reply]]
calls = [{{ tool = "people.ask", arguments = {{ question = "Is the customer to be told?" }} }}]
[[conversation.reply]]
text = "I looked after order o1."
"#
    );
    scenario.write("scripts/refunds.toml", &script);
    scenario
}

/// What people do, once each, as soon as the run waits for it. They look into the systems of record, and not at a query: no
/// worker may be there to answer it.
#[derive(Debug, Default)]
struct People {
    approved: bool,
    resolved: bool,
    answered: bool,
}

impl People {
    async fn act(&mut self, scenario: &Scenario) {
        let state = scenario.attribute("MandateState").await;
        let (signal, word, done) = match state.as_ref().and_then(|state| state.as_str()) {
            Some("AwaitingApproval") if !self.approved => {
                let request = recorded(scenario, |body| match body {
                    RecordBody::ApprovalRequested { request, .. } => Some(request.to_string()),
                    _ => None,
                });
                ("approve", json!({ "request_id": request.await, "by": BO }), &mut self.approved)
            }
            Some("OutcomeUnknown") if !self.resolved => {
                let call = recorded(scenario, |body| match body {
                    RecordBody::OutcomeUnknown { effect, .. } => Some(effect.to_string()),
                    _ => None,
                });
                let happened = !scenario.payments().await.is_empty();
                let resolution = if happened { "happened" } else { "did_not_happen" };
                ("resolve", json!({ "call": call.await, "resolution": resolution, "by": BO }), &mut self.resolved)
            }
            Some("AwaitingAnswer") if !self.answered => {
                let question = recorded(scenario, |body| match body {
                    RecordBody::QuestionAsked { question, .. } => Some(question.to_string()),
                    _ => None,
                });
                ("answer", json!({ "question_id": question.await, "text": "yes", "by": BO }), &mut self.answered)
            }
            _ => return,
        };
        *done = scenario.handle_signal(signal, &word.to_string()).await;
    }
}

/// What the first record of a kind names.
async fn recorded(scenario: &Scenario, pick: impl Fn(&RecordBody) -> Option<String>) -> String {
    let records = scenario.records().await;
    records.iter().find_map(|record| pick(&record.body)).expect("the run waits for what is recorded")
}

/// What the record says of the first call.
async fn walked(scenario: &Scenario) -> Vec<String> {
    let records = scenario.records().await.into_iter();
    let steps = records.filter(|record| record.key.starts_with("t1.0/")).filter_map(|record| match record.body {
        RecordBody::Intent { epoch, .. } => Some(format!("intent {epoch}")),
        RecordBody::NotSent { epoch, .. } => Some(format!("not sent {epoch}")),
        RecordBody::OutcomeUnknown { .. } => Some("unknown".to_owned()),
        RecordBody::Resolved { resolution, refused: None, .. } => Some(format!("resolved {resolution:?}")),
        RecordBody::Outcome { epoch, known_by, .. } => Some(format!("outcome {epoch} {known_by:?}")),
        RecordBody::LateOutcome { epoch, .. } => Some(format!("late {epoch}")),
        _ => None,
    });
    steps.collect()
}
