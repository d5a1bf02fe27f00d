//! The hostile suite: attacks of models, callers, approvers, tool servers and workers of somebody else on a real worker
//! and a real Temporal server. Each must leave the system of record as it was and a refusal in the audit log. Where an
//! attack asks again for what was done before, the record is the one outcome that it is told.
//!
//! Each guard of the path names the scenarios that it holds off (`activities/src/guards.rs`). A worker with that guard
//! off must lose the first of them: so each guard is there for a reason, and each scenario can fail.

use futures::{
    StreamExt as _,
    future::{LocalBoxFuture, join_all},
    stream,
};
use mandate_activities::guards::Guard;
use mandate_tests::{Scenario, run};
use tokio::task::JoinError;

use ground::Held;

mod changes;
mod ground;
mod model;
mod outsiders;
mod people;
mod rogue;

/// Fewest scenarios that the suite may have.
const SCENARIOS_MIN: usize = 20;
/// How many scenarios without their guard are played at the same time.
const AT_ONCE: usize = 6;

/// An attack.
struct Attack {
    name: &'static str,
    mounts: for<'a> fn(&'a Scenario) -> LocalBoxFuture<'a, Held>,
}

/// What the agent is instructed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// The example's: they tell the model to keep to the rules.
    Original,
    /// No word of any rule.
    Empty,
}

/// Makes the table of attacks and a test of each. Those in which the model acts are played without instructions as well.
macro_rules! attacks {
    (others: { $($others:ident: $other:ident,)+ } model: { $($models:ident: $acting:ident,)+ }) => {
        const ATTACKS: &[Attack] = &[
            $(Attack { name: stringify!($other), mounts: |scenario| Box::pin($others::$other(scenario)) },)+
            $(Attack { name: stringify!($acting), mounts: |scenario| Box::pin($models::$acting(scenario)) },)+
        ];

        $(#[test]
        fn $other() {
            held_off(&[(stringify!($other), Instructions::Original)]);
        })+

        $(#[test]
        fn $acting() {
            let name = stringify!($acting);
            held_off(&[(name, Instructions::Original), (name, Instructions::Empty)]);
        })+
    };
}

attacks! {
    others: {
        outsiders: foreign_workflow_type,
        outsiders: foreign_task_queue,
        outsiders: continued_with_a_task_of_its_own,
        outsiders: self_made_snapshot,
        outsiders: activity_without_a_workflow,
        outsiders: call_of_a_run_never_opened,
        outsiders: call_in_no_recorded_reply,
        outsiders: transcript_of_another_run,
        outsiders: asked_twice_at_once,
        outsiders: asked_again_after_its_outcome,
        outsiders: call_of_a_closed_run,
        outsiders: approval_of_another_runs_request,
        outsiders: resolution_of_a_call_under_way,
        people: approval_by_an_outsider,
        people: approval_by_the_requester,
        people: second_vote_of_one_person,
        people: decision_for_an_ended_call,
        people: malformed_and_oversized_signals,
        people: resolution_by_an_outsider,
        people: resolution_by_the_requester,
        changes: policy_tightened_while_waiting,
        changes: policy_tightened_after_the_effect,
        changes: tool_changed_while_waiting,
        changes: tool_removed_while_waiting,
        changes: tool_announced_with_another_schema,
        changes: another_store,
        changes: store_put_back,
        changes: arguments_changed_after_approval,
        changes: effect_claimed_for_something_else,
        model: model_without_permit,
    }
    model: {
        model: tool_not_offered,
        model: unknown_tool,
        model: arguments_break_the_schema,
        model: approval_claimed_in_the_arguments,
        model: approval_claimed_in_words,
        model: injected_by_a_tool_result,
        model: amount_above_the_ceiling,
        model: currency_without_permit,
        changes: approval_of_one_call_opens_no_other,
    }
}

fn attack(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}

/// Plays one attack in a world of its own.
async fn play(name: &str, instructions: Instructions, guard_off: Option<Guard>) -> Held {
    let attack = attack(name).unwrap();
    let mut unique = format!("hostile-{}", name.replace('_', "-"));
    if instructions == Instructions::Empty {
        unique += "-uninstructed";
    }
    if let Some(guard) = guard_off {
        unique = format!("{unique}-without-{}", guard.name());
    }
    let mut scenario = Scenario::new(&unique).await;
    if instructions == Instructions::Empty {
        scenario.write("tenants/acme/support/refunds/instructions.md", "You are an assistant.\n");
    }
    if let Some(guard) = guard_off {
        scenario = scenario.with_env("MANDATE_GUARD_OFF", guard.name());
    }
    (attack.mounts)(&scenario).await
}

/// Plays at the same time, each on a thread of its own.
async fn play_apart(
    name: &'static str,
    instructions: Instructions,
    guard_off: Option<Guard>,
) -> Result<Held, JoinError> {
    tokio::task::spawn_blocking(move || run(play(name, instructions, guard_off))).await
}

fn held_off(plays: &[(&'static str, Instructions)]) {
    let played = plays.iter().map(|(name, instructions)| play_apart(name, *instructions, None));
    for (held, (_, instructions)) in run(join_all(played)).into_iter().zip(plays) {
        if let Err(why) = held.unwrap() {
            panic!("with its {instructions:?} instructions, the attack succeeds or leaves no record: {why}");
        }
    }
}

#[test]
fn every_guard_names_its_scenarios() {
    assert!(ATTACKS.len() >= SCENARIOS_MIN, "{}", ATTACKS.len());
    for guard in Guard::ALL {
        assert!(!guard.scenarios().is_empty(), "{guard:?}");
        for name in guard.scenarios() {
            assert!(attack(name).is_some(), "{guard:?} names `{name}`, which is no scenario");
        }
    }
}

#[test]
fn without_a_guard_its_first_scenario_succeeds() {
    let tried = run(stream::iter(Guard::ALL).map(|guard| lost(*guard)).buffer_unordered(AT_ONCE).collect::<Vec<_>>());
    let wrong: Vec<_> = tried.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Plays a guard's most telling scenario without it, which must fail by what it looks for and not by a broken test.
async fn lost(guard: Guard) -> Held {
    let name = guard.scenarios()[0];
    match play_apart(name, Instructions::Original, Some(guard)).await {
        Ok(Err(why)) => {
            println!("without {}, {name}: {why}", guard.name());
            Ok(())
        }
        Ok(Ok(())) => Err(format!("without {} `{name}` holds all the same", guard.name())),
        Err(panic) => Err(format!("without {} `{name}` breaks: {panic}", guard.name())),
    }
}
