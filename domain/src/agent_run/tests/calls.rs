//! Turns and their calls: one result each, in the model's order; what is lost is looked up.

use super::*;

#[test]
fn a_reply_without_calls_is_the_answer() {
    let mut run = acting(1);
    end(&mut run, 0, 5);
    let commands = apply(&mut run, replied(2, 0));
    assert!(
        matches!(&commands[..], [Command::CloseRun(c), Command::Publish] if c.state == RunState::Completed),
        "{commands:?}"
    );
    let commands = apply(&mut run, Event::Closed { performed: vec![] });
    let [Command::Finish(result)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((result.state, result.answer.clone(), result.turns), (RunState::Completed, Some(content(2_002)), 2));
}

#[test]
fn the_model_is_asked_again_when_every_call_has_its_result_in_the_models_order() {
    let mut run = acting(2);
    assert_eq!(end(&mut run, 1, 8), []);
    assert_eq!(end(&mut run, 0, 9), [asks_model(2, 1_001, &[9, 8], &[])]);
}

#[test]
fn a_lost_call_is_looked_up_and_never_taken_as_not_done() {
    let outcomes = [
        (returned(5), None),
        (ToolCallOutcome::OutcomeUnknown { reason: "sent".into() }, Some(RunState::OutcomeUnknown)),
        (ToolCallOutcome::NotPerformed, Some(RunState::Failed)),
    ];
    for (known, state) in outcomes {
        let mut run = acting(1);
        let commands = apply(&mut run, Event::ToolFailed { call: call(0), failure: lost() });
        assert_eq!(commands, [Command::ResolveOutcome { call: call(0) }]);
        let commands = apply(&mut run, Event::OutcomeResolved { call: call(0), outcome: known });
        match state {
            None => assert!(matches!(&commands[..], [Command::InvokeModel { turn: 2, .. }]), "{commands:?}"),
            Some(state) => assert_eq!(run.state(), state),
        }
    }
}

#[test]
fn an_event_that_does_not_fit_changes_nothing() {
    let mut run = acting(1);
    let before = run.clone();
    let events = [
        Event::Closed { performed: vec![] },
        replied(1, 0),
        Event::ToolReturned { call: call(7), outcome: returned(1) },
        Event::ReviewFailed { call: call(0), failure: lost() },
        Event::InstructionReviewed { ticket: 1, review: TAKEN },
        Event::InstructionFailed { ticket: 1, failure: lost() },
        Event::Notified { notice: "r1.asked".parse().unwrap(), failure: None },
    ];
    for event in events {
        let name = event.name();
        assert!(run.apply(event, NOW).is_err(), "{name}");
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
    assert_eq!(end(&mut run, 1, 7), []);
    let commands = end(&mut run, 0, 8);
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

#[test]
fn a_person_who_says_more_makes_a_submitted_answer_a_step_on_the_way() {
    let mut run = submitting(2, 0);
    end(&mut run, 0, 7);
    tell(&mut run, 1, steer(), taken(50));
    assert_eq!(end(&mut run, 1, 8), [asks_model(2, 1_001, &[7, 8], &[50])]);
    assert!(completes(&apply(&mut run, replied(2, 0))));
    assert_eq!(run.result().answer, Some(content(2_002)));
}
