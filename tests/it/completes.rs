//! Runs that need nobody.

use mandate_tests::{Scenario, run};

#[test]
fn a_small_refund_is_paid_without_anybody() {
    run(async {
        let scenario = Scenario::new("small-refund").await;
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("45.00 EUR for order o2"), "{answer}");
        let payments = scenario.payments().await;
        assert_eq!(payments.len(), 1, "{payments:?}");
        assert_eq!((payments[0].order.as_str(), payments[0].cents), ("o2", 4500));
        assert!(payments[0].key.is_some(), "a refund carries its idempotency key");
        scenario.audit_verify().await.ok();
        // Two activities a turn with one call: three replies, two calls, opening and closing.
        let history = scenario.history().await;
        assert_eq!((history.activities("invoke_model"), history.activities("call_tool")), (3, 2));
        assert_eq!(history.0.iter().filter(|event| event.activity.is_some()).count(), 7, "{history:?}");
        let summaries: Vec<_> = history.0.iter().filter_map(|event| event.summary.clone()).collect();
        assert!(summaries.contains(&"payments.refund".to_owned()), "{summaries:?}");
        assert!(summaries.contains(&"turn 1 · support".to_owned()), "{summaries:?}");
        scenario.store_history("completes").await;
        assert_eq!(worker.stop().await, 0);
    });
}

#[test]
fn the_model_corrects_arguments_that_violate_the_schema() {
    run(async {
        let scenario = Scenario::new("schema-violation").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o4").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("20.00 EUR for order o4"), "{answer}");
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn what_a_run_did_can_be_explained_from_its_audit_log() {
    run(async {
        let scenario = Scenario::new("explained").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        scenario.answer().await;
        let told = scenario.mandate(&["explain", &scenario.name]).await.ok();
        for part in ["ana@acme.example", "orders.read", "payments.refund", "refund.permit"] {
            assert!(told.contains(part), "`{part}` is missing:\n{told}");
        }
    });
}
