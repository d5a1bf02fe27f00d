//! `mandate halt`: ends runs, and reports of each what was stopped, what had already happened and what nobody knows.
//!
//! Stopping must be easy: a halt counts without a proof, and nothing is asked of a worker before it is sent, so that it
//! waits in Temporal for a worker that is down. Only what a query finds is listed and asked about first.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use mandate_domain::{
    Proof, RunChain, Statement,
    proof::{InstructionKind, InstructionSaid},
    render,
};
use mandate_workflows::{WORKFLOW_TYPE, search_attributes};
use serde_json::{Map, Value};
use temporalio_client::WorkflowExecution;
use tokio::time::{Instant, sleep};

use super::{
    ask,
    sender::{self, Sender},
};
use crate::{
    cli::{Global, Halt},
    connection::{self, Ended, Standing, Temporal},
    output::{self, Exit, OutputFormat, Progress, UsageError},
};

mod report;

use report::{Halted, Outcome};

/// Most runs that are halted at once.
const RUNS_MAX: usize = 500;
/// How many runs are told, or looked at, at once.
const AT_ONCE: usize = 8;
/// How often runs are looked at that have not ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the result of an ended run may take.
const RESULT_WITHIN: Duration = Duration::from_secs(10);

/// Halts the runs, follows them to their end, and reports.
///
/// # Errors
/// [`UsageError`] for too many runs, and without a terminal and without `--yes` where a query was given; when Temporal
/// cannot be asked.
pub async fn halt(global: &Global, options: Halt) -> anyhow::Result<Exit> {
    let Halt { workflow_ids, query, sender, wait, yes, output } = options;
    // A halt counts without a proof, so every way is accepted.
    let sender = Sender::new(sender, &Proof::ALL)?;
    let mut runs = once_each(workflow_ids);
    if runs.len() > RUNS_MAX {
        return Err(UsageError(format!("{} runs are named; at most {RUNS_MAX} are halted at once", runs.len())).into());
    }
    let temporal = connection::connect(global).await?;
    if let Some(query) = query {
        let found = found(&temporal, &query).await?;
        if !found.is_empty() && !yes && !ask::confirm(&format!("halt these {} run(s)?", found.len()))? {
            return Ok(ask::nothing_was_sent());
        }
        runs = once_each(runs.into_iter().chain(found));
    }
    let told = stream::iter(runs).map(|workflow_id| tell(&temporal, &sender, workflow_id)).buffered(AT_ONCE);
    let mut halted: Vec<Halted> = told.collect().await;
    follow(&temporal, &mut halted, Duration::from_secs(wait)).await;
    match output {
        OutputFormat::Json => output::json(&halted)?,
        OutputFormat::Text if halted.is_empty() => return Ok(Exit::Done),
        OutputFormat::Text => output::data(report::text(&halted))?,
    }
    output::note(report::summary(&halted));
    Ok(report::exit(&halted))
}

/// The same without repetition, in order.
fn once_each(workflow_ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    workflow_ids.into_iter().filter(|workflow_id| seen.insert(workflow_id.clone())).collect()
}

/// The open runs that a list filter finds, listed for people.
async fn found(temporal: &Temporal, query: &str) -> anyhow::Result<Vec<String>> {
    let runs = temporal.list(&filter(query), RUNS_MAX).await?;
    if runs.is_empty() {
        output::note("the query finds no open run");
    } else {
        output::note(output::table(["WORKFLOW", "AGENT", "STATE"], runs.iter().map(row)));
    }
    if runs.len() == RUNS_MAX {
        output::note(format_args!("warning: these are the first {RUNS_MAX}; halt again for the rest"));
    }
    Ok(runs.iter().map(|run| run.id().to_owned()).collect())
}

fn filter(query: &str) -> String {
    format!("WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running' AND ({query})")
}

fn row(run: &WorkflowExecution) -> [String; 3] {
    let attributes = run.search_attributes();
    let shown = |text: Option<String>| render::escape_line(&text.unwrap_or_else(|| "-".to_owned()));
    let (agent, state) = (attributes.get(&search_attributes::AGENT), attributes.get(&search_attributes::STATE));
    [render::escape_line(run.id()), shown(agent), shown(state)]
}

/// Sends the halt to one run.
async fn tell(temporal: &Temporal, sender: &Sender, workflow_id: String) -> Halted {
    match send(temporal, sender, &workflow_id).await {
        Ok(standing) => Halted { workflow_id, run_id: Some(standing.run_id), outcome: Outcome::StillEnding },
        Err(error) => Halted { workflow_id, run_id: None, outcome: Outcome::unreachable(&error) },
    }
}

async fn send(temporal: &Temporal, sender: &Sender, workflow_id: &str) -> anyhow::Result<Standing> {
    let handle = temporal.handle(workflow_id);
    let standing = temporal.standing(&handle).await?;
    if !standing.is_open {
        return Ok(standing);
    }
    let message_id = sender::message_id()?;
    let ready = sender.ready(|| statement(workflow_id, &standing, &message_id))?;
    let said = Map::from_iter([("message_id".to_owned(), Value::from(message_id.as_str()))]);
    temporal.signal(&handle, InstructionKind::Halt.as_str(), &ready.message(said).await?).await?;
    Ok(standing)
}

/// A server that does not say which execution was the first knows nothing of continued ones either.
fn statement(workflow_id: &str, standing: &Standing, message_id: &str) -> anyhow::Result<Statement> {
    let first_run_id = standing.first_run_id.clone().unwrap_or_else(|| standing.run_id.clone());
    let run = RunChain { workflow_id: workflow_id.to_owned(), first_run_id };
    let kind = InstructionKind::Halt;
    Ok(Statement::instruction(&InstructionSaid { run: &run, message_id, kind, about: None, text: None })?)
}

/// Looks at all runs in turn until each has ended or the time is over. Asking Temporal where a run stands holds no
/// connection open, so hundreds of runs that hang keep no other from being looked at.
async fn follow(temporal: &Temporal, halted: &mut [Halted], wait: Duration) {
    let deadline = Instant::now() + wait;
    let progress = Progress::start();
    loop {
        let open: Vec<(usize, Halted)> =
            halted.iter().cloned().enumerate().filter(|(_, halted)| halted.may_still_end()).collect();
        if open.is_empty() {
            break;
        }
        progress.say(format!("{} of {} have ended", halted.len() - open.len(), halted.len()));
        let looks = stream::iter(open).map(|(index, one)| look(temporal, index, one));
        for (index, outcome) in looks.buffered(AT_ONCE).collect::<Vec<_>>().await {
            if let Some(one) = halted.get_mut(index) {
                one.outcome = outcome;
            }
        }
        if Instant::now() >= deadline || !halted.iter().any(Halted::may_still_end) {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    progress.end();
}

async fn look(temporal: &Temporal, index: usize, halted: Halted) -> (usize, Outcome) {
    let outcome = match ended(temporal, &halted).await {
        Ok(Some(ended)) => Outcome::of(ended),
        Ok(None) => Outcome::StillEnding,
        Err(error) => Outcome::unreachable(&error),
    };
    (index, outcome)
}

async fn ended(temporal: &Temporal, halted: &Halted) -> anyhow::Result<Option<Ended>> {
    let Halted { workflow_id, run_id: Some(run_id), .. } = halted else { return Ok(None) };
    let handle = temporal.execution(workflow_id, run_id);
    let standing = temporal.standing(&handle).await?;
    if standing.is_open {
        return Ok(None);
    }
    if standing.is_continued {
        let newest = temporal.standing(&temporal.handle(workflow_id)).await?;
        // The workflow id may belong to another run by now.
        if newest.is_open && newest.first_run_id == standing.first_run_id {
            return Ok(None);
        }
    }
    // It has ended, so its result is there.
    tokio::time::timeout(RESULT_WITHIN, temporal.ended(&handle)).await.ok().transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_finds_open_runs_only() {
        let expected = "WorkflowType = 'AgentWorkflow' AND ExecutionStatus = 'Running' AND \
                        (MandateState = 'Paused' OR MandateTenant = 'acme')";
        assert_eq!(filter("MandateState = 'Paused' OR MandateTenant = 'acme'"), expected);
    }

    #[test]
    fn a_run_is_halted_once() {
        let named = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(once_each(named), ["b", "a"]);
    }

    #[test]
    fn a_signed_halt_names_the_first_execution() {
        let nonce = |first: Option<&str>, run: &str| {
            let standing = Standing {
                run_id: run.to_owned(),
                first_run_id: first.map(str::to_owned),
                is_open: true,
                is_continued: false,
            };
            statement("refund-o1", &standing, "m1").unwrap().nonce().to_owned()
        };
        assert_eq!(nonce(Some("run-1"), "run-7"), nonce(Some("run-1"), "run-8"));
        assert_eq!(nonce(None, "run-1"), nonce(Some("run-1"), "run-1"));
        assert_ne!(nonce(Some("run-1"), "run-7"), nonce(Some("run-2"), "run-7"));
    }
}
