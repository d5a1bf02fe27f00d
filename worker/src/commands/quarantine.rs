//! `mandate quarantine`: what nothing may touch, whatever policy says.
//!
//! Only the place of the store is read of the folder: locking up has to work while everything else there is in disorder.

use std::collections::BTreeSet;

use mandate_activities::{
    operator::{Acted, Judged, Judgement, Operator, OperatorError},
    policy::{Usable, newest_usable},
    store::Store,
};
use mandate_domain::{
    AgentName, ModelName, PersonId, Proof, QuarantineTarget, Quarantined, ServerName, ToolName,
    policy::{PersonAction, PersonRequest, PolicyBundle, Registry},
    render,
};
use serde::Serialize;

use super::{change::warn_of_trouble, open_operators_store, worker};
use crate::{
    cli::{Global, Listing, Quarantine, QuarantineAdd, QuarantineLift},
    config::suggestion,
    output::{self, Exit, OutputFormat, Refused, UsageError},
};

/// Microseconds in a millisecond.
const MICROS: u64 = 1000;
/// So many wrong letters are a slip.
const DISTANCE_MAX: usize = 2;
/// How often an act is asked for anew when another bundle became the active one in between.
const TRIES: usize = 5;

/// Something in the list.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    target: String,
    reason: &'a str,
    by: &'a str,
    since: String,
}

/// Lists, adds or lifts.
///
/// # Errors
/// [`Refused`] when policy does not permit it; when the store cannot be used or has no active bundle.
pub async fn quarantine(global: &Global, options: Quarantine) -> anyhow::Result<Exit> {
    let store = open_operators_store(global).await?;
    let exit = match options {
        Quarantine::List(options) => list(&store, &options).await,
        Quarantine::Add(options) => add(&store, &options).await,
        Quarantine::Lift(options) => lift(&store, &options).await,
    };
    store.close().await;
    exit
}

async fn list(store: &Store, options: &Listing) -> anyhow::Result<Exit> {
    let list = store.quarantine_list().await?;
    let listed: Vec<_> = list.iter().map(listed).collect();
    match options.output {
        OutputFormat::Json => output::json(&listed)?,
        OutputFormat::Text if listed.is_empty() => output::note("nothing is in quarantine"),
        OutputFormat::Text => output::data(text(&listed))?,
    }
    Ok(Exit::Done)
}

async fn add(store: &Store, options: &QuarantineAdd) -> anyhow::Result<Exit> {
    let QuarantineAdd { target, by, reason, unknown } = options;
    if !unknown {
        check_known(newest_usable(store).await?.bundle.registry(), target)?;
    }
    let (acted, judge) = act(store, &Act { by, target, reason: Some(reason) }).await?;
    let target = render::escape_line(&target.to_string());
    match acted {
        Acted::Done => output::data(format_args!("{target} is in quarantine"))?,
        Acted::AlreadySo => output::data(format_args!("{target} was in quarantine already; the first reason stays"))?,
        Acted::Refused { reason } => return Err(refused(by, "lock this up", &reason)),
    }
    if let QuarantineTarget::Person(person) = &options.target
        && let Some(meant) = alike(judge.bundle.registry(), person)
    {
        output::note(format_args!("note: if you meant `{meant}`, lock that up and lift this"));
    }
    if !somebody_may_lift(&judge.bundle, &options.target, &store.quarantine_list().await?) {
        output::note("warning: nobody of the configured groups may lift this now; another bundle has to permit it");
    }
    Ok(Exit::Done)
}

async fn lift(store: &Store, options: &QuarantineLift) -> anyhow::Result<Exit> {
    let QuarantineLift { target, by } = options;
    let (acted, _) = act(store, &Act { by, target, reason: None }).await?;
    let target = render::escape_line(&target.to_string());
    match acted {
        Acted::Done => output::data(format_args!("{target} is not in quarantine any more"))?,
        Acted::AlreadySo => {
            output::data(format_args!("{target} was not in quarantine"))?;
            let list = store.quarantine_list().await?;
            let listed: Vec<_> = list.iter().map(|held| render::escape_line(&held.target.to_string())).collect();
            if !listed.is_empty() {
                let help = suggestion(&target, listed.iter().map(String::as_str));
                output::note(format_args!("note: `mandate quarantine list` shows what is; {help}"));
            }
        }
        Acted::Refused { reason } => return Err(refused(by, "lift this", &reason)),
    }
    Ok(Exit::Done)
}

fn refused(by: &PersonId, act: &str, reason: &str) -> anyhow::Error {
    Refused(render::escape_line(&format!("`{by}` may not {act}: {reason}"))).into()
}

/// Somebody of a group whose name is nearly, and not quite, that of a person who is in none.
fn alike<'a>(registry: &'a Registry, person: &PersonId) -> Option<&'a PersonId> {
    let mut members: BTreeSet<&PersonId> = registry.groups.values().flatten().collect();
    if members.remove(person) {
        return None;
    }
    members.into_iter().find(|member| strsim::damerau_levenshtein(member.as_str(), person.as_str()) <= DISTANCE_MAX)
}

/// What is to be done. Without a reason it is lifted.
struct Act<'a> {
    by: &'a PersonId,
    target: &'a QuarantineTarget,
    reason: Option<&'a str>,
}

/// Asks the bundle in force and acts; anew where another bundle became the active one in between.
async fn act(store: &Store, act: &Act<'_>) -> anyhow::Result<(Acted, Usable)> {
    let operator = Operator::new(store.clone(), worker::identity());
    let mut tries = 1;
    loop {
        let judge = newest_usable(store).await?;
        let action = match act.reason {
            Some(_) => PersonAction::Quarantine(act.target),
            None => PersonAction::LiftQuarantine(act.target),
        };
        let decision = judge.bundle.decide_person(&PersonRequest { person: act.by, action });
        let judged = Judged { by: act.by.clone(), proof: Proof::Claimed, judgement: Judgement::from(decision) };
        let acted = match act.reason {
            Some(reason) => operator.quarantine(&judged, act.target, reason).await,
            None => operator.lift(&judged, act.target).await,
        };
        match acted {
            Err(OperatorError::JudgedByOther { .. }) if tries < TRIES => tries += 1,
            acted => {
                warn_of_trouble(&judge);
                return Ok((acted?, judge));
            }
        }
    }
}

/// Refuses a name that the bundle in force does not know: who misspells one must not believe that it is locked up.
fn check_known(registry: &Registry, target: &QuarantineTarget) -> Result<(), UsageError> {
    let known: Vec<&str> = match target {
        QuarantineTarget::Agent(_) => registry.agents.iter().map(AgentName::as_str).collect(),
        QuarantineTarget::Tool(_) => registry.tools.keys().map(ToolName::as_str).collect(),
        QuarantineTarget::Server(_) => registry.servers().into_iter().map(ServerName::as_str).collect(),
        QuarantineTarget::Model(_) => registry.models.keys().map(ModelName::as_str).collect(),
        // People need not be in a group, so anybody may be meant.
        QuarantineTarget::Person(_) => return Ok(()),
    };
    let (kind, name) = (target.kind(), target.name());
    if known.contains(&name) {
        return Ok(());
    }
    let help = suggestion(name, known);
    Err(UsageError(format!(
        "nothing was locked up: the active policies know no {kind} `{name}`; {help} (--unknown takes the name as it is)"
    )))
}

/// Whether anybody of the configured groups who is not in quarantine may take the thing out of it.
fn somebody_may_lift(bundle: &PolicyBundle, target: &QuarantineTarget, list: &[Quarantined]) -> bool {
    let locked = |person: &PersonId| list.iter().any(|held| held.target == QuarantineTarget::Person(person.clone()));
    let people: BTreeSet<&PersonId> = bundle.registry().groups.values().flatten().collect();
    let may = |person: &&PersonId| {
        let action = PersonAction::LiftQuarantine(target);
        !locked(person) && bundle.decide_person(&PersonRequest { person, action }).is_allowed()
    };
    people.iter().any(may)
}

fn listed(held: &Quarantined) -> Listed<'_> {
    Listed {
        target: held.target.to_string(),
        reason: &held.reason,
        by: held.by.as_str(),
        since: render::utc(held.since_micros / MICROS),
    }
}

fn text(listed: &[Listed<'_>]) -> String {
    let row = |held: &Listed<'_>| {
        [
            render::escape_line(&held.target),
            held.since.clone(),
            render::escape_line(held.by),
            render::escape_line(held.reason),
        ]
    };
    output::table(["WHAT", "SINCE (UTC)", "BY", "REASON"], listed.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_is_refused_with_what_may_have_been_meant() {
        let registry = Registry {
            models: [("support".parse().unwrap(), "scripted".parse().unwrap())].into(),
            agents: ["acme/support/refunds".parse().unwrap()].into(),
            ..Registry::default()
        };
        let check = |target: &str| check_known(&registry, &target.parse().unwrap()).map_err(|error| error.to_string());
        for known in ["model:support", "agent:acme/support/refunds", "person:whoever"] {
            assert_eq!(check(known), Ok(()), "{known}");
        }
        for (unknown, words) in [
            ("model:suport", "no model `suport`; did you mean `support`?"),
            ("agent:zeta/office/writer", "no agent `zeta/office/writer`; known: `acme/support/refunds`"),
            ("tool:clock", "no tool `clock`; none is configured"),
        ] {
            let said = check(unknown).unwrap_err();
            assert!(said.contains(words) && said.contains("--unknown"), "{said}");
        }
    }

    #[test]
    fn a_person_who_is_nearly_somebody_else_is_pointed_out() {
        let members = ["bo@acme.example", "eve@acme.example"].map(|name| name.parse().unwrap()).to_vec();
        let registry = Registry { groups: [("leads".parse().unwrap(), members)].into(), ..Registry::default() };
        let check = |person: &str| alike(&registry, &person.parse().unwrap()).map(PersonId::as_str);
        assert_eq!(check("bo@acme.exmple"), Some("bo@acme.example"));
        assert_eq!((check("bo@acme.example"), check("ana@acme.example")), (None, None));
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let held = Quarantined {
            target: "person:ana\u{202e}".parse().unwrap_or_else(|_| "person:ana".parse().unwrap()),
            reason: "leak\u{1b}[2J".into(),
            by: "olga@acme.example".parse().unwrap(),
            since_micros: 1_795_254_720_123_456,
        };
        let shown = text(&[listed(&held)]);
        assert!(!shown.contains('\u{1b}') && shown.contains("leak\\u{1b}[2J"), "{shown}");
        assert!(shown.contains("2026-11-21 09:52:00") && shown.contains("olga@acme.example"), "{shown}");
        assert_eq!(serde_json::to_value(listed(&held)).unwrap()["since"], "2026-11-21 09:52:00");
    }
}
