//! An approver changes the arguments: a revision of the call is judged afresh, and both are recorded.

use mandate_domain::{Verdict, audit::RecordBody};
use mandate_tests::{Scenario, keys, run, until};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Map, Value, json};

const BO: &str = "bo@acme.example";
const EVE: &str = "eve@acme.example";

fn arguments(cents: u32) -> Map<String, Value> {
    json!({ "order_id": "o1", "amount_cents": cents, "currency": "EUR" }).as_object().cloned().unwrap()
}

async fn waiting(scenario: &Scenario) -> PendingRequest {
    scenario.start_run("Refund order o1").await;
    scenario.wait_state("AwaitingApproval").await;
    scenario.pending().await.remove(0)
}

/// Stands in for an editor: keeps what it is given, and makes the amount smaller.
const EDITOR: &str = r#"cp "$1" seen.json && sed -i -e 's/50000/7000/' "$1""#;

/// Approves with other arguments.
async fn edit(scenario: &Scenario, request: &PendingRequest, arguments: &Map<String, Value>, by: &str) {
    let input = if scenario.accepts_keys() {
        let digest = request.digest.as_ref().unwrap();
        let (request, arguments) = (request.request_id.as_str(), Some(arguments));
        keys::SaysOf { request, digest, verdict: Verdict::Approve, comment: None, arguments }.signed(by)
    } else {
        json!({ "request_id": request.request_id, "by": by, "arguments": arguments })
    };
    scenario.signal("approve", &input.to_string()).await.ok();
}

async fn revised(scenario: &Scenario) -> usize {
    scenario.records_where(|body| matches!(body, RecordBody::CallRevised { .. })).await.len()
}

#[test]
fn a_smaller_amount_is_judged_afresh_and_paid_without_a_further_question() {
    run(async {
        let scenario = Scenario::new("edit-smaller").await;
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        edit(&scenario, &request, &arguments(8_000), BO).await;
        scenario.answer().await;
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 8_000), "{payments:?}");
        assert!(
            payments[0].key.as_deref().is_some_and(|key| key.ends_with("r2")),
            "the revision is an effect of its own: {payments:?}"
        );
        let decided = scenario
            .records_where(|body| matches!(body, RecordBody::ApprovalDecided { arguments: Some(_), refused: None, .. }))
            .await;
        assert_eq!((decided.len(), revised(&scenario).await), (1, 1), "the decision and the revision are recorded");
        let explained = scenario.mandate(&["explain", &scenario.name]).await.ok();
        assert!(explained.contains("t2.0r2"), "{explained}");
        scenario.audit_verify().await.ok();
        scenario.store_history("revised").await;
    });
}

#[test]
fn an_amount_that_still_needs_a_person_waits_for_one_again() {
    run(async {
        let scenario = Scenario::new("edit-again").await;
        scenario.accept_keys();
        scenario.edit("policies/refunds.cedar", "@four_eyes(\"requester\")\n", "@four_eyes(\"requester, editor\")\n");
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        edit(&scenario, &request, &arguments(40_000), BO).await;
        let second = until("the revision waits", async || {
            scenario.pending().await.into_iter().find(|pending| pending.request_id != request.request_id)
        })
        .await;
        assert!(second.arguments.contains("40000") && second.card.contains("changed the arguments"), "{second:?}");
        assert_ne!(second.digest, request.digest, "what was said about the old arguments counts for nothing");
        // Whoever changed them does not approve them alone.
        scenario.decide_signed(&second, Verdict::Approve, BO).await;
        until("the editor is refused", async || (scenario.status().await.refused_messages == 1).then_some(())).await;
        scenario.decide_signed(&second, Verdict::Approve, EVE).await;
        scenario.answer().await;
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 40_000), "{payments:?}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn an_edit_cannot_lift_an_amount_above_the_ceiling() {
    run(async {
        let scenario = Scenario::new("edit-ceiling").await;
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        edit(&scenario, &request, &arguments(600_000), BO).await;
        let answer = scenario.answer().await;
        assert!(answer.contains("was not made"), "{answer}");
        assert!(scenario.refund_calls().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_person_edits_on_the_command_line() {
    run(async {
        let scenario = Scenario::new("edit-command").await;
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        let changed = Value::Object(arguments(7_000)).to_string();
        let approve = ["approve", &scenario.name, "--request", &request.request_id, "--by", BO, "--yes"];
        let said = scenario.mandate(&[&approve[..], &["--arguments", &changed]].concat()).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("50000") && said.stderr.contains("7000"), "what differs is shown: {said:?}");
        scenario.answer().await;
        assert_eq!(scenario.payments().await[0].cents, 7_000);
    });
}

#[test]
fn a_person_edits_in_their_editor_with_the_card_in_view() {
    run(async {
        let scenario = Scenario::new("edit-terminal").await.with_env("VISUAL", "").with_env("EDITOR", "sh editor.sh");
        scenario.write("editor.sh", EDITOR);
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        let decided = async || scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { .. })).await;
        let approve = ["approve", &scenario.name, "--request", &request.request_id, "--by", BO, "--edit"];
        let nothing_yet = async || {
            assert!(decided().await.is_empty() && scenario.payments().await.is_empty(), "nothing is sent unasked");
        };
        let said = scenario.mandate_at_terminal(&approve, nothing_yet, "y").await;
        assert_eq!(said.code, 0, "{said:?}");
        let seen = std::fs::read_to_string(scenario.path("seen.json")).unwrap();
        let proposed = serde_json::from_str::<Value>(&request.arguments).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), proposed, "they edit what is shown");
        let shown = [request.card.trim(), "-   \"amount_cents\": 50000", "+   \"amount_cents\": 7000", "[y/N]"];
        let places = shown.map(|part| said.stderr.find(part).unwrap_or_else(|| panic!("`{part}`: {said:?}")));
        assert!(places.is_sorted(), "the card, what changes, the question: {said:?}");
        assert!(said.stdout.contains("t2.0r2"), "what became of the revision: {said:?}");

        scenario.answer().await;
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents, scenario.refund_calls().await.len()), (1, 7_000, 1));
        let [decision] = &decided().await[..] else { panic!("one decision") };
        let RecordBody::ApprovalDecided { by, arguments: Some(changed), refused: None, .. } = &decision.body else {
            panic!("{decision:?}")
        };
        let revised = scenario.records_where(|body| matches!(body, RecordBody::CallRevised { .. })).await;
        let [RecordBody::CallRevised { effect, replaces, input, by: editor, .. }] =
            &revised.iter().map(|record| record.body.clone()).collect::<Vec<_>>()[..]
        else {
            panic!("{revised:#?}")
        };
        assert_eq!((by.as_str(), by, changed), (BO, editor, input));
        assert_eq!((effect.to_string(), replaces.to_string()), ("t2.0r2".into(), "t2.0".into()));
        let judged = |body: &RecordBody| matches!(body, RecordBody::Decision { effect: of, .. } if of == effect);
        assert!(!scenario.records_where(judged).await.is_empty(), "the revision is judged afresh");
        scenario.audit_verify().await.ok();
    });
}
