//! What notices are about.

use super::*;

const CALL: ToolCallId = ToolCallId { turn: 1, index: 0, revision: 1, undo: false };

async fn a_request_is_found_by_its_number_and_a_record_tells_its_time(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let before = rows::now_micros();
    append(&store, "k", "a").await.unwrap();
    let mut tx = store.begin(&chain()).await.unwrap();
    let gate: Gate = serde_json::from_value(json!({
        "id": "refund.large", "approvers": ["finance-leads"], "quorum": 1, "four_eyes": [], "expires_secs": 60,
        "reason": "large",
    }))
    .unwrap();
    let made = tx.make_requests(CALL, &[gate], &address("a"), 1_000, 3600).await.unwrap().remove(0);
    let row = tx.request_by_ordinal(1).await.unwrap().unwrap();
    assert_eq!((row.id, row.expires_ms), (made.id, Some(61_000)));
    assert_eq!(tx.request_by_ordinal(2).await.unwrap(), None);
    let at = tx.recorded_at("k").await.unwrap().unwrap();
    assert!((before..=rows::now_micros()).contains(&at), "{at}");
    assert_eq!(tx.recorded_at("none").await.unwrap(), None);
}

on_both_engines! {
    a_request_is_found_by_its_number_and_a_record_tells_its_time
}
