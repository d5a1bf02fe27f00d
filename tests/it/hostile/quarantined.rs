//! What is put into quarantine while a run is on its way is not touched by the run's next step, whatever was approved.

use mandate_domain::{DecisionOutcome, audit::RecordBody};
use mandate_tests::Scenario;

use super::{
    ground::{
        ANA, BO, EVE, Held, LARGE, SMALL, asked, calls, model_says, never, paid, refund, refused, rests, rests_in,
        soon, start_refunds, untouched,
    },
    people::decision_refused,
};

async fn lock(scenario: &Scenario, target: &str) {
    scenario.mandate(&["quarantine", "add", target, "--by", EVE, "--reason", "a leak"]).await.ok();
}

/// A refund waits; something is put into quarantine; the refund is approved.
async fn approved_after_quarantine(scenario: &Scenario, target: &str) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked(scenario, 1).await?.remove(0).request_id;
    lock(scenario, target).await;
    scenario.approve(&request, BO).await;
    soon("the run ends", async || {
        let state = rests(scenario).await.ok()?;
        (state != "AwaitingApproval").then_some(())
    })
    .await?;
    untouched(scenario).await?;
    let words = format!("`{target}` is in quarantine: a leak");
    refused(scenario, "the decision", |body| {
        matches!(body, RecordBody::Decision { target, outcome: DecisionOutcome::Deny, reason, .. }
            if target == "payments.refund" && *reason == words)
    })
    .await
}

pub(super) async fn tool_in_quarantine_while_waiting(scenario: &Scenario) -> Held {
    approved_after_quarantine(scenario, "tool:payments.refund").await
}

pub(super) async fn server_in_quarantine_while_waiting(scenario: &Scenario) -> Held {
    approved_after_quarantine(scenario, "server:refunds").await
}

pub(super) async fn agent_in_quarantine_while_waiting(scenario: &Scenario) -> Held {
    approved_after_quarantine(scenario, "agent:acme/support/refunds").await
}

pub(super) async fn requester_in_quarantine_while_waiting(scenario: &Scenario) -> Held {
    approved_after_quarantine(scenario, &format!("person:{ANA}")).await
}

pub(super) async fn approval_by_a_person_in_quarantine(scenario: &Scenario) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked(scenario, 1).await?.remove(0).request_id;
    lock(scenario, &format!("person:{BO}")).await;
    scenario.approve(&request, BO).await;
    decision_refused(scenario, 1, "`person:bo@acme.example` is in quarantine").await?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await
}

/// A refund was paid and its answer lost with the worker. The tool that knows is in quarantine: it is not asked, and
/// what became of the refund is for a person to say.
pub(super) async fn check_tool_in_quarantine(scenario: &Scenario) -> Held {
    let server = mandate_tests::program("refunds-mcp");
    let script = format!("tee -a requests.log | '{}' --database var/payments.db", server.display());
    scenario.set_server(&["/bin/sh", "-c", &script]);
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    let mut worker = scenario.worker_with_env(&[("MANDATE_FAILPOINT", "tool.after_effect")]).await;
    scenario.start_run("Please do what is due.").await;
    worker.wait().await;
    lock(scenario, "tool:payments.refund_status").await;
    scenario.keep(scenario.start_worker().await);
    rests_in(scenario, "OutcomeUnknown").await?;
    let requests = std::fs::read_to_string(scenario.path("requests.log")).unwrap();
    never(!requests.contains("\"refund_payment\""), format!("the refund was not sent: {requests}"))?;
    never(requests.contains("\"refund_status\""), "the check tool was asked")?;
    paid(scenario, 1).await?;
    refused(scenario, "that nobody was asked", |body| {
        matches!(body, RecordBody::OutcomeUnknown { reason, .. }
            if reason.contains("`tool:payments.refund_status` is in quarantine: a leak"))
    })
    .await
}
