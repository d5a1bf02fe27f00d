//! What the webhook is told, and that a run waits for it only for a moment at its end.

use super::*;

fn notify(id: &str) -> Command {
    Command::Notify { notice: id.parse().unwrap() }
}

fn notified(id: &str, failure: Option<Failure>) -> Event {
    Event::Notified { notice: id.parse().unwrap(), failure }
}

fn fired(timer: Timer) -> Event {
    Event::TimerFired { timer }
}

/// What is told, in order.
fn told_of(commands: &[Command]) -> Vec<String> {
    let notice = |command: &Command| match command {
        Command::Notify { notice } => Some(notice.to_string()),
        _ => None,
    };
    commands.iter().filter_map(notice).collect()
}

#[test]
fn people_are_told_what_waits_for_them_and_what_became_of_it() {
    let mut run = acting_with(2, true);
    let asked = patient_request(call(0), 1);
    assert_eq!(told_of(&ask(&mut run, std::slice::from_ref(&asked))), ["r1.asked"]);
    let outcome = ToolCallOutcome::AnswerRequired { question: question(call(1), 1) };
    assert_eq!(told_of(&apply(&mut run, Event::ToolReturned { call: call(1), outcome })), ["q1.asked"]);
    assert_eq!(apply(&mut run, notified("r1.asked", None)), []);
    assert_eq!(apply(&mut run, fired(Timer::Reminder(asked.id.clone()))), [notify("r1.reminder")]);
    assert_eq!(apply(&mut run, fired(Timer::Reminder(asked.id.clone()))), [], "once");
    apply(&mut run, fired(Timer::Escalation(asked.id.clone())));
    let review = Review::Escalated { arguments_shown: "{}".into() };
    assert_eq!(told_of(&apply(&mut run, Event::ApprovalReviewed { call: call(0), review })), ["r1.escalated"]);
    apply(&mut run, fired(Timer::Deadline(asked.id)));
    let review = Review::Expired { result: content(9) };
    assert_eq!(told_of(&apply(&mut run, Event::ApprovalReviewed { call: call(0), review })), ["r1.expired"]);
}

#[test]
fn nobody_is_reminded_of_what_is_decided() {
    let mut run = acting_with(1, true);
    let asked = [patient_request(call(0), 1), patient_request(call(0), 2)];
    ask(&mut run, &asked);
    let commands = decide(&mut run, 1, &asked[0].id, call(0), APPROVED);
    for timer in [Timer::Reminder(asked[0].id.clone()), Timer::Escalation(asked[0].id.clone())] {
        assert!(commands.contains(&Command::CancelTimer { timer: timer.clone() }), "{commands:?}");
        assert_eq!(apply(&mut run, fired(timer)), [], "it may have fired in the same moment");
    }
    let timers: Vec<_> = continued(&run).resume(NOW);
    let deadlines = asked.map(|one| starts(Timer::Deadline(one.id), DEADLINE_MS));
    assert!(deadlines.iter().all(|deadline| timers.contains(deadline)) && timers.len() == 4, "{timers:?}");
}

#[test]
fn without_a_webhook_nothing_is_told() {
    let mut run = acting(1);
    let asked = patient_request(call(0), 1);
    assert_eq!(told_of(&ask(&mut run, std::slice::from_ref(&asked))), Vec::<String>::new());
    assert_eq!(apply(&mut run, fired(Timer::Reminder(asked.id))), []);
}

#[test]
fn a_webhook_that_fails_does_not_concern_the_run() {
    let mut run = acting_with(1, true);
    let id = wait(&mut run, 0);
    assert_eq!(apply(&mut run, notified("r1.asked", Some(lost()))), []);
    let commands = decide(&mut run, 1, &id, call(0), APPROVED);
    assert!(begins(&commands), "{commands:?}");
}

#[test]
fn what_is_asked_again_by_a_second_walk_is_told_once() {
    let mut run = acting_with(1, true);
    let asked = [request(call(0), "a", 1), request(call(0), "b", 2)];
    assert_eq!(told_of(&ask(&mut run, &asked)), ["r1.asked", "r2.asked"]);
    // The store has closed the first, which only a lost answer explains: the path is walked again.
    let commands = decide(&mut run, 1, &asked[0].id, call(0), Review::AlreadyDecided);
    assert!(commands.contains(&calls_tool(call(0), Some(&asked[0].id))), "{commands:?}");
    let commands = ask(&mut run, std::slice::from_ref(&asked[1]));
    assert_eq!(told_of(&commands), Vec::<String>::new());
    assert_eq!(run.waiting_requests().count(), 1);
    let commands = decide(&mut run, 2, &asked[1].id, call(0), APPROVED);
    assert!(commands.contains(&calls_tool(call(0), Some(&asked[1].id))), "{commands:?}");
}

/// A run whose last turn is over while the webhook is still being told.
fn ending() -> (AgentRun, Vec<Command>) {
    let mut run = acting_with(1, true);
    let id = wait(&mut run, 0);
    apply(&mut run, decided(1, &id, Verdict::Reject));
    let review = Review::Rejected { result: content(9) };
    apply(&mut run, Event::ApprovalReviewed { call: call(0), review });
    let commands = apply(&mut run, replied(2, 0));
    (run, commands)
}

#[test]
fn the_end_of_a_run_waits_a_moment_for_what_is_being_told() {
    let (mut run, commands) = ending();
    assert_eq!(commands, [starts(Timer::Notices, NOW.now_ms + 30_000)]);
    assert_eq!(apply(&mut run, Event::MessageRefused { reason: "junk".into() }), [], "one timer");
    let commands = apply(&mut run, notified("r1.asked", None));
    assert_eq!(commands[0], Command::CancelTimer { timer: Timer::Notices });
    assert!(completes(&commands), "{commands:?}");
}

#[test]
fn a_run_closes_although_a_webhook_never_answers() {
    let (mut run, _) = ending();
    assert_eq!(apply(&mut run, fired(Timer::Notices)), [Command::CancelNotices]);
    let commands = apply(&mut run, notified("r1.asked", Some(Failure::Cancelled)));
    assert!(completes(&commands) && told_of(&commands).is_empty(), "{commands:?}");
    let commands = apply(&mut run, Event::Closed { performed: vec![] });
    assert!(matches!(&commands[..], [Command::Finish(_)]), "{commands:?}");
}

#[test]
fn an_expiry_that_stops_the_run_is_told_before_it_closes() {
    let mut run = acting_with(1, true);
    let mut asked = request(call(0), "refund.large", 1);
    asked.gate.on_expiry = OnExpiry::Halt;
    ask(&mut run, std::slice::from_ref(&asked));
    apply(&mut run, notified("r1.asked", None));
    apply(&mut run, fired(Timer::Deadline(asked.id)));
    let review = Review::Expired { result: content(9) };
    let commands = apply(&mut run, Event::ApprovalReviewed { call: call(0), review });
    assert_eq!(told_of(&commands), ["r1.expired"]);
    assert!(is_closing(&apply(&mut run, notified("r1.expired", None)), EndReason::ApprovalExpired));
}

#[test]
fn what_is_being_told_is_put_off_for_the_next_execution_and_told_there_once() {
    let mut run = acting_with(1, true);
    wait(&mut run, 0);
    let junk = || Event::MessageRefused { reason: "junk".into() };
    assert_eq!(run.apply(junk(), LONG).unwrap(), [Command::CancelNotices]);
    assert_eq!(run.apply(junk(), LONG).unwrap(), [], "once");
    let commands = run.apply(notified("r1.asked", Some(Failure::Cancelled)), LONG).unwrap();
    assert_eq!(commands, [Command::ContinueAsNew]);
    let mut next = continued(&run);
    assert_eq!(told_of(&next.resume(NOW)), ["r1.asked"]);
    assert_eq!(apply(&mut next, notified("r1.asked", None)), []);
    assert_eq!(told_of(&continued(&next).resume(NOW)), Vec::<String>::new());
}

#[test]
fn what_was_told_before_the_cancellation_arrived_is_not_told_again() {
    let mut run = acting_with(1, true);
    wait(&mut run, 0);
    run.apply(Event::MessageRefused { reason: "junk".into() }, LONG).unwrap();
    let commands = run.apply(notified("r1.asked", None), LONG).unwrap();
    assert_eq!(commands, [Command::ContinueAsNew]);
    assert_eq!(told_of(&continued(&run).resume(NOW)), Vec::<String>::new());
}

#[test]
fn a_notice_that_begins_behind_a_cancellation_holds_up_no_next_execution() {
    let mut run = acting_with(2, true);
    wait(&mut run, 0);
    let (id, other) = (wait(&mut run, 1), request(call(1), "b", 3));
    assert_eq!(run.apply(Event::MessageRefused { reason: "junk".into() }, LONG).unwrap(), [Command::CancelNotices]);
    decide(&mut run, 1, &id, call(1), APPROVED);
    let outcome = ToolCallOutcome::ApprovalRequired { requests: vec![other] };
    let commands = run.apply(Event::ToolReturned { call: call(1), outcome }, LONG).unwrap();
    assert_eq!(told_of(&commands), ["r3.asked"]);
    assert!(commands.contains(&Command::CancelNotices), "the new one too: {commands:?}");
    let cancelled = |id: &str| notified(id, Some(Failure::Cancelled));
    assert_eq!(run.apply(cancelled("r1.asked"), LONG).unwrap(), []);
    assert_eq!(run.apply(cancelled("r2.asked"), LONG).unwrap(), []);
    assert_eq!(run.apply(cancelled("r3.asked"), LONG).unwrap(), [Command::ContinueAsNew]);
    assert_eq!(told_of(&continued(&run).resume(NOW)), ["r1.asked", "r2.asked", "r3.asked"]);
}

#[test]
fn what_was_put_off_for_a_next_execution_that_does_not_come_is_told_at_the_end() {
    let mut run = acting_with(1, true);
    wait(&mut run, 0);
    run.apply(Event::MessageRefused { reason: "junk".into() }, LONG).unwrap();
    run.apply(notified("r1.asked", Some(Failure::Cancelled)), LONG).unwrap();
    let commands = apply(&mut run, halt());
    assert_eq!(told_of(&commands), ["r1.asked"]);
    assert!(commands.contains(&starts(Timer::Notices, NOW.now_ms + 30_000)), "{commands:?}");
    assert!(is_closing(&apply(&mut run, notified("r1.asked", None)), EndReason::Halted));
}
