//! How runs end: by a person, by a bound, by a failure, before they began.

use super::*;

#[test]
fn halt_wins_over_what_waits_and_waits_for_what_is_under_way() {
    let mut run = acting(2);
    let id = wait(&mut run, 0);
    let commands = apply(&mut run, halt());
    let cancelled = Command::CancelTimer { timer: Timer::Deadline(id) };
    assert!(commands.contains(&cancelled) && commands.contains(&Command::CancelEffects), "{commands:?}");
    let commands = end(&mut run, 1, 3);
    let [Command::CloseRun(closing), ..] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((closing.reason, &closing.abandoned[..]), (Some(EndReason::Halted), &[call(0)][..]));
    let halted_by = closing.halted_by.as_ref().unwrap();
    assert_eq!((halted_by.claimed_by(), &halted_by.arrival), ("olga@acme.example", &Some(arrival("halt", 1))));
    assert_eq!(run.result().detail.as_deref(), Some("halted by olga@acme.example"));
}

#[test]
fn cancel_before_the_model_answered_closes_when_it_did() {
    let mut run = acting(1);
    end(&mut run, 0, 3);
    assert_eq!(apply(&mut run, Event::CancelRequested), [Command::CancelEffects]);
    let commands = apply(&mut run, replied(2, 3));
    assert!(is_closing(&commands, EndReason::Cancelled), "{commands:?}");
    let commands = apply(&mut run, Event::Closed { performed: vec![] });
    assert!(matches!(&commands[..], [Command::Finish(r)] if r.state == RunState::Cancelled), "{commands:?}");
}

#[test]
fn a_run_that_did_not_complete_names_what_it_changed() {
    let performed = vec![PerformedCall { call: call(0), tool: "payments.refund".into() }];
    let mut run = acting(2);
    end(&mut run, 0, 3);
    let asked = wait(&mut run, 1);
    apply(&mut run, halt());
    let commands = apply(&mut run, Event::Closed { performed: performed.clone() });
    let [Command::Finish(result)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((&result.performed, &result.not_performed[..]), (&performed, &[call(1)][..]), "{asked}");

    let mut run = acting(1);
    end(&mut run, 0, 3);
    apply(&mut run, replied(2, 0));
    let commands = apply(&mut run, Event::Closed { performed });
    assert!(matches!(&commands[..], [Command::Finish(result)] if result.performed.is_empty()), "{commands:?}");
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
            commands = end(&mut run, 0, 1);
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
    assert_eq!(apply(&mut run, told(1, steer())), []);
    let failure = Failure::Refused { kind: "UnknownAgent".into(), detail: "no agent `a/b/c`".into() };
    let commands = apply(&mut run, Event::OpenFailed(failure));
    assert!(is_refused(&commands, 1, "the run is ending"), "{commands:?}");
    assert!(
        matches!(&commands[1..], [Command::Publish, Command::Finish(r)] if r.reason == Some(EndReason::RefusedStart)),
        "{commands:?}"
    );
}

#[test]
fn a_run_without_its_closing_record_has_not_completed() {
    let mut run = acting(1);
    end(&mut run, 0, 3);
    apply(&mut run, replied(2, 0));
    let commands = apply(&mut run, Event::CloseFailed(lost()));
    let finished = commands.iter().any(|c| matches!(c, Command::Finish(result) if result.state == RunState::Failed));
    assert!(finished && run.result().reason == Some(EndReason::Unavailable), "{commands:?}");
}

#[test]
fn whatever_still_waits_when_a_run_ends_is_answered_and_its_timers_are_cancelled() {
    let mut run = acting(3);
    let (id, question) = (wait(&mut run, 0), ask_people(&mut run, 1));
    for ticket in 1..=3 {
        apply(&mut run, decided(ticket, &id, Verdict::Approve));
    }
    apply(&mut run, told(4, steer()));
    apply(&mut run, told(5, Instruction::Pause));
    let commands = apply(&mut run, halt());
    for ticket in [2, 3, 5] {
        assert!(is_refused(&commands, ticket, "the run is ending"), "{ticket}: {commands:?}");
    }
    for timer in [Timer::Deadline(id), Timer::Question(question.id)] {
        assert!(commands.contains(&Command::CancelTimer { timer: timer.clone() }), "{timer}: {commands:?}");
    }
    // The reviews under way come back on their own, and nothing follows from them.
    let commands = apply(&mut run, Event::ApprovalReviewed { call: call(0), review: APPROVED });
    assert!(is_accepted(&commands, 1) && !begins(&commands), "{commands:?}");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 4, review: taken(50) });
    assert!(is_refused(&commands, 4, "the run is ending") && !begins(&commands), "{commands:?}");
    let commands = end(&mut run, 2, 3);
    let [Command::CloseRun(closing), ..] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(closing.abandoned, [call(0), call(1)]);
}

#[test]
fn what_a_stop_keeps_from_its_review_is_counted_and_its_sender_is_told() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Approve));
    apply(&mut run, told(2, steer()));
    assert!(apply(&mut run, halt()).contains(&Command::CancelEffects));
    let words = "could not be recorded and does not count";
    let commands = apply(&mut run, Event::ReviewFailed { call: call(0), failure: Failure::Cancelled });
    assert!(is_refused(&commands, 1, words), "{commands:?}");
    let commands = apply(&mut run, Event::InstructionFailed { ticket: 2, failure: Failure::Cancelled });
    assert!(is_refused(&commands, 2, words) && is_closing(&commands, EndReason::Halted), "{commands:?}");
    let (count, reason) = run.refused_messages();
    assert!(count == 2 && reason.is_some_and(|reason| reason.contains(words)), "{reason:?}");
}
