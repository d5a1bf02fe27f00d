//! Undoing what a run did: when, in which order, and what is told of it.

use super::*;
use crate::{
    CompensateOn, Refusal, RefusalKind,
    compensation::{UndoState, UndoneCall},
};

/// A run with calls that can be undone under way in its first turn.
fn undoing(calls: u32, compensate: &[CompensateOn]) -> AgentRun {
    let (mut run, _) = AgentRun::start(AgentName::parse("acme/support/refunds").unwrap(), person("ana"));
    let mut opened = opened(RunLimits::default());
    if let Event::Opened(opened) = &mut opened {
        opened.compensate = compensate.to_vec();
    }
    apply(&mut run, opened);
    let mut reply = replied(1, calls);
    if let Event::ModelReplied(reply) = &mut reply {
        undoable(reply);
    }
    apply(&mut run, reply);
    run
}

fn undo(index: u32) -> ToolCallId {
    call(index).undone_by()
}

fn compensates(index: u32) -> Command {
    Command::Compensate { call: undo(index) }
}

fn undo_returns(run: &mut AgentRun, index: u32, outcome: ToolCallOutcome) -> Vec<Command> {
    apply(run, Event::ToolReturned { call: undo(index), outcome })
}

fn refused(kind: RefusalKind, reason: &str) -> ToolCallOutcome {
    let refusal = Refusal { kind, policies: vec![], reason: reason.into() };
    ToolCallOutcome::Refused { result: content(70), refusal }
}

fn told(run: &AgentRun) -> Vec<(u32, UndoState, String)> {
    let line = |one: UndoneCall| (one.call.index, one.state, one.reason.unwrap_or_default());
    run.result().undone.into_iter().map(line).collect()
}

#[test]
fn what_completed_is_undone_in_reverse_order_and_then_the_run_is_closed() {
    let mut run = undoing(3, &[CompensateOn::Halt]);
    end(&mut run, 1, 3);
    end(&mut run, 0, 4);
    // One that says itself that it failed has nothing to undo.
    let failed = ToolCallOutcome::Returned { result: content(5), is_error: true };
    apply(&mut run, Event::ToolReturned { call: call(2), outcome: failed });
    let commands = apply(&mut run, halt());
    assert!(!commands.contains(&compensates(0)), "the model is still being asked: {commands:?}");
    let commands = apply(&mut run, replied(2, 1));
    assert!(commands.contains(&compensates(0)) && !commands.contains(&compensates(1)), "{commands:?}");
    assert_eq!((run.state(), run.left_to_undo()), (RunState::Running, 1));
    let commands = undo_returns(&mut run, 0, returned(6));
    assert_eq!(commands, [compensates(1)]);
    let commands = undo_returns(&mut run, 1, returned(7));
    assert!(is_closing(&commands, EndReason::Halted), "{commands:?}");
    let done = |index| (index, UndoState::Undone, String::new());
    assert_eq!(told(&run), [done(0), done(1)]);
    let commands = apply(&mut run, Event::Closed { performed: vec![] });
    assert!(matches!(&commands[..], [Command::Finish(result)] if result.undone.len() == 2), "{commands:?}");
}

#[test]
fn an_agent_that_does_not_want_it_for_this_end_or_did_nothing_is_closed_at_once() {
    for wanted in [&[][..], &[CompensateOn::Failure, CompensateOn::Cancel, CompensateOn::Bound]] {
        let mut run = undoing(2, wanted);
        end(&mut run, 0, 3);
        apply(&mut run, halt());
        let commands = end(&mut run, 1, 4);
        assert!(is_closing(&commands, EndReason::Halted) && told(&run).is_empty(), "{wanted:?}: {commands:?}");
    }
    let mut run = undoing(1, &CompensateOn::ALL);
    wait(&mut run, 0);
    assert!(is_closing(&apply(&mut run, halt()), EndReason::Halted), "nothing had completed");
}

#[test]
fn a_run_that_completes_undoes_nothing() {
    let mut run = undoing(1, &CompensateOn::ALL);
    end(&mut run, 0, 3);
    let commands = apply(&mut run, replied(2, 0));
    assert!(completes(&commands) && told(&run).is_empty(), "{commands:?}");
}

#[test]
fn each_kind_of_end_is_one_of_the_words() {
    let check = |wanted: CompensateOn, event: Event| {
        let mut run = undoing(1, &[wanted]);
        end(&mut run, 0, 3);
        let commands = [apply(&mut run, event), apply_if(&mut run, Event::ModelFailed(lost()))].concat();
        assert!(commands.contains(&compensates(0)), "{wanted:?}: {commands:?}");
    };
    check(CompensateOn::Halt, halt());
    check(CompensateOn::Cancel, Event::CancelRequested);
    check(CompensateOn::Failure, Event::ModelFailed(lost()));
    let mut many = replied(2, 1);
    if let Event::ModelReplied(reply) = &mut many {
        reply.usage.input_tokens = u64::MAX / 2;
    }
    check(CompensateOn::Bound, many);
}

/// The same, where the run's state takes it.
fn apply_if(run: &mut AgentRun, event: Event) -> Vec<Command> {
    run.apply(event, NOW).unwrap_or_default()
}

#[test]
fn one_that_is_denied_fails_or_stays_unknown_does_not_keep_the_next_from_being_undone() {
    let mut run = undoing(4, &[CompensateOn::Halt]);
    for index in 0..3 {
        end(&mut run, index, 3);
    }
    apply(&mut run, halt());
    let commands = end(&mut run, 3, 4);
    assert!(commands.contains(&compensates(3)), "{commands:?}");
    assert_eq!(undo_returns(&mut run, 3, refused(RefusalKind::Denied, "no policy permits it")), [compensates(2)]);
    let unknown = ToolCallOutcome::OutcomeUnknown { reason: "no answer".into() };
    assert_eq!(undo_returns(&mut run, 2, unknown), [compensates(1)]);
    let commands = apply(&mut run, Event::ToolFailed { call: undo(1), failure: lost() });
    assert_eq!(commands, [Command::ResolveOutcome { call: undo(1) }]);
    let commands = apply(&mut run, Event::OutcomeResolved { call: undo(1), outcome: ToolCallOutcome::NotPerformed });
    assert_eq!(commands, [compensates(0)]);
    let error = ToolCallOutcome::Returned { result: content(8), is_error: true };
    let commands = undo_returns(&mut run, 0, error);
    let [Command::CloseRun(closing), ..] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((&closing.unknown_outcomes[..], &closing.abandoned[..]), (&[undo(2)][..], &[undo(1)][..]));
    let expected = [
        (3, UndoState::NotUndone, "no policy permits it".to_owned()),
        (2, UndoState::Unknown, "no answer".to_owned()),
        (1, UndoState::NotUndone, "timed out".to_owned()),
        (0, UndoState::NotUndone, content(8).shown().to_owned()),
    ];
    assert_eq!(told(&run), expected);
}

#[test]
fn people_are_asked_about_an_undo_and_a_second_halt_ends_it() {
    let mut run = undoing(3, &[CompensateOn::Halt]);
    tell(&mut run, 1, Instruction::Pause, TAKEN);
    for index in 0..3 {
        end(&mut run, index, 3);
    }
    let commands = apply(&mut run, halt());
    assert!(commands.contains(&compensates(2)) && !run.is_paused(), "a pause is over: {commands:?}");
    let asked = request(undo(2), "cancel.large", 9);
    let outcome = ToolCallOutcome::ApprovalRequired { requests: vec![asked.clone()] };
    undo_returns(&mut run, 2, outcome);
    assert_eq!(run.state(), RunState::AwaitingApproval);
    assert_eq!(continued(&run), run, "it goes on in the next execution");
    let commands = decide(&mut run, 2, &asked.id, undo(2), APPROVED);
    assert!(commands.contains(&calls_tool(undo(2), Some(&asked.id))), "{commands:?}");
    let asked = request(undo(1), "cancel.large", 10);
    assert!(undo_returns(&mut run, 2, returned(5)).contains(&compensates(1)));
    undo_returns(&mut run, 1, ToolCallOutcome::ApprovalRequired { requests: vec![asked.clone()] });
    let steered = apply(&mut run, super::told(3, steer()));
    assert!(is_refused(&steered, 3, "the run is ending"), "{steered:?}");

    assert_eq!(apply(&mut run, halt_once_more(9_999)), [], "two who halted the run want the same");
    let commands = apply(&mut run, halt_once_more(10_000));
    assert!(commands.contains(&Command::CancelTimer { timer: Timer::Deadline(asked.id) }), "{commands:?}");
    assert!(is_closing(&commands, EndReason::Halted), "{commands:?}");
    let closing = commands.iter().find_map(|command| match command {
        Command::CloseRun(closing) => Some(closing),
        _ => None,
    });
    let by = |halt: &Option<HaltRequest>| halt.as_ref().map(|halt| halt.claimed_by().to_owned());
    let closing = closing.unwrap();
    let names = (by(&closing.halted_by), by(&closing.undoing_halted_by));
    assert_eq!(names, (Some("olga@acme.example".to_owned()), Some("otto@acme.example".to_owned())));
    let why = "undoing was stopped: halted by otto@acme.example";
    let stopped = |index| (index, UndoState::NotUndone, why.to_owned());
    assert_eq!(told(&run), [(2, UndoState::Undone, String::new()), stopped(1), stopped(0)]);
}

#[test]
fn a_rejected_undo_is_named_with_what_people_read() {
    let mut run = undoing(1, &[CompensateOn::Cancel]);
    end(&mut run, 0, 3);
    apply(&mut run, Event::CancelRequested);
    apply(&mut run, Event::ModelFailed(Failure::Cancelled));
    let asked = request(undo(0), "cancel.large", 9);
    undo_returns(&mut run, 0, ToolCallOutcome::ApprovalRequired { requests: vec![asked.clone()] });
    let commands = decide(&mut run, 1, &asked.id, undo(0), Review::Rejected { result: content(9) });
    assert!(is_closing(&commands, EndReason::Cancelled), "{commands:?}");
    assert_eq!(told(&run), [(0, UndoState::NotUndone, content(9).shown().to_owned())]);
}
