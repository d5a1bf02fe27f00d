//! Thousands of messages that say nothing reach one run that waits: it stays small, it can be asked, and the one decision
//! that counts is not lost among them.

use futures::{StreamExt as _, stream};
use mandate_domain::{Verdict, agent_run::Answer, audit::RecordBody};
use mandate_tests::{Choices, Scenario, Told, keys, run, until};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Value, json};

const MESSAGES: u64 = 5_000;
const AT_ONCE: usize = 8;
/// Messages that come together at most, and those that come last.
const WAVE_MAX: u64 = 300;
const WAVE_LAST: usize = 1_200;
const TEXT_BYTES: usize = 1024;
/// One of so many is signed, wrongly, and only those are reviewed: a review takes an activity.
const SIGNED_OF: u64 = 25;
/// Far less than the server's own bounds of an execution: 51,200 events and 50 MiB.
const EVENTS_MAX: usize = 12_000;
const BYTES_MAX: usize = 5_000_000;
const BO: &str = "bo@acme.example";
const MALLORY: &str = "mallory@acme.example";

/// One message that says nothing: the signal and its input.
fn junk(choices: &mut Choices, request: &PendingRequest) -> (&'static str, String) {
    let signal = if choices.flip() { "approve" } else { "reject" };
    let input = match choices.below(SIGNED_OF) {
        0 => wrongly_signed(request).to_string(),
        other if other % 4 == 0 => "[1, 2".to_owned(),
        other if other % 4 == 1 => json!("x".repeat(TEXT_BYTES)).to_string(),
        other if other % 4 == 2 => json!({ "request_id": "r9-000000", "by": BO }).to_string(),
        _ => json!({ "request_id": "r9-000000", "by": BO, "comment": "x".repeat(TEXT_BYTES) }).to_string(),
    };
    (signal, input)
}

/// The right decision, in a person's name and with somebody else's key.
fn wrongly_signed(request: &PendingRequest) -> Value {
    let digest = request.digest.as_ref().unwrap();
    let says = keys::SaysOf {
        request: &request.request_id,
        digest,
        verdict: Verdict::Approve,
        comment: None,
        arguments: None,
    };
    let signature = keys::sign(&says.statement(), BO, MALLORY);
    json!({ "request_id": request.request_id, "by": BO, "signature": signature })
}

/// Sends all of it in waves, the last of which is more than a run takes in at once. After each, the run says what waits:
/// the server asks it once it has taken in what was sent before.
async fn flood(scenario: &Scenario, request: &PendingRequest) {
    let mut choices = Choices::seeded(MESSAGES);
    let mut messages: Vec<_> = (0..MESSAGES).map(|_| junk(&mut choices, request)).collect();
    while !messages.is_empty() {
        let wave = if messages.len() <= WAVE_LAST {
            messages.len()
        } else {
            1 + usize::try_from(choices.below(WAVE_MAX)).unwrap()
        };
        let wave = stream::iter(messages.split_off(messages.len() - wave));
        wave.for_each_concurrent(AT_ONCE, async |(signal, input)| {
            assert!(scenario.handle_signal(signal, &input).await, "{signal} {input}");
        })
        .await;
        let pending = scenario.pending().await;
        let [waits] = &pending[..] else { panic!("{} to come: {pending:?}", messages.len()) };
        assert_eq!((&waits.request_id, &waits.deadline), (&request.request_id, &request.deadline));
    }
}

#[test]
fn five_thousand_messages_that_say_nothing_leave_a_waiting_run_small_and_its_request_open() {
    run(async {
        let scenario = Scenario::new("junk").await;
        scenario.accept_keys();
        let _worker = scenario.start_worker().await;
        scenario.start_input(&scenario.signed_task("Refund order o1", "ana@acme.example").to_string()).await;
        scenario.pending_id().await;
        let request = scenario.pending().await.remove(0);
        flood(&scenario, &request).await;

        let mut decision = scenario.signed_decision(&request, Verdict::Approve, BO);
        decision["verdict"] = "approve".into();
        // Decisions that are no good may still wait for their review before it, and the run may just go on in a new execution.
        until("the right decision counts", async || match scenario.update_decide(&decision).await {
            Told::Answered(Answer::Accepted { .. }) => Some(()),
            Told::Answered(Answer::Refused { reason }) | Told::TurnedAway(reason)
                if reason.contains("send this one again later") =>
            {
                None
            }
            other => panic!("{other:?}"),
        })
        .await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1));

        let executions = scenario.executions().await;
        let sizes: Vec<(usize, usize)> = executions
            .iter()
            .map(|one| {
                let history = one.history();
                (history.0.len(), history.0.iter().map(|event| event.bytes).sum())
            })
            .collect();
        assert!(sizes.len() > 1, "it goes on in a new execution while it waits: {sizes:?}");
        assert!(sizes.iter().all(|(events, bytes)| *events < EVENTS_MAX && *bytes < BYTES_MAX), "{sizes:?}");
        let decided = |refused: bool| move |body: &RecordBody| matches!(body, RecordBody::ApprovalDecided { refused: why, .. } if why.is_some() == refused);
        assert_eq!(scenario.records_where(decided(false)).await.len(), 1);
        let reviewed = scenario.records_where(decided(true)).await.len() as u64;
        let refused = scenario.status().await.refused_messages;
        assert!((reviewed + 1..=MESSAGES).contains(&refused), "{reviewed} reviewed of {refused} refused");
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("confirmed by Temporal's history"), "{verified}");
    });
}
