//! Requests that wait for people: decisions in any order, deadlines, reminders, escalation, edits.

use super::*;

fn reviews_decision(commands: &[Command], wanted: Ticket) -> bool {
    commands.iter().any(
        |c| matches!(c, Command::ReviewApproval { subject: Subject::Decision { ticket, .. }, .. } if *ticket == wanted),
    )
}

fn reviews_expiry(commands: &[Command]) -> bool {
    commands.iter().any(|c| matches!(c, Command::ReviewApproval { subject: Subject::Expiry { .. }, .. }))
}

fn reviews_escalation(commands: &[Command]) -> bool {
    commands.iter().any(|c| matches!(c, Command::ReviewApproval { subject: Subject::Escalation { .. }, .. }))
}

fn fired(timer: Timer) -> Event {
    Event::TimerFired { timer }
}

fn reviewed(review: Review) -> Event {
    Event::ApprovalReviewed { call: call(0), review }
}

fn refused() -> Review {
    Review::Refused { reason: "not an approver".into() }
}

fn expired(n: u64) -> Review {
    Review::Expired { result: content(n) }
}

#[test]
fn two_calls_of_one_tool_wait_and_are_decided_in_any_order() {
    let mut run = acting(2);
    let (first, second) = (wait(&mut run, 0), wait(&mut run, 1));
    assert_eq!(run.state(), RunState::AwaitingApproval);
    for (index, id) in [(1, second), (0, first)] {
        let commands = apply(&mut run, decided(index, &id, Verdict::Approve));
        assert!(
            matches!(&commands[..], [Command::ReviewApproval { call: c, .. }] if *c == call(index)),
            "{commands:?}"
        );
        let commands = apply(&mut run, Event::ApprovalReviewed { call: call(index), review: APPROVED });
        assert!(commands.contains(&calls_tool(call(index), Some(&id))), "{commands:?}");
    }
}

/// The numbers below `n` in an order that the seed decides.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut choices = world::Choices::seeded(seed, n);
    let mut left: Vec<_> = (0..n).collect();
    (0..n).map(|_| left.remove(choices.pick(left.len()).unwrap_or_default())).collect()
}

#[test]
fn five_calls_of_one_turn_wait_at_once_and_are_decided_in_any_order_each_exactly_once() {
    for seed in 0..50 {
        let mut run = acting(5);
        let ids: Vec<_> = (0..5).map(|index| wait(&mut run, index)).collect();
        assert_eq!(run.waiting_requests().count(), 5);
        let mut released = vec![];
        for (ticket, index) in (1..).zip(shuffled(5, seed)) {
            let (id, at) = (&ids[index], u32::try_from(index).unwrap());
            // Every second one is rejected, and ends at once.
            if ticket % 2 == 0 {
                let review = Review::Rejected { result: content(100 + u64::from(at)) };
                apply(&mut run, decided(ticket, id, Verdict::Reject));
                assert!(!begins(&apply(&mut run, Event::ApprovalReviewed { call: call(at), review })), "seed {seed}");
            } else {
                let commands = decide(&mut run, ticket, id, call(at), APPROVED);
                assert!(commands.contains(&calls_tool(call(at), Some(id))), "seed {seed}: {commands:?}");
                released.push(at);
            }
            let again = apply(&mut run, decided(100 + ticket, id, Verdict::Approve));
            assert!(reviews_decision(&again, 100 + ticket), "seed {seed}: {again:?}");
            let review = Review::AlreadyDecided;
            let commands = apply(&mut run, Event::ApprovalReviewed { call: call(at), review });
            assert_eq!(answer_to(&commands, 100 + ticket), Some(&Answer::AlreadyDecided), "seed {seed}");
            assert!(!begins(&commands), "seed {seed}: {commands:?}");
        }
        let mut last = vec![];
        for index in &released {
            last = end(&mut run, *index, 100 + u64::from(*index));
        }
        assert_eq!(last, [asks_model(2, 1_001, &[100, 101, 102, 103, 104], &[])], "seed {seed}");
    }
}

#[test]
fn a_call_with_two_gates_waits_for_both() {
    let mut run = acting(1);
    let asked = [request(call(0), "a", 1), request(call(0), "b", 2)];
    ask(&mut run, &asked);
    let mut released = vec![];
    for one in &asked {
        released.push(begins(&decide(&mut run, 1, &one.id, call(0), APPROVED)));
    }
    assert_eq!(released, [false, true]);
}

#[test]
fn an_approval_that_is_not_enough_is_counted_and_the_call_waits_on() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let commands = decide(&mut run, 1, &id, call(0), Review::Counted { votes: 1, quorum_reached: false });
    assert!(is_accepted(&commands, 1) && !begins(&commands), "{commands:?}");
    assert_eq!(run.waiting_requests().map(|waiting| waiting.votes).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_decision_and_its_deadline_in_one_moment_are_reviewed_in_that_order() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let moment = Moment { now_ms: DEADLINE_MS, ..NOW };
    let commands = run.apply(decided(1, &id, Verdict::Approve), moment).unwrap();
    assert!(reviews_decision(&commands, 1), "{commands:?}");
    assert_eq!(run.apply(fired(Timer::Deadline(id.clone())), moment).unwrap(), [], "the expiry waits");
    // The decision does not count, and only then does the request expire.
    let commands = apply(&mut run, reviewed(refused()));
    assert!(is_refused(&commands, 1, "not an approver") && reviews_expiry(&commands), "{commands:?}");
    let commands = apply(&mut run, reviewed(expired(9)));
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
}

#[test]
fn a_decision_that_counts_leaves_its_deadline_nothing_to_expire() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Approve));
    assert_eq!(apply(&mut run, fired(Timer::Deadline(id.clone()))), []);
    let commands = apply(&mut run, reviewed(APPROVED));
    assert!(commands.contains(&calls_tool(call(0), Some(&id))) && !reviews_expiry(&commands), "{commands:?}");
}

#[test]
fn an_expiry_waits_for_every_decision_before_it_and_they_are_reviewed_in_order() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    for ticket in 1..=3 {
        apply(&mut run, decided(ticket, &id, Verdict::Approve));
    }
    apply(&mut run, fired(Timer::Deadline(id)));
    for ticket in 1..=3 {
        let commands = apply(&mut run, reviewed(refused()));
        assert!(is_refused(&commands, ticket, "not an approver"), "{commands:?}");
        assert_eq!((reviews_decision(&commands, ticket + 1), reviews_expiry(&commands)), (ticket < 3, ticket == 3));
    }
}

#[test]
fn a_decision_taken_in_after_the_deadline_is_reviewed_all_the_same() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let late = Moment { now_ms: DEADLINE_MS + 5_000, ..NOW };
    let commands = run.apply(decided(1, &id, Verdict::Approve), late).unwrap();
    assert!(reviews_decision(&commands, 1), "its event may have come in time: {commands:?}");
}

#[test]
fn an_expiry_does_not_wait_for_decisions_that_come_behind_the_deadline() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    for ticket in 1..=2 {
        apply(&mut run, decided(ticket, &id, Verdict::Approve));
    }
    apply(&mut run, fired(Timer::Deadline(id.clone())));
    for ticket in 3..=4 {
        apply(&mut run, decided(ticket, &id, Verdict::Approve));
    }
    assert!(reviews_decision(&apply(&mut run, reviewed(refused())), 2), "it came in time");
    assert!(reviews_expiry(&apply(&mut run, reviewed(refused()))));
    assert!(reviews_decision(&apply(&mut run, reviewed(expired(9))), 3), "each has its record");
    assert!(reviews_decision(&apply(&mut run, reviewed(Review::AlreadyDecided)), 4));
}

#[test]
fn a_decision_behind_the_expiry_waits_for_it() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    assert!(reviews_expiry(&apply(&mut run, fired(Timer::Deadline(id.clone())))));
    assert_eq!(apply(&mut run, decided(1, &id, Verdict::Approve)), []);
    let commands = apply(&mut run, reviewed(expired(9)));
    assert!(reviews_decision(&commands, 1) && !begins(&commands), "{commands:?}");
    let commands = apply(&mut run, reviewed(Review::AlreadyDecided));
    assert_eq!(answer_to(&commands, 1), Some(&Answer::AlreadyDecided));
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
}

#[test]
fn an_approval_too_expires_while_its_call_waits_for_another_gate() {
    let mut run = acting(1);
    let asked = [request(call(0), "a", 1), request(call(0), "b", 2)];
    ask(&mut run, &asked);
    decide(&mut run, 1, &asked[0].id, call(0), APPROVED);
    assert!(reviews_expiry(&apply(&mut run, fired(Timer::Deadline(asked[0].id.clone())))));
    let commands = apply(&mut run, reviewed(expired(9)));
    assert!(commands.contains(&asks_model(2, 1_001, &[9], &[])), "{commands:?}");
}

#[test]
fn an_expiry_that_the_store_refuses_is_not_reviewed_for_ever() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, fired(Timer::Deadline(id.clone())));
    let commands = apply(&mut run, reviewed(Review::Refused { reason: format!("no request `{id}`") }));
    assert!(!reviews_expiry(&commands) && !begins(&commands), "{commands:?}");
    assert_eq!((run.state(), run.waiting_requests().count()), (RunState::OutcomeUnknown, 0));
    let word = Instruction::Resolve { call: call(0), resolution: Resolution::DidNotHappen };
    let settled = InstructionReview::Settled { outcome: returned(4), note: None };
    assert!(tell(&mut run, 2, word, settled).contains(&asks_model(2, 1_001, &[4], &[])));
}

#[test]
fn a_gate_may_stop_the_run_when_its_time_is_over() {
    let mut run = acting(2);
    let mut asked = request(call(0), "refund.large", 1);
    asked.gate.on_expiry = OnExpiry::Halt;
    ask(&mut run, std::slice::from_ref(&asked));
    apply(&mut run, fired(Timer::Deadline(asked.id.clone())));
    let commands = apply(&mut run, reviewed(expired(9)));
    assert!(commands.contains(&Command::CancelEffects), "the other call comes to its end: {commands:?}");
    let commands = end(&mut run, 1, 3);
    assert!(is_closing(&commands, EndReason::ApprovalExpired), "{commands:?}");
    let detail = format!("nobody decided about `{}` in time, and gate `refund.large` stops the run then", asked.id);
    assert_eq!((run.result().state, run.result().detail), (RunState::Stopped, Some(detail)));
}

#[test]
fn the_stores_own_bound_is_the_deadline_and_nothing_is_due_at_or_after_it() {
    let mut run = acting(1);
    let mut asked = patient_request(call(0), 1);
    asked.expires_ms = Some(NOW.now_ms + 15_000);
    let commands = ask(&mut run, std::slice::from_ref(&asked));
    let timers: Vec<_> = commands.iter().filter(|c| matches!(c, Command::StartTimer { .. })).cloned().collect();
    let (deadline, reminder) = (Timer::Deadline(asked.id.clone()), Timer::Reminder(asked.id.clone()));
    assert_eq!(timers, [starts(deadline, NOW.now_ms + 15_000), starts(reminder, NOW.now_ms + 10_000)]);
}

#[test]
fn a_run_waits_no_longer_than_its_own_bound() {
    let (mut run, _) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
    apply(&mut run, opened(RunLimits { approval_wait_max_secs: 5, ..RunLimits::default() }));
    apply(&mut run, replied(1, 1));
    let asked = patient_request(call(0), 1);
    let commands = ask(&mut run, std::slice::from_ref(&asked));
    assert!(commands.contains(&starts(Timer::Deadline(asked.id), NOW.now_ms + 5_000)), "{commands:?}");
    assert_eq!(commands.iter().filter(|c| matches!(c, Command::StartTimer { .. })).count(), 1, "{commands:?}");
}

#[test]
fn further_people_may_decide_from_the_escalation_on() {
    let mut run = acting(1);
    let asked = patient_request(call(0), 1);
    let commands = ask(&mut run, std::slice::from_ref(&asked));
    let escalation = Timer::Escalation(asked.id.clone());
    assert!(commands.contains(&starts(escalation.clone(), NOW.now_ms + 20_000)), "{commands:?}");
    assert_eq!(run.approver_groups(), [group("finance-leads")]);
    assert!(reviews_escalation(&apply(&mut run, fired(escalation.clone()))));
    let commands = apply(&mut run, reviewed(Review::Escalated { arguments_shown: "{\"amount\":1}".into() }));
    assert_eq!(commands, [Command::Publish]);
    assert_eq!(run.approver_groups(), [group("board"), group("finance-leads")]);
    let waiting: Vec<_> = run.waiting_requests().collect();
    assert!(waiting[0].escalated && waiting[0].request.arguments_shown.contains("amount"));
    assert_eq!(apply(&mut run, fired(escalation)), [], "once");
    let commands = decide(&mut run, 1, &asked.id, call(0), APPROVED);
    let cancelled = |timer: Timer| commands.contains(&Command::CancelTimer { timer });
    assert!(cancelled(Timer::Deadline(asked.id.clone())) && cancelled(Timer::Reminder(asked.id.clone())));
    assert!(!cancelled(Timer::Escalation(asked.id)), "it has fired: {commands:?}");
}

#[test]
fn an_escalation_waits_for_the_review_that_is_under_way() {
    for (review, escalates) in [(refused(), true), (APPROVED, false)] {
        let mut run = acting(1);
        let asked = patient_request(call(0), 1);
        ask(&mut run, std::slice::from_ref(&asked));
        apply(&mut run, decided(1, &asked.id, Verdict::Approve));
        assert_eq!(apply(&mut run, fired(Timer::Escalation(asked.id.clone()))), []);
        let commands = apply(&mut run, reviewed(review));
        assert_eq!((reviews_escalation(&commands), begins(&commands)), (escalates, !escalates), "{commands:?}");
    }
}

#[test]
fn an_escalation_that_is_refused_leaves_the_request_as_it_is() {
    let mut run = acting(1);
    let asked = patient_request(call(0), 1);
    ask(&mut run, std::slice::from_ref(&asked));
    apply(&mut run, fired(Timer::Escalation(asked.id.clone())));
    let commands = apply(&mut run, reviewed(refused()));
    assert!(!reviews_escalation(&commands), "{commands:?}");
    assert_eq!((run.waiting_requests().count(), run.approver_groups()), (1, vec![group("finance-leads")]));
    assert!(reviews_expiry(&apply(&mut run, fired(Timer::Deadline(asked.id)))));
}

#[test]
fn an_edit_goes_on_as_a_revision_and_the_old_call_is_never_called_again() {
    let mut run = acting(2);
    let id = wait(&mut run, 0);
    let revision = call(0).revised();
    let commands = decide(&mut run, 1, &id, call(0), Review::Revised { call: revision });
    assert!(is_accepted(&commands, 1) && commands.contains(&calls_tool(revision, Some(&id))), "{commands:?}");
    assert_eq!(run.calls().iter().map(|one| one.id).collect::<Vec<_>>(), [revision, call(1)]);
    assert!(run.apply(Event::ToolReturned { call: call(0), outcome: returned(1) }, NOW).is_err());
    // The revision is judged afresh, and policy may ask about it again.
    let again = request(revision, "refund.large", 7);
    ask(&mut run, std::slice::from_ref(&again));
    // A decision about what was asked before is reviewed under the call that it was about.
    let commands = apply(&mut run, decided(2, &id, Verdict::Approve));
    assert!(matches!(&commands[..], [Command::ReviewApproval { call: c, .. }] if *c == call(0)), "{commands:?}");
    let commands = apply(&mut run, reviewed(Review::AlreadyDecided));
    assert!(!begins(&commands), "{commands:?}");
    let commands = decide(&mut run, 3, &again.id, revision, APPROVED);
    assert!(commands.contains(&calls_tool(revision, Some(&again.id))), "{commands:?}");
    end(&mut run, 1, 8);
    let commands = apply(&mut run, Event::ToolReturned { call: revision, outcome: returned(9) });
    assert_eq!(commands, [asks_model(2, 1_001, &[9, 8], &[])]);
}

#[test]
fn decisions_behind_an_edit_are_reviewed_and_change_nothing() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Approve));
    apply(&mut run, decided(2, &id, Verdict::Reject));
    let commands = apply(&mut run, reviewed(Review::Revised { call: call(0).revised() }));
    assert!(begins(&commands) && reviews_decision(&commands, 2), "{commands:?}");
    let commands = apply(&mut run, reviewed(Review::AlreadyDecided));
    assert_eq!(commands, [Command::Reply { ticket: 2, answer: Answer::AlreadyDecided }]);
}

#[test]
fn an_edit_of_a_run_that_stops_begins_nothing() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Approve));
    apply(&mut run, halt());
    let commands = apply(&mut run, reviewed(Review::Revised { call: call(0).revised() }));
    assert!(!begins(&commands) && is_closing(&commands, EndReason::Halted), "{commands:?}");
    assert_eq!(run.result().not_performed, [call(0)]);
}

#[test]
fn a_decision_that_names_nothing_pending_is_refused_and_counted() {
    let mut run = acting(1);
    wait(&mut run, 0);
    let unknown = RequestId::parse("r9-abcdef").unwrap();
    let commands = apply(&mut run, decided(1, &unknown, Verdict::Approve));
    assert!(is_refused(&commands, 1, "no request `r9-abcdef` is pending in this run"), "{commands:?}");
    assert_eq!(run.refused_messages().0, 1);
}

#[test]
fn a_second_decision_is_reviewed_and_answered_already_decided() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    decide(&mut run, 1, &id, call(0), APPROVED);
    let commands = apply(&mut run, decided(2, &id, Verdict::Reject));
    assert!(reviews_decision(&commands, 2), "{commands:?}");
    let commands = apply(&mut run, reviewed(Review::AlreadyDecided));
    assert_eq!(commands, [Command::Reply { ticket: 2, answer: Answer::AlreadyDecided }]);
}

#[test]
fn whatever_the_review_of_a_late_decision_says_the_call_goes_on_as_it_was() {
    let late = [
        APPROVED,
        Review::Rejected { result: content(4) },
        expired(4),
        Review::Revised { call: call(0).revised() },
        Review::AlreadyDecided,
    ];
    for review in late {
        let mut run = acting(2);
        let id = wait(&mut run, 0);
        decide(&mut run, 1, &id, call(0), APPROVED);
        let before = run.calls().to_vec();
        let commands = decide(&mut run, 2, &id, call(0), review.clone());
        assert!(!begins(&commands), "{review:?}: {commands:?}");
        assert_eq!(run.calls(), before, "{review:?}: it is under way");
        end(&mut run, 0, 9);
        assert!(!begins(&decide(&mut run, 3, &id, call(0), review.clone())), "{review:?}");
        assert_eq!(run.calls()[0].result(), Some(address(9)), "{review:?}: it has its result");
    }
}

#[test]
fn too_many_decisions_at_once_are_refused_and_each_of_the_others_is_reviewed() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let refused_at_once = (1..=100)
        .filter(|ticket| {
            let commands = apply(&mut run, decided(*ticket, &id, Verdict::Approve));
            is_refused(&commands, *ticket, "send this one again later")
        })
        .count();
    assert_eq!(refused_at_once, 100 - 1 - 64);
    for ticket in 1..=65 {
        let commands = apply(&mut run, reviewed(refused()));
        assert!(is_refused(&commands, ticket, "not an approver"), "{ticket}: {commands:?}");
    }
    assert!(run.nothing_under_way());
}

#[test]
fn a_review_that_is_lost_stops_the_run_and_its_decision_does_not_count() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Approve));
    apply(&mut run, decided(2, &id, Verdict::Approve));
    let commands = apply(&mut run, Event::ReviewFailed { call: call(0), failure: lost() });
    assert!(is_refused(&commands, 1, "could not be recorded") && is_refused(&commands, 2, "the run is ending"));
    assert!(is_closing(&commands, EndReason::Unavailable) && !begins(&commands), "{commands:?}");
}
