//! Runs that need nobody.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run};
use serde_json::Value;

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

#[test]
fn the_query_transcript_shows_who_said_what() {
    run(async {
        let scenario = Scenario::new("transcript").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        scenario.answer().await;
        let lines: Vec<Value> = scenario.query("transcript").await.unwrap();
        let roles: Vec<_> = lines.iter().map(|line| (line["role"].as_str().unwrap(), line["call"].as_str())).collect();
        let expected = [
            ("assistant", None),
            ("tool", Some("t1.0")),
            ("assistant", None),
            ("tool", Some("t2.0")),
            ("assistant", None),
        ];
        assert_eq!(roles, expected, "{lines:?}");
        for (line, expected) in
            [(0, "I look the order up."), (1, "o2"), (3, "4500"), (4, "I refunded 45.00 EUR for order o2.")]
        {
            let preview = lines[line]["preview"].as_str().unwrap();
            assert!(preview.contains(expected), "`{expected}` in line {line}: {lines:?}");
        }
        assert!(lines.iter().all(|line| line["digest"].as_str().is_some_and(|digest| !digest.is_empty())), "{lines:?}");
    });
}

#[test]
fn one_address_key_from_the_environment_replaces_the_keys_folder() {
    run(async {
        let scenario = Scenario::new("address-key").await;
        scenario.edit("mandate.toml", r#"address_keys = "var/keys""#, r#"address_key = "env:ADDRESS_KEY""#);
        let key = "5e".repeat(32);
        let _worker = scenario.worker_with_env(&[("ADDRESS_KEY", &key)]).await;
        scenario.start_run("Refund order o2").await;
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert!(scenario.path("var/mandate.db").exists() && !scenario.path("var/keys").exists());
        assert_eq!(scenario.records_where(|body| matches!(body, RecordBody::RunClosed { .. })).await.len(), 1);
        let without = scenario.audit_verify().await;
        assert!(without.code == 1 && without.stderr.contains("ADDRESS_KEY"), "{without:?}");
        let verify = ["audit", "verify", &scenario.name, "--witness", "temporal"];
        let verified = scenario.mandate_with_env(&[("ADDRESS_KEY", &key)], &verify).await.ok();
        assert!(verified.contains("confirmed by Temporal's history"), "{verified}");
    });
}
