//! Cases first, then properties over random event sequences against a simulated store.

mod properties;
mod world;

use super::*;
use crate::{
    Address, ApprovalDecision, ApprovalRequest, CallSummary, Content, Digest, Gate, ModelName, ModelTurn, PolicyId,
    RequestId, Resolution, Review, RunChain, RunPins, StoreId, ToolCallId, ToolCallOutcome, Verdict,
};

pub(super) const NOW: Moment = Moment { now_ms: 1_000_000, history_is_long: false };

pub(super) fn address(n: u64) -> Address {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    Address::from_bytes(hash)
}

pub(super) fn person(id: &str) -> PersonId {
    PersonId::parse(id).unwrap()
}

pub(super) fn content(n: u64) -> Content {
    Content::describe(address(n), "text", 1024)
}

pub(super) fn opened(limits: RunLimits) -> Event {
    Event::Opened(Box::new(OpenedRun {
        run: RunChain { workflow_id: "w".into(), first_run_id: "r".into() },
        pins: RunPins {
            store: StoreId::parse("0".repeat(32)).unwrap(),
            agent_version: Digest::from_bytes([1; 32]),
            instructions: Digest::from_bytes([2; 32]),
            model: ModelName::parse("m").unwrap(),
            tools: std::collections::BTreeMap::new(),
            bundle: Digest::from_bytes([3; 32]),
        },
        limits,
        transcript: address(0),
    }))
}

pub(super) fn replied(turn: u64, calls: u32) -> Event {
    Event::ModelReplied(ModelTurn {
        transcript: address(1_000 + turn),
        text: Some(content(2_000 + turn)),
        calls: (0..calls)
            .map(|n| CallSummary {
                tool: "payments.refund".into(),
                arguments: address(n.into()),
                timeout_secs: Some(5),
                submits_answer: false,
            })
            .collect(),
        usage: Usage { input_tokens: 10, output_tokens: 1, ..Usage::default() },
    })
}

pub(super) fn request(call: ToolCallId, gate: &str, ordinal: u32) -> ApprovalRequest {
    ApprovalRequest {
        id: RequestId::new(ordinal, &address(ordinal.into())),
        call,
        tool: "payments.refund".into(),
        arguments: address(7),
        gate: Gate {
            id: PolicyId::parse(gate).unwrap(),
            approvers: vec![crate::GroupName::parse("finance-leads").unwrap()],
            quorum: 1,
            four_eyes: vec![],
            expires_secs: 60,
            reason: "large".into(),
        },
        arguments_shown: "{}".into(),
    }
}

pub(super) fn decision(id: &RequestId, verdict: Verdict) -> ApprovalDecision {
    ApprovalDecision { request: id.clone(), verdict, by: person("bo"), comment: None }
}

fn returned(n: u64) -> ToolCallOutcome {
    ToolCallOutcome::Returned { result: content(n), is_error: false }
}

/// A run with `calls` tool calls under way in its first turn.
fn acting(calls: u32) -> AgentRun {
    let (mut run, first) = AgentRun::start(AgentName::parse("acme/support/refunds").unwrap(), person("ana"));
    assert_eq!(first, [Command::OpenRun, Command::Publish]);
    let commands = run.apply(opened(RunLimits::default()), NOW).unwrap();
    assert_eq!(commands, [Command::InvokeModel { turn: 1, transcript: address(0), append: vec![] }]);
    run.apply(replied(1, calls), NOW).unwrap();
    run
}

fn apply(run: &mut AgentRun, event: Event) -> Vec<Command> {
    run.apply(event, NOW).unwrap()
}

fn call(index: u32) -> ToolCallId {
    ToolCallId::new(1, index)
}

/// Makes a call wait at one gate; gives back the request.
fn wait(run: &mut AgentRun, index: u32) -> RequestId {
    let asked = request(call(index), "refund.large", index + 1);
    let outcome = ToolCallOutcome::ApprovalRequired { requests: vec![asked.clone()] };
    let commands = apply(run, Event::ToolReturned { call: call(index), outcome });
    assert!(
        commands.contains(&Command::StartTimer { request: asked.id.clone(), deadline_ms: 1_060_000 }),
        "{commands:?}"
    );
    asked.id
}

fn is_closing(commands: &[Command], reason: EndReason) -> bool {
    commands.iter().any(|c| matches!(c, Command::CloseRun(closing) if closing.reason == Some(reason)))
}

#[test]
fn a_reply_without_calls_is_the_answer() {
    let mut run = acting(1);
    apply(&mut run, Event::ToolReturned { call: call(0), outcome: returned(5) });
    let commands = apply(&mut run, replied(2, 0));
    assert!(
        matches!(&commands[..], [Command::CloseRun(c), Command::Publish] if c.state == RunState::Completed),
        "{commands:?}"
    );
    let commands = apply(&mut run, Event::Closed);
    let [Command::Finish(result)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((result.state, result.answer.clone(), result.turns), (RunState::Completed, Some(content(2_002)), 2));
}

#[test]
fn the_model_is_asked_again_when_every_call_has_its_result_in_the_models_order() {
    let mut run = acting(2);
    assert_eq!(apply(&mut run, Event::ToolReturned { call: call(1), outcome: returned(8) }), []);
    let commands = apply(&mut run, Event::ToolReturned { call: call(0), outcome: returned(9) });
    let append = vec![address(9), address(8)];
    assert_eq!(commands, [Command::InvokeModel { turn: 2, transcript: address(1_001), append }]);
}

#[test]
fn two_calls_of_one_tool_wait_and_are_decided_in_any_order() {
    let mut run = acting(2);
    let (first, second) = (wait(&mut run, 0), wait(&mut run, 1));
    assert_eq!(run.state(), RunState::AwaitingApproval);
    for (index, id) in [(1, second), (0, first)] {
        let event = Event::DecisionReceived { ticket: index, decision: decision(&id, Verdict::Approve) };
        let commands = apply(&mut run, event);
        assert!(
            matches!(&commands[..], [Command::ReviewApproval { call: c, .. }] if *c == call(index)),
            "{commands:?}"
        );
        let review = Review::Counted { votes: 1, quorum_reached: true };
        let commands = apply(&mut run, Event::ApprovalReviewed { call: call(index), review });
        assert!(commands.contains(&Command::CallTool { call: call(index), released_by: Some(id) }), "{commands:?}");
    }
}

#[test]
fn a_call_with_two_gates_waits_for_both() {
    let mut run = acting(1);
    let asked = [request(call(0), "a", 1), request(call(0), "b", 2)];
    apply(
        &mut run,
        Event::ToolReturned { call: call(0), outcome: ToolCallOutcome::ApprovalRequired { requests: asked.to_vec() } },
    );
    let mut released = vec![];
    for one in &asked {
        apply(&mut run, Event::DecisionReceived { ticket: 1, decision: decision(&one.id, Verdict::Approve) });
        let review = Review::Counted { votes: 1, quorum_reached: true };
        let commands = apply(&mut run, Event::ApprovalReviewed { call: call(0), review });
        released.push(commands.iter().any(|c| matches!(c, Command::CallTool { .. })));
    }
    assert_eq!(released, [false, true]);
}

#[test]
fn a_deadline_waits_for_the_review_that_is_under_way() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, Event::DecisionReceived { ticket: 1, decision: decision(&id, Verdict::Approve) });
    assert_eq!(apply(&mut run, Event::DeadlineReached { request: id.clone() }), []);
    // The decision does not count, and only then does the request expire.
    let review = Review::Refused { reason: "not an approver".into() };
    let commands = apply(&mut run, Event::ApprovalReviewed { call: call(0), review });
    assert!(
        matches!(
            &commands[..],
            [Command::Reply { .. }, Command::ReviewApproval { subject: Subject::Expiry { .. }, .. }]
        ),
        "{commands:?}"
    );
    let commands =
        apply(&mut run, Event::ApprovalReviewed { call: call(0), review: Review::Expired { result: content(9) } });
    assert!(commands.contains(&Command::InvokeModel { turn: 2, transcript: address(1_001), append: vec![address(9)] }));
}

#[test]
fn a_decision_counts_by_the_time_it_arrived() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let late = Moment { now_ms: 1_060_000, ..NOW };
    let commands =
        run.apply(Event::DecisionReceived { ticket: 1, decision: decision(&id, Verdict::Approve) }, late).unwrap();
    assert!(
        commands.iter().any(|c| matches!(c, Command::ReviewApproval { subject: Subject::Expiry { .. }, .. })),
        "{commands:?}"
    );
    assert!(
        commands.iter().any(|c| matches!(c, Command::Reply { answer: Answer::Refused { .. }, .. })),
        "{commands:?}"
    );
}

#[test]
fn a_decision_that_names_nothing_pending_is_refused_and_counted() {
    let mut run = acting(1);
    wait(&mut run, 0);
    let unknown = RequestId::parse("r9-abcdef").unwrap();
    let commands =
        apply(&mut run, Event::DecisionReceived { ticket: 1, decision: decision(&unknown, Verdict::Approve) });
    assert!(matches!(&commands[..], [Command::Reply { answer: Answer::Refused { .. }, .. }]), "{commands:?}");
    assert_eq!(run.refused_messages().0, 1);
}

#[test]
fn a_second_decision_is_reviewed_and_answered_already_decided() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, Event::DecisionReceived { ticket: 1, decision: decision(&id, Verdict::Approve) });
    apply(
        &mut run,
        Event::ApprovalReviewed { call: call(0), review: Review::Counted { votes: 1, quorum_reached: true } },
    );
    let commands = apply(&mut run, Event::DecisionReceived { ticket: 2, decision: decision(&id, Verdict::Reject) });
    assert!(matches!(&commands[..], [Command::ReviewApproval { subject: Subject::Decision { ticket: 2, .. }, .. }]));
    let commands = apply(&mut run, Event::ApprovalReviewed { call: call(0), review: Review::AlreadyDecided });
    assert_eq!(commands, [Command::Reply { ticket: 2, answer: Answer::AlreadyDecided }]);
}

#[test]
fn a_lost_call_is_looked_up_and_never_taken_as_not_done() {
    let lost = Failure::Unavailable { detail: "timed out".into() };
    let outcomes = [
        (returned(5), None),
        (ToolCallOutcome::OutcomeUnknown { reason: "sent".into() }, Some(RunState::OutcomeUnknown)),
        (ToolCallOutcome::NotPerformed, Some(RunState::Failed)),
    ];
    for (known, state) in outcomes {
        let mut run = acting(1);
        let commands = apply(&mut run, Event::ToolFailed { call: call(0), failure: lost.clone() });
        assert_eq!(commands, [Command::ResolveOutcome { call: call(0) }]);
        let commands = apply(&mut run, Event::OutcomeResolved { call: call(0), outcome: known });
        match state {
            None => assert!(matches!(&commands[..], [Command::InvokeModel { turn: 2, .. }]), "{commands:?}"),
            Some(state) => assert_eq!(run.state(), state),
        }
    }
}

#[test]
fn a_person_resolves_an_unknown_outcome_once() {
    let mut run = acting(1);
    apply(
        &mut run,
        Event::ToolReturned { call: call(0), outcome: ToolCallOutcome::OutcomeUnknown { reason: "sent".into() } },
    );
    let word = |ticket| Event::ResolutionReceived {
        ticket,
        resolution: ResolveCall { call: call(0), resolution: Resolution::Happened, by: person("bo"), comment: None },
    };
    assert!(matches!(&apply(&mut run, word(1))[..], [Command::ReviewInstruction { ticket: 1, .. }]));
    assert!(matches!(&apply(&mut run, word(2))[..], [Command::Reply { ticket: 2, answer: Answer::Refused { .. } }]));
    let reviewed = Event::InstructionReviewed { call: call(0), settled: Some(returned(4)), refused: None };
    let commands = apply(&mut run, reviewed);
    assert!(
        commands.iter().any(|c| matches!(c, Command::InvokeModel { append, .. } if *append == [address(4)])),
        "{commands:?}"
    );
}

#[test]
fn halt_wins_over_what_waits_and_waits_for_what_is_under_way() {
    let mut run = acting(2);
    let id = wait(&mut run, 0);
    let halt = Event::HaltRequested(HaltRequest { by: person("op"), comment: None });
    let commands = apply(&mut run, halt);
    assert!(commands.contains(&Command::CancelTimer { request: id }) && commands.contains(&Command::CancelEffects));
    let commands = apply(&mut run, Event::ToolReturned { call: call(1), outcome: returned(3) });
    let [Command::CloseRun(closing), ..] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((closing.reason, &closing.abandoned[..]), (Some(EndReason::Halted), &[call(0)][..]));
}

#[test]
fn cancel_before_the_model_answered_closes_when_it_did() {
    let mut run = acting(1);
    apply(&mut run, Event::ToolReturned { call: call(0), outcome: returned(3) });
    assert_eq!(apply(&mut run, Event::CancelRequested), [Command::CancelEffects]);
    let commands = apply(&mut run, replied(2, 3));
    assert!(is_closing(&commands, EndReason::Cancelled), "{commands:?}");
    assert!(matches!(&apply(&mut run, Event::Closed)[..], [Command::Finish(r)] if r.state == RunState::Cancelled));
}

#[test]
fn each_bound_stops_the_run_by_its_name() {
    let limits =
        RunLimits { turns_max: 1, tool_calls_max: 3, parallel_calls_max: 2, tokens_max: 10, ..RunLimits::default() };
    let check = |limits: RunLimits, calls: u32, reason: EndReason| {
        let (mut run, _) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
        apply(&mut run, opened(limits));
        let mut commands = apply(&mut run, replied(1, calls));
        if calls == 1 {
            commands = apply(&mut run, Event::ToolReturned { call: call(0), outcome: returned(1) });
        }
        assert!(is_closing(&commands, reason), "{reason:?}: {commands:?}");
    };
    check(RunLimits { tokens_max: 1000, ..limits }, 1, EndReason::TurnsExhausted);
    check(RunLimits { tokens_max: 1000, ..limits }, 3, EndReason::ToolCallsExhausted);
    check(limits, 2, EndReason::TokensExhausted);
}

#[test]
fn a_run_that_never_opened_ends_without_a_closing_record() {
    let (mut run, _) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
    let failure = Failure::Refused { kind: "UnknownAgent".into(), detail: "no agent `a/b/c`".into() };
    let commands = apply(&mut run, Event::OpenFailed(failure));
    assert!(
        matches!(&commands[..], [Command::Publish, Command::Finish(r)] if r.reason == Some(EndReason::RefusedStart)),
        "{commands:?}"
    );
}

#[test]
fn a_long_history_continues_as_new_between_turns_and_while_parked() {
    let long = Moment { history_is_long: true, ..NOW };
    let mut run = acting(1);
    let commands = run.apply(Event::ToolReturned { call: call(0), outcome: returned(1) }, long).unwrap();
    assert_eq!(commands, [Command::ContinueAsNew]);
    let mut next: AgentRun = serde_json::from_value(serde_json::to_value(&run).unwrap()).unwrap();
    assert!(matches!(&next.resume(NOW)[..], [Command::InvokeModel { turn: 2, .. }]));

    let mut parked = acting(1);
    let id = wait(&mut parked, 0);
    let junk = Event::MessageRefused { reason: "not JSON".into() };
    assert_eq!(parked.apply(junk, long).unwrap(), [Command::ContinueAsNew]);
    let mut next: AgentRun = serde_json::from_value(serde_json::to_value(&parked).unwrap()).unwrap();
    assert_eq!(next.resume(NOW), [Command::StartTimer { request: id, deadline_ms: 1_060_000 }]);
}

#[test]
fn an_event_that_does_not_fit_changes_nothing() {
    let mut run = acting(1);
    let before = run.clone();
    for event in [Event::Closed, replied(1, 0), Event::ToolReturned { call: call(7), outcome: returned(1) }] {
        assert!(run.apply(event, NOW).is_err());
    }
    assert_eq!(run, before);
}

/// A run in whose first turn the call `submits` is to be the answer.
fn submitting(calls: u32, submits: usize) -> AgentRun {
    let (mut run, _) = AgentRun::start(AgentName::parse("acme/support/refunds").unwrap(), person("ana"));
    apply(&mut run, opened(RunLimits::default()));
    let Event::ModelReplied(mut turn) = replied(1, calls) else { unreachable!("a reply") };
    turn.calls[submits].submits_answer = true;
    apply(&mut run, Event::ModelReplied(turn));
    run
}

#[test]
fn a_submitted_answer_ends_the_run_when_the_turns_other_calls_have_ended() {
    let mut run = submitting(2, 1);
    assert_eq!(apply(&mut run, Event::ToolReturned { call: call(1), outcome: returned(7) }), []);
    let commands = apply(&mut run, Event::ToolReturned { call: call(0), outcome: returned(8) });
    assert!(matches!(&commands[..], [Command::CloseRun(_), Command::Publish]), "{commands:?}");
    assert_eq!((run.result().state, run.result().answer), (RunState::Completed, Some(content(7))));
}

#[test]
fn a_submission_that_is_refused_goes_back_to_the_model() {
    let mut run = submitting(1, 0);
    let outcome = ToolCallOutcome::Returned { result: content(7), is_error: true };
    let commands = apply(&mut run, Event::ToolReturned { call: call(0), outcome });
    assert!(matches!(&commands[..], [Command::InvokeModel { turn: 2, .. }]), "{commands:?}");
}
