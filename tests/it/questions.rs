//! The agent asks people a question, and the thread goes on with the answer.

use futures::future::join_all;
use mandate_domain::{audit::RecordBody, proof::InstructionKind};
use mandate_tests::{Scenario, run, until};
use mandate_workflows::snapshot::{PendingQuestion, Status};
use serde_json::json;

const ANA: &str = "ana@acme.example";
const BO: &str = "bo@acme.example";
const MALLORY: &str = "mallory@acme.example";

/// A run that asks how much is to be refunded, and waits.
async fn asking(scenario: &Scenario) -> PendingQuestion {
    scenario.start_run("Refund order o6").await;
    scenario.wait_state("AwaitingAnswer").await;
    let mut questions = scenario.status().await.questions;
    assert_eq!(questions.len(), 1, "{questions:?}");
    questions.remove(0)
}

fn answers(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Instructed { instruction: InstructionKind::Answer, .. })
}

#[test]
fn a_question_waits_for_a_person_and_the_answer_goes_on() {
    run(async {
        let scenario = Scenario::new("question").await;
        let _worker = scenario.start_worker().await;
        let question = asking(&scenario).await;
        let details = scenario.details().await;
        for part in ["How much of order o6", "compressor leaks", "- 90.00 EUR", "--name answer", &question.question_id]
        {
            assert!(details.contains(part), "`{part}` is missing:\n{details}");
        }
        let answer =
            |by: &str| json!({ "question_id": question.question_id, "text": "90.00 EUR", "by": by }).to_string();
        scenario.signal("answer", &answer(MALLORY)).await.ok();
        until("the outsider's answer is refused", async || {
            (scenario.status().await.refused_messages == 1).then_some(())
        })
        .await;
        assert_eq!(scenario.status().await.questions.len(), 1, "the question still waits");
        scenario.signal("answer", &answer(BO)).await.ok();
        let answered = scenario.answer().await;
        assert!(answered.contains("90.00 EUR for order o6"), "{answered}");
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 9_000));
        let recorded = scenario.records_where(answers).await;
        assert_eq!(recorded.len(), 2, "the refusal and the answer");
        let asked = scenario.records_where(|body| matches!(body, RecordBody::QuestionAsked { .. })).await;
        assert_eq!(asked.len(), 1);
        let timers: Vec<_> = scenario.history().await.0.into_iter().filter_map(|event| event.summary).collect();
        assert!(timers.contains(&format!("question deadline {}", question.question_id)), "{timers:?}");
        scenario.audit_verify().await.ok();
        scenario.store_history("question").await;
    });
}

#[test]
fn the_person_who_is_served_answers_by_update_and_a_second_answer_comes_too_late() {
    run(async {
        let scenario = Scenario::new("question-update").await;
        let _worker = scenario.start_worker().await;
        let question = asking(&scenario).await;
        let answer = async |text: &str| {
            let input = json!({ "question_id": question.question_id, "text": text, "by": ANA }).to_string();
            let update =
                ["workflow", "update", "execute", "--workflow-id", &scenario.name, "--name", "answer_question"];
            scenario.temporal(&[&update[..], &["--input", &input]].concat()).await
        };
        let said = answer("nothing").await.ok();
        assert!(said.contains("is answered"), "{said}");
        assert!(scenario.answer().await.contains("Nothing was refunded"));
        let late = answer("90.00 EUR").await;
        assert_ne!(late.code, 0, "{late:?}");
        assert!(scenario.payments().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_question_that_nobody_answers_ends_in_time_and_the_model_goes_on_without() {
    run(async {
        let scenario = Scenario::new("question-expired").await;
        scenario.edit(
            "mandate.toml",
            "tool_timeout_max_secs = 60",
            "tool_timeout_max_secs = 60\napproval_wait_max_secs = 2",
        );
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o6").await;
        assert!(scenario.answer().await.contains("Nothing was refunded"));
        let expired = scenario.records_where(|body| matches!(body, RecordBody::QuestionExpired { .. })).await;
        assert_eq!(expired.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_question_outlives_its_worker() {
    run(async {
        let scenario = Scenario::new("question-kill").await;
        let worker = scenario.start_worker().await;
        let question = asking(&scenario).await;
        worker.kill().await;
        let _worker = scenario.start_worker().await;
        let said = scenario
            .mandate(&["answer", &scenario.name, "1", "--question", &question.question_id, "--by", BO, "--yes"])
            .await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("How much of order o6"), "the card is shown first: {said:?}");
        assert!(scenario.answer().await.contains("90.00 EUR for order o6"));
        let explained = scenario.mandate(&["explain", &scenario.name]).await.ok();
        assert!(explained.contains(&question.question_id) && explained.contains(BO), "{explained}");
    });
}

/// The words of a question are the model's own, after all that it had read: who reads the history would read them.
#[test]
fn nobody_is_asked_what_the_history_may_not_show() {
    run(async {
        let scenario = Scenario::new("question-withheld").await;
        scenario.edit("scripts/refunds.toml", "when = \"order o6\"\n", "when = \"order o6\"\n\n[[conversation.reply]]\ncalls = [{ tool = \"customers.read\", arguments = { customer_id = \"c1\" } }]\n");
        scenario.edit(
            "policies/reveal.cedar",
            "[Mandate::DataClass::\"order\", Mandate::DataClass::\"payment\", Mandate::DataClass::\"public\"].contains(resource)\n};\n\n@id(\"reveal.history\")",
            "[Mandate::DataClass::\"order\", Mandate::DataClass::\"payment\", Mandate::DataClass::\"public\", Mandate::DataClass::\"contact\"].contains(resource)\n};\n\n@id(\"reveal.history\")",
        );
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o6").await;
        // So would who reads its answer.
        let answer = scenario.answer().await;
        assert!(answer.contains("withheld: contact") && !answer.contains("refunded"), "{answer}");
        let asked = scenario.records_where(|body| matches!(body, RecordBody::QuestionAsked { .. })).await;
        assert!(asked.is_empty() && scenario.payments().await.is_empty(), "{asked:?}");
    });
}

/// The points at which a worker is killed while a person is asked and answers.
const POINTS: [&str; 4] =
    ["question.before_commit", "question.after_commit", "instruction.before_commit", "instruction.after_commit"];

/// Answers the question, once it waits.
async fn answer_once(scenario: &Scenario, answered: &mut bool) {
    if *answered {
        return;
    }
    let status = scenario.query::<Option<Status>>("status").await.flatten();
    if let Some(question) = status.and_then(|status| status.questions.into_iter().next()) {
        let answer = json!({ "question_id": question.question_id, "text": "90.00 EUR", "by": BO });
        scenario.signal("answer", &answer.to_string()).await.ok();
        *answered = true;
    }
}

async fn survives(point: &'static str) {
    let scenario = Scenario::new(&format!("kill-{}", point.replace(['.', '_'], "-"))).await;
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut first = scenario.worker_with_env(&env).await;
    scenario.start_run("Refund order o6").await;
    let mut answered = false;
    let code = until(&format!("the worker dies at {point}"), async || {
        answer_once(&scenario, &mut answered).await;
        first.ended()
    })
    .await;
    assert_eq!(code, 137, "{point}: SIGKILL");
    let _second = scenario.start_worker().await;
    until(&format!("the run goes on after {point}"), async || {
        answer_once(&scenario, &mut answered).await;
        (scenario.attribute("MandateState").await? == "Completed").then_some(())
    })
    .await;
    assert!(scenario.answer().await.contains("90.00 EUR for order o6"), "{point}");
    assert_eq!(scenario.payments().await.len(), 1, "{point}");
    let asked = scenario.records_where(|body| matches!(body, RecordBody::QuestionAsked { .. })).await;
    assert_eq!((asked.len(), scenario.records_where(answers).await.len()), (1, 1), "{point}");
    scenario.audit_verify().await.ok();
}

#[test]
fn wherever_a_worker_dies_a_question_is_asked_and_answered_once() {
    run(async {
        join_all(POINTS.map(survives)).await;
    });
}
