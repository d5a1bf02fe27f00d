//! `mandate run`: starts a run and follows it live. The result is data; what happens on the way goes to stderr.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use mandate_domain::{AgentResult, AgentTask, EndReason, RunState, render};
use mandate_workflows::snapshot::{PendingRequest, Status};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cli::{Global, Run},
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
    let temporal = connection::connect(global).await?;
    let workflow_id = options.workflow_id.unwrap_or_else(|| made_up_id(&options.agent));
    let task = AgentTask {
        agent: options.agent,
        prompt: options.prompt,
        on_behalf_of: options.on_behalf_of,
        started_by: options.started_by,
    };
    let handle = temporal.start(&workflow_id, &options.task_queue, &task).await?;
    let run_id = handle.info().run_id.clone().unwrap_or_default();
    if options.detach {
        output::json(&serde_json::json!({ "workflow_id": workflow_id, "run_id": run_id }))?;
        return Ok(Exit::Done);
    }
    output::note(format_args!("started {} (run {run_id})", render::escape_line(&workflow_id)));
    let ended = follow(&temporal, &handle).await?;
    show(&ended)
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
    requests: BTreeSet<String>,
}

impl Seen {
    /// One look. An unanswered question is no end: the worker may be busy or just starting.
    async fn look(&mut self, temporal: &Temporal, handle: &Handle, ticks: &mut tokio::time::Interval) {
        ticks.tick().await;
        // The handle names the first execution; a continued run is asked by its workflow id.
        let newest = temporal.handle(&handle.info().workflow_id);
        let Ok(Some(status)) = temporal.query::<Option<Status>>(&newest, "status").await else { return };
        if let Some(line) = self.changed(line_of(&status)) {
            output::note(line);
        }
        if status.waiting.iter().all(|request| self.requests.contains(request)) {
            return;
        }
        let Ok(pending) = temporal.query::<Vec<PendingRequest>>(&newest, "pending").await else { return };
        for request in pending.into_iter().filter(|request| self.requests.insert(request.request_id.clone())) {
            output::note(card_of(&handle.info().workflow_id, &request));
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

fn card_of(workflow_id: &str, request: &PendingRequest) -> String {
    let command = |verb: &str| {
        let (workflow_id, request) = (render::shell_quote(workflow_id), &request.request_id);
        format!("  mandate {verb} {workflow_id} --request {request} --by YOUR-ID")
    };
    format!("\n{}\nor:\n{}\n{}", request.card, command("approve"), command("reject"))
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
    fn the_card_comes_with_commands_that_a_shell_takes_as_they_are() {
        let request = crate::commands::decide::tests::pending("r1-7f3a9c");
        let shown = card_of("a b", &request);
        assert!(shown.contains("mandate approve 'a b' --request r1-7f3a9c --by YOUR-ID"), "{shown}");
        assert!(shown.contains("mandate reject 'a b'"), "{shown}");
    }

    #[test]
    fn a_line_is_printed_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.changed("a".into()), Some("a".into()));
        assert_eq!(seen.changed("a".into()), None);
        assert_eq!(seen.changed("b".into()), Some("b".into()));
    }
}
