//! Results that are too large for the model, and for history: the store has all of them.

use mandate_domain::{Message, ToolCallOutcome};
use serde_json::{Value, json};

use super::{
    run::Run,
    world::{Folder, World},
};

const READ: &str = r#"{ tool = "orders.read", arguments = { order_id = "o2" } }"#;

fn page(call: &str, page: u32) -> String {
    format!(r#"{{ tool = "read_result", arguments = {{ call = "{call}", page = {page} }} }}"#)
}

async fn enlarge(world: &World, items: &str) {
    world.describe_order("o2", items).await;
}

/// What the model is told as the result of the last call.
async fn told(world: &World, run: &Run<'_>) -> String {
    let messages = world.store.transcript("acme", &run.transcript).await.unwrap();
    let mut results = messages.into_iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text),
        Message::System { .. } | Message::User { .. } | Message::Assistant { .. } => None,
    });
    results.next_back().unwrap()
}

#[tokio::test]
async fn a_large_result_is_a_reference_in_history_its_beginning_for_the_model_and_pages_for_the_rest() {
    let replies: Vec<String> = [READ.to_owned(), page("t1.0", 1), page("t1.0", 2), page("t1.0", 3), page("t1.0", 4)]
        .iter()
        .map(|call| format!("calls = [{call}]"))
        .chain(["text = \"Done.\"".to_owned()])
        .collect();
    let replies: Vec<&str> = replies.iter().map(String::as_str).collect();
    let world = Folder::replying(&replies)
        .edit("mandate.toml", "[limits]", "[limits]\nresult_max_bytes = 20000")
        .server("exec $SERVER")
        .world()
        .await;
    let mut run = Run::proposed(&world).await;
    // Characters of two bytes, so that a cut could fall into one.
    enlarge(&world, &"ä".repeat(12_000)).await;
    let outcome = run.call("t1.0").await;
    let ToolCallOutcome::Returned { result, is_error: false } = &outcome else { panic!("{outcome:?}") };
    assert!(result.bytes > 24_000 && result.text.is_none(), "{result:?}");
    assert!(result.preview.as_ref().is_some_and(|preview| preview.len() <= 200), "{result:?}");
    assert!(serde_json::to_string(&outcome).unwrap().len() < 1000);

    run.turn().await;
    let first = told(&world, &run).await;
    assert!(first.len() <= 20_000, "{}", first.len());
    let told_whole =
        format!(" of the {} bytes of this result; `read_result` with call `t1.0` reads all of it", result.bytes);
    assert!(first.contains(&told_whole), "{}", &first[first.len() - 200..]);

    let mut read = String::new();
    for (turn, number) in [(2, 1), (3, 2), (4, 3)] {
        run.returned(&format!("t{turn}.0")).await;
        run.turn().await;
        let page: Value = serde_json::from_str(&told(&world, &run).await).unwrap();
        assert_eq!((&page["page"], &page["pages"], &page["bytes"]), (&json!(number), &json!(3), &json!(result.bytes)));
        read += page["text"].as_str().unwrap();
    }
    assert_eq!(read.len() as u64, result.bytes, "nothing is left out, and nothing is there twice");
    assert!(read.starts_with('{') && read.ends_with('}') && read.matches('ä').count() == 12_000);
    let beyond = run.call("t5.0").await;
    let ToolCallOutcome::Returned { result, is_error: true } = &beyond else { panic!("{beyond:?}") };
    assert_eq!(result.shown(), "error: the result of call `t1.0` has 3 page(s)");
}
