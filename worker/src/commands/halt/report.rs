//! What came of a halt, run by run.

use mandate_domain::{AgentResult, EndReason, PerformedCall, RunState, ToolCallId, compensation::UndoneCall, render};
use serde::Serialize;

use crate::{
    connection::Ended,
    output::{self, Exit},
};

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Halted {
    pub(super) workflow_id: String,
    /// The execution that was told; absent if none could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run_id: Option<String>,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The run has ended.
    Ended(End),
    /// It has not, in time.
    StillEnding,
    /// It could not be told, or could not be asked what came of it.
    Unreachable {
        /// Why.
        why: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct End {
    /// Terminal state; absent where Temporal ended the run without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<RunState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Calls that were not performed because the run ended.
    not_performed: Vec<ToolCallId>,
    /// Calls that had changed something, the last ones if there are many.
    performed: Vec<PerformedCall>,
    /// Calls of which nobody knows whether they happened.
    unknown_outcomes: Vec<ToolCallId>,
    /// Calls that were to be undone, and what came of that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undone: Vec<UndoneCall>,
}

impl Halted {
    /// Whether looking again may show more.
    pub(super) fn may_still_end(&self) -> bool {
        self.run_id.is_some() && !matches!(self.outcome, Outcome::Ended(_))
    }
}

impl Outcome {
    pub(super) fn unreachable(error: &anyhow::Error) -> Self {
        Self::Unreachable { why: output::chain(error) }
    }

    pub(super) fn of(ended: Ended) -> Self {
        let Ended { result, failure } = ended;
        let Some(result) = result else {
            return Self::Ended(End {
                state: None,
                reason: None,
                detail: failure,
                not_performed: Vec::new(),
                performed: Vec::new(),
                unknown_outcomes: Vec::new(),
                undone: Vec::new(),
            });
        };
        let AgentResult { state, reason, detail, not_performed, performed, unknown_outcomes, undone, .. } = result;
        let detail = detail.or(failure);
        Self::Ended(End { state: Some(state), reason, detail, not_performed, performed, unknown_outcomes, undone })
    }
}

/// For people: a line for each run.
pub(super) fn text(halted: &[Halted]) -> String {
    output::table(["WORKFLOW", "OUTCOME", "STOPPED", "HAD HAPPENED", "NOBODY KNOWS"], halted.iter().map(row))
}

fn row(halted: &Halted) -> [String; 5] {
    let workflow_id = render::escape_line(&halted.workflow_id);
    let none = || "-".to_owned();
    match &halted.outcome {
        Outcome::StillEnding => [workflow_id, "still ending".to_owned(), none(), none(), none()],
        Outcome::Unreachable { why } => {
            [workflow_id, format!("unreachable: {}", render::escape_line(why)), none(), none(), none()]
        }
        Outcome::Ended(end) => {
            let undone = |call: &ToolCallId| end.undone.iter().find(|undone| undone.call == *call);
            // The undo of a call is told beside the call.
            let done = end.performed.iter().filter(|done| !done.call.undo);
            let performed = done.map(|done| match undone(&done.call) {
                Some(undone) => format!("{} {} ({})", done.call, done.tool, undone.state.as_str()),
                None => format!("{} {}", done.call, done.tool),
            });
            [
                workflow_id,
                ending(end),
                listed(end.not_performed.iter().map(ToString::to_string)),
                render::escape_line(&listed(performed)),
                listed(end.unknown_outcomes.iter().map(ToString::to_string)),
            ]
        }
    }
}

fn ending(end: &End) -> String {
    match (end.state, end.reason, &end.detail) {
        (Some(state), Some(reason), _) => format!("{} ({})", state.as_str(), reason.as_str()),
        (Some(state), None, _) => state.as_str().to_owned(),
        (None, _, Some(detail)) => format!("ended: {}", render::escape_line(detail)),
        (None, _, None) => "ended".to_owned(),
    }
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

/// How many of each, in a sentence.
pub(super) fn summary(halted: &[Halted]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| halted.iter().filter(|one| wanted(&one.outcome)).count();
    let ended = count(|outcome| matches!(outcome, Outcome::Ended(_)));
    let open = match count(|outcome| matches!(outcome, Outcome::StillEnding)) {
        0 => String::new(),
        open => format!("; {open} still ending: what is under way comes to its end first, `mandate status` shows it"),
    };
    let lost = match count(|outcome| matches!(outcome, Outcome::Unreachable { .. })) {
        0 => String::new(),
        lost => format!("; {lost} unreachable"),
    };
    format!("{ended} of {} run(s) ended{open}{lost}", halted.len())
}

/// Whether every run has ended.
pub(super) fn exit(halted: &[Halted]) -> Exit {
    let ended = halted.iter().all(|one| matches!(one.outcome, Outcome::Ended(_)));
    if ended { Exit::Done } else { Exit::Failure }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(more: &Value) -> AgentResult {
        let mut result = json!({
            "state": "Stopped", "reason": "halted", "detail": "halted by olga@acme.example", "turns": 1, "tool_calls": 3,
            "usage": { "input_tokens": 0, "output_tokens": 0 }, "audit": { "records": 0, "head": "0".repeat(64) },
        });
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(result).unwrap()
    }

    fn halted(workflow_id: &str, outcome: Outcome) -> Halted {
        let run_id = Some("run-1".to_owned()).filter(|_| !matches!(outcome, Outcome::Unreachable { .. }));
        Halted { workflow_id: workflow_id.to_owned(), run_id, outcome }
    }

    fn ended() -> Halted {
        let result = result(&json!({
            "not_performed": ["t1.1", "t1.2"], "performed": [{ "call": "t1.0", "tool": "mail.\u{1b}send" }],
            "unknown_outcomes": ["t1.3"],
        }));
        halted("refund-o1", Outcome::of(Ended { result: Some(result), failure: None }))
    }

    #[test]
    fn each_run_is_a_line_with_what_was_stopped_and_what_had_happened() {
        let lost = Outcome::unreachable(&anyhow::anyhow!("no open run `refund-o3`"));
        let runs = [ended(), halted("refund-o2", Outcome::StillEnding), halted("refund-o3", lost)];
        let shown = text(&runs);
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| lines[line].iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>();
        let expected = ["refund-o1", "Stopped (halted)", "t1.1, t1.2", "t1.0 mail.\\u{1b}send", "t1.3"];
        assert_eq!(cells(1), expected, "{shown}");
        assert_eq!(cells(2), ["refund-o2", "still ending", "-", "-", "-"], "{shown}");
        assert!(shown.contains("unreachable: no open run `refund-o3`"), "{shown}");
        assert!(summary(&runs).starts_with("1 of 3 run(s) ended; 1 still ending"), "{}", summary(&runs));
    }

    #[test]
    fn programs_read_the_same() {
        let value = serde_json::to_value(ended()).unwrap();
        assert_eq!(
            (&value["outcome"], &value["state"], &value["reason"]),
            (&"ended".into(), &"Stopped".into(), &"halted".into())
        );
        assert_eq!((&value["not_performed"][1], &value["performed"][0]["call"]), (&"t1.2".into(), &"t1.0".into()));
        let value = serde_json::to_value(halted("w", Outcome::StillEnding)).unwrap();
        assert_eq!(value, json!({ "workflow_id": "w", "run_id": "run-1", "outcome": "still_ending" }));
        let lost = Outcome::unreachable(&anyhow::anyhow!("gone"));
        let value = serde_json::to_value(halted("w", lost)).unwrap();
        assert_eq!(value, json!({ "workflow_id": "w", "outcome": "unreachable", "why": "gone" }));
    }

    #[test]
    fn it_is_done_when_every_run_has_ended() {
        assert_eq!(exit(&[]), Exit::Done);
        assert_eq!(exit(&[ended()]), Exit::Done);
        assert_eq!(exit(&[ended(), halted("w", Outcome::StillEnding)]), Exit::Failure);
        let lost = halted("w", Outcome::unreachable(&anyhow::anyhow!("gone")));
        assert!(!lost.may_still_end() && exit(&[lost]) == Exit::Failure);
    }

    #[test]
    fn a_run_that_temporal_ended_has_no_result() {
        let failure = Some("the workflow execution was terminated".to_owned());
        let terminated = halted("w", Outcome::of(Ended { result: None, failure }));
        assert!(text(&[terminated]).contains("ended: the workflow execution was terminated"));
        let completed = result(&json!({ "state": "Completed", "reason": null }));
        let completed = halted("w", Outcome::of(Ended { result: Some(completed), failure: None }));
        assert!(text(&[completed]).contains("Completed"));
    }
}
