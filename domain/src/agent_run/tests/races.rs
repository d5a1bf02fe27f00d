//! An approval races with what could take its place. Whoever wins, there is one winner: the call is performed at most
//! once, it has one result or is named in the closing record, every message has one answer, and the same events on a
//! fresh run give the same commands and the same state. The promises of [`World`] hold all the while.

use super::{
    world::{Choices, Settings, World},
    *,
};

const ROUNDS: u64 = 200;

/// What an approval races with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rival {
    Deadline,
    Cancel,
    Halt,
    /// Policy denies the second walk.
    PolicyChange,
    /// Activities are lost, before or behind what they did, and reviews come again.
    WorkerLoss,
    /// Every second event finds the history too long.
    ContinueAsNew,
}

/// Names the round when an assertion fails, also one of the world.
struct Round {
    rival: Rival,
    seed: u64,
}

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}, seed {}", self.rival, self.seed);
        }
    }
}

/// What is still to come in a round.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Approve,
    Rival,
    Junk,
}

/// How a round ended.
struct Ended {
    world: World,
    result: AgentResult,
    /// What the approval was told, if it came before the end.
    answer: Option<Answer>,
    performed: bool,
    /// Whether the call is named as not performed.
    abandoned: bool,
}

impl Ended {
    fn accepted(&self) -> bool {
        matches!(self.answer, Some(Answer::Accepted { .. }))
    }
}

fn happens(world: &mut World, happening: Happening, rival: Rival, id: &RequestId, long: bool) -> Option<Ticket> {
    match (happening, rival) {
        (Happening::Approve, _) => return Some(world.send_decision(id, Verdict::Approve, false, long)),
        (Happening::Rival, Rival::Deadline) => {
            let deadline = Timer::Deadline(id.clone());
            if world.timers.contains_key(&deadline) {
                world.fire(deadline, long);
            }
        }
        (Happening::Rival, Rival::Cancel) => world.feed(&Event::CancelRequested, long),
        (Happening::Rival, Rival::Halt) => world.feed(&halt(), long),
        (Happening::Rival, Rival::PolicyChange) => world.policy_changed = true,
        (Happening::Rival | Happening::Junk, Rival::WorkerLoss | Rival::ContinueAsNew) | (Happening::Junk, _) => {
            world.feed(&Event::MessageRefused { reason: "junk".into() }, long);
        }
    }
    None
}

/// One call waits at one gate; then an approval and its rival come in an order that the seed decides, and activities
/// answer in between.
fn round(rival: Rival, seed: u64) -> Ended {
    let mut choices = Choices::seeded(seed, 400);
    let mut world = World::start(Settings { gated_calls: Some(1), ..Settings::default() });
    world.settle();
    let id = world.calls[&call(0)].requests[0].id.clone();
    world.settings.losses = (rival == Rival::WorkerLoss).then_some(3);
    let (mut to_come, mut ticket) = (vec![Happening::Approve, Happening::Rival, Happening::Junk], None);
    while world.finished.is_none() && !(to_come.is_empty() && world.under_way.is_empty()) {
        let long = rival == Rival::ContinueAsNew && choices.one_in(2);
        let picked = choices.pick(to_come.len() + world.under_way.len()).expect("a round is short");
        if picked < to_come.len() {
            let happening = to_come.remove(picked);
            ticket = happens(&mut world, happening, rival, &id, long).or(ticket);
        } else {
            world.complete(picked - to_come.len(), &mut choices, long);
        }
    }
    let result = world.finished.clone().expect("the run ends");
    let answer = ticket.map(|ticket| world.answers.get(&ticket).cloned().expect("the approval is answered"));
    let stored = &world.calls[&call(0)];
    let (performed, abandoned) = (stored.performed == 1, result.not_performed.contains(&call(0)));
    assert!(stored.performed <= 1 && stored.walks <= 2, "at most one call after the release");
    assert!(!(performed && abandoned), "what was performed is not named as not performed");
    assert!(!performed || stored.approved.contains(&id), "performed without its approval");
    assert!(world.replays());
    Ended { world, result, answer, performed, abandoned }
}

/// Runs all rounds; in some the first of these holds, in others not: it was a race.
fn race(rival: Rival, check: impl Fn(&Ended) -> bool) {
    let won = (0..ROUNDS).filter(|seed| {
        let _round = Round { rival, seed: *seed };
        check(&round(rival, *seed))
    });
    let won = u64::try_from(won.count()).unwrap();
    assert!((10..=ROUNDS - 10).contains(&won), "{rival:?}: the approval won {won} of {ROUNDS} rounds");
}

#[test]
fn an_approval_races_with_its_deadline() {
    race(Rival::Deadline, |ended| {
        let expired = ended.world.seen.contains("Review::Expired");
        assert!(ended.performed != expired, "one of the two");
        assert_eq!((ended.result.state, ended.accepted()), (RunState::Completed, ended.performed));
        ended.performed
    });
}

/// Halt and cancel win until an intent is recorded.
fn races_with_a_stop(rival: Rival, reason: EndReason) {
    race(rival, |ended| {
        assert!(ended.performed != ended.abandoned, "performed, or named as not performed");
        assert!(!ended.performed || ended.accepted(), "performed without an approval that counts");
        let completed = ended.result.state == RunState::Completed;
        assert!(completed || ended.result.reason == Some(reason), "{:?}", ended.result);
        ended.performed
    });
}

#[test]
fn an_approval_races_with_the_cancellation_of_its_run() {
    races_with_a_stop(Rival::Cancel, EndReason::Cancelled);
}

#[test]
fn an_approval_races_with_a_halt() {
    races_with_a_stop(Rival::Halt, EndReason::Halted);
}

#[test]
fn an_approval_races_with_a_change_of_policy() {
    race(Rival::PolicyChange, |ended| {
        assert_eq!(ended.result.state, RunState::Completed);
        assert!(ended.accepted() && !ended.abandoned, "it counted, and the call has its result");
        assert_eq!(ended.world.calls[&call(0)].walks, 2, "policy is asked again behind every approval");
        ended.performed
    });
}

#[test]
fn an_approval_races_with_the_loss_of_workers() {
    race(Rival::WorkerLoss, |ended| {
        let completed = ended.result.state == RunState::Completed;
        let lost = matches!(ended.result.reason, Some(EndReason::Unavailable));
        assert!(completed || lost, "{:?}", ended.result);
        let unknown = ended.result.unknown_outcomes.contains(&call(0));
        assert!(ended.performed || ended.abandoned || unknown, "it has its result, or is named");
        ended.performed
    });
}

#[test]
fn an_approval_races_with_the_next_execution() {
    let executions = std::cell::Cell::new(0);
    race(Rival::ContinueAsNew, |ended| {
        assert_eq!(ended.result.state, RunState::Completed);
        assert!(ended.performed && ended.accepted());
        executions.set(executions.get() + ended.world.executions - 1);
        ended.world.executions > 1
    });
    assert!(executions.get() > 100, "{executions:?}");
}
