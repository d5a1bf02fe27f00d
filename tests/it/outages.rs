//! What is away for a while is waited for, and said in the pending activities.

use std::time::Duration;

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use temporalio_client::WorkflowExecutionStatus;

#[test]
fn a_crashing_tool_server_is_waited_for_until_it_comes_back() {
    run(async {
        let scenario = Scenario::new("crashing-server").await;
        let server = mandate_tests::program("refunds-mcp");
        let script = format!(
            "test -e up || {{ echo 'the ledger is locked' >&2; exit 3; }}; exec '{}' --database var/payments.db",
            server.display()
        );
        scenario.set_server(&["/bin/sh", "-c", &script]);
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let failure = until("an attempt failed", async || {
            let raw = scenario.describe().await.into_raw();
            let pending = raw.pending_activities.into_iter().find(|activity| activity.attempt >= 2)?;
            Some(pending.last_failure?.message)
        })
        .await;
        assert!(failure.contains("refunds") || failure.contains("ledger is locked"), "{failure}");
        scenario.write("up", "");
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_run_without_a_worker_waits_for_one() {
    run(async {
        let scenario = Scenario::new("no-worker").await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        worker.kill().await;
        scenario.approve(&request, "bo@acme.example").await;
        let _worker = scenario.start_worker().await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

/// Bound of the outage (2 s), the longest attempt of a tool call (1 s and the minute around it), and air.
const OUTAGE_OVER: Duration = Duration::from_secs(150);

#[test]
fn an_outage_longer_than_its_bound_ends_the_run_and_closes_its_chain() {
    run(async {
        let scenario = Scenario::new("lasting-outage").await;
        let limits = "tool_timeout_max_secs = 1\noutage_max_secs = 2";
        scenario.edit("mandate.toml", "tool_timeout_max_secs = 60", limits);
        scenario.edit("tools/payments.refund.toml", "timeout_secs = 30", "timeout_secs = 1");
        scenario.edit("tools/payments.refund_status.toml", "timeout_secs = 10", "timeout_secs = 1");
        let server = mandate_tests::program("refunds-mcp");
        let script = format!("test ! -e gone || exit 3; exec '{}' --database var/payments.db", server.display());
        scenario.set_server(&["/bin/sh", "-c", &script]);
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        // A run opens with its server, and its bounds are known from then on: the server goes while people decide.
        scenario.write("gone", "");
        worker.kill().await;
        let _worker = scenario.start_worker().await;
        scenario.approve(&request, "bo@acme.example").await;
        assert_eq!(scenario.wait_closed_within(OUTAGE_OVER).await, WorkflowExecutionStatus::Failed);
        assert_eq!(scenario.attribute("MandateState").await.unwrap(), "Failed");
        assert_eq!(scenario.attribute("MandateFailure").await.unwrap(), "unavailable");
        let closed = scenario.records_where(|body| matches!(body, RecordBody::RunClosed { .. })).await;
        assert!(
            matches!(&closed[..], [record] if matches!(record.body, RecordBody::RunClosed { reason: Some(reason), .. } if reason.as_str() == "unavailable")),
            "{closed:?}"
        );
        assert!(scenario.payments().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}
