//! What a tool's server asks for goes before people: with the example's own server, which speaks the newest revision of the
//! protocol, and with one of the SDK of its authors, which asks while the call is under way. The truth is read from their
//! systems of record.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use mandate_workflows::snapshot::PendingQuestion;
use serde_json::json;

use crate::remote_tools::{MCP, Sdk, cancels_orders};

const BO: &str = "bo@acme.example";

async fn asking(scenario: &Scenario) -> PendingQuestion {
    scenario.wait_state("AwaitingAnswer").await;
    let mut questions = scenario.status().await.questions;
    assert_eq!(questions.len(), 1, "{questions:?}");
    questions.remove(0)
}

async fn answer(scenario: &Scenario, question: &PendingQuestion, text: &str, by: &str) {
    let answer = json!({ "question_id": question.question_id, "text": text, "by": by });
    scenario.signal("answer", &answer.to_string()).await.ok();
}

/// Answers in a way that does not count, and says why.
async fn refused(scenario: &Scenario, question: &PendingQuestion, text: &str, by: &str) -> String {
    let before = scenario.status().await.refused_messages;
    answer(scenario, question, text, by).await;
    let status = until("the answer is refused", async || {
        Some(scenario.status().await).filter(|status| status.refused_messages > before)
    });
    status.await.last_refusal.unwrap()
}

/// What the record says of a call, in order.
async fn walked(scenario: &Scenario, call: &str) -> Vec<String> {
    let records = scenario.records().await.into_iter();
    let steps = records.filter_map(|record| match record.body {
        RecordBody::Intent { effect, epoch, .. } if effect.to_string() == call => Some(format!("intent {epoch}")),
        RecordBody::NotSent { effect, epoch, .. } if effect.to_string() == call => {
            Some(format!("not performed {epoch}"))
        }
        RecordBody::QuestionAsked { effect, .. } if effect.to_string() == call => Some("asked".to_owned()),
        RecordBody::Outcome { effect, epoch, is_error, .. } if effect.to_string() == call => {
            Some(format!("outcome {epoch}{}", if is_error { ", an error" } else { "" }))
        }
        _ => None,
    });
    steps.collect()
}

/// The refunds example whose server asks from which account 45 EUR are paid.
async fn asks_for_the_account(name: &str) -> Scenario {
    let scenario = Scenario::new(name).await;
    scenario.server_command(&["--ask-above-cents", "4000"]);
    scenario
}

#[test]
fn a_person_says_what_a_server_asks_for_and_the_call_is_made_again_with_it() {
    run(async {
        let scenario = asks_for_the_account("server-asks").await;
        let first = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let question = asking(&scenario).await;
        let details = scenario.details().await;
        for part in
            ["a tool's server asks", "From which account are 4500 cents paid?", "- reserve", "`payments.refund`"]
        {
            assert!(details.contains(part), "`{part}` is missing:\n{details}");
        }
        assert!(scenario.payments().await.is_empty(), "nothing is paid before");
        let said = refused(&scenario, &question, "reserve", "mallory@acme.example").await;
        assert!(said.contains("mallory@acme.example"), "{said}");
        let said = refused(&scenario, &question, "the moon", BO).await;
        assert!(said.contains("does not fit what is asked"), "{said}");
        let recorded = scenario.records_where(|body| matches!(body, RecordBody::Instructed { .. })).await;
        assert!(!format!("{recorded:?}").contains("the moon"), "{recorded:?}");
        first.kill().await;
        let _second = scenario.start_worker().await;
        answer(&scenario, &question, "reserve", BO).await;

        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        let [payment] = scenario.payments().await.try_into().unwrap();
        assert_eq!((payment.cents, payment.note.as_deref()), (4_500, Some("paid from reserve")));
        let calls = scenario.refund_calls().await;
        assert!(calls.len() == 2 && calls[0].key == calls[1].key, "asked, then paid, under one key: {calls:?}");
        let expected = ["intent 1", "asked", "not performed 1", "intent 2", "outcome 2"];
        assert_eq!(walked(&scenario, "t2.0").await, expected);
        scenario.audit_verify().await.ok();
        let told = scenario.mandate(&["explain", &scenario.name]).await.ok();
        assert!(told.contains("asks for input before it performs the call"), "{told}");
        scenario.store_history("server-question").await;
    });
}

#[test]
fn a_person_declines_and_the_agent_reads_what_the_server_makes_of_it() {
    run(async {
        let scenario = asks_for_the_account("server-asks-declined").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let question = asking(&scenario).await;
        let said = scenario.mandate(&["answer", &scenario.name, "decline", "--by", BO, "--yes"]).await;
        assert_eq!(said.code, 0, "{question:?}: {said:?}");
        scenario.answer().await;
        assert!(scenario.payments().await.is_empty());
        assert_eq!(walked(&scenario, "t2.0").await.last().unwrap(), "outcome 2, an error");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_server_that_nobody_answers_in_time_performs_nothing() {
    run(async {
        let scenario = asks_for_the_account("server-asks-late").await;
        scenario.edit("mandate.toml", "[limits]", "[limits]\napproval_wait_max_secs = 2");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        scenario.answer().await;
        assert!(scenario.payments().await.is_empty());
        assert_eq!(walked(&scenario, "t2.0").await, ["intent 1", "asked", "not performed 1"]);
        let expired = |body: &RecordBody| matches!(body, RecordBody::QuestionExpired { .. });
        assert_eq!(scenario.records_where(expired).await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_run_that_is_halted_takes_back_what_a_server_asked_for() {
    run(async {
        let scenario = asks_for_the_account("server-asks-halted").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        asking(&scenario).await;
        scenario.signal("halt", r#"{"by":"bo@acme.example"}"#).await.ok();
        scenario.wait_closed().await;
        assert!(scenario.payments().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

/// A server that asks while the call is under way.
async fn asks_why(name: &str, kind: &str) -> (Scenario, Sdk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let sdk = Sdk::start(folder.path(), "asks", 0).await;
    let host = format!("127.0.0.1:{}", sdk.port);
    let server = format!("\n[servers.orders]\nurl = \"http://{host}/mcp\"\nallow_internal = [\"{host}\"]\n");
    (cancels_orders(name, &server, kind, MCP).await, sdk, folder)
}

#[test]
fn a_server_that_asks_while_it_is_called_is_called_again_when_people_have_answered() {
    run(async {
        let (scenario, sdk, _folder) = asks_why("server-elicits", "idempotent = true").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        let question = asking(&scenario).await;
        assert!(question.card.contains("Why is the order cancelled?"), "{question:?}");
        assert!(sdk.done().is_empty(), "nothing is done before");
        answer(&scenario, &question, "it is late", BO).await;
        assert!(scenario.answer().await.contains("o1 is cancelled"));
        let [done] = sdk.done().try_into().unwrap();
        assert_eq!(done["reason"], "it is late");
        assert_eq!(walked(&scenario, "t1.0").await, ["intent 1", "asked", "intent 2", "outcome 2"]);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_plain_tool_whose_server_asks_while_it_is_called_is_not_called_again() {
    run(async {
        let (scenario, sdk, _folder) = asks_why("server-elicits-plain", "").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        scenario.answer().await;
        assert!(sdk.done().is_empty());
        assert_eq!(walked(&scenario, "t1.0").await, ["intent 1", "outcome 1, an error"]);
        scenario.audit_verify().await.ok();
    });
}
