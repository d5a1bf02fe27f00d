//! Attacks on data: whoever may not see a value tries to get at it. The model is one of somebody else, so that what left
//! the house is looked at on the wire.

use std::collections::BTreeSet;

use futures::future::join_all;
use mandate_domain::{DecisionOutcome, audit::RecordBody};
use mandate_tests::Scenario;
use prost::Message as _;
use serde_json::{Value, json};

use super::{
    ground::{BO, Held, asked, never, paid, refused, rests, rests_in, start, untouched},
    provider::{Provider, proposes, says},
};

/// A value that stands in the system of record and nowhere else.
const CANARY: &str = "canary-5f1c9e@leak.example";
/// Its customer.
const CUSTOMER: &str = "c9";
/// Agents may read of customers; nobody else may.
const CONTACT_FOR_AGENTS: &str = r#"
@id("contact.agents")
@reason("agents of acme may read of customers")
permit (
  principal in Mandate::Tenant::"acme",
  action == Mandate::Action::"reveal",
  resource == Mandate::DataClass::"contact"
);

@id("contact.cards")
@reason("no request card names a customer")
forbid (
  principal is Mandate::Group,
  action == Mandate::Action::"reveal",
  resource == Mandate::DataClass::"contact"
);
"#;
/// A provider that may not be told of customers.
const CONTACT_STAYS: &str = r#"
@id("contact.stays")
@reason("customers are told to no provider outside")
forbid (
  principal,
  action == Mandate::Action::"invoke_model",
  resource in Mandate::Provider::"ADDRESS"
)
when { context.classes.contains(Mandate::DataClass::"contact") };
"#;

fn read_customer() -> (&'static str, Value) {
    ("customers_read", json!({ "customer_id": CUSTOMER }))
}

fn read_page(call: &str, page: u32) -> (&'static str, Value) {
    ("read_result", json!({ "call": call, "page": page }))
}

/// A customer with the canary, and a model that says this.
async fn told(scenario: &Scenario, replies: Vec<Value>) -> Provider {
    scenario.customer(CUSTOMER, "Canary Row", CANARY).await;
    Provider::instead(scenario, replies).await
}

/// The record says that a call's result was masked.
async fn masked(scenario: &Scenario, call: &str) -> Held {
    refused(scenario, &format!("what was masked of {call}"), |body| {
        matches!(body, RecordBody::Outcome { effect, withheld, .. }
            if effect.to_string() == call && withheld.iter().any(|class| class.as_str() == "contact"))
    })
    .await
}

pub(super) async fn masked_field_for_the_model(scenario: &Scenario) -> Held {
    let provider = told(scenario, vec![proposes("", &[read_customer()]), says("Done.")]).await;
    scenario.keep(start(scenario).await);
    rests_in(scenario, "Completed").await?;
    never(provider.seen().len() != 2, "the model was not told of the result")?;
    never(provider.saw(CANARY), "the model was told the value")?;
    untouched(scenario).await?;
    masked(scenario, "t1.0").await
}

/// The model asks for the stored result, from its first page to one that is not there, and for the page of a page.
pub(super) async fn masked_field_through_read_result(scenario: &Scenario) -> Held {
    let replies = vec![
        proposes("", &[read_customer()]),
        proposes("", &[read_page("t1.0", 1), read_page("t1.0", 2)]),
        proposes("", &[read_page("t2.0", 1)]),
        says("Done."),
    ];
    let provider = told(scenario, replies).await;
    scenario.keep(start(scenario).await);
    rests_in(scenario, "Completed").await?;
    never(provider.seen().len() != 4, "the model was not told of the pages")?;
    never(provider.saw(CANARY), "the model was told the value")?;
    untouched(scenario).await?;
    masked(scenario, "t2.0").await
}

/// The agent may read of customers, and its provider may not be told.
pub(super) async fn transcript_for_a_provider_that_may_not_see_it(scenario: &Scenario) -> Held {
    let provider = told(scenario, vec![proposes("", &[read_customer()]), says("Done.")]).await;
    let stays = CONTACT_STAYS.replace("ADDRESS", &provider.address.to_string());
    scenario.write("policies/contact.cedar", &format!("{CONTACT_FOR_AGENTS}{stays}"));
    scenario.keep(start(scenario).await);
    rests(scenario).await?;
    never(provider.saw(CANARY), "the provider was told the value")?;
    never(provider.seen().len() != 1, "the provider was asked")?;
    untouched(scenario).await?;
    refused(scenario, "the decision about the model", |body| {
        matches!(body, RecordBody::Decision { effect, outcome: DecisionOutcome::Deny, .. } if effect.to_string() == "m2")
    })
    .await
}

/// The model may read the value. It repeats it wherever it can: in words, in arguments that are in order and that are
/// not, as the name of a tool, in its answer. No log at the level of debugging, no command, no request card and nothing
/// in Temporal shows it.
pub(super) async fn value_that_the_model_repeats_everywhere(scenario: &Scenario) -> Held {
    scenario.write("policies/contact.cedar", CONTACT_FOR_AGENTS);
    scenario.edit("tools/payments.refund.toml", r#""/note" = "payment""#, r#""/note" = "contact""#);
    let refund = json!({ "order_id": "o1", "amount_cents": 50000, "currency": "EUR", "note": CANARY });
    let broken = json!({ "order_id": "o1", "amount_cents": CANARY, "currency": "EUR" });
    let replies = vec![
        proposes("", &[read_customer()]),
        proposes(
            &format!("I write to {CANARY}."),
            &[
                ("payments_refund", refund),
                ("payments_refund", broken),
                (CANARY, json!({})),
                ("orders_read", json!({ "order_id": CANARY })),
                ("read_result", json!({ "call": CANARY })),
            ],
        ),
        says(&format!("I wrote to {CANARY}.")),
    ];
    let provider = told(scenario, replies).await;
    scenario.keep(scenario.worker_with_env(&[("RUST_LOG", "debug")]).await);
    scenario.start_run("Please do what is due.").await;
    let request = asked(scenario, 1).await?.remove(0).request_id;
    never(!provider.saw(CANARY), "the model was not told the value")?;
    let run = &scenario.name;
    // Without a terminal and `--yes` it shows the card and decides nothing.
    let mut shown = commands(scenario, &[&format!("approve {run} --by {BO}"), &format!("status {run}")]).await;
    never(!shown[0].1.contains("[withheld: contact]"), format!("no masked card: {}", shown[0].1))?;
    shown.push(("the card".to_owned(), format!("{:?}", scenario.pending().await)));
    shown.push(("the details of a run that waits".to_owned(), scenario.details().await));
    scenario.approve(&request, BO).await;
    scenario.wait_closed().await;
    let about = ["explain --output text", "explain --output json", "status", "audit verify"];
    let about = about.map(|command| format!("{command} {run}"));
    shown.extend(commands(scenario, &about.each_ref().map(String::as_str)).await);
    shown.push(("the details".to_owned(), scenario.details().await));
    let log = std::fs::read_to_string(scenario.path("worker-0.log")).unwrap();
    never(!log.contains("DEBUG"), "the worker does not log as much as it was told to")?;
    shown.push(("the worker's log".to_owned(), log));
    shown.extend(in_temporal(scenario).await);
    let silent: Vec<_> = shown.iter().filter(|(_, text)| text.is_empty()).map(|(place, _)| place).collect();
    never(!silent.is_empty(), format!("nothing to look at: {silent:?}"))?;
    let leaks: BTreeSet<_> = shown.iter().filter_map(|(place, text)| Some((place, around(text)?))).collect();
    never(!leaks.is_empty(), format!("the value stands in {leaks:#?}"))?;
    paid(scenario, 1).await?;
    refused(scenario, "what the model was told", |body| {
        matches!(body, RecordBody::Outcome { effect, classes, .. }
            if effect.to_string() == "m2" && classes.iter().any(|class| class.as_str() == "contact"))
    })
    .await
}

/// What commands say while they log as much as they can.
async fn commands(scenario: &Scenario, commands: &[&str]) -> Vec<(String, String)> {
    let said = commands.iter().map(async |command| {
        let arguments: Vec<&str> = command.split(' ').collect();
        let answer = scenario.mandate_with_env(&[("RUST_LOG", "debug")], &arguments).await;
        (format!("`mandate {command}`"), format!("{}{}", answer.stdout, answer.stderr))
    });
    join_all(said).await
}

/// Everything that Temporal has of the run: its events with all payloads, its description with memo and attributes.
async fn in_temporal(scenario: &Scenario) -> [(String, String); 2] {
    let bytes = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let events = scenario.raw_history().into_events().await.unwrap();
    let events: Vec<String> = events.iter().map(|event| bytes(event.encode_to_vec())).collect();
    let described = scenario.describe().await.into_raw();
    [("the history".to_owned(), events.concat()), ("the description".to_owned(), bytes(described.encode_to_vec()))]
}

/// The canary with what stands around it.
fn around(text: &str) -> Option<String> {
    let at = text.find(CANARY)?;
    let from = text[..at].char_indices().rev().nth(160).map_or(0, |(index, _)| index);
    Some(text[from..].chars().take(240).collect())
}
