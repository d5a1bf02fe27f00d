//! `mandate run`: starts a run and follows it live. The result is data; what happens on the way goes to stderr.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use mandate_domain::{
    AgentResult, AgentTask, EndReason, Evidence, Proof, RunState, Statement, proof::StartSaid, render,
};
use mandate_workflows::snapshot::Status;
use tokio::time::{MissedTickBehavior, interval};

use super::{card, sender::Sender};
use crate::{
    cli::{Global, ProofOptions, Run, SenderOptions},
    connection::{self, Ended, Handle, Temporal},
    output::{self, Exit},
};

/// How often the run is asked where it stands.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How the detail of a run begins that policy did not let anybody start.
const START_DENIED: &str = "StartDenied: ";

/// Starts a run, follows it and prints its result.
///
/// # Errors
/// When it cannot be started or followed.
pub async fn run(global: &Global, options: Run) -> anyhow::Result<Exit> {
    let Run { agent, on_behalf_of, started_by, proof, workflow_id, task_queue, detach, prompt } = options;
    let temporal = connection::connect(global).await?;
    let workflow_id = workflow_id.unwrap_or_else(|| made_up_id(&agent));
    let (none, started_by_proof) = (Evidence::none(), Evidence::none());
    let mut task = AgentTask { agent, prompt, on_behalf_of, started_by, proof: none, started_by_proof };
    prove(&mut task, proof, &workflow_id).await?;
    let handle = temporal.start(&workflow_id, &task_queue, &task).await?;
    let run_id = handle.info().run_id.clone().unwrap_or_default();
    if detach {
        output::json(&serde_json::json!({ "workflow_id": workflow_id, "run_id": run_id }))?;
        return Ok(Exit::Done);
    }
    output::note(format_args!("started {} (run {run_id})", render::escape_line(&workflow_id)));
    let ended = follow(&temporal, &handle).await?;
    show(&ended)
}

/// Adds what shows who starts the run: whoever `started_by` names, or else the person it acts for. There is no run yet
/// that could say which ways it accepts: `open_run` judges them.
///
/// # Errors
/// When the key or the token cannot be had.
async fn prove(task: &mut AgentTask, proof: ProofOptions, workflow_id: &str) -> anyhow::Result<()> {
    if proof.key.is_none() && proof.token.is_none() {
        return Ok(());
    }
    let by = task.started_by.as_ref().unwrap_or(&task.on_behalf_of).clone();
    let sender = Sender::new(SenderOptions { by: Some(by), proof, comment: None }, &Proof::ALL)?;
    let ready = sender.ready(|| {
        let AgentTask { agent, prompt, on_behalf_of, .. } = &*task;
        Ok(Statement::start(&StartSaid { agent, prompt, on_behalf_of, workflow_id })?)
    })?;
    let evidence = ready.evidence().await?;
    match task.started_by {
        Some(_) => task.started_by_proof = evidence,
        None => task.proof = evidence,
    }
    Ok(())
}

/// A workflow id from agent and time.
pub(super) fn made_up_id(agent: &mandate_domain::AgentName) -> String {
    let name = agent.as_str().rsplit('/').next().unwrap_or_default();
    format!("{name}-{}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S-%3f"))
}

/// Prints each change until the run has ended.
///
/// # Errors
/// When the run cannot be followed.
pub async fn follow(temporal: &Temporal, handle: &Handle) -> anyhow::Result<Ended> {
    let mut ended = pin!(temporal.ended(handle));
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            () = seen.look(temporal, handle, &mut ticks) => {}
        }
    }
}

/// What was printed before.
#[derive(Debug, Default)]
struct Seen {
    last_line: String,
    cards: BTreeSet<String>,
}

impl Seen {
    /// One look. An unanswered question is no end: the worker may be busy or just starting.
    async fn look(&mut self, temporal: &Temporal, handle: &Handle, ticks: &mut tokio::time::Interval) {
        ticks.tick().await;
        // The handle names the first execution; a continued run is asked by its workflow id.
        let newest = temporal.handle(&handle.info().workflow_id);
        let Ok(Some(status)) = temporal.status(&newest).await else { return };
        if let Some(line) = self.changed(line_of(&status)) {
            output::note(line);
        }
        for (_, card) in cards(&status).into_iter().filter(|(id, _)| self.cards.insert(id.clone())) {
            output::note(format_args!("\n{card}"));
        }
        if status.waiting.iter().all(|request| self.cards.contains(request)) {
            return;
        }
        let Ok(pending) = temporal.pending(&newest).await else { return };
        for request in pending.into_iter().filter(|request| self.cards.insert(request.request_id.clone())) {
            output::note(format_args!("\n{}", request.card));
        }
    }

    fn changed(&mut self, line: String) -> Option<String> {
        if line == self.last_line {
            return None;
        }
        self.last_line.clone_from(&line);
        Some(line)
    }
}

fn line_of(status: &Status) -> String {
    format!("turn {}: {}, {} tool calls", status.turn, status.state, status.tool_calls)
}

/// What waits beside requests, each with its id. The commands stand in the cards, as they fit the run.
fn cards(status: &Status) -> Vec<(String, String)> {
    let questions = status.questions.iter().map(|one| (one.question_id.clone(), card::question(one)));
    let unknown = status.unknown_calls.iter().map(|one| (one.call.to_string(), one.card.clone()));
    questions.chain(unknown).collect()
}

/// Prints the result and says how the program ends.
///
/// # Errors
/// When stdout cannot be written.
pub fn show(ended: &Ended) -> anyhow::Result<Exit> {
    if let Some(failure) = &ended.failure {
        output::note(format_args!("run ended: {}", render::escape_line(failure)));
    }
    if let Some(result) = &ended.result {
        output::json(result)?;
    }
    Ok(exit_of(ended.result.as_ref()))
}

fn exit_of(result: Option<&AgentResult>) -> Exit {
    let Some(result) = result else { return Exit::Failure };
    let start_denied = result.detail.as_ref().is_some_and(|detail| detail.starts_with(START_DENIED));
    match (result.state, result.reason) {
        (RunState::Completed, _) => Exit::Done,
        (RunState::Failed, Some(EndReason::RefusedStart)) if start_denied => Exit::Denied,
        (RunState::Stopped, _) | (RunState::Failed, Some(EndReason::ModelDenied)) => Exit::Denied,
        (
            RunState::Failed
            | RunState::Cancelled
            | RunState::Running
            | RunState::AwaitingApproval
            | RunState::AwaitingAnswer
            | RunState::OutcomeUnknown
            | RunState::Paused,
            _,
        ) => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use mandate_domain::{PublicKey, proof::SigningKey};
    use serde_json::json;

    use super::*;

    fn exit(state: &str, reason: Option<&str>) -> Exit {
        exit_with(state, reason, None)
    }

    fn exit_with(state: &str, reason: Option<&str>, detail: Option<&str>) -> Exit {
        let result = serde_json::from_value(serde_json::json!({
            "state": state, "reason": reason, "detail": detail, "turns": 1, "tool_calls": 0,
            "usage": { "input_tokens": 0, "output_tokens": 0 }, "audit": { "records": 0, "head": "0".repeat(64) },
        }));
        exit_of(Some(&result.unwrap()))
    }

    #[test]
    fn the_end_of_the_run_is_the_exit_of_the_program() {
        assert_eq!(exit("Completed", None), Exit::Done);
        assert_eq!(exit("Stopped", Some("halted")), Exit::Denied);
        assert_eq!(exit("Failed", Some("model_denied")), Exit::Denied);
        assert_eq!(exit("Failed", Some("unavailable")), Exit::Failure);
        let denied = "StartDenied: `ana` may not start agent `a/b/c`: no policy permits this";
        assert_eq!(exit_with("Failed", Some("refused_start"), Some(denied)), Exit::Denied);
        assert_eq!(exit_with("Failed", Some("refused_start"), Some("UnknownAgent: none")), Exit::Failure);
        assert_eq!(exit("Cancelled", Some("cancelled")), Exit::Failure);
        assert_eq!(exit_of(None), Exit::Failure);
    }

    #[test]
    fn questions_and_lost_calls_are_shown_with_their_cards() {
        let question = card::tests::waiting("q1-7f3a9c", &json!({ "question": "Refund him?" }));
        let call = json!({ "call": "t2.0", "tool": "mail.send", "reason": "sent", "card": "lost", "command": "c" });
        let mut status = crate::commands::tell::tests::status(&json!({ "unknown_calls": [call] }));
        status.questions.push(question);
        let expected = [("q1-7f3a9c", "card\n"), ("t2.0", "lost")].map(|(id, card)| (id.to_owned(), card.to_owned()));
        assert_eq!(cards(&status), expected);
    }

    async fn proved(started_by: Option<&str>) -> (AgentTask, PublicKey) {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("key.pem"), SigningKey::from_random(&[3; 32]));
        std::fs::write(&file, key.to_pem().unwrap().as_bytes()).unwrap();
        let task = json!({
            "agent": "acme/support/refunds", "prompt": "Refund order o1", "on_behalf_of": "ana@acme.example",
            "started_by": started_by,
        });
        let mut task = serde_json::from_value(task).unwrap();
        prove(&mut task, ProofOptions { key: Some(file), token: None }, "refund-o1").await.unwrap();
        (task, key.public_key())
    }

    #[tokio::test]
    async fn a_key_proves_whoever_starts_the_run() {
        for started_by in [None, Some("kim@acme.example")] {
            let (task, key) = proved(started_by).await;
            let (used, other) = match started_by {
                Some(_) => (&task.started_by_proof, &task.proof),
                None => (&task.proof, &task.started_by_proof),
            };
            assert!(other.is_none());
            let (agent, prompt, on_behalf_of) = (&task.agent, task.prompt.as_str(), &task.on_behalf_of);
            let said = StartSaid { agent, prompt, on_behalf_of, workflow_id: "refund-o1" };
            let by = task.started_by.as_ref().unwrap_or(on_behalf_of);
            let signed = Statement::start(&said).unwrap().bytes(by).unwrap();
            let signature = used.signature.as_ref().unwrap().parse().unwrap();
            assert_eq!(key.verify(&signed, &signature), Ok(()), "{started_by:?}");
        }
    }

    #[test]
    fn a_line_is_printed_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.changed("a".into()), Some("a".into()));
        assert_eq!(seen.changed("a".into()), None);
        assert_eq!(seen.changed("b".into()), Some("b".into()));
    }
}
