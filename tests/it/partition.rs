//! A worker that is cut off from Temporal and from the database, and still reaches the tool.

use mandate_activities::test_postgres;
use mandate_domain::KnownBy;
use mandate_tests::{Link, Scenario, run, until};

use crate::frozen::{late, outcomes, registered_as};

/// The port in an address or a URL, and what stands before and behind it.
fn port_of(address: &str) -> (&str, u16, &str) {
    let (before, rest) = address.rsplit_once(':').unwrap();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (before, rest[..digits].parse().unwrap(), &rest[digits..])
}

#[test]
fn a_worker_that_is_cut_off_while_it_pays_pays_once_and_what_it_says_later_is_late() {
    run(async {
        let url = test_postgres::shared().database().await;
        let scenario = Scenario::new("partition").await.in_database(&url);
        let kind =
            "read_only = false\nidempotent = false\ncheck = \"payments.refund_status\"\nsettles_within_secs = 40";
        registered_as(&scenario, kind);
        // The tool pays when its worker is long cut off. A refund that is sent twice is paid twice.
        scenario.server_command(&["--delay-before-ms", "14000", "--forget-keys"]);
        let temporal = scenario.server.env().into_iter().find(|(name, _)| name == "TEMPORAL_ADDRESS").unwrap().1;
        let ((host, port, _), (before, database, behind)) = (port_of(&temporal), port_of(&url));
        let (to_temporal, to_database) = (Link::to(port).await, Link::to(database).await);
        let address = format!("{host}:{}", to_temporal.port());
        let url = format!("{before}:{}{behind}", to_database.port());
        let env = [("TEMPORAL_ADDRESS", address.as_str()), ("MANDATE_DATABASE_URL", url.as_str())];
        let _cut_off = scenario.worker_with_env(&env).await;
        scenario.start_run("Refund order o2").await;
        until("the tool was asked to pay", async || (scenario.refund_calls().await.len() == 1).then_some(())).await;
        to_temporal.cut();
        to_database.cut();

        let _other = scenario.start_worker().await;
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        assert_eq!(outcomes(&scenario, "t2.0").await, [(1, KnownBy::Check)], "the other one asked what happened");
        to_temporal.mend();
        to_database.mend();
        assert_eq!(late(&scenario, "t2.0").await, [(1, false)], "one performance that two told of");
        scenario.audit_verify().await.ok();
    });
}
