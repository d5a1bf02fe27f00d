//! Bundles and quarantine as the store keeps them, and stores that were made before there were any.

use mandate_domain::{QuarantineTarget, audit, audit::verify::verify_own};
use sqlx::{Connection as _, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};

use super::*;
use crate::store::engine::sqlite::MIGRATIONS;

fn target(text: &str) -> QuarantineTarget {
    text.parse().unwrap()
}

async fn put(store: &Store, content: &str) -> u64 {
    let mut own = store.begin_own().await.unwrap();
    let (digest, files, by) = (digest(content), json!({ "a.cedar": content }), person("olga@acme.example"));
    let new = NewBundle { digest: &digest, files: &files, applied_by: &by, note: Some("ticket 7") };
    let version = own.put_bundle(new).await.unwrap();
    own.commit(&by, Proof::Claimed, "w", note(content)).await.unwrap();
    version
}

async fn quarantine(store: &Store, text: &str) -> Appended {
    let (mut own, by) = (store.begin_own().await.unwrap(), person("olga@acme.example"));
    let appended = own.quarantine(&target(text), &by, "leak").await.unwrap();
    own.commit(&by, Proof::Claimed, "w", note(text)).await.unwrap();
    appended
}

/// A store as the first version of the program made it, with an intrusion in its own chain.
async fn old_store(home: &Home, id: &str) {
    let path = home.file();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    Migrator::with_migrations(MIGRATIONS.iter().take(1).cloned().collect()).run(&mut db).await.unwrap();
    sqlx::query("INSERT INTO store VALUES (1, $1)").bind(id.to_owned()).execute(&mut db).await.unwrap();
    let record = mandate_domain::AuditRecord {
        v: 1,
        run: RunChain { workflow_id: "mandate-store".into(), first_run_id: id.to_owned() },
        sequence: 0,
        previous: ChainHead::empty().head,
        time_micros: 1,
        key: "intrusion/run-1/1/1".into(),
        who: who(),
        origin: origin(),
        body: RecordBody::Intrusion { what: "call_tool".into(), reason: "a foreign workflow".into() },
    };
    let linked = audit::link(&ChainHead::empty(), record).unwrap();
    let canonical = String::from_utf8(linked.canonical).unwrap();
    let hash = linked.hash.to_string();
    sqlx::query("INSERT INTO chains VALUES (1, 'mandate-store', $1, 1, $2)")
        .bind(id.to_owned())
        .bind(hash.clone())
        .execute(&mut db)
        .await
        .unwrap();
    sqlx::query("INSERT INTO records VALUES (1, 1, 'intrusion/run-1/1/1', $1, $2)")
        .bind(canonical)
        .bind(hash)
        .execute(&mut db)
        .await
        .unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_store_without_bundles_is_upgraded_and_goes_on_with_its_own_chain() {
    let home = Home::new(On::Sqlite).await;
    let id = "0123456789abcdef".repeat(2);
    old_store(&home, &id).await;
    let store = open(&home).await;
    assert_eq!(store.id().as_str(), id);
    assert_eq!((store.active_bundle().await.unwrap(), store.active_bundle_version().await.unwrap()), (None, None));
    assert_eq!((store.bundles().await.unwrap(), store.quarantine_list().await.unwrap()), (vec![], vec![]));
    let applied = RecordBody::Intrusion { what: "another".into(), reason: "again".into() };
    let own = store.begin_own().await.unwrap();
    own.commit(&person("olga@acme.example"), Proof::Claimed, "w", applied).await.unwrap();
    let records = store.records(&store.own_chain()).await.unwrap();
    let verification = verify_own(&store.own_chain(), &records, Some(&store.own_head().await.unwrap()));
    assert_eq!((verification.head.records, verification.findings), (2, vec![]));
    // And is no other store the second time.
    store.close().await;
    assert_eq!(open(&home).await.id().as_str(), id);
}

async fn the_highest_version_is_active_and_the_others_stay(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    for (content, version) in [("one", 1), ("two", 2), ("one", 3)] {
        assert_eq!(put(&store, content).await, version);
        let active = store.active_bundle().await.unwrap().unwrap();
        assert_eq!((active.version, &active.digest), (version, &digest(content)));
        assert_eq!((&active.files, active.note.as_deref()), (&json!({ "a.cedar": content }), Some("ticket 7")));
        assert!(active.applied_by == person("olga@acme.example") && active.applied_micros > 0);
        assert_eq!(store.active_bundle_version().await.unwrap(), Some(version));
        let mut tx = store.begin(&chain()).await.unwrap();
        assert_eq!(tx.active_bundle_version().await.unwrap(), Some(version));
    }
    assert_eq!(store.bundle(&digest("two")).await.unwrap().unwrap().version, 2);
    assert_eq!(store.bundle(&digest("one")).await.unwrap().unwrap().version, 3, "the newest of this content");
    assert_eq!(store.bundle(&digest("three")).await.unwrap(), None);
    let listed: Vec<_> = store.bundles().await.unwrap().into_iter().map(|row| (row.version, row.digest)).collect();
    assert_eq!(listed, [(3, digest("one")), (2, digest("two")), (1, digest("one"))]);
}

async fn a_bundle_in_an_unknown_encoding_is_an_error(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    put(&store, "one").await;
    store.damage("UPDATE bundles SET encoding = 'sealed'").await;
    assert!(matches!(store.active_bundle().await, Err(StoreError::UnknownEncoding { .. })));
}

async fn whatever_is_touched_is_looked_up_by_kind_and_name(on: On) {
    const ALL: [&str; 5] = [
        "agent:acme/support/refunds",
        "tool:payments.refund",
        "server:refunds",
        "model:support",
        "person:Ana \"A\" O'Neill, ana@acme.example",
    ];
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let all: Vec<_> = ALL.into_iter().map(target).collect();
    for (index, text) in ALL.into_iter().enumerate() {
        let mut tx = store.begin(&chain()).await.unwrap();
        assert_eq!(tx.quarantined(&all[index..]).await.unwrap(), None);
        drop(tx);
        assert_eq!(quarantine(&store, text).await, Appended::New);
        assert_eq!(quarantine(&store, text).await, Appended::AlreadyThere);
        let mut tx = store.begin(&chain()).await.unwrap();
        let hit = tx.quarantined(&all[index..]).await.unwrap().unwrap();
        assert_eq!((hit.target.to_string().as_str(), hit.reason.as_str()), (text, "leak"));
        assert!(hit.by == person("olga@acme.example") && hit.since_micros > 0);
    }
    let mut tx = store.begin(&chain()).await.unwrap();
    let others = ["server:support", "model:refunds", "tool:payments.read"].map(target);
    assert_eq!(tx.quarantined(&others).await.unwrap(), None);
    assert_eq!(tx.quarantined(&[]).await.unwrap(), None);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(tx.quarantined(&reversed).await.unwrap().unwrap().target, reversed[0], "the first that is touched");
    drop(tx);
    let listed: Vec<_> = store.quarantine_list().await.unwrap().into_iter().map(|row| row.target).collect();
    assert_eq!(listed, all);
}

async fn a_quarantine_that_cannot_be_read_lets_nothing_through(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    quarantine(&store, "tool:payments.refund").await;
    store.damage("UPDATE quarantine SET quarantined_by = ''").await;
    let mut tx = store.begin(&chain()).await.unwrap();
    assert!(matches!(tx.quarantined(&[target("tool:payments.refund")]).await, Err(StoreError::Corrupt { .. })));
    drop(tx);
    assert!(matches!(store.quarantine_list().await, Err(StoreError::Corrupt { .. })));
}

on_both_engines! {
    the_highest_version_is_active_and_the_others_stay
    a_bundle_in_an_unknown_encoding_is_an_error
    whatever_is_touched_is_looked_up_by_kind_and_name
    a_quarantine_that_cannot_be_read_lets_nothing_through
}
