//! Attacks by people: decisions of whoever may not decide, words that are not theirs to say, messages that are none.

use mandate_domain::{Proof, Verdict, audit::RecordBody};
use mandate_tests::{Scenario, keys};
use serde_json::json;

use super::ground::{
    ANA, BO, EVE, Held, LARGE, MALLORY, SMALL, asked, before_it_answers, calls, cut_from, model_says, never, paid,
    recorded, refund, refused, refused_with, rests_in, start, start_refunds, untouched,
};
use super::rogue::task;

/// Whether the last of so many recorded decisions was refused, with these words.
pub(super) async fn decision_refused(scenario: &Scenario, number: usize, words: &str) -> Held {
    let decided = recorded(scenario, number, |body| matches!(body, RecordBody::ApprovalDecided { .. })).await?;
    let Some(RecordBody::ApprovalDecided { refused, .. }) = decided.last() else { unreachable!("picked above") };
    refused_with(refused.as_deref(), words, &decided)
}

/// One person tries to approve; nothing happens, and the request waits on.
async fn may_not_approve(scenario: &Scenario, by: &str, words: &str) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    approves(scenario, by).await?;
    decision_refused(scenario, 1, words).await?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await
}

/// Approves the only request that waits, with a signature where the folder accepts keys.
async fn approves(scenario: &Scenario, by: &str) -> Held {
    let request = asked(scenario, 1).await?.remove(0);
    if request.accepts == [Proof::Key] {
        scenario.decide_signed(&request, Verdict::Approve, by).await;
    } else {
        scenario.approve(&request.request_id, by).await;
    }
    Ok(())
}

pub(super) async fn approval_by_an_outsider(scenario: &Scenario) -> Held {
    everybody_may(scenario, "decide");
    may_not_approve(scenario, MALLORY, "is in none of the approver groups (finance-leads)").await
}

pub(super) async fn approval_by_the_requester(scenario: &Scenario) -> Held {
    scenario.accept_keys();
    add_to_the_approvers(scenario, ANA);
    everybody_may(scenario, "decide");
    may_not_approve(scenario, ANA, "(four eyes)").await
}

/// Policy lets everybody decide, or say what became of a call: what else keeps them from it stands alone.
fn everybody_may(scenario: &Scenario, act: &str) {
    let permit =
        format!("@id(\"everybody.may\")\npermit (principal, action in Mandate::Action::\"{act}\", resource);\n");
    scenario.write("policies/everybody.cedar", &permit);
}

/// A finance lead, whom policy does not let decide.
pub(super) async fn decision_that_policy_does_not_permit(scenario: &Scenario) -> Held {
    let forbid = format!(
        "@id(\"eve.may_not\")\n@reason(\"eve does not decide about refunds\")\nforbid (\n  principal == Mandate::User::\"{EVE}\",\n  action in Mandate::Action::\"decide\",\n  resource == Mandate::Tool::\"payments.refund\"\n);\n"
    );
    scenario.write("policies/eve.cedar", &forbid);
    may_not_approve(scenario, EVE, "eve does not decide about refunds").await
}

/// Somebody starts a run in the name of somebody else.
pub(super) async fn start_that_policy_does_not_permit(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    scenario.keep(scenario.start_worker().await);
    let mut task = task("Please do what is due.");
    task["started_by"] = json!(MALLORY);
    scenario.start_input(&task.to_string()).await;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
    never(!opened.is_empty(), "the run was opened")?;
    refused(scenario, "the start", |body| {
        matches!(body, RecordBody::OperatorRefused { action, by, .. }
            if action == "start_run" && by.as_str() == MALLORY)
    })
    .await
}

fn add_to_the_approvers(scenario: &Scenario, person: &str) {
    scenario.edit("mandate.toml", r#"["bo@acme.example", "#, &format!(r#"["{person}", "bo@acme.example", "#));
}

pub(super) async fn second_vote_of_one_person(scenario: &Scenario) -> Held {
    scenario.accept_keys();
    scenario.edit("policies/refunds.cedar", r#"@quorum("1")"#, r#"@quorum("2")"#);
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    approves(scenario, BO).await?;
    // Signed anew, with a remark: the same signature would be refused for being the same.
    let request = asked(scenario, 1).await?.remove(0);
    let digest = request.digest.as_ref().ok_or("no digest")?;
    let says = keys::SaysOf {
        request: &request.request_id,
        digest,
        verdict: Verdict::Approve,
        comment: Some("again"),
        arguments: None,
    };
    scenario.signal("approve", &says.signed(BO).to_string()).await.ok();
    decision_refused(scenario, 2, "has approved this request already").await?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await
}

pub(super) async fn decision_for_an_ended_call(scenario: &Scenario) -> Held {
    let other = r#"{ order_id = "o5", amount_cents = 25000, currency = "EUR" }"#;
    scenario.keep(start_refunds(scenario, &[LARGE, other]).await);
    let pending = asked(scenario, 2).await?;
    scenario.reject(&pending[0].request_id, BO).await;
    asked(scenario, 1).await?;
    scenario.approve(&pending[0].request_id, EVE).await;
    decision_refused(scenario, 2, "was decided already").await?;
    rests_in(scenario, "AwaitingApproval").await?;
    untouched(scenario).await
}

/// What cannot be read or names nothing is counted, and recorded by the next activity.
pub(super) async fn malformed_and_oversized_signals(scenario: &Scenario) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = scenario.pending_id().await;
    let sent = [
        ("approve", "not JSON".to_owned()),
        ("approve", format!(r#"["{request}","{BO}"]"#)),
        ("approve", json!({ "request_id": request, "by": BO, "approved": true }).to_string()),
        ("approve", json!({ "request_id": request, "by": BO, "comment": "x".repeat(2000) }).to_string()),
        ("approve", json!({ "request_id": request, "by": "x".repeat(100_000) }).to_string()),
        ("approve", json!({ "request_id": "r1-000000", "by": BO }).to_string()),
        ("resolve", json!({ "call": "t1.0", "resolution": "happened", "by": BO }).to_string()),
    ];
    for (signal, input) in &sent {
        never(!scenario.handle_signal(signal, input).await, "the server refuses the signal")?;
    }
    never(!scenario.handle_signal("halt", r#"{"by":"bo@acme.example"}"#).await, "the server refuses the signal")?;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    let number = sent.len() as u64;
    refused(
        scenario,
        "the messages",
        |body| matches!(body, RecordBody::MessagesRefused { count, .. } if *count == number),
    )
    .await
}

/// A payment whose answer is lost, of a tool that nobody can be asked about. Believed, a word that it did not happen
/// has the model pay again.
pub(super) async fn may_not_resolve(scenario: &Scenario, by: &str, words: &str) -> Held {
    scenario.edit("tools/payments.refund.toml", "check = \"payments.refund_status\"\nsettles_within_secs = 10\n", "");
    before_it_answers(scenario, "kill -KILL 0");
    let proposes = calls(&[&refund(SMALL)]);
    model_says(scenario, &[&proposes, &proposes]);
    scenario.keep(start(scenario).await);
    rests_in(scenario, "OutcomeUnknown").await?;
    scenario
        .signal("resolve", &json!({ "call": "t1.0", "resolution": "did_not_happen", "by": by }).to_string())
        .await
        .ok();
    let resolved = recorded(scenario, 1, |body| matches!(body, RecordBody::Resolved { .. })).await?;
    let RecordBody::Resolved { refused, .. } = &resolved[0] else { unreachable!("picked above") };
    refused_with(refused.as_deref(), words, &resolved)?;
    rests_in(scenario, "OutcomeUnknown").await?;
    paid(scenario, 1).await
}

pub(super) async fn resolution_by_an_outsider(scenario: &Scenario) -> Held {
    may_not_resolve(scenario, MALLORY, "policy does not let `mallory@acme.example` say what became of it").await
}

pub(super) async fn resolution_by_the_requester(scenario: &Scenario) -> Held {
    add_to_the_approvers(scenario, ANA);
    everybody_may(scenario, "resolve");
    may_not_resolve(scenario, ANA, "is the person the run acts for").await
}

/// Keeps the policies before a line.
pub(super) fn policies_before(scenario: &Scenario, line: &str) {
    cut_from(scenario, "policies/refunds.cedar", line);
}
