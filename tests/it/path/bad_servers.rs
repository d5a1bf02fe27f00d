//! A tool server that misbehaves in a governed call: what becomes of the call depends on the tool's kind by the registry
//! alone, and nothing is done twice or lost.

use mandate_activities::AgentActivities;
use mandate_domain::{RecordBody, ToolCallOutcome};
use mandate_tests::until_it_holds;
use temporalio_sdk::{activities::ActivityError, testing::ActivityEnvironmentError};

use super::{
    run::{READ, Run, call, refund},
    world::{Folder, World, chain, programs},
};

/// Each way, and a word of its failure.
const WAYS: [(&str, &str); 4] = [
    ("die", "it ended with exit code 3"),
    ("garbage", "no JSON-RPC message"),
    ("cut", "no JSON-RPC message"),
    ("endless=5000000", "it wrote a message of more than 4194304 bytes"),
];

const CHECK: &str = "check = \"payments.refund_status\"\nsettles_within_secs = 10\n";

/// A server that misbehaves so at its first call of a tool.
fn rogue(folder: Folder, mode: &str, tool: &str) -> Folder {
    let rogue = programs().join("rogue-mcp");
    folder.server(&format!("exec {} --once var/happened {mode} {tool} $SERVER", rogue.display())).edit(
        "mandate.toml",
        "[servers.refunds]",
        "[servers.refunds]\nanswer_max_bytes = 1048576",
    )
}

async fn unknown(world: &World) -> Vec<RecordBody> {
    let bodies = world.bodies(&chain()).await;
    bodies.into_iter().filter(|body| matches!(body, RecordBody::OutcomeUnknown { .. })).collect()
}

#[tokio::test]
async fn a_plain_call_is_parked_with_the_reason_and_not_made_again() {
    for (mode, words) in WAYS {
        let plain = Folder::proposing(&[&refund(4_500)]).edit("tools/payments.refund.toml", CHECK, "");
        let world = rogue(plain, mode, "refund_payment").world().await;
        let mut run = Run::proposed(&world).await;
        let outcome = run.call("t1.0").await;
        let ToolCallOutcome::OutcomeUnknown { reason } = &outcome else { panic!("{mode}: {outcome:?}") };
        assert!(reason.contains(words), "{mode}: {reason}");
        let recorded = format!("{outcome:?} {:?}", world.bodies(&chain()).await);
        for foreign in ["cannot go on", "Traceback"] {
            assert!(!recorded.contains(foreign), "what a server writes is content: {recorded}");
        }
        assert_eq!(run.call("t1.0").await, outcome);
        assert_eq!(unknown(&world).await.len(), 1);
        assert_eq!((run.paid().await, world.requests_received().await, run.intents().await), (vec![4_500], 1, 1));
    }
}

#[tokio::test]
async fn a_checkable_call_is_settled_by_its_check_tool_and_not_made_again() {
    for (mode, words) in WAYS {
        let world = rogue(Folder::proposing(&[&refund(4_500)]), mode, "refund_payment").world().await;
        let mut run = Run::proposed(&world).await;
        run.try_call("t1.0").await.unwrap_err().may_pass("NoAnswer", words);
        world.run_out("t1.0", 1).await;
        assert!(run.returned("t1.0").await.contains("rf-0001"));
        assert_eq!((run.paid().await, world.requests_received().await, run.intents().await), (vec![4_500], 1, 1));
    }
}

#[tokio::test]
async fn a_reading_call_is_made_again() {
    for (mode, words) in WAYS {
        let world = rogue(Folder::proposing(&[READ]), mode, "read_order").world().await;
        let mut run = Run::proposed(&world).await;
        run.try_call("t1.0").await.unwrap_err().may_pass("NoAnswer", words);
        world.run_out("t1.0", 1).await;
        assert!(run.returned("t1.0").await.contains("total_cents"));
        assert_eq!(run.intents().await, 2);
        run.turn().await;
    }
}

/// The server says that its tool only reads and may be called at will. The registry says that it pays.
#[tokio::test]
async fn what_a_server_says_of_its_tool_counts_for_nothing() {
    let plain = Folder::proposing(&[&refund(4_500)]).edit("tools/payments.refund.toml", CHECK, "");
    let rogue = programs().join("rogue-mcp");
    let script = format!("exec {} lie refund_payment $SERVER --delay-ms 60000", rogue.display());
    let world = plain.server(&script).world().await;
    let mut run = Run::proposed(&world).await;
    let input = run.call_input("t1.0");
    tokio::select! {
        ended = call(&run.worker, input) => panic!("answered: {ended:?}"),
        () = until_it_holds("the payment is written", async || !world.payments().await.is_empty()) => {}
    }
    run.next_worker().await;
    world.run_out("t1.0", 1).await;
    let outcome = run.call("t1.0").await;
    assert!(matches!(&outcome, ToolCallOutcome::OutcomeUnknown { .. }), "{outcome:?}");
    assert_eq!((run.paid().await, world.requests_received().await, run.intents().await), (vec![4_500], 1, 1));
}

/// An attempt that was cancelled before its decision performs nothing.
#[tokio::test]
async fn a_call_that_was_cancelled_before_it_began_has_no_intent() {
    let world = Folder::proposing(&[&refund(4_500)]).server("exec $SERVER").world().await;
    let mut run = Run::proposed(&world).await;
    run.worker.cancel();
    let ended = run.worker.run(AgentActivities::call_tool, run.call_input("t1.0")).await;
    let cancelled = matches!(ended, Err(ActivityEnvironmentError::Activity(ActivityError::Cancelled { .. })));
    assert!(cancelled, "{ended:?}");
    run.next_worker().await;
    assert_eq!(run.look_up("t1.0").await, ToolCallOutcome::NotPerformed);
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}
