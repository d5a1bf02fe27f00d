//! The hostile suite: attacks of models, callers, approvers, tool servers and workers of somebody else on a real worker
//! and a real Temporal server. Each must leave the system of record as it was and a refusal in the audit log. Where an
//! attack asks again for what was done before, the record is the one outcome that it is told. Attacks on what the server
//! says of its callers are played on one that knows them.
//!
//! Each guard of the path names the scenarios that it holds off (`activities/src/guards.rs`). A worker with that guard
//! off must lose the first of them, and with `MANDATE_HOSTILE_WITHOUT_GUARDS=all` is to lose all of them: so each guard is
//! there for a reason, and each scenario can fail.
//!
//! What a model is told to do holds nothing off. All attacks are played with instructions that hold no rule, and those in
//! which the model acts with the example's as well; `MANDATE_HOSTILE_INSTRUCTIONS=original` (or `without-rules`) plays all
//! of them with these alone.

use std::fs;

use futures::{
    StreamExt as _,
    future::{LocalBoxFuture, join_all},
    stream,
};
use mandate_activities::guards::Guard;
use mandate_domain::{audit::RecordBody, canonical};
use mandate_tests::{Scenario, run, workspace_folder};
use tokio::task::JoinError;

use ground::Held;

mod authorized;
mod changes;
mod data;
mod ground;
mod instructors;
mod model;
mod outsiders;
mod parties;
mod people;
mod proofs;
mod provider;
mod quarantined;
mod rogue;
mod shown;
mod starts;
mod times;
mod tokens;

/// Fewest scenarios that the suite may have.
const SCENARIOS_MIN: usize = 100;
/// How many scenarios without their guard are played at the same time.
const AT_ONCE: usize = 6;

/// An attack.
struct Attack {
    name: &'static str,
    on: Server,
    mounts: for<'a> fn(&'a Scenario) -> LocalBoxFuture<'a, Held>,
}

/// Where an attack is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// The development server, which takes every caller.
    Open,
    /// The server that knows its callers.
    Authorized,
}

/// What the agent is instructed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// The example's: they tell the model to keep to the rules.
    Original,
    /// No word of any rule.
    WithoutRules,
}

/// Where an agent of the example has them.
const INSTRUCTIONS_FILE: &str = "tenants/acme/support/refunds/instructions.md";
/// Instructions with no word of any rule.
const WITHOUT_RULES: &str = include_str!("hostile/instructions.md");
/// Words that rules are made of. Each of the example's rules has some.
const RULE_WORDS: [&str; 16] = [
    "before",
    "never",
    "not ",
    "more than",
    "only",
    "must",
    "may",
    "refus",
    "approv",
    "reject",
    "allow",
    "final",
    "cents",
    "due",
    "refund",
    "instructions",
];
/// Attacks that no guard alone holds off, and why they come to nothing.
const BY_CONSTRUCTION: [(&str, &str); 11] = [
    ("activity_without_a_workflow", "without an execution there is no chain to write an intent to"),
    ("call_of_a_run_never_opened", "what nothing opened has no agent, no tools and no transcript"),
    ("approval_of_another_runs_request", "requests are looked for in the chain of their run"),
    ("self_made_snapshot", "what nothing opened has no agent, whoever says that it is continued"),
    ("unknown_tool", "what is in no registry cannot be reached"),
    ("malformed_and_oversized_signals", "what cannot be read is no decision"),
    ("comment_of_a_megabyte", "what cannot be read is no decision"),
    ("decision_for_an_expired_request", "the call has ended, and what has ended is not begun again"),
    ("request_card_drawn_by_the_model", "foreign text is escaped and stands in a fence that it cannot close"),
    ("shell_words_in_a_workflow_id", "every value of a printed command is quoted"),
    ("activity_on_its_own", "without an execution there is no chain to write an intent to"),
];

impl Instructions {
    /// With which an attack is played: these, unless the environment asks for one kind.
    fn played(usual: &'static [Self]) -> &'static [Self] {
        match std::env::var("MANDATE_HOSTILE_INSTRUCTIONS").as_deref() {
            Ok("original") => &[Self::Original],
            Ok("without-rules") => &[Self::WithoutRules],
            Ok(other) => panic!("MANDATE_HOSTILE_INSTRUCTIONS is `original` or `without-rules`, not `{other}`"),
            Err(_) => usual,
        }
    }
}

macro_rules! attack {
    ($on:expr, $module:ident, $name:ident) => {
        Attack { name: stringify!($name), on: $on, mounts: |scenario| Box::pin($module::$name(scenario)) }
    };
}

/// Makes the table of attacks and a test of each.
macro_rules! attacks {
    (
        others: { $($others:ident: $other:ident,)+ }
        authorized: { $($callers:ident: $caller:ident,)+ }
        model: { $($models:ident: $acting:ident,)+ }
    ) => {
        const ATTACKS: &[Attack] = &[
            $(attack!(Server::Open, $others, $other),)+
            $(attack!(Server::Authorized, $callers, $caller),)+
            $(attack!(Server::Open, $models, $acting),)+
        ];

        $(#[test]
        fn $other() {
            held_off(stringify!($other), Instructions::played(&[Instructions::WithoutRules]));
        })+

        $(#[test]
        fn $caller() {
            held_off(stringify!($caller), Instructions::played(&[Instructions::WithoutRules]));
        })+

        $(#[test]
        fn $acting() {
            held_off(stringify!($acting), Instructions::played(&[Instructions::Original, Instructions::WithoutRules]));
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
        outsiders: call_behind_an_undo,
        outsiders: approval_of_another_runs_request,
        outsiders: resolution_of_a_call_under_way,
        outsiders: many_small_refunds_at_once,
        people: approval_by_an_outsider,
        people: approval_by_the_requester,
        people: second_vote_of_one_person,
        people: decision_for_an_ended_call,
        people: malformed_and_oversized_signals,
        people: resolution_by_an_outsider,
        people: resolution_by_the_requester,
        people: decision_that_policy_does_not_permit,
        people: start_that_policy_does_not_permit,
        quarantined: tool_in_quarantine_while_waiting,
        quarantined: server_in_quarantine_while_waiting,
        quarantined: agent_in_quarantine_while_waiting,
        quarantined: requester_in_quarantine_while_waiting,
        quarantined: approval_by_a_person_in_quarantine,
        quarantined: check_tool_in_quarantine,
        changes: policy_tightened_while_waiting,
        changes: policy_tightened_after_the_effect,
        changes: policy_applied_while_waiting,
        changes: forged_policy_bundle,
        changes: tool_changed_while_waiting,
        changes: tool_removed_while_waiting,
        changes: tool_announced_with_another_schema,
        changes: another_store,
        changes: store_put_back,
        changes: arguments_changed_after_approval,
        changes: effect_claimed_for_something_else,
        model: model_without_permit,
        data: value_that_the_model_repeats_everywhere,
        proofs: decision_without_a_proof,
        proofs: decision_signed_by_another_key,
        proofs: decision_signed_for_other_arguments,
        proofs: decision_signed_for_the_other_verdict,
        proofs: decision_signed_for_another_request,
        proofs: decision_for_last_weeks_run,
        tokens: token_of_another_issuer,
        tokens: token_for_another_audience,
        tokens: token_expired,
        tokens: token_for_another_request,
        tokens: token_signed_by_another_key,
        tokens: token_with_an_algorithm_of_its_own,
        tokens: token_of_somebody_else,
        tokens: token_used_again_to_reject,
        tokens: token_used_again_to_approve,
        tokens: token_of_a_decision_that_was_not_read,
        times: decision_after_the_deadline,
        times: approval_used_after_its_time,
        times: decision_for_an_expired_request,
        parties: quorum_by_claims,
        parties: approval_by_the_starter,
        parties: approval_by_the_editor,
        parties: approval_by_a_starter_unproved,
        parties: edit_that_breaks_the_schema,
        parties: edit_with_arguments_of_another_tool,
        parties: edit_above_the_ceiling,
        instructors: answer_by_an_outsider,
        instructors: answer_without_a_proof,
        instructors: steer_by_an_outsider,
        instructors: pause_by_an_outsider,
        instructors: resume_by_an_outsider,
        instructors: pause_without_a_proof,
        instructors: pause_sent_again,
        instructors: pause_that_came_too_late_sent_again,
        instructors: resolution_without_a_proof,
        instructors: instruction_that_nobody_accepted,
        starts: start_without_a_proof,
        starts: start_signed_for_another_prompt,
        starts: start_signed_for_another_workflow,
        starts: start_sent_again,
        shown: comment_of_a_megabyte,
        shown: request_card_drawn_by_the_model,
        shown: shell_words_in_a_workflow_id,
    }
    authorized: {
        authorized: principal_of_somebody_else,
        authorized: principal_of_a_worker,
        authorized: principal_of_the_server_itself,
        authorized: decision_by_a_batch,
        authorized: decision_by_an_update,
        authorized: activity_on_its_own,
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
        model: answer_beside_its_gate,
        changes: approval_of_one_call_opens_no_other,
        data: masked_field_for_the_model,
        data: masked_field_through_read_result,
        data: transcript_for_a_provider_that_may_not_see_it,
    }
}

fn attack(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}

/// Plays one attack in a world of its own.
async fn play(name: &str, instructions: Instructions, guard_off: Option<Guard>) -> Held {
    let attack = attack(name).unwrap();
    let mut unique = format!("hostile-{}", name.replace('_', "-"));
    if instructions == Instructions::Original {
        unique += "-instructed";
    }
    if let Some(guard) = guard_off {
        unique = format!("{unique}-without-{}", guard.name());
    }
    let mut scenario = match attack.on {
        Server::Open => Scenario::new(&unique).await,
        Server::Authorized => Scenario::on_authorized(&unique).await,
    };
    if instructions == Instructions::WithoutRules {
        scenario.write(INSTRUCTIONS_FILE, WITHOUT_RULES);
    }
    if let Some(guard) = guard_off {
        scenario = scenario.with_env("MANDATE_GUARD_OFF", guard.name());
    }
    let held = (attack.mounts)(&scenario).await;
    instructed(&scenario).await;
    held
}

/// The runs that were opened had the instructions that they were to have.
async fn instructed(scenario: &Scenario) {
    let file = fs::read(scenario.path(INSTRUCTIONS_FILE)).unwrap();
    let expected = canonical::sha256(&file);
    for record in scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await {
        let RecordBody::RunOpened { instructions, .. } = record.body else { unreachable!("picked above") };
        assert_eq!(instructions, expected, "{}", scenario.name);
    }
}

/// Plays at the same time, each on a thread of its own.
async fn play_apart(
    name: &'static str,
    instructions: Instructions,
    guard_off: Option<Guard>,
) -> Result<Held, JoinError> {
    tokio::task::spawn_blocking(move || run(play(name, instructions, guard_off))).await
}

fn held_off(name: &'static str, with: &[Instructions]) {
    let played = with.iter().map(|instructions| play_apart(name, *instructions, None));
    for (held, instructions) in run(join_all(played)).into_iter().zip(with) {
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
    let named: Vec<_> = Guard::ALL.iter().flat_map(|guard| guard.scenarios()).collect();
    for (name, why) in BY_CONSTRUCTION {
        assert!(attack(name).is_some(), "`{name}` is no scenario");
        assert!(!named.contains(&&name) && !why.is_empty(), "a guard names `{name}`");
    }
    for Attack { name, .. } in ATTACKS {
        let holds_by_itself = BY_CONSTRUCTION.iter().any(|(by_itself, _)| by_itself == name);
        assert!(named.contains(&name) || holds_by_itself, "no guard names `{name}`");
    }
}

#[test]
fn the_instructions_without_rules_have_no_word_of_a_rule() {
    let has = |text: &str, word: &&str| text.to_lowercase().contains(*word);
    let original = fs::read_to_string(workspace_folder().join("examples/refunds").join(INSTRUCTIONS_FILE)).unwrap();
    for rule in original.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())) {
        assert!(RULE_WORDS.iter().any(|word| has(rule, word)), "no word is known of the rule: {rule}");
    }
    let found: Vec<_> = RULE_WORDS.iter().filter(|word| has(WITHOUT_RULES, word)).collect();
    assert!(found.is_empty(), "{found:?} in: {WITHOUT_RULES}");
}

#[test]
fn without_a_guard_its_first_scenario_succeeds() {
    let each =
        if std::env::var("MANDATE_HOSTILE_WITHOUT_GUARDS").is_ok_and(|which| which == "all") { usize::MAX } else { 1 };
    let pairs = |guard: &'static Guard| guard.scenarios().iter().take(each).map(|name| (*guard, *name));
    let tried = stream::iter(Guard::ALL.iter().flat_map(pairs)).map(|(guard, name)| lost(guard, name));
    let tried = run(tried.buffer_unordered(AT_ONCE).collect::<Vec<_>>());
    let wrong: Vec<_> = tried.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Plays a scenario without its guard, which must fail by what it looks for and not by a broken test.
async fn lost(guard: Guard, name: &'static str) -> Held {
    match play_apart(name, Instructions::WithoutRules, Some(guard)).await {
        Ok(Err(why)) => {
            println!("without {}, {name}: {why}", guard.name());
            Ok(())
        }
        Ok(Ok(())) => Err(format!("without {} `{name}` holds all the same", guard.name())),
        Err(panic) => Err(format!("without {} `{name}` breaks: {panic}", guard.name())),
    }
}
