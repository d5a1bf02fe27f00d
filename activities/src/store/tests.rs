//! The store through its API, on both engines: one file or database, several handles.

use std::{collections::BTreeMap, fs, time::Duration};

use mandate_domain::{
    Address, AgentDefinition, Arguments, ChainHead, Content, Digest, Gate, KnownBy, Message, ModelReply, OpenedRun,
    Origin, PersonId, Proof, ProposedCall, QuestionId, RecordBody, RequestId, RunChain, RunLimits, RunPins, RunState,
    ToolCallId, ToolCallOutcome, Usage, Who, approval::OnExpiry, canonical,
};
use serde_json::json;

use super::*;
use crate::test_stores::{Home, On, on_both_engines};

const TENANT: &str = "acme";

fn chain() -> RunChain {
    RunChain { workflow_id: "refund-1".into(), first_run_id: "run-1".into() }
}

async fn open(home: &Home) -> Store {
    home.open().await
}

fn digest(text: &str) -> Digest {
    canonical::sha256(text.as_bytes())
}

fn address(text: &str) -> Address {
    Address::parse(digest(text).as_str()).unwrap()
}

fn new_run(store: &Store) -> NewRun {
    let pins = RunPins {
        store: store.id().clone(),
        agent_version: digest("agent"),
        instructions: digest("instructions"),
        model: "support".parse().unwrap(),
        tools: BTreeMap::new(),
        bundle: digest("bundle"),
    };
    let definition = AgentDefinition {
        name: "acme/support/refunds".parse().unwrap(),
        purpose: "refunds".into(),
        owner: person("owner@acme.example"),
        connected_systems: vec![],
        memory: "none".into(),
        permission_scope: "refunds".into(),
        escalation_path: "none".into(),
        model: "support".parse().unwrap(),
        tools: vec![],
        instructions: "Refund.".into(),
        limits: RunLimits::default(),
        compensate: vec![],
    };
    NewRun {
        agent: definition.name.clone(),
        on_behalf_of: person("ana@acme.example"),
        opened: OpenedRun {
            run: chain(),
            pins,
            limits: definition.limits,
            transcript: address("start"),
            starter: None,
            starter_proof: Proof::Claimed,
            proof: Proof::Claimed,
            accepts: vec![Proof::Claimed],
            notifies: false,
            namespace_id: None,
            compensate: vec![],
        },
        definition,
        tools: vec![],
    }
}

async fn open_run(store: &Store) -> Tx {
    let mut tx = store.begin(&chain()).await.unwrap();
    tx.open_run(&new_run(store)).await.unwrap();
    tx
}

async fn opened(home: &Home) -> Store {
    let store = open(home).await;
    open_run(&store).await.commit().await.unwrap();
    store
}

fn person(text: &str) -> PersonId {
    PersonId::parse(text).unwrap()
}

fn who() -> Who {
    Who {
        agent: "acme/support/refunds".parse().unwrap(),
        agent_version: digest("agent"),
        on_behalf_of: person("ana@acme.example"),
        proof: Proof::Claimed,
    }
}

fn origin() -> Origin {
    Origin { run_id: "run-1".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() }
}

fn note(text: &str) -> RecordBody {
    RecordBody::CallAbandoned { effect: EffectId::Model(1), reason: text.into() }
}

async fn append(store: &Store, key: &str, text: &str) -> Result<Appended, StoreError> {
    let mut tx = store.begin(&chain()).await?;
    let appended = tx.append(&who(), &origin(), key.into(), note(text)).await?;
    tx.commit().await?;
    Ok(appended)
}

/// Number of records, after every link was followed.
async fn verified(store: &Store, run: &RunChain) -> u64 {
    let mut head = ChainHead::empty();
    for stored in store.records(run).await.unwrap() {
        let record: mandate_domain::AuditRecord = serde_json::from_slice(&stored.canonical).unwrap();
        let linked = mandate_domain::audit::link(&head, record.clone()).unwrap();
        assert_eq!((linked.record, &linked.canonical, &linked.hash), (record, &stored.canonical, &stored.hash));
        head = ChainHead { records: head.records + 1, head: stored.hash };
    }
    head.records
}

async fn a_store_keeps_its_id_and_its_runs_when_opened_again(on: On) {
    use std::os::unix::fs::MetadataExt as _;
    let home = Home::new(on).await;
    let first = opened(&home).await;
    let mut tx = first.begin(&chain()).await.unwrap();
    tx.accept_execution("run-2").await.unwrap();
    tx.commit().await.unwrap();
    first.close().await;
    let again = open(&home).await;
    assert_eq!(again.id(), first.id());
    assert_eq!(again.execution("run-2").await.unwrap(), Some(chain()));
    assert_eq!(again.execution("run-3").await.unwrap(), None);
    for _ in 0..2 {
        let row = again.run(&chain()).await.unwrap().unwrap();
        let new = new_run(&again);
        assert_eq!((row.agent, row.definition, row.opened), (new.agent, new.definition, new.opened));
        assert_eq!((row.head, row.closed, row.requests_made), (ChainHead::empty(), false, 0));
    }
    if on == On::Sqlite {
        assert_eq!(fs::metadata(home.file()).unwrap().mode() & 0o777, 0o600);
    }
    assert!(again.check_pinned(first.id()).is_ok());
    let other = open(&Home::new(on).await).await;
    assert!(matches!(other.check_pinned(first.id()), Err(StoreError::OtherStore { .. })));
}

async fn many_processes_may_open_a_new_store_at_once(on: On) {
    let home = Home::new(on).await;
    let opened = futures::future::join_all((0..6).map(|_| open(&home))).await;
    assert!(opened.windows(2).all(|pair| pair[0].id() == pair[1].id()));
}

#[tokio::test]
async fn what_is_no_store_is_named() {
    let home = Home::new(On::Sqlite).await;
    fs::create_dir(home.path().join("folder")).unwrap();
    fs::write(home.path().join("text"), "not a database, but a text that is long enough to be one").unwrap();
    for name in ["folder", "text", "text/below-a-file"] {
        let path = home.path().join(name);
        let settings = StoreSettings { place: StorePlace::File(path.clone()), ..home.settings() };
        let error = Store::open(settings).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    assert!(fs::read_to_string(home.path().join("text")).unwrap().starts_with("not a database"));
}

async fn two_handles_append_to_one_chain_without_gaps(on: On) {
    let home = Home::new(on).await;
    let stores = [opened(&home).await, open(&home).await];
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let store = stores[i % 2].clone();
            tokio::spawn(async move { append(&store, &format!("key/{i}"), "x").await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Appended::New);
    }
    assert_eq!(verified(&stores[0], &chain()).await, 40);
    assert_eq!(stores[1].run(&chain()).await.unwrap().unwrap().head.records, 40);
}

async fn the_same_key_is_a_no_op_and_with_other_content_an_error(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    assert_eq!(append(&store, "t1.0/end", "a").await.unwrap(), Appended::New);
    assert_eq!(append(&store, "t1.0/end", "a").await.unwrap(), Appended::AlreadyThere);
    let conflict = append(&store, "t1.0/end", "b").await;
    assert!(matches!(conflict, Err(StoreError::KeyConflict { key }) if key == "t1.0/end"));
    assert_eq!(verified(&store, &chain()).await, 1);
}

async fn a_transaction_that_is_dropped_changes_nothing(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let mut tx = open_run(&store).await;
    tx.append(&who(), &origin(), "k".into(), note("a")).await.unwrap();
    let text = tx.put_content(TENANT, "text").await.unwrap();
    let text_again = tx.put_content(TENANT, "text").await.unwrap();
    assert_eq!(text, text_again);
    drop(tx);
    assert_eq!(store.run(&chain()).await.unwrap(), None);
    assert_eq!(store.content(TENANT, &text).await.unwrap(), None);
    // The tenant's row went as well, and comes back although its key was seen.
    let mut tx = open_run(&store).await;
    assert_eq!(tx.put_content(TENANT, "text").await.unwrap(), text);
    tx.commit().await.unwrap();
    assert_eq!(store.content(TENANT, &text).await.unwrap().as_deref(), Some("text"));
    assert_eq!(store.content("other", &text).await.unwrap(), None);
}

async fn a_store_behind_its_run_is_noticed(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    append(&store, "1", "a").await.unwrap();
    let seen = store.run(&chain()).await.unwrap().unwrap().head;
    append(&store, "2", "b").await.unwrap();
    let mut tx = store.begin(&chain()).await.unwrap();
    for good in [ChainHead::empty(), seen.clone()] {
        tx.check_seen(&good).await.unwrap();
    }
    for bad in [ChainHead { records: 3, ..seen.clone() }, ChainHead { records: 1, head: digest("other") }] {
        assert!(matches!(tx.check_seen(&bad).await, Err(StoreError::BehindRun { .. })));
    }
}

async fn nothing_is_written_to_a_run_that_is_not_open(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    assert!(matches!(append(&store, "k", "a").await, Err(StoreError::NotFound { .. })));
    let mut tx = open_run(&store).await;
    assert_eq!(tx.open_run(&new_run(&store)).await.unwrap(), Appended::AlreadyThere);
    assert!(tx.is_open() && !tx.is_closed());
    tx.close_run().await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.begin(&chain()).await.unwrap().is_closed());
}

async fn runs_are_listed_newest_first_with_their_state(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let second = RunChain { workflow_id: "refund-2".into(), first_run_id: "run-9".into() };
    let mut tx = store.begin(&second).await.unwrap();
    tx.open_run(&new_run(&store)).await.unwrap();
    let closed = RecordBody::RunClosed {
        state: RunState::Completed,
        reason: None,
        turns: 1,
        usage: Usage::default(),
        unknown_outcomes: vec![],
    };
    tx.append(&who(), &origin(), "closed".into(), closed).await.unwrap();
    tx.commit().await.unwrap();
    let shown = |runs: Vec<RunSummary>| runs.into_iter().map(|r| (r.run.workflow_id, r.state)).collect::<Vec<_>>();
    let (old, new) = (("refund-1".to_owned(), None), ("refund-2".to_owned(), Some(RunState::Completed)));
    assert_eq!(shown(store.runs(None).await.unwrap()), [new.clone(), old]);
    assert_eq!(shown(store.runs(Some("refund-2")).await.unwrap()), [new]);
    assert_eq!(shown(store.runs(Some("refund-3")).await.unwrap()), []);
}

async fn an_intrusion_is_recorded_in_the_stores_own_chain(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    for _ in 0..2 {
        store.record_intrusion(&origin(), "call_tool", "foreign workflow").await.unwrap();
    }
    assert_eq!(verified(&store, &store.own_chain()).await, 1);
    assert_eq!(store.runs(None).await.unwrap(), []);
}

async fn another_address_key_or_none_is_refused(on: On) {
    let home = Home::new(on).await;
    let first = open(&home).await;
    let key = first.address_key(TENANT).await.unwrap();
    assert_eq!(open(&home).await.address_key(TENANT).await.unwrap().address(b"x"), key.address(b"x"));
    let fixed = AddressKeySource::Fixed(AddressKey::new([7; 32]));
    let other = Store::open(StoreSettings { address_keys: fixed, ..home.settings() }).await.unwrap();
    assert!(matches!(other.address_key(TENANT).await, Err(StoreError::WrongAddressKey { .. })));
    fs::remove_file(home.path().join("keys/acme.key")).unwrap();
    assert!(matches!(open(&home).await.address_key(TENANT).await, Err(StoreError::AddressKey { .. })));
    assert!(!home.path().join("keys/acme.key").exists(), "a lost key is not replaced");
}

async fn an_unknown_encoding_or_changed_content_is_an_error(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let text = tx.put_content(TENANT, "text").await.unwrap();
    tx.commit().await.unwrap();
    store.damage("UPDATE content SET body = 'other'").await;
    assert!(matches!(store.content(TENANT, &text).await, Err(StoreError::Corrupt { .. })));
    store.damage("UPDATE content SET encoding = 'sealed'").await;
    assert!(matches!(store.content(TENANT, &text).await, Err(StoreError::UnknownEncoding { .. })));
}

on_both_engines! {
    a_store_keeps_its_id_and_its_runs_when_opened_again
    many_processes_may_open_a_new_store_at_once
    two_handles_append_to_one_chain_without_gaps
    the_same_key_is_a_no_op_and_with_other_content_an_error
    a_transaction_that_is_dropped_changes_nothing
    a_store_behind_its_run_is_noticed
    nothing_is_written_to_a_run_that_is_not_open
    runs_are_listed_newest_first_with_their_state
    an_intrusion_is_recorded_in_the_stores_own_chain
    another_address_key_or_none_is_refused
    an_unknown_encoding_or_changed_content_is_an_error
}

mod calls;
mod failing;
mod notices;
mod policy;
mod together;
mod transcripts;
