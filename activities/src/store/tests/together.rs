//! Many who write at once, on both engines: nobody misses what another committed, and nobody waits for ever.

use super::*;
use mandate_domain::QuarantineTarget;

fn run(number: usize) -> RunChain {
    RunChain { workflow_id: format!("refund-{number}"), first_run_id: format!("run-{number}") }
}

/// Everybody opens the same run at once: one chain, one opening record.
async fn of_many_who_open_one_run_one_does(on: On) {
    let home = Home::new(on).await;
    let stores = [open(&home).await, open(&home).await];
    let openers = (0..8).map(|number| {
        let store = stores[number % 2].clone();
        tokio::spawn(async move {
            let mut tx = store.begin(&chain()).await.unwrap();
            let opened = tx.open_run(&new_run(&store)).await.unwrap();
            tx.append(&who(), &origin(), "opened".into(), note("a")).await.unwrap();
            tx.commit().await.unwrap();
            opened
        })
    });
    let opened: Vec<_> = futures::future::join_all(openers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(opened.iter().filter(|opened| **opened == Appended::New).count(), 1, "{opened:?}");
    assert_eq!(verified(&stores[0], &chain()).await, 1);
}

/// Between a decision's look at bundle and quarantine and its commit nobody changes them; whoever changed them before
/// is seen.
async fn a_decision_and_an_operator_act_see_each_other(on: On) {
    let home = Home::new(on).await;
    let (deciding, acting) = (opened(&home).await, open(&home).await);
    let target: QuarantineTarget = "tool:payments.refund".parse().unwrap();
    let (mut decided, mut acted) = (Vec::new(), 0_u32);
    for round in 0..10_u32 {
        let decide = async {
            let mut tx = deciding.begin(&chain()).await.unwrap();
            let (first, version) = (seen(&mut tx, &target).await, tx.active_bundle_version().await.unwrap());
            tokio::task::yield_now().await;
            let again = (seen(&mut tx, &target).await, tx.active_bundle_version().await.unwrap());
            assert_eq!((first, version), again, "round {round}: it changed under a decision");
            tx.append(&who(), &origin(), format!("decision/{round}"), note("a")).await.unwrap();
            tx.commit().await.unwrap();
            first
        };
        let act = async {
            let (mut own, by) = (acting.begin_own().await.unwrap(), person("olga@acme.example"));
            own.quarantine(&target, &by, "leak").await.unwrap();
            own.commit(&by, Proof::Claimed, "w", note("act")).await.unwrap();
        };
        decided.push(tokio::join!(decide, act).0);
        acted += 1;
    }
    assert!(decided[1..].iter().all(|seen| *seen), "what was committed before is seen: {decided:?}");
    assert_eq!((verified(&deciding, &acting.own_chain()).await, acted), (10, 10));
}

async fn seen(tx: &mut Tx, target: &QuarantineTarget) -> bool {
    tx.quarantined(std::slice::from_ref(target)).await.unwrap().is_some()
}

async fn one_proof_for_two_runs_at_once_proves_once(on: On) {
    let home = Home::new(on).await;
    let stores = [open(&home).await, open(&home).await];
    let proof = digest("signature");
    let users = (0..2).map(|number| {
        let (store, proof) = (stores[number].clone(), proof.clone());
        tokio::spawn(async move {
            let mut tx = store.begin(&run(number)).await.unwrap();
            let used = tx.use_proof(&proof, "r1-aaaaaa/decided/1").await.unwrap();
            tx.commit().await.unwrap();
            used
        })
    });
    let used: Vec<_> = futures::future::join_all(users).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(used.iter().filter(|used| **used).count(), 1, "{used:?}");
}

/// Two machines, each with a key of its own, write for a new tenant at the same time.
async fn of_two_machines_that_make_a_tenants_key_the_slower_one_is_refused(on: On) {
    let home = Home::new(on).await;
    let machine = async |key: u8| {
        let address_keys = AddressKeySource::Fixed(AddressKey::new([key; 32]));
        Store::open(StoreSettings { address_keys, ..home.settings() }).await.unwrap()
    };
    let stores = [machine(1).await, machine(2).await];
    let writers = (0..2).map(|number| {
        let store = stores[number].clone();
        tokio::spawn(async move {
            let mut tx = store.begin(&run(number)).await?;
            tx.put_content(TENANT, "text").await?;
            tx.commit().await.map(drop)
        })
    });
    let written: Vec<_> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let refused: Vec<_> = written.iter().filter_map(|written| written.as_ref().err()).collect();
    assert!(matches!(refused[..], [StoreError::WrongAddressKey { .. }]), "{refused:?}");
    let loser = written.iter().position(Result::is_err).unwrap();
    assert!(matches!(stores[loser].address_key(TENANT).await, Err(StoreError::WrongAddressKey { .. })));
    stores[1 - loser].address_key(TENANT).await.unwrap();
}

/// A key that was made in a transaction which was dropped verifies nothing.
async fn a_tenant_whose_first_write_was_dropped_may_have_another_key(on: On) {
    let home = Home::new(on).await;
    let first = open(&home).await;
    let mut tx = first.begin(&run(1)).await.unwrap();
    tx.put_content(TENANT, "text").await.unwrap();
    drop(tx);
    let address_keys = AddressKeySource::Folder(home.path().join("other"));
    let second = Store::open(StoreSettings { address_keys, ..home.settings() }).await.unwrap();
    let mut tx = second.begin(&run(2)).await.unwrap();
    tx.put_content(TENANT, "text").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = first.begin(&run(1)).await.unwrap();
    let refused = tx.put_content(TENANT, "text").await;
    assert!(matches!(refused, Err(StoreError::WrongAddressKey { .. })), "{refused:?}");
}

async fn what_people_and_models_say_is_kept_whatever_it_is(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let said = "a\0b \u{10FFFF} \u{1F600} 'quoted' \\ \u{202E}";
    let mut tx = store.begin(&chain()).await.unwrap();
    let text = tx.put_content(TENANT, said).await.unwrap();
    let message = Message::User { text: said.to_owned() };
    let line = tx.append_message(TENANT, None, &message).await.unwrap();
    tx.append(&who(), &origin(), "odd \0 key".into(), note(said)).await.unwrap();
    assert_eq!(tx.recorded("odd \0 key").await.unwrap(), Some(note(said)));
    tx.commit().await.unwrap();
    assert_eq!(store.content(TENANT, &text).await.unwrap().as_deref(), Some(said));
    assert_eq!(store.transcript(TENANT, &line).await.unwrap(), [message]);
    assert_eq!(verified(&store, &chain()).await, 1);
    assert_eq!(store.runs_active_since(0, 10).await.unwrap(), [chain()]);
    assert_eq!(store.runs(None).await.unwrap().len(), 1);
}

/// Calls are listed in the order in which they were claimed first.
async fn performed_calls_stand_in_the_order_of_their_claims(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let calls = [(1, 2), (1, 0), (2, 1), (1, 1)].map(|(turn, index)| ToolCallId::new(turn, index));
    for call in calls {
        let send_by = tx.now().await.unwrap();
        tx.claim(EffectId::Tool(call), "pay", &address("a"), "w", &send_by).await.unwrap();
    }
    for call in [calls[3], calls[0], calls[2], calls[1]] {
        tx.settle(EffectId::Tool(call), 1, &json!({}), KnownBy::Answer).await.unwrap();
    }
    let performed: Vec<_> = tx.performed_calls().await.unwrap().into_iter().map(|(call, _)| call).collect();
    assert_eq!(performed, calls);
}

async fn each_commit_is_counted_and_what_is_dropped_is_not(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let before = store.commits();
    append(&store, "1", "a").await.unwrap();
    drop(store.begin(&chain()).await.unwrap());
    assert_eq!(store.commits(), before + 1);
}

on_both_engines! {
    of_many_who_open_one_run_one_does
    a_decision_and_an_operator_act_see_each_other
    one_proof_for_two_runs_at_once_proves_once
    of_two_machines_that_make_a_tenants_key_the_slower_one_is_refused
    a_tenant_whose_first_write_was_dropped_may_have_another_key
    what_people_and_models_say_is_kept_whatever_it_is
    performed_calls_stand_in_the_order_of_their_claims
    each_commit_is_counted_and_what_is_dropped_is_not
}
