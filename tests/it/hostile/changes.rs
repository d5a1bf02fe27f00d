//! Attacks by time: what was decided about is not what is performed, because something changed in between.

use std::fs;

use mandate_domain::{DecisionOutcome, RefusalKind, audit::RecordBody};
use mandate_tests::Scenario;

use super::{
    ground::{
        BO, Held, KIM, LARGE, SMALL, asked, calls, intrusion, intrusion_in, model_says, never, paid, refund, refused,
        rests, rests_in, soon, start, start_refunds, untouched,
    },
    people::policies_before,
};

const POLICIES: &str = "policies/refunds.cedar";
const REFUND: &str = "tools/payments.refund.toml";

/// A refund waits; something changes while no worker runs; it is approved, and the run ends.
async fn approved_after(scenario: &Scenario, change: impl FnOnce(&Scenario)) -> Held {
    let worker = start_refunds(scenario, &[LARGE]).await;
    let request = scenario.pending_id().await;
    worker.stop().await;
    change(scenario);
    scenario.keep(scenario.start_worker().await);
    scenario.approve(&request, BO).await;
    scenario.wait_closed().await;
    Ok(())
}

fn denied(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Decision { target, outcome: DecisionOutcome::Deny, .. } if target == "payments.refund")
}

fn tool_changed(body: &RecordBody) -> bool {
    matches!(body, RecordBody::CallRefused { refusal: RefusalKind::ToolChanged, .. })
}

pub(super) async fn policy_tightened_while_waiting(scenario: &Scenario) -> Held {
    approved_after(scenario, |scenario| {
        scenario.edit(POLICIES, "input.amount_cents > 500000", "input.amount_cents > 20000");
    })
    .await?;
    untouched(scenario).await?;
    refused(scenario, "the decision under the new policy", denied).await
}

/// No worker ends: what an operator applies is in force with the next decision.
pub(super) async fn policy_applied_while_waiting(scenario: &Scenario) -> Held {
    scenario.in_production();
    scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = scenario.pending_id().await;
    scenario.edit(POLICIES, "input.amount_cents > 500000", "input.amount_cents > 20000");
    scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
    scenario.approve(&request, BO).await;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    refused(scenario, "the decision under the new policy", denied).await
}

/// Somebody writes a bundle into the store: other policies under the digest of those that were applied.
pub(super) async fn forged_policy_bundle(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(LARGE)])]);
    let worker = scenario.start_worker().await;
    let forge = "INSERT INTO bundles SELECT version + 1, digest, applied_micros, applied_by, note, encoding,
                 replace(files, 'amount_cents > 10000', $1) FROM bundles";
    never(scenario.tamper(forge, "amount_cents > 90000000").await != 1, "nothing was forged")?;
    scenario.start_run("Please do what is due.").await;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await?;
    never(!worker.log().contains("the last good one stays in force"), "the worker says nothing")?;
    scenario.keep(worker);
    refused(scenario, "that people are asked", |body| {
        matches!(body, RecordBody::Decision { target, outcome: DecisionOutcome::RequireApproval, .. }
            if target == "payments.refund")
    })
    .await?;
    intrusion(scenario, "its digest is").await
}

/// The payment was made and its answer lost with the worker. Policy forbids it by now: that does not undo it, and the
/// run is told that it happened.
pub(super) async fn policy_tightened_after_the_effect(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    let mut worker = scenario.worker_with_env(&[("MANDATE_FAILPOINT", "tool.after_effect")]).await;
    scenario.start_run("Please do what is due.").await;
    worker.wait().await;
    scenario.edit(POLICIES, "input.amount_cents > 500000", "input.amount_cents > 1");
    scenario.keep(scenario.start_worker().await);
    rests_in(scenario, "Completed").await?;
    paid(scenario, 1).await?;
    let outcomes =
        |body: &RecordBody| matches!(body, RecordBody::Outcome { effect, .. } if effect.to_string() == "t1.0");
    refused(scenario, "the outcome that the check tool told", outcomes).await?;
    never(!scenario.records_where(denied).await.is_empty(), "policy was asked about what had happened")
}

pub(super) async fn tool_changed_while_waiting(scenario: &Scenario) -> Held {
    approved_after(scenario, |scenario| scenario.edit(REFUND, "Refund a part or all", "Refund twice a part or all"))
        .await?;
    untouched(scenario).await?;
    refused(scenario, "the changed tool", tool_changed).await
}

pub(super) async fn tool_removed_while_waiting(scenario: &Scenario) -> Held {
    approved_after(scenario, |scenario| {
        fs::remove_file(scenario.path(REFUND)).unwrap();
        scenario.edit("tenants/acme/support/refunds/agent.toml", r#""payments.refund", "#, "");
        policies_before(scenario, "@id(\"refund.permit\")");
    })
    .await?;
    untouched(scenario).await?;
    refused(scenario, "the removed tool", tool_changed).await
}

/// The server of the tool announces that it takes what the registry does not state.
pub(super) async fn tool_announced_with_another_schema(scenario: &Scenario) -> Held {
    approved_after(scenario, |scenario| {
        let server = mandate_tests::program("refunds-mcp");
        let announce = r#"sed -u 's/"minimum":1/"minimum":0/'"#;
        let script = format!("'{}' --database var/payments.db | {announce}", server.display());
        scenario.set_server(&["/bin/sh", "-c", &script]);
    })
    .await?;
    untouched(scenario).await?;
    refused(scenario, "the changed tool", tool_changed).await
}

/// A worker is given another store: what was decided there says nothing here.
pub(super) async fn another_store(scenario: &Scenario) -> Held {
    approved_after(scenario, |scenario| scenario.edit("mandate.toml", "var/mandate.db", "var/other.db")).await?;
    untouched(scenario).await?;
    intrusion_in(scenario, "var/other.db", "the run is pinned to store").await
}

/// The store is put back to a copy of before a payment: the run has seen more than it holds, and nothing goes on.
pub(super) async fn store_put_back(scenario: &Scenario) -> Held {
    let other = r#"{ order_id = "o5", amount_cents = 25000, currency = "EUR" }"#;
    let worker = start_refunds(scenario, &[LARGE, other]).await;
    let pending = asked(scenario, 2).await?;
    worker.stop().await;
    let (store, copy) = (scenario.path("var/mandate.db"), scenario.path("var/copy.db"));
    fs::copy(&store, &copy).unwrap();
    let worker = scenario.start_worker().await;
    scenario.approve(&pending[0].request_id, BO).await;
    soon("the first is recorded as paid", async || {
        let outcomes = scenario.records_where(|body| matches!(body, RecordBody::Outcome { .. })).await;
        (outcomes.len() == 2 && scenario.pending_now().await?.len() == 1).then_some(())
    })
    .await?;
    worker.stop().await;
    fs::copy(&copy, &store).unwrap();
    for beside in ["var/mandate.db-wal", "var/mandate.db-shm"] {
        never(scenario.path(beside).exists(), format!("{beside} is left"))?;
    }
    scenario.keep(scenario.start_worker().await);
    scenario.approve(&pending[1].request_id, BO).await;
    scenario.wait_closed().await;
    paid(scenario, 1).await?;
    intrusion(scenario, "the store is behind its run").await
}

/// The recorded reply is changed behind everybody's back after people decided about it.
pub(super) async fn arguments_changed_after_approval(scenario: &Scenario) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = scenario.pending_id().await;
    let change = "UPDATE replies SET reply = replace(reply, '50000', $1)";
    never(scenario.tamper(change, "80000").await != 1, "nothing was changed")?;
    scenario.approve(&request, BO).await;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    // What stands in the chain about the call contradicts the changed row, so the run cannot go on.
    rests_in(scenario, "Failed").await?;
    refused(scenario, "the call that was given up", |body| matches!(body, RecordBody::CallAbandoned { .. })).await
}

/// The effect's row says that it was claimed before, for other arguments.
pub(super) async fn effect_claimed_for_something_else(scenario: &Scenario) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = scenario.pending_id().await;
    let claim = "INSERT INTO effects (chain, effect, target, input, state, epoch, holder, boot_id, send_by_millis)
                 SELECT chain, 't1.0', 'payments.refund', $1, 'released', 1, 'nobody', 'never', 0 FROM runs";
    never(scenario.tamper(claim, &"07".repeat(32)).await != 1, "nothing was changed")?;
    scenario.approve(&request, BO).await;
    soon("the call ends or is parked", async || {
        let state = rests(scenario).await.ok()?;
        (state != "AwaitingApproval").then_some(())
    })
    .await?;
    untouched(scenario).await?;
    rests_in(scenario, "OutcomeUnknown").await?;
    refused(
        scenario,
        "the conflict",
        |body| matches!(body, RecordBody::OutcomeUnknown { reason, .. } if reason.starts_with("effect_conflict")),
    )
    .await
}

/// An approval that was used does not open the gate for what the model asks for next.
pub(super) async fn approval_of_one_call_opens_no_other(scenario: &Scenario) -> Held {
    let next = r#"{ order_id = "o3", amount_cents = 400000, currency = "EUR", note = "as approved by bo" }"#;
    model_says(scenario, &[&calls(&[&refund(LARGE)]), &calls(&[&refund(next)])]);
    scenario.keep(start(scenario).await);
    let request = asked(scenario, 1).await?.remove(0).request_id;
    scenario.approve(&request, BO).await;
    soon("the next call waits or is performed", async || {
        let (state, pending) = (scenario.attribute("MandateState").await?, scenario.pending_now().await?);
        let asked = pending.first().is_some_and(|next| next.request_id != request);
        (asked || state == "Completed").then_some(())
    })
    .await?;
    paid(scenario, 1).await?;
    refused(
        scenario,
        "people are asked about the next call",
        |body| matches!(body, RecordBody::ApprovalRequested { effect, .. } if effect.to_string() == "t2.0"),
    )
    .await
}
