//! The store in a PostgreSQL database: the same runs, commands and failures as with a file.

use mandate_activities::test_postgres::{self, TestPostgres};
use mandate_domain::audit::RecordBody;
use mandate_tests::{On, Scenario, run, until};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

#[test]
fn a_run_on_postgresql_is_approved_completed_verified_and_told() {
    run(async {
        let scenario = Scenario::on(On::Postgres, "on-postgres").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        scenario.approve(&request, "bo@acme.example").await;
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        assert_eq!(scenario.payments().await.len(), 1);
        assert!(!scenario.path("var/mandate.db").exists(), "there is no file");

        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("confirmed by Temporal's history"), "{verified}");
        let told = scenario.mandate(&["explain", "on-postgres"]).await.ok();
        assert!(told.contains("payments.refund") && told.contains("bo@acme.example"), "{told}");
        let found = scenario.mandate(&["doctor"]).await.ok();
        let store = found.lines().find(|line| line.contains(" store: ")).unwrap();
        assert!(store.starts_with("ok    store: `postgres://mandate@127.0.0.1:"), "{store}");
        assert!(!found.contains("only-for-tests"), "{found}");
        assert!(found.contains("1 tenant(s)") && found.contains("bundle: version 1"), "{found}");
        for command in [
            &["bundles"][..],
            &["apply", "--dry-run", "--by", "kim@acme.example"],
            &["policy", "backtest"],
            &["status", "on-postgres"],
            &["quarantine", "add", "tool:clock", "--by", "kim@acme.example", "--reason", "look"],
            &["quarantine", "list"],
            &["quarantine", "lift", "tool:clock", "--by", "kim@acme.example"],
            &["explain", "mandate-store"],
        ] {
            let said = scenario.mandate(command).await;
            assert_eq!(said.code, 0, "{command:?}: {said:?}");
            assert!(!format!("{said:?}").contains("only-for-tests"), "{said:?}");
        }
    });
}

#[test]
fn a_database_that_is_gone_holds_runs_up_and_loses_nothing() {
    run(async {
        let server = tokio::task::block_in_place(TestPostgres::start);
        let url = server.database().await;
        let scenario = Scenario::new("database-gone").await.in_database(&url);
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        tokio::task::block_in_place(|| server.stop());
        scenario.approve(&request, "bo@acme.example").await;
        until("the outage is shown", async || {
            let shown =
                scenario.temporal(&["workflow", "describe", "--workflow-id", &scenario.name, "-o", "json"]).await;
            let described: Value = serde_json::from_str(&shown.stdout).ok()?;
            described["pendingActivities"].to_string().contains("StoreUnavailable").then_some(())
        })
        .await;
        let said = scenario.mandate(&["explain", "database-gone"]).await;
        assert!(said.code == 1 && said.stderr.contains("cannot be opened"), "{said:?}");
        assert!(!said.stderr.contains("only-for-tests"), "{said:?}");
        assert!(scenario.payments().await.is_empty(), "nothing is sent that cannot be recorded");
        tokio::task::block_in_place(|| server.resume());
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn an_answer_that_arrives_while_the_database_is_gone_is_recorded_when_it_is_back() {
    run(async {
        let server = tokio::task::block_in_place(TestPostgres::start);
        let url = server.database().await;
        let scenario = Scenario::new("database-gone-paying").await.in_database(&url);
        scenario.server_command(&["--delay-ms", "3000", "--forget-keys"]);
        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        until("the refund is paid", async || (scenario.payments().await.len() == 1).then_some(())).await;
        tokio::task::block_in_place(|| server.stop());
        until("the answer cannot be recorded", async || {
            worker.log().contains("the outcome could not be recorded; trying again").then_some(())
        })
        .await;
        tokio::task::block_in_place(|| server.resume());
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_database_that_may_only_be_read_holds_a_run_up_and_it_goes_on_when_that_is_mended() {
    run(async {
        let scenario = Scenario::on(On::Postgres, "database-read-only").await;
        scenario.server_command(&["--forget-keys"]);
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let url = scenario.database_url();
        let may_write = async |whether: bool| {
            let mut database = PgConnection::connect(&url).await.unwrap();
            let (name,): (String,) =
                sqlx::query_as("SELECT current_database()").fetch_one(&mut database).await.unwrap();
            let set = format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {}", !whether);
            let again = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let write = "SET default_transaction_read_only = off";
            sqlx::query(write).execute(&mut database).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut database).await.unwrap();
            sqlx::query(again).execute(&mut database).await.unwrap();
        };
        may_write(false).await;
        scenario.approve(&request, "bo@acme.example").await;
        until("the outage is shown", async || {
            let raw = scenario.describe().await.into_raw();
            format!("{:?}", raw.pending_activities).contains("StoreUnavailable").then_some(())
        })
        .await;
        assert!(scenario.payments().await.is_empty(), "nothing is sent that cannot be recorded");
        may_write(true).await;
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_database_that_cannot_be_used_is_named_without_its_password_and_the_worker_ends() {
    run(async {
        let right = test_postgres::shared().database().await;
        let wrong = right.replace("only-for-tests", "hunter2");
        let missing = format!("{right}_missing");
        for (name, url, words) in [
            ("wrong-password", wrong.as_str(), "password authentication failed for user"),
            ("no-database", &missing, "does not exist"),
            ("no-url", "hunter2 is no url", "`env:MANDATE_DATABASE_URL` holds no url of a database"),
        ] {
            let scenario = Scenario::new(name).await.in_database(&right).with_env("MANDATE_DATABASE_URL", url);
            let mut worker = scenario.worker_process(&[]).await;
            assert_eq!(worker.wait().await, 1, "{}", worker.log());
            assert!(worker.log().contains(words), "{name}: {}", worker.log());
            let doctor = scenario.mandate(&["doctor"]).await;
            assert!(doctor.code == 1 && doctor.stdout.contains("fail  store: "), "{doctor:?}");
            for said in [worker.log(), doctor.stdout, doctor.stderr] {
                assert!(!said.contains("hunter2") && !said.contains("only-for-tests"), "{said}");
            }
        }
    });
}

#[test]
fn a_store_that_a_newer_program_wrote_is_refused_by_worker_and_commands() {
    run(async {
        for (on, name) in [(On::Sqlite, "newer-file"), (On::Postgres, "newer-database")] {
            let scenario = Scenario::on(on, name).await;
            scenario.start_worker().await.stop().await;
            let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                         VALUES (999, $1, TRUE, '', 0)";
            assert_eq!(scenario.tamper(newer, "later").await, 1);
            let mut worker = scenario.worker_process(&[]).await;
            assert_eq!(worker.wait().await, 1, "{}", worker.log());
            let explained = scenario.mandate(&["bundles"]).await;
            assert_eq!(explained.code, 1, "{explained:?}");
            for said in [worker.log(), explained.stderr] {
                assert!(said.contains("has schema 999 and this program knows schemas up to "), "{said}");
            }
        }
    });
}

/// What one worker decides by the other one does as well, and a run goes on with whichever is there.
#[test]
fn a_run_goes_on_with_another_worker_of_the_same_database() {
    run(async {
        let scenario = Scenario::on(On::Postgres, "two-workers").await;
        let first = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        first.kill().await;
        let _second = scenario.start_worker().await;
        scenario.approve(&request, "bo@acme.example").await;
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        let decided = scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { .. })).await;
        assert_eq!((decided.len(), scenario.payments().await.len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}
