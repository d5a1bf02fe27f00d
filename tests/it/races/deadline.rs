//! Against the end of the request's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use mandate_domain::audit::RecordBody;
use mandate_tests::{Execution, pass, run};
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};

use super::{AT_ONCE, ROUNDS, Round, end, world};

/// The approval is sent at most so long before the deadline, and at most so long after it, in milliseconds.
const BEFORE_MS: u64 = 400;
const AFTER_MS: u64 = 100;

/// Until when the first request of a run can be decided.
async fn expires_ms(round: &Round) -> u64 {
    let asked = round.run.records_where(|body| matches!(body, RecordBody::ApprovalRequested { .. })).await;
    let own = asked.iter().filter(|record| record.run.workflow_id == round.run.name);
    let expiry = own.map(|record| match &record.body {
        RecordBody::ApprovalRequested { expires_ms, .. } => *expires_ms,
        other => panic!("{other:?}"),
    });
    expiry.flatten().next().unwrap()
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// When the approval was accepted into history.
fn accepted_ms(execution: &Execution) -> Option<u64> {
    let is_approval = |event: &&HistoryEvent| match &event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(signal)) => signal.signal_name == "approve",
        Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(_)) => true,
        _ => false,
    };
    let time = execution.events.iter().find(is_approval)?.event_time?;
    Some(time.seconds.unsigned_abs() * 1000 + u64::from(time.nanos.unsigned_abs()) / 1_000_000)
}

#[test]
fn an_approval_races_with_its_deadline() {
    run(async {
        let world = world("race-deadline").await;
        world.edit("policies/refunds.cedar", r#"@expires("PT24H")"#, r#"@expires("PT2S")"#);
        let _worker = world.start_worker().await;
        let round = async |seed| {
            let mut round = Round::start(&world, seed).await;
            if !round.request.is_empty() {
                let at = expires_ms(&round).await - BEFORE_MS + round.choices.below(BEFORE_MS + AFTER_MS);
                pass(Duration::from_millis(at.saturating_sub(now_ms()))).await;
                round.approve().await;
            }
            round
        };
        let rounds: Vec<Round> = stream::iter(0..ROUNDS).map(round).buffer_unordered(AT_ONCE).collect().await;
        let sent = rounds.iter().filter(|round| round.told.is_some()).count();
        assert!(sent > 10, "only {sent} requests were seen in time");
        for ended in end(&world, rounds).await {
            let (seed, [execution]) = (ended.seed, &ended.executions[..]) else { panic!("one execution") };
            let expired = ended.count(|body| matches!(body, RecordBody::ApprovalExpired { .. }));
            assert!(ended.paid == (expired == 0), "seed {seed}: paid {}, {expired} expired", ended.paid);
            let expiry = ended.records.iter().find_map(|record| match &record.body {
                RecordBody::ApprovalRequested { expires_ms, .. } => *expires_ms,
                _ => None,
            });
            // What is accepted later releases nothing, however fast the worker is.
            let in_time = accepted_ms(execution).is_some_and(|accepted| accepted < expiry.unwrap());
            assert!(in_time || !ended.paid, "seed {seed}: released after its time");
        }
    });
}
