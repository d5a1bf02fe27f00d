//! Properties over random event sequences. The promises themselves are assertions of [`World`]: exactly one result per
//! call, no call without its approvals, none twice, a lost activity never "did not happen", one answer a message,
//! nothing left behind at the end, the closing record names what nobody knows.

use proptest::{collection::vec, prelude::*};

use super::{
    super::*,
    NOW, opened, person, replied,
    world::{Choices, World},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_over_random_event_sequences(choices in vec(any::<u16>(), 0..400)) {
        let mut world = World::start();
        let mut choices = Choices::new(choices);
        while world.finished.is_none() && world.step(&mut choices) {}
        world.finish();
        prop_assert!(world.performed_at_most_once());
        let result = world.finished.clone();
        prop_assert!(result.is_some(), "a halted run ends: {:#?}", world.run);
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
        Event::HaltRequested(HaltRequest { by: person("op"), comment: None }),
        Event::Closed,
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
    run.is_finished() && run.result() == result
}
