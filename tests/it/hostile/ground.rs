//! What attacks have in common: a model that obeys, waits that end also where an attack succeeds, and looks at what came
//! of it.

use std::fs;

use mandate_domain::audit::RecordBody;
use mandate_tests::{LONG, Process, Scenario, until_within};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::Value;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;

/// Whether an attack was held off: no effect, and a record of the refusal.
pub(super) type Held = Result<(), String>;

pub(super) const ANA: &str = "ana@acme.example";
pub(super) const BO: &str = "bo@acme.example";
pub(super) const EVE: &str = "eve@acme.example";
pub(super) const KIM: &str = "kim@acme.example";
pub(super) const MALLORY: &str = "mallory@acme.example";

/// A refund that nobody is asked for.
pub(super) const SMALL: &str = r#"{ order_id = "o2", amount_cents = 4500, currency = "EUR" }"#;
/// A refund that a finance lead decides about.
pub(super) const LARGE: &str = r#"{ order_id = "o1", amount_cents = 50000, currency = "EUR" }"#;

/// A refund as the model proposes it.
pub(super) fn refund(arguments: &str) -> String {
    format!(r#"{{ tool = "payments.refund", arguments = {arguments} }}"#)
}

/// A reply with calls.
pub(super) fn calls(calls: &[&str]) -> String {
    format!("calls = [{}]", calls.join(", "))
}

/// A model that gives these replies and then one more, whatever it is asked.
pub(super) fn model_says(scenario: &Scenario, replies: &[&str]) {
    let head = "\n[[conversation.reply]]\n";
    let replies = [replies, &[r#"text = "Done.""#]].concat().join(head);
    scenario.write("scripts/refunds.toml", &format!("[[conversation]]{head}{replies}\n"));
}

/// Has the tool's server do something after a refund was paid and before that is answered.
pub(super) fn before_it_answers(scenario: &Scenario, action: &str) {
    let server = mandate_tests::program("refunds-mcp");
    let answered = format!("case \"$line\" in *rf-0*) {action};; esac");
    let script = format!(
        "'{}' --database var/payments.db | while IFS= read -r line; do {answered}; printf '%s\\n' \"$line\"; done",
        server.display()
    );
    scenario.set_server(&["/bin/sh", "-c", &script]);
}

/// A run whose model asks for refunds at once.
pub(super) async fn start_refunds(scenario: &Scenario, refunds: &[&str]) -> Process {
    let proposed: Vec<String> = refunds.iter().map(|arguments| refund(arguments)).collect();
    let proposed: Vec<&str> = proposed.iter().map(String::as_str).collect();
    model_says(scenario, &[&calls(&proposed)]);
    start(scenario).await
}

/// A worker and a run.
pub(super) async fn start(scenario: &Scenario) -> Process {
    let worker = scenario.start_worker().await;
    scenario.start_run("Please do what is due.").await;
    worker
}

/// Waits for something that comes whether an attack succeeds or not.
pub(super) async fn soon<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    until_within(LONG, look).await.ok_or_else(|| format!("never: {what}"))
}

/// The state in which the run rests or has ended.
pub(super) async fn rests(scenario: &Scenario) -> Result<String, String> {
    soon("the run rests", async || {
        let state = scenario.attribute("MandateState").await?.as_str()?.to_owned();
        (state != "Running").then_some(state)
    })
    .await
}

/// The run rests in this state.
pub(super) async fn rests_in(scenario: &Scenario, state: &str) -> Held {
    let rests = rests(scenario).await?;
    if rests == state { Ok(()) } else { Err(format!("the run is {rests} and not {state}")) }
}

/// So many requests wait, unless the run ended before.
pub(super) async fn asked(scenario: &Scenario, number: usize) -> Result<Vec<PendingRequest>, String> {
    let asked = soon("people are asked", async || {
        let state = scenario.attribute("MandateState").await?;
        let pending = scenario.pending_now().await?;
        (pending.len() == number || state == "Completed" || state == "OutcomeUnknown").then_some(pending)
    });
    let asked = asked.await?;
    if asked.len() == number { Ok(asked) } else { Err(format!("nobody is asked: {asked:?}")) }
}

/// The only request that waits.
pub(super) async fn asked_once(scenario: &Scenario) -> Result<PendingRequest, String> {
    Ok(asked(scenario, 1).await?.remove(0))
}

/// Sends a signal.
pub(super) async fn sends(scenario: &Scenario, signal: &str, message: &Value) -> Held {
    let taken = scenario.handle_signal(signal, &message.to_string()).await;
    never(!taken, format!("the server does not take the signal `{signal}`"))
}

/// What was sent first as this signal, as everybody finds it who may read the history.
pub(super) async fn sent_before(scenario: &Scenario, signal: &str) -> Result<Value, String> {
    let events = scenario.raw_history().into_events().await.map_err(|error| error.to_string())?;
    let payload = events.into_iter().find_map(|event| match event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(sent)) if sent.signal_name == signal => {
            sent.input?.payloads.into_iter().next()
        }
        _ => None,
    });
    let payload = payload.ok_or_else(|| format!("nobody sent `{signal}`"))?;
    serde_json::from_slice(&payload.data).map_err(|error| error.to_string())
}

/// The records of a kind, once there are so many.
pub(super) async fn recorded(
    scenario: &Scenario,
    number: usize,
    pick: impl Fn(&RecordBody) -> bool,
) -> Result<Vec<RecordBody>, String> {
    soon("the record is written", async || {
        let records: Vec<_> = scenario.records_where(&pick).await.into_iter().map(|record| record.body).collect();
        (records.len() >= number).then_some(records)
    })
    .await
}

/// The record of a refusal, which must be there now.
pub(super) async fn refused(scenario: &Scenario, what: &str, pick: impl Fn(&RecordBody) -> bool) -> Held {
    if scenario.records_where(pick).await.is_empty() { Err(format!("not recorded: {what}")) } else { Ok(()) }
}

/// What somebody sent was refused with these words. With other words it was held off as well, by something that is not
/// looked at here: then the test is wrong.
pub(super) fn refused_with(refused: Option<&str>, words: &str, records: &[RecordBody]) -> Held {
    let why = refused.ok_or_else(|| format!("it counts: {records:?}"))?;
    assert!(why.contains(words), "refused, but not with the words `{words}`: {why}");
    Ok(())
}

/// The record of an intrusion whose reason has these words.
pub(super) async fn intrusion(scenario: &Scenario, words: &str) -> Held {
    intrusion_in(scenario, "var/mandate.db", words).await
}

/// The same in another store.
pub(super) async fn intrusion_in(scenario: &Scenario, store: &str, words: &str) -> Held {
    let records = scenario.records_in(store).await;
    let reasons = records.into_iter().filter_map(|record| match record.body {
        RecordBody::Intrusion { reason, .. } => Some(reason),
        _ => None,
    });
    let reasons: Vec<_> = reasons.collect();
    let found = reasons.iter().any(|reason| reason.contains(words));
    never(!found, format!("no intrusion is recorded with the words `{words}`: {reasons:?}"))
}

/// The system of record was asked for no refund.
pub(super) async fn untouched(scenario: &Scenario) -> Held {
    paid(scenario, 0).await
}

/// The system of record was asked for so many refunds, and each was paid.
pub(super) async fn paid(scenario: &Scenario, number: usize) -> Held {
    let (payments, calls) = (scenario.payments().await, scenario.refund_calls().await);
    if (payments.len(), calls.len()) == (number, number) {
        Ok(())
    } else {
        Err(format!("{number} expected; paid {payments:?} on requests {calls:?}"))
    }
}

/// Fails where something holds that must not.
pub(super) fn never(holds: bool, what: impl Into<String>) -> Held {
    if holds { Err(what.into()) } else { Ok(()) }
}

/// Replaces all of a file from a line on.
pub(super) fn cut_from(scenario: &Scenario, file: &str, line: &str) {
    let text = fs::read_to_string(scenario.path(file)).expect(file);
    let (kept, _) = text.split_once(line).expect(line);
    scenario.write(file, kept);
}
