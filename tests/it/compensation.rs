//! What a run did is undone when it does not complete, where its agent wants that. The truth is read from the payment
//! system.

use std::collections::BTreeSet;

use mandate_domain::{
    AgentResult, RunState,
    audit::RecordBody,
    compensation::{UndoState, UndoneCall},
};
use mandate_tests::{AGENT, Process, Scenario, run, until};

const BO: &str = "bo@acme.example";

/// Two refunds that need nobody, and then what the test says.
const SCRIPT: &str = r#"
[[conversation]]
[[conversation.reply]]
calls = [{ tool = "payments.refund", arguments = { order_id = "o2", amount_cents = 4500, currency = "EUR" } }]
[[conversation.reply]]
calls = [{ tool = "payments.refund", arguments = { order_id = "o2", amount_cents = 2000, currency = "EUR" } }]
"#;

/// A third refund, for which people are asked.
const THIRD: &str = r#"
[[conversation.reply]]
calls = [{ tool = "payments.refund", arguments = { order_id = "o1", amount_cents = 50000, currency = "EUR" } }]
"#;

const CANCEL: &str = r#"
name = "payments.cancel_refund"
description = "Take a refund back."
owner = "payments@acme.example"
read_only = false
destructive = true
idempotent = true
open_world = false
timeout_secs = 30

[mcp]
server = "refunds"
tool = "cancel_refund"

[input_schema]
type = "object"
required = ["refund_id"]
additionalProperties = false

[input_schema.properties.refund_id]
type = "string"

[argument_classes]
"/refund_id" = "payment"

[result_classes]
"" = "payment"
"#;

const UNDO: &str = r#"
[undo]
tool = "payments.cancel_refund"

[undo.arguments]
refund_id = "/result/refund_id"
"#;

const PERMIT: &str = r#"
@id("cancel.permit")
@reason("a run that does not complete takes its refunds back")
permit (
  principal in Mandate::Unit::"acme/support",
  action == Mandate::Action::"payments.cancel_refund",
  resource
);
"#;

/// A world whose refunds can be taken back, with further policies and replies.
async fn world(name: &str, policies: &str, replies: &str) -> Scenario {
    let scenario = Scenario::new(name).await;
    can_be_taken_back(&scenario, policies);
    scenario.write("scripts/refunds.toml", &format!("{SCRIPT}{replies}"));
    scenario
}

/// Lets refunds be taken back where a run fails or is halted, by further policies.
pub(crate) fn can_be_taken_back(scenario: &Scenario, policies: &str) {
    let append = |file: &str, more: &str| {
        let text = std::fs::read_to_string(scenario.path(file)).unwrap();
        scenario.write(file, &(text + more));
    };
    append("tools/payments.refund.toml", UNDO);
    append("policies/refunds.cedar", &format!("{PERMIT}{policies}"));
    scenario.write("tools/payments.cancel_refund.toml", CANCEL);
    let agent = format!("tenants/{AGENT}/agent.toml");
    scenario.edit(&agent, "model = \"support\"\n", "model = \"support\"\ncompensate = [\"failure\", \"halt\"]\n");
}

/// The run has refunded twice and waits for people about a third refund.
async fn refunded_twice(scenario: &Scenario) {
    scenario.start_run("Refund order o2").await;
    scenario.pending_id().await;
    assert_eq!(scenario.payments().await.len(), 2);
}

async fn halt(scenario: &Scenario) {
    scenario.signal("halt", r#"{"by":"op@acme.example","comment":"wrong customer"}"#).await.ok();
}

async fn result(scenario: &Scenario) -> AgentResult {
    scenario.wait_closed().await;
    scenario.executions().await[0].result().expect("a result")
}

fn told(undone: &[UndoneCall]) -> Vec<(String, UndoState)> {
    undone.iter().map(|one| (one.call.to_string(), one.state)).collect()
}

fn both(first: UndoState, second: UndoState) -> Vec<(String, UndoState)> {
    vec![("t2.0".to_owned(), first), ("t1.0".to_owned(), second)]
}

#[test]
fn a_run_that_fails_after_two_refunds_takes_both_back_the_last_one_first() {
    run(async {
        let scenario = world("undo-failed", "", "").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let result = result(&scenario).await;
        assert_eq!(result.state, RunState::Failed, "{result:?}");
        assert_eq!(scenario.cancellations().await, ["rf-0002", "rf-0001"]);
        assert_eq!(told(&result.undone), both(UndoState::Undone, UndoState::Undone));
        let keys: Vec<_> = scenario.cancel_calls().await.into_iter().filter_map(|call| call.key).collect();
        assert!(keys.len() == 2 && keys[0].ends_with("/t2.0u") && keys[1].ends_with("/t1.0u"), "{keys:?}");
        let details = scenario.details().await;
        assert!(details.contains("`t2.0` is undone by `payments.cancel_refund`"), "{details}");
        let decided = |body: &RecordBody| {
            matches!(body, RecordBody::Decision { target, policies, .. }
                if target == "payments.cancel_refund" && policies.iter().any(|id| id.as_str() == "cancel.permit"))
        };
        assert_eq!(scenario.records_where(decided).await.len(), 2, "each is decided by policy");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_halted_run_takes_back_what_it_paid_and_says_so() {
    run(async {
        let scenario = world("undo-halted", "", THIRD).await;
        let _worker = scenario.start_worker().await;
        refunded_twice(&scenario).await;
        halt(&scenario).await;
        let result = result(&scenario).await;
        assert_eq!((result.state, &result.not_performed[..]), (RunState::Stopped, &["t3.0".parse().unwrap()][..]));
        assert_eq!(told(&result.undone), both(UndoState::Undone, UndoState::Undone));
        assert_eq!(scenario.cancellations().await, ["rf-0002", "rf-0001"]);
        let explained = scenario.mandate(&["explain", &scenario.name]).await.ok();
        assert!(explained.contains("t2.0u payments.cancel_refund: about to be performed"), "{explained}");
        let summaries: Vec<_> = scenario.history().await.0.into_iter().filter_map(|event| event.summary).collect();
        assert!(summaries.iter().any(|one| one.ends_with("payments.cancel_refund · undoes t1.0")), "{summaries:?}");
        let shown = scenario.mandate(&["halt", &scenario.name, "--by", "kim@acme.example"]).await.ok();
        assert!(shown.contains("t1.0 payments.refund (undone), t2.0 payments.refund (undone)"), "{shown}");
        scenario.store_history("compensated").await;
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn the_model_cannot_call_what_only_undoes() {
    run(async {
        let calls = r#"
        [[conversation.reply]]
        calls = [{ tool = "payments.cancel_refund", arguments = { refund_id = "rf-0001" } }]
        [[conversation.reply]]
        text = "Done."
        "#;
        let scenario = world("undo-not-offered", "", calls).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        assert!(scenario.answer().await.contains("Done."));
        assert_eq!(scenario.cancellations().await, [""; 0], "a run that completes undoes nothing");
        let refused = |body: &RecordBody| matches!(body, RecordBody::CallRefused { .. });
        assert_eq!(scenario.records_where(refused).await.len(), 1);
    });
}

/// Dies at a point while it undoes, and another worker goes on.
async fn dies_undoing(scenario: &Scenario, point: &str) -> Process {
    let first = scenario.start_worker().await;
    refunded_twice(scenario).await;
    first.stop().await;
    let mark = scenario.path("mark");
    let env = [("MANDATE_FAILPOINT", point), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    let mut dying = scenario.worker_with_env(&env).await;
    halt(scenario).await;
    let code = until("the worker dies", async || dying.ended()).await;
    assert_eq!(code, 137, "SIGKILL");
    scenario.start_worker().await
}

#[test]
fn a_worker_that_dies_while_it_undoes_leaves_nothing_undone_twice_or_forgotten() {
    run(async {
        // How often the server hears of it: an idempotent tool is called again under its key.
        for (point, heard) in [("tool.after_intent", 2), ("tool.after_effect", 3), ("tool.after_outcome", 2)] {
            let scenario = world(&format!("undo-{}", point.replace(['.', '_'], "-")), "", THIRD).await;
            let _worker = dies_undoing(&scenario, point).await;
            let result = result(&scenario).await;
            assert_eq!(told(&result.undone), both(UndoState::Undone, UndoState::Undone), "{point}");
            assert_eq!(scenario.cancellations().await, ["rf-0002", "rf-0001"], "{point}");
            let calls = scenario.cancel_calls().await;
            let keys: BTreeSet<_> = calls.iter().filter_map(|call| call.key.as_deref()).collect();
            assert_eq!((calls.len(), keys.len()), (heard, 2), "{point}: {calls:?}");
            scenario.audit_verify().await.ok();
        }
    });
}

#[test]
fn an_undo_that_nobody_knows_of_is_named_and_the_others_go_on() {
    run(async {
        let scenario = world("undo-unknown", "", THIRD).await;
        scenario.edit("tools/payments.cancel_refund.toml", "idempotent = true", "idempotent = false");
        let _worker = dies_undoing(&scenario, "tool.after_effect").await;
        let result = result(&scenario).await;
        assert_eq!(told(&result.undone), both(UndoState::Unknown, UndoState::Undone), "{result:?}");
        assert_eq!(result.unknown_outcomes, ["t2.0u".parse().unwrap()]);
        assert_eq!(scenario.cancel_calls().await.len(), 2, "the lost one is never repeated");
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("nobody knows whether `t2.0u` happened"), "{verified}");
    });
}

/// A gate before the first refund is taken back.
const GATE: &str = r#"
@id("cancel.gate")
@reason("a person looks first")
@decision("require_approval")
@approvers("finance-leads")
@quorum("1")
@expires("PT1H")
forbid (principal, action == Mandate::Action::"payments.cancel_refund", resource)
when { context.input.refund_id == "rf-0001" }
unless { context.approved.contains("cancel.gate") };
"#;

#[test]
fn a_run_that_is_reset_while_it_undoes_does_nothing_else_any_more() {
    run(async {
        let scenario = world("undo-reset", GATE, "").await;
        let _worker = scenario.start_worker().await;
        // Its model fails behind the second refund.
        scenario.start_run("Refund order o2").await;
        let waits = async || (scenario.cancellations().await == ["rf-0002"]).then_some(());
        until("the second refund is taken back", waits).await;
        let request = scenario.pending_id().await;
        // It would answer now.
        let script = std::fs::read_to_string(scenario.path("scripts/refunds.toml")).unwrap();
        let more = "\n[[conversation.reply]]\ntext = \"I refunded both.\"\n";
        scenario.write("scripts/refunds.toml", &(script + more));
        let reset = ["workflow", "reset", "--workflow-id", &scenario.name, "--type", "FirstWorkflowTask"];
        scenario.temporal(&[&reset[..], &["--reason", "a test does"]].concat()).await.ok();
        until("people are asked again", async || {
            (scenario.pending_now().await?.first()?.request_id == request).then_some(())
        })
        .await;
        scenario.approve(&request, BO).await;
        let result = result(&scenario).await;
        assert_eq!(result.state, RunState::Failed, "it cannot complete with what was taken back: {result:?}");
        assert_eq!(scenario.cancellations().await, ["rf-0002", "rf-0001"]);
        assert_eq!(scenario.refund_calls().await.len(), 2, "nothing is refunded behind the first undo");
        scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
    });
}

#[test]
fn whoever_halts_the_undoing_is_recorded_and_what_is_left_is_named() {
    run(async {
        let scenario = world("undo-stopped", GATE, "").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        scenario.pending_id().await;
        halt(&scenario).await;
        let result = result(&scenario).await;
        assert_eq!(told(&result.undone), both(UndoState::Undone, UndoState::NotUndone), "{result:?}");
        let reason = result.undone[1].reason.clone().unwrap_or_default();
        assert!(reason.contains("halted by op@acme.example"), "{reason}");
        let halted = scenario.records_where(|body| matches!(body, RecordBody::Halted { .. })).await;
        assert_eq!((halted.len(), halted[0].key.as_str()), (1, "halted/undoing"));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_denied_undo_is_named_with_its_reason_and_another_waits_for_people() {
    run(async {
        let never = r#"
        @id("cancel.never")
        @reason("the second refund stays")
        forbid (principal, action == Mandate::Action::"payments.cancel_refund", resource)
        when { context.input.refund_id == "rf-0002" };
        "#;
        let scenario = world("undo-denied", &format!("{never}{GATE}"), THIRD).await;
        let _worker = scenario.start_worker().await;
        refunded_twice(&scenario).await;
        let third = scenario.pending().await.remove(0).request_id;
        halt(&scenario).await;
        let request = until("people are asked about the undo", async || {
            let pending = scenario.pending_now().await?;
            pending.into_iter().map(|one| one.request_id).find(|id| *id != third)
        })
        .await;
        let details = scenario.details().await;
        assert!(details.contains("payments.cancel_refund") && details.contains("rf-0001"), "{details}");
        scenario.approve(&request, BO).await;
        let result = result(&scenario).await;
        assert_eq!(told(&result.undone), both(UndoState::NotUndone, UndoState::Undone), "{result:?}");
        let reason = result.undone[0].reason.clone().unwrap_or_default();
        assert!(reason.contains("the second refund stays"), "{reason}");
        assert_eq!(scenario.cancellations().await, ["rf-0001"]);
        scenario.audit_verify().await.ok();
    });
}
