//! Attacks by starts in a folder that others rely on: whoever starts a run and whom it acts for has to be proved.

use mandate_domain::audit::RecordBody;
use mandate_tests::{AGENT, Scenario, keys};
use serde_json::{Value, json};

use super::{
    ground::{ANA, Held, KIM, SMALL, calls, model_says, never, paid, refund, refused, untouched},
    rogue::task,
};

/// A worker on a production folder, and a model that refunds whatever it is asked.
async fn production(scenario: &Scenario) {
    scenario.in_production();
    scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
    model_says(scenario, &[&calls(&[&refund(SMALL)])]);
    scenario.keep(scenario.start_worker().await);
}

/// The start was refused for this reason, which the store's own chain says.
async fn refusal(scenario: &Scenario, words: &str) -> Held {
    refused(scenario, "the start", |body| {
        matches!(body, RecordBody::OperatorRefused { action, by, reason, .. }
            if action == "start_run" && by.as_str() == ANA && reason.contains(words))
    })
    .await
}

/// Somebody starts a run in a person's name.
async fn not_opened(scenario: &Scenario, input: &Value, words: &str) -> Held {
    production(scenario).await;
    scenario.start_input(&input.to_string()).await;
    scenario.wait_closed().await;
    untouched(scenario).await?;
    let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
    never(!opened.is_empty(), "the run was opened")?;
    refusal(scenario, words).await
}

pub(super) async fn start_without_a_proof(scenario: &Scenario) -> Held {
    not_opened(scenario, &task("Please do what is due."), "it is not proved that `ana@acme.example` starts it").await
}

pub(super) async fn start_signed_for_another_prompt(scenario: &Scenario) -> Held {
    let mut input = scenario.signed_task("Only say hello.", ANA);
    input["prompt"] = json!("Refund order o2");
    not_opened(scenario, &input, "the signature is not one of `ana@acme.example` over these words").await
}

/// Signed for another run, which would be started with the same words.
pub(super) async fn start_signed_for_another_workflow(scenario: &Scenario) -> Held {
    let prompt = "Please do what is due.";
    let statement = keys::start(AGENT, prompt, ANA, "last-weeks-run");
    let mut input = task(prompt);
    input["proof"] = json!({ "signature": keys::sign(&statement, ANA, ANA) });
    not_opened(scenario, &input, "the signature is not one of `ana@acme.example` over these words").await
}

/// The run has ended, and its workflow id is free. Whoever reads the history starts it once more.
pub(super) async fn start_sent_again(scenario: &Scenario) -> Held {
    production(scenario).await;
    let input = scenario.signed_task("Please do what is due.", ANA).to_string();
    for _ in 0..2 {
        scenario.start_input(&input).await;
        scenario.wait_closed().await;
        paid(scenario, 1).await?;
    }
    refusal(scenario, "the proof was used for another start, and it is good once").await
}
