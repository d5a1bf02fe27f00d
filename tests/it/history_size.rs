//! History grows by a small constant a turn, whatever the transcript's length.

use std::{fs, time::Duration};

use mandate_tests::{Scenario, run};

const TURNS: usize = 100;
const RESULT_BYTES: usize = 5 * 1024;
const BYTES_A_TURN_MAX: usize = 3 * 1024;

#[test]
fn history_bytes_a_turn_are_constant_over_a_hundred_turns_with_large_results() {
    run(async {
        let scenario = Scenario::new("history-size").await;
        let script = format!(
            "[[conversation]]\n[[conversation.reply]]\nrepeat = {TURNS}\n\
             calls = [{{ tool = \"orders.read\", arguments = {{ order_id = \"big\" }} }}]\n\
             [[conversation.reply]]\ntext = \"Done.\"\n"
        );
        scenario.write("scripts/refunds.toml", &script);
        let limits = "turns_max = 200\ntool_calls_max = 400\ntokens_max = 100_000_000";
        let mandate = fs::read_to_string(scenario.path("mandate.toml")).unwrap();
        let mandate = mandate.replace("turns_max = 20\ntool_calls_max = 40\ntokens_max = 200_000", limits);
        assert!(mandate.contains(limits));
        scenario.write("mandate.toml", &mandate);
        let agent = "tenants/acme/support/refunds/agent.toml";
        scenario.edit(agent, "turns_max = 12\ntool_calls_max = 20", "turns_max = 200");
        scenario.big_order("big", RESULT_BYTES).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Read a hundred times").await;
        scenario.wait_closed_within(Duration::from_secs(240)).await;
        let result = scenario.result().await;
        assert_eq!((&result["state"], &result["turns"]), (&"Completed".into(), &(TURNS + 1).into()), "{result}");
        assert!(scenario.transcript_bytes().await > 500 * 1000, "the transcript is as long as the test says");
        let history = scenario.history().await;
        assert_eq!(history.activities("invoke_model"), TURNS + 1);
        assert_eq!(history.activities("call_tool"), TURNS);
        let turns = &history.turns()[4..TURNS];
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        assert!(*most < BYTES_A_TURN_MAX, "{turns:?}");
        assert!(most * 10 <= least * 11, "between {least} and {most} bytes a turn: {turns:?}");
    });
}
