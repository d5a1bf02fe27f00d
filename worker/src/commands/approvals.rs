//! `mandate approvals`: what waits for people, over all runs: requests, questions, and calls whose outcome nobody knows.
//! Found by Temporal's own query, read from each run's own.
//!
//! A run's state says what it waits for only while nothing else is under way, so a run that works or is paused is asked
//! too. However many there are: they are listed page by page, and asked meanwhile. A run whose worker is down gives no
//! answer: it is named at the end and holds nobody up.

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use mandate_domain::render;
use mandate_workflows::snapshot::{PendingQuestion, PendingRequest, Status, UnknownCall};
use serde::Serialize;
use tokio::time::timeout;

use super::card;
use crate::{
    cli::{Global, Listing},
    connection::{self, Temporal},
    output::{self, Exit, OutputFormat, Progress},
};

/// Runs in which something may wait for people: those that say so, and those that work or are paused. An empty list of
/// approvers is no attribute at all: the server takes such an attribute away. One list, and not one for each kind: a run
/// that goes from one to the other while they are read would be in neither.
const MAY_WAIT: &str = "ExecutionStatus = 'Running' AND (MandateState IN ('AwaitingApproval', 'AwaitingAnswer', \
                        'OutcomeUnknown', 'Running', 'Paused') OR MandateApprovers IS NOT NULL)";
/// How many runs are asked at once: those of dead workers are waited for together.
const ASKED_AT_ONCE: usize = 64;
/// How long one run may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How many silent runs are named.
const NAMED_MAX: usize = 10;
/// After how many runs whoever has no terminal is told how far it is.
const TOLD_EVERY: usize = 500;
/// How much of a foreign text stands in a row, in characters.
const CELL_CHARS_MAX: usize = 80;

/// A run that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    workflow_id: String,
    run_id: String,
}

/// Something that waits, and the run it waits in.
#[derive(Debug, Serialize)]
struct Waiting {
    workflow_id: String,
    run_id: String,
    agent: String,
    #[serde(flatten)]
    what: What,
}

/// What waits.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    /// A request for approval.
    Request(PendingRequest),
    /// A question of the agent.
    Question(PendingQuestion),
    /// A call of which nobody knows whether it happened.
    UnknownOutcome(UnknownCall),
}

/// A run that gave no answer, and why.
#[derive(Debug)]
struct Silent {
    workflow_id: String,
    why: String,
}

/// Lists what waits.
///
/// # Errors
/// When Temporal cannot be asked. Runs that give no answer are named on stderr.
pub async fn approvals(global: &Global, options: &Listing) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let (mut waiting, silent) = ask_all(found(&temporal), async |run| ask(&temporal, run).await).await?;
    waiting.sort_by(|one, other| one.order().cmp(&other.order()));
    match options.output {
        OutputFormat::Json => output::json(&waiting)?,
        OutputFormat::Text if waiting.is_empty() && silent.is_empty() => output::note("nothing waits for people"),
        OutputFormat::Text if waiting.is_empty() => output::note("nothing waits for people in the runs that answered"),
        OutputFormat::Text => output::data(text(&waiting))?,
    }
    if let Some(warning) = warning(&silent) {
        output::note(warning);
    }
    Ok(Exit::Done)
}

/// The runs to ask, however many, as Temporal lists them page by page.
fn found(temporal: &Temporal) -> impl Stream<Item = anyhow::Result<Found>> {
    temporal
        .list_all(MAY_WAIT)
        .map_ok(|run| Found { workflow_id: run.id().to_owned(), run_id: run.run_id().to_owned() })
}

/// Asks each run, some at once, while the next ones are listed. Only what waits is kept.
async fn ask_all(
    runs: impl Stream<Item = anyhow::Result<Found>>,
    ask: impl AsyncFn(Found) -> Result<Vec<Waiting>, Silent>,
) -> anyhow::Result<(Vec<Waiting>, Vec<Silent>)> {
    let progress = Progress::start();
    let (mut waiting, mut silent, mut asked) = (Vec::new(), Vec::new(), 0_usize);
    let answers = runs.map_ok(async |run| Ok(ask(run).await)).try_buffer_unordered(ASKED_AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Ok(found)) => waiting.extend(found),
            Ok(Err(one)) => silent.push(one),
            Err(error) => {
                progress.end();
                return Err(error);
            }
        }
        asked += 1;
        tell(&progress, asked);
    }
    progress.end();
    Ok((waiting, silent))
}

/// Says how far it is: all the time on a terminal, elsewhere now and then.
fn tell(progress: &Progress, asked: usize) {
    progress.say(format!("asked {asked} runs"));
    if progress.is_hidden() && asked.is_multiple_of(TOLD_EVERY) {
        output::note(format_args!("asked {asked} runs so far"));
    }
}

async fn ask(temporal: &Temporal, run: Found) -> Result<Vec<Waiting>, Silent> {
    let why = match timeout(ANSWER_WITHIN, waiting_in(temporal, &run)).await {
        Ok(Ok(waiting)) => return Ok(waiting),
        Ok(Err(error)) => output::chain(&error),
        Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
    };
    Err(Silent { workflow_id: run.workflow_id, why })
}

async fn waiting_in(temporal: &Temporal, run: &Found) -> anyhow::Result<Vec<Waiting>> {
    let handle = temporal.execution(&run.workflow_id, &run.run_id);
    let Some(status) = temporal.status(&handle).await? else { return Ok(Vec::new()) };
    let requests = if status.waiting.is_empty() { Vec::new() } else { temporal.pending(&handle).await? };
    Ok(all_of(run, status, requests))
}

fn all_of(run: &Found, status: Status, requests: Vec<PendingRequest>) -> Vec<Waiting> {
    let Status { agent, questions, unknown_calls, .. } = status;
    let requests = requests.into_iter().map(What::Request);
    let questions = questions.into_iter().map(What::Question);
    let unknown = unknown_calls.into_iter().map(What::UnknownOutcome);
    let one = |what| {
        let Found { workflow_id, run_id } = run.clone();
        Waiting { workflow_id, run_id, agent: agent.clone(), what }
    };
    requests.chain(questions).chain(unknown).map(one).collect()
}

impl Waiting {
    /// What ends first comes first; what has no end comes last.
    fn order(&self) -> (bool, &str, &str) {
        let deadline = match &self.what {
            What::Request(request) => Some(request.deadline.as_str()),
            What::Question(question) => Some(question.deadline.as_str()),
            What::UnknownOutcome(_) => None,
        };
        (deadline.is_none(), deadline.unwrap_or_default(), &self.workflow_id)
    }

    fn row(&self) -> [String; 6] {
        let workflow_id = render::escape_line(&self.workflow_id);
        match &self.what {
            What::Request(request) => {
                let what = format!("{} {}", request.tool, request.arguments);
                let who = format!("{} ({} of {})", request.approvers.join(", "), request.votes, request.quorum);
                let id = request.request_id.clone();
                ["request".to_owned(), id, workflow_id, cell(&what), who, request.deadline.clone()]
            }
            What::Question(question) => {
                let (id, asked) = (question.question_id.clone(), cell(&card::asked(question)));
                ["question".to_owned(), id, workflow_id, asked, "-".to_owned(), question.deadline.clone()]
            }
            What::UnknownOutcome(call) => {
                let what = format!("{}: {}", call.tool, call.reason);
                let none = "-".to_owned();
                ["unknown outcome".to_owned(), call.call.to_string(), workflow_id, cell(&what), none.clone(), none]
            }
        }
    }
}

/// A foreign text in a row: one line, cut.
fn cell(text: &str) -> String {
    let shown = render::escape_line(text);
    let mut cut: String = shown.chars().take(CELL_CHARS_MAX).collect();
    if cut.len() < shown.len() {
        cut.push('…');
    }
    cut
}

fn text(waiting: &[Waiting]) -> String {
    output::table(["KIND", "ID", "WORKFLOW", "WHAT", "WHO", "UNTIL (UTC)"], waiting.iter().map(Waiting::row))
}

/// The silent runs in one sentence.
fn warning(silent: &[Silent]) -> Option<String> {
    let first = silent.first()?;
    let names = silent.iter().take(NAMED_MAX).map(|run| render::escape_line(&run.workflow_id));
    let names = names.collect::<Vec<_>>().join(", ");
    let more = match silent.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (count, why) = (silent.len(), render::escape_line(&first.why));
    Some(format!(
        "warning: {count} run(s) gave no answer, so what waits in them is not listed: {names}{more}; is a worker running \
         on their task queues? ({why})"
    ))
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeSet,
    };

    use futures::stream;
    use serde_json::json;

    use super::*;
    use crate::commands::{card::tests::waiting as question, decide::tests::pending, tell::tests::status};

    fn waiting() -> Vec<Waiting> {
        let unknown =
            json!({ "call": "t2.1", "tool": "mail.send", "reason": "sent\nperhaps", "card": "c", "command": "c" });
        let mut status = status(&json!({ "unknown_calls": [unknown] }));
        status.questions = vec![question("q1-aaaaaa", &json!({ "question": "Refund him?", "options": ["yes"] }))];
        let run = Found { workflow_id: "refund-\u{1b}[2J".into(), run_id: "run".into() };
        let mut waiting = all_of(&run, status, vec![pending("r1-7f3a9c")]);
        waiting.sort_by(|one, other| one.order().cmp(&other.order()));
        waiting
    }

    #[test]
    fn what_ends_first_comes_first() {
        let shown = text(&waiting());
        let kinds: Vec<_> = shown.lines().skip(1).map(|line| line.trim().split("  ").next().unwrap()).collect();
        assert_eq!(kinds, ["question", "request", "unknown outcome"], "{shown}");
    }

    #[test]
    fn foreign_text_stays_in_its_row_and_cannot_move_the_cursor() {
        let shown = text(&waiting());
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 4, "{shown}");
        for part in ["r1-7f3a9c", "refund-\\u{1b}[2J", "finance-leads (0 of 1)", "2026-11-22 10:00:00", "Refund him?"] {
            assert!(shown.contains(part), "`{part}`: {shown}");
        }
        assert!(shown.contains("mail.send: sent\\nperhaps"), "{shown}");
        assert_eq!(cell(&"ä".repeat(100)).chars().count(), CELL_CHARS_MAX + 1);
        assert_eq!(cell("short"), "short");
    }

    #[test]
    fn json_is_one_flat_object_for_each() {
        let value = serde_json::to_value(waiting()).unwrap();
        assert_eq!((&value[0]["kind"], &value[0]["question_id"]), (&"question".into(), &"q1-aaaaaa".into()));
        assert_eq!((&value[1]["kind"], &value[1]["request_id"]), (&"request".into(), &"r1-7f3a9c".into()));
        assert_eq!((&value[1]["run_id"], &value[1]["agent"]), (&"run".into(), &"a/b/c".into()));
        assert_eq!((&value[2]["kind"], &value[2]["call"]), (&"unknown_outcome".into(), &"t2.1".into()));
    }

    #[test]
    fn silent_runs_are_named_in_one_warning() {
        assert_eq!(warning(&[]), None);
        let silent: Vec<_> =
            (0..12).map(|n| Silent { workflow_id: format!("w{n}"), why: "no answer within 3s".into() }).collect();
        let said = warning(&silent).unwrap();
        assert!(said.contains("12 run(s)") && said.contains("w0, w1") && said.contains("w9 and 2 more"), "{said}");
        assert!(said.ends_with("(no answer within 3s)") && said.lines().count() == 1, "{said}");
    }

    /// So many runs as no single page of Temporal holds: all are asked, few at once, and none is held back by a limit.
    #[tokio::test]
    async fn however_many_runs_there_are_each_is_asked_once() {
        const RUNS: usize = 2_500;
        let run = |number: usize| Found { workflow_id: format!("w{number}"), run_id: format!("run-{number}") };
        let (listed, at_once, most) = (Cell::new(0), Cell::new(0_usize), Cell::new(0_usize));
        let runs = stream::iter(0..RUNS).map(|number| {
            listed.set(number + 1);
            Ok(run(number))
        });
        let asked = RefCell::new(BTreeSet::new());
        let (waiting, silent) = ask_all(runs, async |run| {
            at_once.set(at_once.get() + 1);
            most.set(most.get().max(at_once.get()));
            assert!(listed.get() <= asked.borrow().len() + ASKED_AT_ONCE + 1, "no more is listed than is asked");
            tokio::task::yield_now().await;
            at_once.set(at_once.get() - 1);
            let number = asked.borrow().len();
            assert!(asked.borrow_mut().insert(run.run_id.clone()), "{run:?} is asked twice");
            if number % 100 == 99 {
                return Err(Silent { workflow_id: run.workflow_id, why: "no answer".into() });
            }
            Ok(all_of(&run, status(&json!({})), vec![pending("r1-7f3a9c")]))
        })
        .await
        .unwrap();
        assert_eq!((asked.borrow().len(), waiting.len(), silent.len()), (RUNS, RUNS - 25, 25));
        assert!(most.get() > 1 && most.get() <= ASKED_AT_ONCE, "{}", most.get());
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_is_no_list() {
        let run = Found { workflow_id: "w".into(), run_id: "run".into() };
        let runs = stream::iter([Ok(run), Err(anyhow::anyhow!("cannot list runs: gone"))]);
        let error = ask_all(runs, async |_| Ok(Vec::new())).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot list runs: gone");
    }

    #[test]
    fn the_query_leaves_no_state_out_in_which_something_can_wait() {
        use mandate_domain::RunState;
        let named = |state: RunState| MAY_WAIT.contains(&format!("'{}'", state.as_str()));
        let waits = [RunState::AwaitingApproval, RunState::AwaitingAnswer, RunState::OutcomeUnknown];
        for state in waits.into_iter().chain([RunState::Running, RunState::Paused]) {
            assert!(named(state), "{}", state.as_str());
        }
        for over in [RunState::Completed, RunState::Stopped, RunState::Failed, RunState::Cancelled] {
            assert!(!named(over), "{}", over.as_str());
        }
    }
}
