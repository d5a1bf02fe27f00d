//! Stores that cannot be used: what is told, and that nothing is lost.

use std::time::Instant;

use sqlx::{Connection as _, Executor as _, PgConnection};

use super::*;
use crate::test_postgres::{self, TestPostgres};

async fn a_store_of_a_newer_program_is_refused_with_both_schemas(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'later', TRUE, '', 0)";
    assert_eq!(store.damage(newer).await, 1);
    store.close().await;
    let known = Store::inspect(&home.settings().place).await.unwrap().schema_known;
    let error = Store::open(home.settings()).await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaNewer { found: 999, .. }), "{error:?}");
    let expected =
        format!("store `{}` has schema 999 and this program knows schemas up to {known}", home.settings().place);
    assert_eq!(error.to_string(), expected);
    assert!(!error.may_pass());
}

/// Its run's head is held by somebody else: one clear failure after a bounded time, which may pass.
async fn a_head_that_is_held_for_too_long_makes_the_store_busy_and_no_more(on: On) {
    let home = Home::new(on).await;
    let (store, other) = (opened(&home).await, open(&home).await);
    let held = other.begin(&chain()).await.unwrap();
    let began = Instant::now();
    let error = append(&store, "1", "a").await.unwrap_err();
    assert!(matches!(error, StoreError::Busy) && error.may_pass(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(held);
    append(&store, "1", "a").await.unwrap();
}

/// A worker that is stopped in the middle of a transaction holds everybody up only for so long.
#[tokio::test(flavor = "multi_thread")]
async fn with_one_head_locked_by_hand_fifteen_other_runs_go_on() {
    let home = Home::new(On::Postgres).await;
    let (store, url) = (open(&home).await, home.url());
    let run = |number: usize| RunChain { workflow_id: format!("refund-{number}"), first_run_id: "run".to_owned() };
    for number in 0..16 {
        let mut tx = store.begin(&run(number)).await.unwrap();
        tx.open_run(&new_run(&store)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut by_hand = PgConnection::connect(&url).await.unwrap();
    by_hand.execute("BEGIN; SELECT * FROM chains WHERE workflow_id = 'refund-0' FOR UPDATE").await.unwrap();
    let write = async |number: usize| {
        let mut tx = store.begin(&run(number)).await?;
        tx.append(&who(), &origin(), "key".into(), note("a")).await?;
        tx.commit().await
    };
    let (held, others) = tokio::join!(write(0), async {
        let began = Instant::now();
        let written = futures::future::join_all((1..16).map(write)).await;
        (written, began.elapsed())
    });
    let (written, took) = others;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert!(took < Duration::from_secs(4), "they did not wait for the lock: {took:?}");
    assert!(matches!(held, Err(StoreError::Busy)), "{held:?}");
    by_hand.execute("ROLLBACK").await.unwrap();
    write(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_no_server_is_told_without_the_password() {
    let server = test_postgres::shared();
    let keys = || AddressKeySource::Folder("/nowhere".into());
    let right = server.database().await;
    for (url, words) in [
        (right.replace("only-for-tests", "hunter2"), "password authentication failed"),
        (format!("{right}_missing"), "does not exist"),
        ("postgres://mandate:hunter2@127.0.0.1:1/store".to_owned(), "refused"),
    ] {
        let error = Store::open(test_postgres::settings(&url, keys())).await.unwrap_err();
        let told = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(error.may_pass() && told.contains(words) && told.contains("postgres://mandate@127.0.0.1"), "{told}");
        assert!(!told.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_or_read_only_may_come_back_and_nothing_is_lost() {
    let server = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let url = server.database().await;
    let settings = test_postgres::settings(&url, AddressKeySource::Folder(home.path().to_owned()));
    let store = Store::open(settings).await.unwrap();
    open_run(&store).await.commit().await.unwrap();
    append(&store, "1", "a").await.unwrap();
    let begun = store.begin(&chain()).await.unwrap();

    let read_only = url.rsplit('/').next().unwrap().to_owned();
    let deny = |word: &str| format!("ALTER DATABASE {read_only} SET default_transaction_read_only = {word}");
    server.execute(deny("on")).await;
    let restart = || {
        server.stop();
        server.resume();
    };
    tokio::task::block_in_place(restart);
    let lost = begun.commit().await.unwrap_err();
    assert!(lost.may_pass(), "{lost:?}");
    let refused = retried(&store, "2").await.unwrap_err();
    let StoreError::Query(cause) = &refused else { panic!("{refused:?}") };
    assert!(refused.may_pass() && cause.to_string().contains("read-only transaction"), "{refused:?}");
    assert_eq!(store.records(&chain()).await.unwrap().len(), 1, "what is there can be read");

    server.execute(deny("off")).await;
    tokio::task::block_in_place(|| server.stop());
    let gone = append(&store, "2", "b").await.unwrap_err();
    assert!(gone.may_pass(), "{gone:?}");
    tokio::task::block_in_place(|| server.resume());
    retried(&store, "2").await.unwrap();
    assert_eq!(verified(&store, &chain()).await, 2);
}

/// As Temporal tries again: connections of the old server are found out one by one.
async fn retried(store: &Store, key: &str) -> Result<Appended, StoreError> {
    let mut last = append(store, key, "b").await;
    for _ in 0..20 {
        match &last {
            Err(StoreError::Query(sqlx::Error::Io(_))) => last = append(store, key, "b").await,
            Ok(_) | Err(_) => break,
        }
    }
    last
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let home = Home::new(On::Sqlite).await;
    let store = opened(&home).await;
    append(&store, "1", "a").await.unwrap();
    store.pragma("PRAGMA max_page_count = 1").await;
    let mut refused = None;
    for number in 0..200 {
        match append(&store, &format!("fill/{number}"), &"x".repeat(4_000)).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the file may not grow");
    let StoreError::Query(cause) = &refused else { panic!("{refused:?}") };
    assert!(refused.may_pass() && cause.to_string().contains("full"), "{cause}");
    let records = store.records(&chain()).await.unwrap().len();
    assert_eq!(verified(&store, &chain()).await, records as u64, "the chain holds");
    store.pragma("PRAGMA max_page_count = 100000").await;
    append(&store, "last", "b").await.expect("the connection is of use again");
    assert_eq!(verified(&store, &chain()).await, records as u64 + 1);
}

#[tokio::test]
async fn a_file_that_may_only_be_read_refuses_to_be_written() {
    let home = Home::new(On::Sqlite).await;
    let store = opened(&home).await;
    store.pragma("PRAGMA query_only = on").await;
    let refused = append(&store, "1", "a").await.unwrap_err();
    assert!(
        refused.may_pass() && matches!(&refused, StoreError::Query(cause) if cause.to_string().contains("readonly")),
        "{refused:?}"
    );
    store.pragma("PRAGMA query_only = off").await;
    append(&store, "1", "a").await.unwrap();
}

/// The claim's clock is the database's own, and set and compared there.
#[tokio::test(flavor = "multi_thread")]
async fn claims_in_a_database_are_made_by_its_clock() {
    let home = Home::new(On::Postgres).await;
    let store = opened(&home).await;
    let first = store.now().await.unwrap();
    let mut tx = store.begin(&chain()).await.unwrap();
    let (inside, later) = (tx.now().await.unwrap(), tx.now().await.unwrap());
    assert_eq!(first.boot_id, "postgres");
    assert!(first.millis <= inside.millis && inside.millis <= later.millis, "not the transaction's time");
    let here = super::rows::now_micros() / 1000;
    assert!(here.abs_diff(later.millis) < 60_000, "{here} {later:?}");
}

on_both_engines! {
    a_store_of_a_newer_program_is_refused_with_both_schemas
    a_head_that_is_held_for_too_long_makes_the_store_busy_and_no_more
}
