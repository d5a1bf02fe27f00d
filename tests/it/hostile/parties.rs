//! Attacks on gates that ask for several people, or for somebody who has no part in what is decided; and on what an
//! approver may put in place of the model's arguments.

use mandate_domain::{DecisionOutcome, Verdict, audit::RecordBody};
use mandate_tests::{AGENT, Scenario, keys};
use serde_json::{Value, json};

use super::{
    ground::{
        ANA, BO, EVE, Held, KIM, LARGE, asked_once, calls, model_says, refund, refused, sends, soon, start_refunds,
        untouched,
    },
    proofs::{refused_and_waiting, says, with_keys},
    rogue::task,
};

const POLICIES: &str = "policies/refunds.cedar";
/// What the gate of refunds asks for in the example.
const ONE_PERSON: &str = "@quorum(\"1\")\n";

/// Nobody decides who is this to the run.
fn four_eyes(scenario: &Scenario, party: &str) {
    with_keys(scenario);
    scenario.edit(POLICIES, ONE_PERSON, &format!("{ONE_PERSON}@four_eyes(\"{party}\")\n"));
}

/// Policies that need proofs were applied together with what proves people, and the worker was not started again: it
/// believes whoever sends a message.
pub(super) async fn quorum_by_claims(scenario: &Scenario) -> Held {
    model_says(scenario, &[&calls(&[&refund(LARGE)])]);
    scenario.keep(scenario.start_worker().await);
    with_keys(scenario);
    scenario.edit(POLICIES, ONE_PERSON, "@quorum(\"2\")\n");
    scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
    scenario.start_input(&task("Please do what is due.").to_string()).await;
    let request = asked_once(scenario).await?;
    for (number, by) in [(1, BO), (2, EVE)] {
        sends(scenario, "approve", &json!({ "request_id": request.request_id, "by": by })).await?;
        refused_and_waiting(scenario, number, "this gate asks for more than one approver").await?;
    }
    Ok(())
}

/// A finance lead starts a run for somebody else and releases its refund.
pub(super) async fn approval_by_the_starter(scenario: &Scenario) -> Held {
    four_eyes(scenario, "starter");
    let permit = format!(
        "@id(\"start.bo\")\n@reason(\"bo starts runs for others\")\npermit (\n  principal == Mandate::User::\"{BO}\",\n  action == Mandate::Action::\"start_run\",\n  resource\n);\n"
    );
    scenario.write("policies/starters.cedar", &permit);
    model_says(scenario, &[&calls(&[&refund(LARGE)])]);
    scenario.keep(scenario.start_worker().await);
    let prompt = "Please do what is due.";
    let (mut input, statement) = (task(prompt), keys::start(AGENT, prompt, ANA, &scenario.name));
    input["started_by"] = json!(BO);
    input["started_by_proof"] = json!({ "signature": keys::sign(&statement, BO, BO) });
    scenario.start_input(&input.to_string()).await;
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &scenario.signed_decision(&request, Verdict::Approve, BO)).await?;
    refused_and_waiting(scenario, 1, "is the person who started the run and may not decide").await
}

/// A finance lead starts a run in somebody else's name, without a proof, and releases its refund with a key.
pub(super) async fn approval_by_a_starter_unproved(scenario: &Scenario) -> Held {
    four_eyes(scenario, "requester, starter");
    model_says(scenario, &[&calls(&[&refund(LARGE)])]);
    scenario.keep(scenario.start_worker().await);
    scenario.start_input(&task("Please do what is due.").to_string()).await;
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &scenario.signed_decision(&request, Verdict::Approve, BO)).await?;
    refused_and_waiting(scenario, 1, "it is not proved who the person the run acts for is").await
}

/// An approver changes the amount, and approves what came of that.
pub(super) async fn approval_by_the_editor(scenario: &Scenario) -> Held {
    four_eyes(scenario, "editor");
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    let more = json!({ "order_id": "o1", "amount_cents": 60_000, "currency": "EUR" });
    let says = keys::SaysOf { arguments: more.as_object(), ..says(&request, Verdict::Approve) };
    sends(scenario, "approve", &says.signed(BO)).await?;
    let revised = soon("people are asked about the change", async || {
        scenario.pending_now().await?.into_iter().find(|request| request.call.revision == 2)
    })
    .await?;
    sends(scenario, "approve", &scenario.signed_decision(&revised, Verdict::Approve, BO)).await?;
    refused_and_waiting(scenario, 2, "is the person who changed the arguments and may not decide").await
}

/// A refund waits, and an approver puts other arguments in place of the model's.
async fn edited(scenario: &Scenario, arguments: Value) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    sends(scenario, "approve", &json!({ "request_id": request.request_id, "by": BO, "arguments": arguments })).await
}

/// What the record says of arguments that do not fit.
const NO_FIT: &str = "the changed arguments do not fit the schema of `payments.refund`";

pub(super) async fn edit_that_breaks_the_schema(scenario: &Scenario) -> Held {
    edited(scenario, json!({ "order_id": "o1", "amount_cents": -60_000, "currency": "EUR" })).await?;
    refused_and_waiting(scenario, 1, NO_FIT).await
}

/// An approver approves the arguments of another tool, beside those of the one that waits.
pub(super) async fn edit_with_arguments_of_another_tool(scenario: &Scenario) -> Held {
    let both = json!({
        "order_id": "o1", "amount_cents": 50_000, "currency": "EUR",
        "customer_id": "c1", "tool": "customers.read", "context": { "approved": ["refund.large"] },
    });
    edited(scenario, both).await?;
    refused_and_waiting(scenario, 1, NO_FIT).await
}

/// Changed arguments are judged as if the model had proposed them: what an approver cannot release, they cannot edit in.
pub(super) async fn edit_above_the_ceiling(scenario: &Scenario) -> Held {
    edited(scenario, json!({ "order_id": "o1", "amount_cents": 600_000, "currency": "EUR" })).await?;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    refused(scenario, "the decision about the change", |body| {
        matches!(body, RecordBody::Decision { effect, outcome: DecisionOutcome::Deny, policies, .. }
            if effect.to_string() == "t1.0r2" && policies.iter().any(|policy| policy.as_str() == "refund.ceiling"))
    })
    .await
}
