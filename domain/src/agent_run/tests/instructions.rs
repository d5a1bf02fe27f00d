//! What people tell a run: further instructions, pause and resume, words on lost calls.

use super::*;

fn no(reason: &str) -> InstructionReview {
    InstructionReview::Refused { reason: reason.into() }
}

fn reviews(commands: &[Command], wanted: Ticket) -> bool {
    commands.iter().any(|c| matches!(c, Command::ReviewInstruction { ticket, .. } if *ticket == wanted))
}

fn paused(run: &mut AgentRun) {
    let commands = tell(run, 90, Instruction::Pause, TAKEN);
    assert!(is_accepted(&commands, 90) && !begins(&commands) && run.is_paused(), "{commands:?}");
}

fn resumed(run: &mut AgentRun) -> Vec<Command> {
    let commands = tell(run, 91, Instruction::Resume, TAKEN);
    assert!(is_accepted(&commands, 91) && !run.is_paused(), "{commands:?}");
    commands
}

#[test]
fn instructions_are_delivered_once_and_in_the_order_in_which_they_came() {
    let mut run = acting(1);
    assert!(reviews(&apply(&mut run, told(1, steer())), 1));
    for ticket in 2..=3 {
        assert_eq!(apply(&mut run, told(ticket, steer())), [], "one review after the other");
    }
    for ticket in 1..=2 {
        let review = taken(50 + u64::from(ticket));
        assert!(reviews(&apply(&mut run, Event::InstructionReviewed { ticket, review }), ticket + 1));
    }
    assert_eq!(end(&mut run, 0, 9), [], "the last may still count");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 3, review: taken(53) });
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[51, 52, 53])), "{commands:?}");
    apply(&mut run, replied(2, 1));
    let outcome = returned(10);
    let commands = apply(&mut run, Event::ToolReturned { call: ToolCallId::new(2, 0), outcome });
    assert_eq!(commands, [asks_model(3, 1_002, &[10], &[])], "not again");
}

#[test]
fn an_instruction_that_does_not_count_is_not_delivered() {
    let mut run = acting(1);
    let commands = tell(&mut run, 1, steer(), no("policy does not let `bo` steer"));
    assert!(is_refused(&commands, 1, "policy does not let `bo` steer"), "{commands:?}");
    assert_eq!(run.refusals(), (1, Some("policy does not let `bo` steer")));
    assert_eq!(end(&mut run, 0, 9), [asks_model(2, 1_001, &[9], &[])]);
}

#[test]
fn an_instruction_sent_before_the_run_is_open_is_reviewed_when_it_is() {
    let (mut run, _) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
    assert_eq!(apply(&mut run, told(1, steer())), []);
    let commands = apply(&mut run, opened(RunLimits::default()));
    assert!(reviews(&commands, 1) && !begins(&commands), "{commands:?}");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: taken(51) });
    assert!(commands.contains(&asks_model(1, 0, &[], &[51])), "{commands:?}");
}

#[test]
fn a_steer_behind_the_final_answer_gives_one_more_turn() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    apply(&mut run, told(1, steer()));
    assert_eq!(apply(&mut run, replied(2, 0)), [], "the answer is not final while one waits");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: taken(51) });
    assert!(commands.contains(&asks_model(3, 1_002, &[], &[51])), "{commands:?}");
    assert!(completes(&apply(&mut run, replied(3, 0))));
    assert_eq!((run.result().answer, run.result().turns), (Some(content(2_003)), 3));
}

#[test]
fn a_steer_that_does_not_count_leaves_the_final_answer_final() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    apply(&mut run, told(1, steer()));
    apply(&mut run, replied(2, 0));
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: no("not allowed") });
    assert!(completes(&commands) && run.result().answer == Some(content(2_002)), "{commands:?}");
}

#[test]
fn an_instruction_that_was_read_before_the_reply_does_not_hold_the_final_answer() {
    let mut run = acting(1);
    tell(&mut run, 1, steer(), taken(51));
    assert_eq!(end(&mut run, 0, 9), [asks_model(2, 1_001, &[9], &[51])]);
    assert!(completes(&apply(&mut run, replied(2, 0))));
}

#[test]
fn an_instruction_taken_while_the_model_is_asked_waits_for_its_next_turn() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    let commands = tell(&mut run, 1, steer(), taken(51));
    assert!(is_accepted(&commands, 1) && !begins(&commands), "{commands:?}");
    let commands = apply(&mut run, replied(2, 0));
    assert_eq!(commands, [asks_model(3, 1_002, &[], &[51])]);
}

#[test]
fn too_many_instructions_are_refused() {
    let mut run = acting(1);
    for ticket in 1..=16 {
        assert!(is_accepted(&tell(&mut run, ticket, steer(), taken(u64::from(ticket))), ticket));
    }
    let commands = apply(&mut run, told(17, steer()));
    assert!(is_refused(&commands, 17, "too many instructions wait for the agent's next turn"), "{commands:?}");
    let refused = (20..100).filter(|ticket| !apply(&mut run, told(*ticket, Instruction::Pause)).is_empty()).count();
    assert_eq!(refused, 80 - 32, "one is under review, 32 wait, and the first of them was answered by a command");
}

#[test]
fn a_pause_holds_the_calls_of_the_reply_under_way_and_resume_begins_each_once() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    paused(&mut run);
    let commands = apply(&mut run, replied(2, 2));
    assert!(!begins(&commands) && run.state() == RunState::Paused, "{commands:?}");
    let (first, second) = (ToolCallId::new(2, 0), ToolCallId::new(2, 1));
    let begun: Vec<_> = resumed(&mut run).into_iter().filter(|c| matches!(c, Command::CallTool { .. })).collect();
    assert_eq!(begun, [calls_tool(first, None), calls_tool(second, None)]);
    paused(&mut run);
    assert!(!begins(&resumed(&mut run)), "they are under way");
}

#[test]
fn a_pause_holds_what_people_release_until_it_is_over() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    paused(&mut run);
    let commands = decide(&mut run, 1, &id, call(0), APPROVED);
    assert!(is_accepted(&commands, 1) && !begins(&commands), "{commands:?}");
    assert_eq!(run.calls()[0].state, CallState::Held { released_by: Some(id.clone()) });
    assert!(resumed(&mut run).contains(&calls_tool(call(0), Some(&id))));
}

#[test]
fn a_pause_holds_a_revision_too() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    paused(&mut run);
    let revision = call(0).revised();
    assert!(!begins(&decide(&mut run, 1, &id, call(0), Review::Revised { call: revision })));
    assert!(resumed(&mut run).contains(&calls_tool(revision, Some(&id))));
}

#[test]
fn a_pause_holds_the_next_turn_and_lets_what_is_under_way_end() {
    let mut run = acting(1);
    paused(&mut run);
    assert_eq!(end(&mut run, 0, 9), []);
    assert_eq!(run.state(), RunState::Paused);
    assert!(resumed(&mut run).contains(&asks_model(2, 1_001, &[9], &[])));
}

#[test]
fn a_final_answer_waits_while_the_run_is_paused_and_a_steer_gives_one_more_turn() {
    for steered in [false, true] {
        let mut run = acting(1);
        end(&mut run, 0, 9);
        paused(&mut run);
        assert_eq!(apply(&mut run, replied(2, 0)), []);
        assert_eq!(run.state(), RunState::Paused);
        if steered {
            assert!(!begins(&tell(&mut run, 1, steer(), taken(51))));
        }
        let commands = resumed(&mut run);
        assert_eq!(commands.contains(&asks_model(3, 1_002, &[], &[51])), steered, "{commands:?}");
        assert_eq!(completes(&commands), !steered, "{commands:?}");
    }
}

#[test]
fn a_paused_run_can_be_halted_and_nothing_that_was_held_begins() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    paused(&mut run);
    apply(&mut run, replied(2, 1));
    let commands = apply(&mut run, halt());
    assert!(is_closing(&commands, EndReason::Halted) && !begins(&commands), "{commands:?}");
    assert_eq!(run.result().not_performed, [ToolCallId::new(2, 0)]);
}

#[test]
fn questions_are_answered_and_requests_expire_while_a_run_is_paused() {
    let mut run = acting(2);
    let (id, question) = (wait(&mut run, 0), ask_people(&mut run, 1));
    paused(&mut run);
    let settled = InstructionReview::Settled { outcome: returned(8), note: None };
    tell(&mut run, 1, Instruction::Answer { question: question.id, text: "yes".into() }, settled);
    apply(&mut run, Event::TimerFired { timer: Timer::Deadline(id) });
    let review = Review::Expired { result: content(7) };
    assert!(!begins(&apply(&mut run, Event::ApprovalReviewed { call: call(0), review })));
    assert!(resumed(&mut run).contains(&asks_model(2, 1_001, &[7, 8], &[])));
}

#[test]
fn resume_without_pause_is_refused_and_so_is_a_second_pause() {
    let mut run = acting(1);
    assert!(is_refused(&apply(&mut run, told(1, Instruction::Resume)), 1, "the run is not paused"));
    paused(&mut run);
    assert!(is_refused(&apply(&mut run, told(2, Instruction::Pause)), 2, "the run is paused already"));
    assert_eq!(run.refused_messages().0, 2);
}

#[test]
fn a_pause_and_the_resume_behind_it_are_taken_in_that_order() {
    let mut run = acting(1);
    apply(&mut run, told(1, Instruction::Pause));
    assert_eq!(apply(&mut run, told(2, Instruction::Resume)), []);
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: TAKEN });
    assert!(run.is_paused() && reviews(&commands, 2), "{commands:?}");
    apply(&mut run, Event::InstructionReviewed { ticket: 2, review: TAKEN });
    assert!(!run.is_paused());
}

#[test]
fn a_pause_that_does_not_count_keeps_nobody_from_pausing() {
    let mut run = acting(1);
    apply(&mut run, told(1, Instruction::Pause));
    assert_eq!(apply(&mut run, told(2, Instruction::Pause)), []);
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: no("not proved") });
    assert!(!run.is_paused() && reviews(&commands, 2), "{commands:?}");
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 2, review: TAKEN });
    assert!(run.is_paused() && is_accepted(&commands, 2), "{commands:?}");
}

#[test]
fn a_person_resolves_an_unknown_outcome_once() {
    let mut run = acting(1);
    let outcome = ToolCallOutcome::OutcomeUnknown { reason: "sent".into() };
    apply(&mut run, Event::ToolReturned { call: call(0), outcome });
    let word = Instruction::Resolve { call: call(0), resolution: Resolution::Happened };
    assert!(reviews(&apply(&mut run, told(1, word.clone())), 1));
    let commands = apply(&mut run, told(2, word));
    assert!(is_refused(&commands, 2, "does not wait for a person's word on its outcome"), "{commands:?}");
    let note = Some("the outcome had come in meanwhile".to_owned());
    let settled = InstructionReview::Settled { outcome: returned(4), note };
    let commands = apply(&mut run, Event::InstructionReviewed { ticket: 1, review: settled });
    let told = Answer::Accepted { detail: "the outcome had come in meanwhile".into() };
    assert_eq!(answer_to(&commands, 1), Some(&told));
    assert!(commands.contains(&asks_model(2, 1_001, &[4], &[])), "{commands:?}");
}

#[test]
fn a_review_that_does_not_fit_its_instruction_changes_nothing() {
    let settled = || InstructionReview::Settled { outcome: returned(4), note: None };
    for (instruction, review) in [(steer(), settled()), (Instruction::Pause, settled())] {
        let mut run = acting(1);
        let commands = tell(&mut run, 1, instruction, review);
        assert!(is_refused(&commands, 1, "the review does not fit the instruction"), "{commands:?}");
        assert!(!run.is_paused());
        assert_eq!(end(&mut run, 0, 9), [asks_model(2, 1_001, &[9], &[])]);
    }
}

#[test]
fn a_review_that_is_lost_stops_the_run_and_every_sender_is_told() {
    let mut run = acting(1);
    end(&mut run, 0, 9);
    apply(&mut run, told(1, steer()));
    apply(&mut run, told(2, Instruction::Pause));
    let commands = apply(&mut run, Event::InstructionFailed { ticket: 1, failure: lost() });
    assert!(is_refused(&commands, 1, "could not be recorded") && is_refused(&commands, 2, "the run is ending"));
    assert!(is_closing(&apply(&mut run, replied(2, 0)), EndReason::Unavailable));
}

fn told_as(ticket: Ticket, message_id: &str, instruction: Instruction) -> Event {
    let arrival = arrival(instruction.kind().as_str(), ticket);
    let sender = Sender { message_id: Some(message_id.to_owned()), ..Sender::default() };
    Event::InstructionReceived { ticket, sent: SentInstruction { instruction, sender }, arrival }
}

fn kept(run: &AgentRun) -> Vec<(&str, &Answer)> {
    run.answers().map(|kept| (kept.message_id.as_str(), &kept.answer)).collect()
}

#[test]
fn what_came_of_a_message_is_kept_under_the_id_that_its_sender_chose() {
    let mut run = acting(1);
    tell(&mut run, 1, steer(), TAKEN);
    assert_eq!(kept(&run), [], "nobody can ask for it");
    apply(&mut run, told_as(2, "m2", Instruction::Pause));
    assert_eq!(kept(&run), [], "it is being reviewed");
    apply(&mut run, Event::InstructionReviewed { ticket: 2, review: TAKEN });
    apply(&mut run, told_as(3, "m3", Instruction::Pause));
    let run = continued(&run);
    let refused = Answer::Refused { reason: "the run is paused already".into() };
    assert!(matches!(kept(&run)[..], [("m2", Answer::Accepted { .. }), ("m3", answer)] if *answer == refused));
}

#[test]
fn only_the_last_answers_are_kept_and_the_end_of_the_run_is_one() {
    let mut run = acting(1);
    for ticket in 10..40 {
        apply(&mut run, told_as(ticket, &format!("m{ticket}"), Instruction::Resume));
    }
    assert_eq!((kept(&run).len(), kept(&run)[0].0), (16, "m24"));
    apply(&mut run, told_as(50, "m50", Instruction::Pause));
    apply(&mut run, told_as(51, "m51", steer()));
    apply(&mut run, halt());
    let ending = Answer::Refused { reason: "the run is ending".into() };
    assert_eq!(kept(&run).last(), Some(&("m51", &ending)));
}

#[test]
fn a_message_whose_review_is_lost_and_one_that_is_reviewed_too_late_keep_their_answers() {
    let mut run = acting(1);
    apply(&mut run, told_as(1, "m1", steer()));
    apply(&mut run, halt());
    apply(&mut run, Event::InstructionReviewed { ticket: 1, review: taken(51) });
    assert_eq!(kept(&run), [("m1", &Answer::Refused { reason: "the run is ending".into() })]);

    let mut run = acting(1);
    apply(&mut run, told_as(1, "m1", steer()));
    apply(&mut run, told_as(2, "m2", steer()));
    apply(&mut run, Event::InstructionFailed { ticket: 1, failure: lost() });
    let said: Vec<_> = kept(&run).into_iter().map(|(id, answer)| format!("{id} {answer:?}")).collect();
    assert!(said[0].starts_with("m1") && said[0].contains("could not be recorded"), "{said:?}");
    assert!(said[1].starts_with("m2") && said[1].contains("the run is ending"), "{said:?}");
}
