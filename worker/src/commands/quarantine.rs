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
    PersonId, Proof, QuarantineTarget, Quarantined,
    policy::{PersonAction, PersonRequest, PolicyBundle, Registry},
    render,
};
use serde::Serialize;

use super::{change::warn_of_trouble, open_operators_store, worker};
use crate::{
    cli::{Global, Listing, Quarantine, QuarantineAdd, QuarantineLift},
    output::{self, Exit, OutputFormat, Refused},
};

/// Microseconds in a millisecond.
const MICROS: u64 = 1000;
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
    let QuarantineAdd { target, by, reason } = options;
    let (acted, judge) = act(store, &Act { by, target, reason: Some(reason) }).await?;
    let target = render::escape_line(&target.to_string());
    match acted {
        Acted::Done => output::data(format_args!("{target} is in quarantine"))?,
        Acted::AlreadySo => output::data(format_args!("{target} was in quarantine already; the first reason stays"))?,
        Acted::Refused { reason } => return Err(Refused(render::escape_line(&reason)).into()),
    }
    if !is_configured(judge.bundle.registry(), &options.target) {
        output::note(format_args!("note: the active policies know no {target}"));
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
        Acted::AlreadySo => output::data(format_args!("{target} was not in quarantine"))?,
        Acted::Refused { reason } => return Err(Refused(render::escape_line(&reason)).into()),
    }
    Ok(Exit::Done)
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

/// Whether the bundle in force knows the thing. People need not be in a group, so any of them is known.
fn is_configured(registry: &Registry, target: &QuarantineTarget) -> bool {
    match target {
        QuarantineTarget::Agent(name) => registry.agents.contains(name),
        QuarantineTarget::Tool(name) => registry.tools.contains_key(name),
        QuarantineTarget::Server(name) => registry.servers().contains(name),
        QuarantineTarget::Model(name) => registry.models.contains_key(name),
        QuarantineTarget::Person(_) => true,
    }
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
