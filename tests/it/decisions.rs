//! Decisions and signals that do not count: the run is unharmed, and each leaves a trace.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};

#[test]
fn messages_that_say_nothing_leave_the_run_unharmed() {
    run(async {
        let scenario = Scenario::new("bad-signals").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        for (signal, input) in [
            ("approve", r#""garbage""#.to_owned()),
            ("approve", r#"{"by":"bo@acme.example"}"#.to_owned()),
            ("reject", r#"{"request_id":"r9-000000","by":"bo@acme.example"}"#.to_owned()),
            ("approve", format!(r#"{{"request_id":"{request}","by":"YOUR-ID"}}"#)),
            ("resolve", "[1,2]".to_owned()),
            ("aprove", format!(r#"{{"request_id":"{request}","by":"bo@acme.example"}}"#)),
        ] {
            scenario.signal(signal, &input).await.ok();
        }
        let status = until("five refusals are counted", async || {
            let status = scenario.status().await;
            (status.refused_messages == 5).then_some(status)
        })
        .await;
        assert_eq!(status.state, "AwaitingApproval");
        assert!(scenario.details().await.contains("5 message(s) did not count"));
        scenario.approve(&request, "bo@acme.example").await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        let refused = scenario.records_where(|body| matches!(body, RecordBody::MessagesRefused { .. })).await;
        assert_eq!(refused.len(), 1, "one summary by the next activity");
        assert!(matches!(refused[0].body, RecordBody::MessagesRefused { count: 5, .. }), "{refused:?}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_second_decision_changes_nothing() {
    run(async {
        let scenario = Scenario::new("second-decision").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o5").await;
        let pending = until("both calls wait", async || {
            let pending = scenario.pending().await;
            (pending.len() == 2).then_some(pending)
        })
        .await;
        scenario.approve(&pending[0].request_id, "bo@acme.example").await;
        until("the first is paid", async || (scenario.payments().await.len() == 1).then_some(())).await;
        // The other call keeps the run open: these meet a decided request.
        scenario.reject(&pending[0].request_id, "eve@acme.example").await;
        scenario.approve(&pending[0].request_id, "bo@acme.example").await;
        scenario.reject(&pending[1].request_id, "bo@acme.example").await;
        scenario.answer().await;
        assert_eq!(scenario.payments().await.len(), 1);
        let first = pending[0].request_id.clone();
        let counted = scenario
            .records_where(|body| {
                matches!(body, RecordBody::ApprovalDecided { request, refused: None, .. } if request.as_str() == first)
            })
            .await;
        assert_eq!(counted.len(), 1, "only the first counts");
        let refused = refused(&scenario).await;
        let already = "the request was decided already".to_owned();
        assert_eq!(refused, [(first.clone(), already.clone()), (first, already)], "what does not count is recorded");
        scenario.audit_verify().await.ok();
    });
}

/// The decisions that did not count, and why.
async fn refused(scenario: &Scenario) -> Vec<(String, String)> {
    let records = scenario.records().await.into_iter();
    let refused = records.filter_map(|record| match record.body {
        RecordBody::ApprovalDecided { request, refused: Some(reason), .. } => Some((request.to_string(), reason)),
        _ => None,
    });
    refused.collect()
}

#[test]
fn a_late_decision_in_a_living_run_does_nothing() {
    run(async {
        let scenario = Scenario::new("late-decision").await;
        // Only the first of the two requests is short.
        scenario.edit("policies/refunds.cedar", r#"@expires("PT24H")"#, r#"@expires("PT60S")"#);
        let policy = std::fs::read_to_string(scenario.path("policies/refunds.cedar")).unwrap();
        let short = policy
            [policy.find("@id(\"refund.large\")").unwrap()..policy.find("@id(\"refund.ceiling\")").unwrap()]
            .replace("refund.large", "refund.brief")
            .replace("PT60S", "PT2S")
            .replace("context.input.amount_cents > 10000", "context.input.amount_cents == 15000");
        scenario.write("policies/brief.cedar", &short);
        scenario.edit("policies/refunds.cedar", "amount_cents > 10000 }", "amount_cents > 15000 }");
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o5").await;
        let brief = until("the brief request is seen", async || {
            let pending = scenario.pending().await;
            pending.into_iter().find(|request| request.gate == "refund.brief")
        })
        .await;
        until("it expired", async || {
            let pending = scenario.pending().await;
            (pending.len() == 1 && pending[0].gate == "refund.large").then_some(())
        })
        .await;
        scenario.approve(&brief.request_id, "bo@acme.example").await;
        let other = scenario.pending_id().await;
        scenario.approve(&other, "bo@acme.example").await;
        scenario.answer().await;
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 25_000), "{payments:?}");
        let already = "the request was decided already".to_owned();
        assert_eq!(refused(&scenario).await, [(brief.request_id, already)], "the late decision is recorded");
        scenario.audit_verify().await.ok();
    });
}
