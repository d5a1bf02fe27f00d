//! Questions of the agent: a call that waits for a person's words.

use super::*;
use crate::{Refusal, RefusalKind};

fn answer(id: &QuestionId) -> Instruction {
    Instruction::Answer { question: id.clone(), text: "yes".into() }
}

fn settled(n: u64) -> InstructionReview {
    InstructionReview::Settled { outcome: returned(n), note: None }
}

fn expired(n: u64) -> InstructionReview {
    let refusal = Refusal { kind: RefusalKind::Expired, policies: vec![], reason: "nobody answered".into() };
    let outcome = ToolCallOutcome::Refused { result: content(n), refusal };
    InstructionReview::Settled { outcome, note: None }
}

fn overdue(question: &Question) -> Event {
    Event::TimerFired { timer: Timer::Question(question.id.clone()) }
}

#[test]
fn a_question_waits_for_its_answer_which_the_model_reads() {
    let mut run = acting(1);
    let question = ask_people(&mut run, 0);
    assert_eq!((run.state(), run.waiting_questions().count()), (RunState::AwaitingAnswer, 1));
    let commands = tell(&mut run, 1, answer(&question.id), settled(9));
    assert!(is_accepted(&commands, 1), "{commands:?}");
    assert!(commands.contains(&Command::CancelTimer { timer: Timer::Question(question.id) }), "{commands:?}");
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
    assert_eq!(run.waiting_questions().count(), 0);
}

#[test]
fn what_a_server_asks_for_is_answered_and_its_call_is_made_again() {
    let mut run = acting(1);
    let question = ask_people(&mut run, 0);
    let commands = tell(&mut run, 1, answer(&question.id), InstructionReview::GoesOn);
    assert!(is_accepted(&commands, 1), "{commands:?}");
    let again = Command::CallTool { call: call(0), released_by: None };
    assert!(commands.contains(&again), "{commands:?}");
    assert!(commands.contains(&Command::CancelTimer { timer: Timer::Question(question.id) }), "{commands:?}");
    assert_eq!((run.state(), run.waiting_questions().count()), (RunState::Running, 0));
    let asked_again = ask_people(&mut run, 0);
    let commands = tell(&mut run, 2, answer(&asked_again.id), settled(9));
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
}

#[test]
fn what_a_server_asks_for_is_answered_in_a_paused_run_which_calls_when_it_is_resumed() {
    let mut run = acting(1);
    let question = ask_people(&mut run, 0);
    tell(&mut run, 1, Instruction::Pause, TAKEN);
    let commands = tell(&mut run, 2, answer(&question.id), InstructionReview::GoesOn);
    assert!(!commands.iter().any(|c| matches!(c, Command::CallTool { .. })), "{commands:?}");
    let commands = tell(&mut run, 3, Instruction::Resume, TAKEN);
    assert!(commands.contains(&Command::CallTool { call: call(0), released_by: None }), "{commands:?}");
}

#[test]
fn a_question_and_a_request_of_one_turn_wait_beside_each_other() {
    let mut run = acting(2);
    let (question, id) = (ask_people(&mut run, 0), wait(&mut run, 1));
    assert_eq!(run.state(), RunState::AwaitingApproval);
    assert!(decide(&mut run, 1, &id, call(1), Review::Rejected { result: content(8) }).contains(&Command::Publish));
    assert_eq!(run.state(), RunState::AwaitingAnswer);
    let commands = tell(&mut run, 2, answer(&question.id), settled(9));
    assert!(commands.contains(&asks_model(2, 1_001, &[9, 8], &[])), "{commands:?}");
}

#[test]
fn a_second_answer_is_told_that_the_question_is_answered() {
    let mut run = acting(2);
    let question = ask_people(&mut run, 0);
    tell(&mut run, 1, answer(&question.id), settled(9));
    let commands = apply(&mut run, told(2, answer(&question.id)));
    assert_eq!(commands, [Command::Reply { ticket: 2, answer: Answer::AlreadyDecided }]);
    assert_eq!(run.refused_messages().0, 1);
}

#[test]
fn two_answers_at_once_are_reviewed_one_after_the_other_and_the_first_counts() {
    let mut run = acting(2);
    let question = ask_people(&mut run, 0);
    apply(&mut run, told(1, answer(&question.id)));
    assert_eq!(apply(&mut run, told(2, answer(&question.id))), []);
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: settled(9) });
    assert!(commands.iter().any(|c| matches!(c, Command::ReviewInstruction { ticket: 2, .. })), "{commands:?}");
    let refused = InstructionReview::Refused { reason: "answered before".into() };
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 2, review: refused });
    assert!(is_refused(&commands, 2, "answered before"), "{commands:?}");
    assert_eq!(run.calls()[0].result(), Some(address(9)));
}

#[test]
fn an_answer_to_no_question_is_refused_and_counted() {
    let mut run = acting(1);
    let unknown = QuestionId::parse("q9-abcdef").unwrap();
    let commands = apply(&mut run, told(1, answer(&unknown)));
    assert!(is_refused(&commands, 1, "no question `q9-abcdef` waits in this run"), "{commands:?}");
    assert_eq!(run.refused_messages().0, 1);
}

#[test]
fn a_question_whose_time_is_over_ends_its_call_once_that_is_recorded() {
    let mut run = acting(1);
    let question = ask_people(&mut run, 0);
    let commands = apply(&mut run, overdue(&question));
    let [Command::ReviewInstruction { ticket, subject: Word::Expiry { .. } }] = commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(apply(&mut run, overdue(&question)), [], "once");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket, review: expired(9) });
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
    let late = apply(&mut run, told(7, answer(&question.id)));
    assert_eq!(late, [Command::Reply { ticket: 7, answer: Answer::AlreadyDecided }]);
}

#[test]
fn an_answer_and_the_deadline_in_one_moment_are_taken_in_that_order() {
    for (counts, result) in [(true, 9), (false, 8)] {
        let mut run = acting(1);
        let question = ask_people(&mut run, 0);
        apply(&mut run, told(1, answer(&question.id)));
        assert_eq!(apply(&mut run, overdue(&question)), [], "the review goes first");
        let review = if counts { settled(9) } else { InstructionReview::Refused { reason: "not allowed".into() } };
        let mut commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review });
        let expiry = commands.iter().find_map(|c| match c {
            Command::ReviewInstruction { ticket, subject: Word::Expiry { .. } } => Some(*ticket),
            _ => None,
        });
        assert_eq!(expiry.is_some(), !counts, "nothing expires that was answered: {commands:?}");
        if let Some(ticket) = expiry {
            commands = apply(&mut run, Event::InstructionReviewed { ticket, review: expired(8) });
        }
        assert!(commands.contains(&asks_model(2, 1_001, &[result], &[])), "{commands:?}");
    }
}

#[test]
fn a_question_that_the_store_does_not_know_leaves_its_outcome_to_a_person() {
    let mut run = acting(1);
    let question = ask_people(&mut run, 0);
    let commands = apply(&mut run, overdue(&question));
    let [Command::ReviewInstruction { ticket, .. }] = commands[..] else { panic!("{commands:?}") };
    let review = InstructionReview::Refused { reason: "no such question".into() };
    apply(&mut run, Event::InstructionReviewed { ticket, review });
    assert_eq!(run.state(), RunState::OutcomeUnknown);
    let word = Instruction::Resolve { call: call(0), resolution: Resolution::Skip };
    assert!(begins(&tell(&mut run, 7, word, settled(4))));
}

#[test]
fn a_question_of_a_run_that_stops_is_not_asked_any_more() {
    let mut run = acting(2);
    let question = ask_people(&mut run, 0);
    apply(&mut run, Event::CancelRequested);
    let other = ToolCallOutcome::AnswerRequired { question: self::question(call(1), 2) };
    let commands = apply(&mut run, Event::ToolReturned { call: call(1), outcome: other });
    let [Command::CloseRun(closing), ..] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(closing.abandoned, [call(0), call(1)]);
    assert_eq!(apply(&mut run, overdue(&question)), []);
    assert!(is_refused(&apply(&mut run, told(1, answer(&question.id))), 1, "the run is ending"));
}
