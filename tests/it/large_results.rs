//! Large results through a real worker: the store has them, history does not.

use mandate_tests::{Scenario, run};

const BYTES: usize = 10_000_000;
/// What the model is given of one result, and what stands around it.
const TRANSCRIPT_MAX: i64 = 64 * 1024 + 2 * 16 * 1024 + 8 * 1024;
const HISTORY_TURN_MAX: usize = 3 * 1024;

#[test]
fn ten_megabytes_go_through_a_worker_and_history_stays_small() {
    run(async {
        let scenario = Scenario::new("large-result").await;
        // The last page is number 611: 16 KiB each.
        let replies = [
            r#"calls = [{ tool = "orders.read", arguments = { order_id = "big" } }]"#,
            r#"calls = [{ tool = "read_result", arguments = { call = "t1.0", page = 611 } }]"#,
            r#"text = "Read.""#,
        ];
        let replies = replies.join("\n[[conversation.reply]]\n");
        scenario.write("scripts/refunds.toml", &format!("[[conversation]]\n[[conversation.reply]]\n{replies}\n"));
        scenario.big_order("big", BYTES).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Read the big order").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("Read."), "{answer}");
        let history = scenario.history().await;
        assert_eq!((history.activities("call_tool"), history.activities("invoke_model")), (2, 3));
        let turns = history.turns();
        assert!(turns.iter().all(|bytes| *bytes < HISTORY_TURN_MAX), "{turns:?}");
        let transcript = scenario.transcript_bytes().await;
        assert!((64 * 1024..TRANSCRIPT_MAX).contains(&transcript), "{transcript}");
        scenario.audit_verify().await.ok();
    });
}
