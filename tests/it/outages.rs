//! What is away for a while is waited for, and said in the pending activities.

use mandate_tests::{Scenario, run, until};

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
