//! What happens to a request that nobody decides: further people are asked, and its end denies the call or stops the run.
//! Reminders are in `notifications.rs`.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use serde_json::Value;
use temporalio_common::protos::temporal::api::{
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes},
};

const BO: &str = "bo@acme.example";
const KIM: &str = "kim@acme.example";

/// Replaces what the gate says of its time.
fn gate(scenario: &Scenario, annotations: &str) {
    scenario.edit("policies/refunds.cedar", "@expires(\"PT24H\")\n", annotations);
}

#[test]
fn further_people_decide_after_the_escalation_and_not_before() {
    run(async {
        let scenario = Scenario::new("escalated").await;
        gate(&scenario, "@expires(\"PT24H\")\n@escalate(\"PT2S\")\n@escalate_to(\"platform\")\n");
        scenario.edit(
            "policies/people.cedar",
            "principal in Mandate::Group::\"finance-leads\",\n  action in Mandate::Action::\"decide\"",
            "principal,\n  action in Mandate::Action::\"decide\"",
        );
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        scenario.approve(&request, KIM).await;
        let groups = until("further people may decide", async || {
            let groups = scenario.attribute("MandateApprovers").await?;
            groups.to_string().contains("platform").then_some(groups)
        })
        .await;
        assert_eq!(groups, serde_json::json!(["finance-leads", "platform"]));
        let refused =
            scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { refused: Some(_), .. })).await;
        assert_eq!(refused.len(), 1, "before, she could not");
        let pending = scenario.pending().await;
        assert_eq!(pending[0].approvers, ["finance-leads", "platform"]);
        // The platform team sees no payments: the card shows what all who may decide may see.
        let shown: Value = serde_json::from_str(&pending[0].arguments).unwrap();
        assert_ne!(shown["amount_cents"], 50_000, "{shown}");
        scenario.approve(&request, KIM).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        let escalated = scenario.records_where(|body| matches!(body, RecordBody::ApprovalEscalated { .. })).await;
        assert_eq!(escalated.len(), 1);
        let timers: Vec<_> = scenario.history().await.0.into_iter().filter_map(|event| event.summary).collect();
        for timer in [format!("approval escalation {request}"), format!("approval deadline {request}")] {
            assert!(timers.contains(&timer), "{timers:?}");
        }
        scenario.audit_verify().await.ok();
        scenario.store_history("escalated").await;
    });
}

#[test]
fn the_end_of_the_time_stops_the_run_where_the_gate_says_so() {
    run(async {
        let scenario = Scenario::new("expired-halt").await;
        gate(&scenario, "@expires(\"PT2S\")\n@on_expiry(\"halt\")\n");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let result = scenario.result().await;
        assert_eq!((&result["state"], &result["reason"]), (&"Stopped".into(), &"approval_expired".into()), "{result}");
        assert!(result["detail"].as_str().unwrap().contains("refund.large"), "{result}");
        assert!(scenario.refund_calls().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

/// The decision was accepted into history in time, while no worker was up: it counts, although it is taken in late.
#[test]
fn a_decision_in_time_counts_although_no_worker_was_there_to_take_it_in() {
    run(async {
        let scenario = Scenario::new("in-time").await;
        gate(&scenario, "@expires(\"PT6S\")\n");
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        worker.kill().await;
        scenario.approve(&request, BO).await;
        until("the deadline passes", async || {
            (scenario.history().await.count(EventType::TimerFired) > 0).then_some(())
        })
        .await;
        let _worker = scenario.start_worker().await;
        assert!(scenario.answer().await.contains("I refunded 500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

/// The longest that a gate may say: longer than any worker or connection lives. The wait is a timer of the server, and
/// nothing else is held meanwhile.
#[test]
fn a_request_may_wait_for_a_month() {
    run(async {
        let scenario = Scenario::new("month").await;
        gate(&scenario, "@expires(\"P30D\")\n");
        let limits = "tool_timeout_max_secs = 60";
        let days = |days: u64| days * 24 * 3600;
        scenario.edit("mandate.toml", limits, &format!("{limits}\napproval_wait_max_secs = {}", days(40)));
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let execution = scenario.executions().await.remove(0);
        let timers: Vec<u64> = execution.events.iter().filter_map(timer_secs).collect();
        assert!(timers.iter().any(|secs| (days(29)..=days(30)).contains(secs)), "{timers:?}");
        worker.stop().await;
        let _worker = scenario.start_worker().await;
        scenario.approve(&request, BO).await;
        assert!(scenario.answer().await.contains("I refunded 500.00 EUR"));
        scenario.audit_verify().await.ok();
    });
}

/// How long a timer runs that was started.
fn timer_secs(event: &HistoryEvent) -> Option<u64> {
    match event.attributes.as_ref()? {
        Attributes::TimerStartedEventAttributes(timer) => {
            timer.start_to_fire_timeout.as_ref().and_then(|timeout| timeout.seconds.try_into().ok())
        }
        _ => None,
    }
}
