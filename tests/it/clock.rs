//! A worker whose clock is set back by an hour while a call is under way. Claims, deadlines and records follow other clocks:
//! time since boot or the database's for claims, the Temporal server's for people.

use mandate_domain::{KnownBy, audit::RecordBody};
use mandate_tests::{On, Scenario, run, until};

use crate::web_ui::prepared;

/// The first worker dies after it has paid, and whoever goes on has a clock of an hour before.
async fn goes_on_an_hour_before(on: On) {
    let scenario = Scenario::on(on, &format!("clock-{on:?}").to_lowercase()).await;
    // A refund that is sent twice is paid twice.
    scenario.server_command(&["--forget-keys"]);
    let mark = scenario.path("mark");
    let dies = [("MANDATE_FAILPOINT", "tool.after_effect"), ("MANDATE_FAILPOINT_MARK", mark.to_str().unwrap())];
    pays_at_once(&scenario);
    let mut first = scenario.worker_with_env(&dies).await;
    scenario.start_run("Refund order o1").await;
    let request = scenario.pending_id().await;
    scenario.approve(&request, "bo@acme.example").await;
    until("the worker dies", async || first.ended()).await;
    let library = prepared("MANDATE_FAKETIME");
    // The clocks that only go forward are left alone, as they are when somebody sets the time.
    let back = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "-1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let _second = scenario.worker_with_env(&back).await;
    assert!(scenario.answer().await.contains("500.00 EUR"));
    assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
    let known = scenario.records().await.into_iter().find_map(|record| match record.body {
        RecordBody::Outcome { effect, known_by, .. } if effect.to_string() == "t1.0" => Some(known_by),
        _ => None,
    });
    assert_eq!(known, Some(KnownBy::Check), "the check tool told what happened");
    let verified = scenario.audit_verify().await;
    assert_eq!(verified.code, 0, "{verified:?}");
}

fn pays_at_once(scenario: &Scenario) {
    let script = r#"
        [[conversation]]
        [[conversation.reply]]
        calls = [{ tool = "payments.refund", arguments = { order_id = "o1", amount_cents = 50000, currency = "EUR" } }]
        [[conversation.reply]]
        text = "I refunded 500.00 EUR for order o1."
    "#;
    scenario.write("scripts/refunds.toml", script);
}

#[test]
fn a_worker_whose_clock_is_set_back_goes_on_and_repeats_nothing() {
    run(goes_on_an_hour_before(On::Sqlite));
}

#[test]
fn a_worker_whose_clock_is_set_back_goes_on_with_a_database_and_repeats_nothing() {
    run(goes_on_an_hour_before(On::Postgres));
}
