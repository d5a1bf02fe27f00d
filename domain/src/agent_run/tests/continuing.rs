//! Continue-as-new: when, and that the next execution knows everything.

use super::*;

#[test]
fn a_long_history_continues_as_new_between_turns_and_while_parked() {
    let mut run = acting(1);
    let commands = run.apply(Event::ToolReturned { call: call(0), outcome: returned(1) }, LONG).unwrap();
    assert_eq!(commands, [Command::ContinueAsNew]);
    assert!(matches!(&continued(&run).resume(NOW)[..], [Command::InvokeModel { turn: 2, .. }]));

    let mut parked = acting(1);
    let id = wait(&mut parked, 0);
    let junk = Event::MessageRefused { reason: "not JSON".into() };
    assert_eq!(parked.apply(junk, LONG).unwrap(), [Command::ContinueAsNew]);
    assert_eq!(continued(&parked).resume(NOW), [starts(Timer::Deadline(id), DEADLINE_MS)]);
}

#[test]
fn a_paused_run_continues_as_new_and_stays_paused() {
    // Paused between turns, with a call held, with a final answer held, and while it rests before the next execution.
    let pause = |run: &mut AgentRun| tell(run, 90, Instruction::Pause, TAKEN);
    let mut between = acting(1);
    pause(&mut between);
    end(&mut between, 0, 1);
    let mut held = acting(1);
    end(&mut held, 0, 1);
    pause(&mut held);
    let mut answered = held.clone();
    apply(&mut held, replied(2, 1));
    apply(&mut answered, replied(2, 0));
    let mut resting = acting(1);
    resting.apply(Event::ToolReturned { call: call(0), outcome: returned(1) }, LONG).unwrap();
    pause(&mut resting);
    for (name, mut run) in [("between", between), ("held", held), ("answered", answered), ("resting", resting)] {
        let commands = run.apply(Event::MessageRefused { reason: "junk".into() }, LONG).unwrap();
        assert!(commands.contains(&Command::ContinueAsNew), "{name}: {commands:?}");
        let mut next = continued(&run);
        let commands = next.resume(NOW);
        assert!(next.state() == RunState::Paused && !begins(&commands), "{name}: {commands:?}");
        let commands = tell(&mut next, 91, Instruction::Resume, TAKEN);
        assert!(begins(&commands) || completes(&commands), "{name}: {commands:?}");
    }
}

#[test]
fn nothing_continues_as_new_past_a_review_under_way_and_what_waits_behind_it_goes_along() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    for event in [decided(1, &id, Verdict::Approve), told(3, steer())] {
        apply(&mut run, event);
    }
    for event in [decided(2, &id, Verdict::Approve), told(4, steer())] {
        let commands = run.apply(event, LONG).unwrap();
        assert!(!commands.contains(&Command::ContinueAsNew), "{commands:?}");
    }
    let no = || Review::Refused { reason: "not an approver".into() };
    let commands = run.apply(Event::ApprovalReviewed { call: call(0), review: no() }, LONG).unwrap();
    assert!(is_refused(&commands, 1, "not an approver") && !reviews(&commands, 2), "{commands:?}");
    assert!(!commands.contains(&Command::ContinueAsNew), "{commands:?}");
    let commands = run.apply(Event::InstructionReviewed { ticket: 3, review: taken(51) }, LONG).unwrap();
    assert!(commands.contains(&Command::ContinueAsNew) && !reviews(&commands, 2), "{commands:?}");
    let mut next = continued(&run);
    let commands = next.resume(NOW);
    assert!(reviews(&commands, 2) && hears(&commands, 4), "{commands:?}");
    let commands = apply(&mut next, Event::ApprovalReviewed { call: call(0), review: APPROVED });
    assert!(is_accepted(&commands, 2) && commands.contains(&calls_tool(call(0), Some(&id))), "{commands:?}");
}

/// Whoever keeps sending decisions that are no good does not keep a run from continuing as new.
#[test]
fn a_queue_that_never_ends_does_not_keep_a_parked_run_in_its_execution() {
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    for ticket in 1..=10 {
        apply(&mut run, decided(ticket, &id, Verdict::Approve));
    }
    let no = Review::Refused { reason: "not signed".into() };
    let commands = run.apply(Event::ApprovalReviewed { call: call(0), review: no }, LONG).unwrap();
    assert!(commands.contains(&Command::ContinueAsNew), "{commands:?}");
    // There is more to carry than the next execution may begin with: one more is reviewed before it is tried again.
    assert!(reviews(&run.clone().stay(NOW), 2));
    // A call that is under way keeps the run here, and nothing waits for an execution that does not come.
    let mut busy = acting(2);
    let id = wait(&mut busy, 0);
    let commands = busy.apply(decided(1, &id, Verdict::Approve), LONG).unwrap();
    assert!(reviews(&commands, 1), "{commands:?}");
}

#[test]
fn instructions_that_never_end_do_not_keep_a_run_in_its_execution() {
    for paused in [false, true] {
        let mut run = acting(1);
        wait(&mut run, 0);
        if paused {
            tell(&mut run, 90, Instruction::Pause, TAKEN);
        }
        for ticket in 1..=10 {
            apply(&mut run, told(ticket, steer()));
        }
        let refused = InstructionReview::Refused { reason: "not signed".into() };
        let commands = run.apply(Event::InstructionReviewed { ticket: 1, review: refused }, LONG).unwrap();
        assert!(commands.contains(&Command::ContinueAsNew) && !hears(&commands, 2), "{commands:?}");
        assert!(hears(&run.clone().stay(NOW), 2) && hears(&continued(&run).resume(NOW), 2));
    }
}

/// Whoever may not tell a run anything keeps nobody from it who may.
#[test]
fn instructions_that_do_not_count_use_nothing_up() {
    let mut run = acting(1);
    wait(&mut run, 0);
    for ticket in 1..=1_100 {
        let refused = InstructionReview::Refused { reason: "not signed".into() };
        tell(&mut run, ticket, steer(), refused);
    }
    assert!(is_accepted(&tell(&mut run, 2_000, steer(), taken(51)), 2_000));
}

/// What a new execution begins with stays within its bound, however long the messages are.
#[test]
fn long_messages_that_wait_for_their_review_are_bounded_by_their_size() {
    const SNAPSHOT_BYTES_MAX: usize = 256 * 1024;
    let mut run = acting(1);
    let id = wait(&mut run, 0);
    let token = Some("x".repeat(4_000));
    for ticket in 1..=200 {
        let mut decision = decision(&id, Verdict::Approve);
        decision.evidence.token.clone_from(&token);
        let arrived = arrival("approve", ticket);
        apply(&mut run, Event::DecisionReceived { ticket, decision, arrival: arrived });
        let mut said = told(1_000 + ticket, Instruction::Steer { text: "x".repeat(4_000) });
        if let Event::InstructionReceived { sent, .. } = &mut said {
            sent.sender.evidence.token.clone_from(&token);
        }
        apply(&mut run, said);
    }
    assert!(serde_json::to_vec(&run).unwrap().len() < SNAPSHOT_BYTES_MAX * 3 / 4);
    assert!(run.refusals().1.unwrap().contains("send this one again later"));
}

/// Whether an instruction goes to its review.
fn hears(commands: &[Command], wanted: Ticket) -> bool {
    commands.iter().any(|command| matches!(command, Command::ReviewInstruction { ticket, .. } if *ticket == wanted))
}

fn reviews(commands: &[Command], wanted: Ticket) -> bool {
    let decision = |command: &Command| match command {
        Command::ReviewApproval { subject: Subject::Decision { ticket, .. }, .. } => *ticket == wanted,
        _ => false,
    };
    commands.iter().any(decision)
}

/// A run in which everything that can wait does: a request with a queue of decisions, a question, an instruction that is
/// not delivered, others that wait for their review, a pause, and notices.
fn crowded() -> (AgentRun, ApprovalRequest, Question) {
    let mut run = acting_with(2, true);
    let asked = patient_request(call(0), 1);
    ask(&mut run, std::slice::from_ref(&asked));
    let question = ask_people(&mut run, 1);
    tell(&mut run, 1, steer(), taken(51));
    tell(&mut run, 2, Instruction::Pause, TAKEN);
    for ticket in 3..6 {
        apply(&mut run, decided(ticket, &asked.id, Verdict::Approve));
    }
    let answer = Instruction::Answer { question: question.id.clone(), text: "yes".into() };
    apply(&mut run, told(6, answer));
    apply(&mut run, told(7, Instruction::Resume));
    (run, asked, question)
}

#[test]
fn a_snapshot_holds_everything_that_waits() {
    let (run, ..) = crowded();
    assert_eq!(continued(&run), run);
}

#[test]
fn a_snapshot_with_everything_that_can_wait_goes_on_in_a_new_execution() {
    let (mut run, asked, question) = crowded();
    let no = || Review::Refused { reason: "not an approver".into() };
    let long = |run: &mut AgentRun, event: Event| run.apply(event, LONG).unwrap();
    // The reviews under way come back, and the notices; decisions that wait for theirs go along.
    let commands = long(&mut run, Event::ApprovalReviewed { call: call(0), review: no() });
    assert!(is_refused(&commands, 3, "not an approver"), "{commands:?}");
    let refused = || InstructionReview::Refused { reason: "not allowed".into() };
    let commands = long(&mut run, Event::InstructionReviewed { ticket: 6, review: refused() });
    assert!(commands.contains(&Command::CancelNotices), "{commands:?}");
    let cancelled =
        |notice: &str| Event::Notified { notice: notice.parse().unwrap(), failure: Some(Failure::Cancelled) };
    long(&mut run, cancelled("r1.asked"));
    assert_eq!(long(&mut run, cancelled("q2.asked")), [Command::ContinueAsNew]);

    let mut next = continued(&run);
    let commands = next.resume(NOW);
    let id = asked.id;
    let (first, arrived) = (decision(&id, Verdict::Approve), arrival("approve", 4));
    let subject = Subject::Decision { ticket: 4, decision: first, arrival: arrived };
    let expected = [
        starts(Timer::Deadline(id.clone()), DEADLINE_MS),
        starts(Timer::Reminder(id.clone()), NOW.now_ms + 10_000),
        starts(Timer::Escalation(id.clone()), NOW.now_ms + 20_000),
        starts(Timer::Question(question.id.clone()), DEADLINE_MS),
        Command::Notify { notice: "r1.asked".parse().unwrap() },
        Command::Notify { notice: "q2.asked".parse().unwrap() },
        Command::ReviewApproval { call: call(0), subject },
    ];
    assert!(commands.starts_with(&expected) && hears(&commands[expected.len()..], 7), "{commands:?}");
    apply(&mut next, Event::InstructionReviewed { ticket: 7, review: refused() });
    for ticket in [4, 5] {
        let commands = apply(&mut next, Event::ApprovalReviewed { call: call(0), review: no() });
        assert!(is_refused(&commands, ticket, "not an approver"), "{commands:?}");
    }
    assert!(next.is_paused() && next.waiting_questions().count() == 1 && next.waiting_requests().count() == 1);
    assert!(!begins(&decide(&mut next, 8, &id, call(0), Review::Rejected { result: content(9) })));
    let late = apply(&mut next, decided(9, &id, Verdict::Approve));
    assert!(matches!(&late[..], [Command::ReviewApproval { .. }]), "it remembers what was decided: {late:?}");
    apply(&mut next, Event::ApprovalReviewed { call: call(0), review: Review::AlreadyDecided });
    let answer = Instruction::Answer { question: question.id, text: "yes".into() };
    let settled = InstructionReview::Settled { outcome: returned(8), note: None };
    assert!(!begins(&tell(&mut next, 10, answer, settled)));
    let commands = tell(&mut next, 11, Instruction::Resume, TAKEN);
    assert!(commands.contains(&asks_model(2, 1_001, &[9, 8], &[51])), "{commands:?}");
}

#[test]
fn a_fresh_execution_asks_the_model_once_whatever_the_bound() {
    let (mut run, _) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
    apply(&mut run, opened(RunLimits { turns_per_execution_max: 1, ..RunLimits::default() }));
    apply(&mut run, replied(1, 1));
    assert_eq!(end(&mut run, 0, 1), [Command::ContinueAsNew]);
    // The next execution does not come, and a person says more: the turn waits for it all the same.
    let commands = tell(&mut run, 1, steer(), taken(51));
    assert!(commands.contains(&Command::ContinueAsNew), "{commands:?}");
    assert_eq!(continued(&run).resume(NOW), [asks_model(2, 1_001, &[1], &[51])]);
}
