//! A store that cannot grow: nothing is sent that cannot be recorded, and runs go on when there is room.

use std::path::Path;

use mandate_activities::test_postgres::TestPostgres;
use mandate_tests::{Process, Scenario, run, say, until};
use sqlx::{Connection as _, Executor as _, PgConnection};

/// How long the worker's files may be.
async fn files_up_to(worker: &Process, bytes: &str) {
    let limit = ["--pid", &worker.pid().to_string(), &format!("--fsize={bytes}:unlimited")].map(str::to_owned);
    let limit: Vec<&str> = limit.iter().map(String::as_str).collect();
    say(Path::new("/usr/bin/prlimit"), &limit, &[], &std::env::temp_dir()).await.ok();
}

#[test]
fn a_file_that_cannot_grow_holds_a_run_up_and_it_goes_on_when_there_is_room() {
    run(async {
        let scenario = Scenario::new("full-disk").await;
        scenario.server_command(&["--forget-keys"]);
        // The kernel tells of the limit by an error then, as it tells of a full disk.
        let worker = scenario.worker_behind("trap '' XFSZ; exec \"$0\" \"$@\"").await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        files_up_to(&worker, "4096").await;
        scenario.approve(&request, "bo@acme.example").await;
        until("the outage is shown", async || {
            let raw = scenario.describe().await.into_raw();
            format!("{:?}", raw.pending_activities).contains("StoreUnavailable").then_some(())
        })
        .await;
        assert!(scenario.payments().await.is_empty(), "nothing is sent that cannot be recorded");
        files_up_to(&worker, "unlimited").await;
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_database_on_a_full_disk_holds_a_run_up_and_it_goes_on_when_there_is_room() {
    run(async {
        let server = tokio::task::block_in_place(|| TestPostgres::start_on_own_disk("200m"));
        let url = server.database().await;
        let scenario = Scenario::new("database-full-disk").await.in_database(&url);
        scenario.server_command(&["--forget-keys"]);
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        // A record finds no room on pages that are there, and needs a new one.
        let mut database = PgConnection::connect(&url).await.unwrap();
        database.execute("ALTER TABLE records SET (fillfactor = 10)").await.unwrap();
        server.fill();
        scenario.approve(&request, "bo@acme.example").await;
        until("the outage is shown", async || {
            let raw = scenario.describe().await.into_raw();
            let pending = format!("{:?}", raw.pending_activities);
            (pending.contains("StoreUnavailable") && pending.contains("No space left on device")).then_some(())
        })
        .await;
        assert!(scenario.payments().await.is_empty(), "nothing is sent that cannot be recorded");
        server.make_room();
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}
