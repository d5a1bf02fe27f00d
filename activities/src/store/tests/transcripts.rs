//! Messages, transcripts, replies.

use super::*;

fn user(text: &str) -> Message {
    Message::User { text: text.into() }
}

/// Stores messages behind each other and answers the address of each.
async fn write(store: &Store, messages: &[Message]) -> Vec<Address> {
    let mut tx = store.begin(&chain()).await.unwrap();
    let mut addresses: Vec<Address> = vec![];
    for message in messages {
        let address = tx.append_message(TENANT, addresses.last(), message).await.unwrap();
        addresses.push(address);
    }
    tx.commit().await.unwrap();
    addresses
}

async fn a_transcript_reads_the_same_with_and_without_the_cache(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let messages: Vec<_> = (0..20).map(|i| user(&format!("message {i}"))).collect();
    let addresses = write(&store, &messages).await;
    assert_eq!(write(&store, &messages).await, addresses, "the same again is the same");
    for end in [5, 12, 12, 20, 3] {
        let cold = open(&home).await;
        for reader in [&store, &cold] {
            assert_eq!(reader.transcript(TENANT, &addresses[end - 1]).await.unwrap(), messages[..end], "{end}");
        }
    }
    assert!(matches!(store.transcript(TENANT, &address("none")).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.transcript("other", &addresses[0]).await, Err(StoreError::NotFound { .. })));
}

async fn a_longer_transcript_loads_only_what_is_new(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let messages: Vec<_> = (0..6).map(|i| user(&format!("message {i}"))).collect();
    let addresses = write(&store, &messages).await;
    store.transcript(TENANT, &addresses[3]).await.unwrap();
    store.damage("UPDATE messages SET body = '{}' WHERE depth <= 4").await;
    assert_eq!(store.transcript(TENANT, &addresses[5]).await.unwrap(), messages);
    assert!(open(&home).await.transcript(TENANT, &addresses[5]).await.is_err(), "without the cache it is read");
}

async fn a_broken_transcript_is_an_error(on: On) {
    for damage in [
        "DELETE FROM messages WHERE depth = 2",
        "UPDATE messages SET depth = 7 WHERE depth = 2",
        "UPDATE messages SET parent = NULL WHERE depth = 2",
        "UPDATE messages SET body = '{\"role\":\"user\",\"text\":\"b\"}' WHERE depth = 2",
        "UPDATE messages SET encoding = 'sealed' WHERE depth = 2",
    ] {
        let home = Home::new(on).await;
        let store = open(&home).await;
        let addresses = write(&store, &["0", "1", "2"].map(user)).await;
        store.damage(damage).await;
        let read = store.transcript(TENANT, &addresses[2]).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. } | StoreError::UnknownEncoding { .. })), "{damage}");
    }
}

async fn a_message_needs_its_parent_and_may_hold_any_json(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let orphan = tx.append_message(TENANT, Some(&address("none")), &user("x")).await;
    assert!(matches!(orphan, Err(StoreError::NotFound { .. })));
    drop(tx);
    let arguments = json!({ "id": u64::MAX, "share": 0.1 });
    let call = ProposedCall {
        tool: "payments.refund".into(),
        arguments: Arguments::Object(arguments.as_object().unwrap().clone()),
        provider_id: None,
    };
    let message = Message::Assistant { text: None, calls: vec![call] };
    let addresses = write(&store, std::slice::from_ref(&message)).await;
    assert_eq!(store.transcript(TENANT, &addresses[0]).await.unwrap(), [message]);
}

async fn one_reply_stands_for_a_turn(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let reply = |text: &str| ModelReply {
        text: Some(text.into()),
        calls: vec![],
        usage: Usage::default(),
        model: "m".into(),
        response_id: None,
    };
    let append = [address("a"), address("b")];
    let mut tx = store.begin(&chain()).await.unwrap();
    for _ in 0..2 {
        tx.record_reply(3, &address("0"), &append, &address("1"), &reply("x")).await.unwrap();
    }
    let other = tx.record_reply(3, &address("0"), &append, &address("1"), &reply("y")).await;
    assert!(matches!(other, Err(StoreError::KeyConflict { .. })));
    tx.commit().await.unwrap();
    let expected = ReplyRow { before: address("0"), append: append.to_vec(), after: address("1"), reply: reply("x") };
    assert_eq!(store.reply(&chain(), 3).await.unwrap(), Some(expected));
    assert_eq!(store.reply(&chain(), 4).await.unwrap(), None);
}

on_both_engines! {
    a_transcript_reads_the_same_with_and_without_the_cache
    a_longer_transcript_loads_only_what_is_new
    a_broken_transcript_is_an_error
    a_message_needs_its_parent_and_may_hold_any_json
    one_reply_stands_for_a_turn
}
