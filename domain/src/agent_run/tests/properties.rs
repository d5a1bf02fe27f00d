//! Properties over random event sequences. The promises themselves are assertions of [`World`]: exactly one result per
//! call, no call without its approvals, none twice, none while the run is paused, a lost activity never "did not
//! happen", one answer a message, each instruction delivered once and in order, each notice told once, nothing left
//! behind at the end, the closing record names what nobody knows, and what completed is undone in reverse order where that
//! is wanted.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::{
    world::{Choices, Settings, World},
    *,
};

/// A world as drawn: with a webhook in half of the cases, which answers in half of these; with workers that are lost
/// often, seldom or never.
fn drawn(choices: &mut Choices) -> World {
    let kind = choices.pick(4);
    let (notifies, silent) = (matches!(kind, Some(0 | 1)), kind == Some(1));
    let losses = match choices.pick(4) {
        Some(0) => Some(6),
        Some(1) => Some(40),
        Some(_) | None => None,
    };
    let compensates = choices.one_in(2);
    World::start(Settings { notifies, silent, gated_calls: None, losses, compensates })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_over_random_event_sequences(choices in vec(any::<u16>(), 0..400)) {
        let mut choices = Choices::new(choices);
        let mut world = drawn(&mut choices);
        while world.finished.is_none() && world.step(&mut choices) {}
        prop_assert_eq!(&continued(&world.run), &world.run, "a snapshot says everything");
        world.finish();
        prop_assert!(world.performed_at_most_once());
        prop_assert!(world.finished.is_some(), "a halted run ends: {:#?}", world.run);
        prop_assert!(world.replays());
        prop_assert!(terminal_states_are_final(&mut world.run));
    }
}

/// Whatever comes after the end changes nothing and asks for nothing but a refusal.
fn terminal_states_are_final(run: &mut AgentRun) -> bool {
    let result = run.result();
    let events = [
        opened(RunLimits::default()),
        replied(1, 2),
        Event::CancelRequested,
        halt(),
        Event::TimerFired { timer: Timer::Deadline(RequestId::parse("r1-abcdef").unwrap()) },
        Event::TimerFired { timer: Timer::Question(QuestionId::parse("q1-abcdef").unwrap()) },
        Event::InstructionReviewed { ticket: 1, review: TAKEN },
        Event::Closed { performed: vec![] },
        Event::CloseFailed(Failure::Cancelled),
        Event::OpenFailed(Failure::Cancelled),
        Event::ModelFailed(Failure::Cancelled),
    ];
    for event in events {
        if let Ok(commands) = run.apply(event, NOW)
            && !commands.is_empty()
        {
            return false;
        }
    }
    let commands = apply(run, told(1, Instruction::Pause));
    let refused = is_refused(&commands, 1, "the run is ending") && commands.len() == 1;
    refused && run.is_finished() && run.result() == result
}

#[test]
fn the_world_hands_out_every_event_and_every_answer() {
    let mut seen = BTreeSet::new();
    for seed in 0..1_000 {
        let mut choices = Choices::seeded(seed, 400);
        let mut world = drawn(&mut choices);
        while world.finished.is_none() && world.step(&mut choices) {}
        world.finish();
        if world.executions > 1 {
            seen.insert("continues as new".to_owned());
        }
        seen.append(&mut world.seen);
    }
    let expected = [
        "Opened",
        "OpenFailed",
        "ModelReplied",
        "ModelRefused",
        "ModelFailed",
        "ToolReturned",
        "ToolFailed",
        "OutcomeResolved",
        "ResolveFailed",
        "DecisionReceived",
        "ApprovalReviewed",
        "ReviewFailed",
        "InstructionReceived",
        "InstructionReviewed",
        "InstructionFailed",
        "TimerFired",
        "Notified",
        "MessageRefused",
        "HaltRequested",
        "CancelRequested",
        "Closed",
        "CloseFailed",
        "Review::Counted, enough",
        "Review::Counted, not enough",
        "Review::Rejected",
        "Review::Revised",
        "Review::Expired",
        "Review::Escalated",
        "Review::Refused",
        "Review::AlreadyDecided",
        "InstructionReview::Settled",
        "InstructionReview::GoesOn",
        "InstructionReview::Taken",
        "InstructionReview::Refused",
        "Timer::Deadline",
        "Timer::Reminder",
        "Timer::Escalation",
        "Timer::Question",
        "Timer::Notices",
        "a held call begins",
        "an undo begins",
        "a notice is cancelled",
        "an expiry stops the run",
        "continues as new",
    ];
    let missing: Vec<_> = expected.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}");
}
