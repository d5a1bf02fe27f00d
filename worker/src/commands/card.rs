//! What people read before they say something to a run: the run's own cards, and a line on where it stands.

use mandate_domain::{RunState, render};
use mandate_workflows::snapshot::{PendingQuestion, Status};
use serde_json::Value;

/// A run on one line.
pub(super) fn run(workflow_id: &str, status: &Status) -> String {
    let workflow_id = render::escape_line(workflow_id);
    // The state says so itself, unless something else goes before.
    let paused = if status.paused && status.state != RunState::Paused.as_str() { ", paused" } else { "" };
    let Status { agent, state, turn, tool_calls, .. } = status;
    format!("{workflow_id}: {agent}, {state}{paused}, turn {turn}, {tool_calls} tool calls")
}

/// A question, with the numbers by which its options can be chosen.
pub(super) fn question(question: &PendingQuestion) -> String {
    let options = options(question);
    if options.is_empty() {
        return question.card.clone();
    }
    let numbered = (1..).zip(&options).map(|(number, option)| format!("  {number}  {}", render::escape_line(option)));
    format!("{}\n\nOptions:\n{}\n", question.card.trim_end(), numbered.collect::<Vec<_>>().join("\n"))
}

/// What a question leaves to choose from. Foreign text.
pub(super) fn options(question: &PendingQuestion) -> Vec<String> {
    let Ok(Value::Object(asked)) = serde_json::from_str(&question.asked) else { return Vec::new() };
    let options = asked.get("options").and_then(Value::as_array).into_iter().flatten();
    options.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What is asked, without context and options. Foreign text.
pub(super) fn asked(question: &PendingQuestion) -> String {
    let asked = serde_json::from_str::<Value>(&question.asked).ok();
    let text = asked.as_ref().and_then(|asked| asked.get("question")).and_then(Value::as_str);
    text.map_or_else(|| question.asked.clone(), str::to_owned)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::commands) fn waiting(id: &str, asked: &Value) -> PendingQuestion {
        serde_json::from_value(json!({
            "question_id": id, "call": "t2.1", "asked": asked.to_string(), "deadline": "2026-11-21 10:00:00",
            "card": "card\n", "command": "answer it",
        }))
        .unwrap()
    }

    #[test]
    fn options_are_numbered_and_cannot_move_the_cursor() {
        let asked = json!({ "question": "Refund him?", "options": ["yes", "no\u{1b}[2J\n  3  yes"] });
        let shown = question(&waiting("q1-7f3a9c", &asked));
        assert_eq!(shown, "card\n\nOptions:\n  1  yes\n  2  no\\u{1b}[2J\\n  3  yes\n");
        assert_eq!(question(&waiting("q1-7f3a9c", &json!({ "question": "Refund him?" }))), "card\n");
    }

    #[test]
    fn a_question_is_told_from_what_stands_beside_it() {
        let asked_of = |value: Value| asked(&waiting("q1-7f3a9c", &value));
        assert_eq!(asked_of(json!({ "question": "Refund him?", "context": "twice" })), "Refund him?");
        assert_eq!(asked_of(json!("no object")), "\"no object\"");
    }

    #[test]
    fn a_run_is_one_line() {
        let shown = |state: &str, paused: bool| {
            run("refund\n1", &crate::commands::tell::tests::status(&json!({ "state": state, "paused": paused })))
        };
        assert_eq!(shown("Paused", true), "refund\\n1: a/b/c, Paused, turn 1, 1 tool calls");
        assert_eq!(shown("Running", true), "refund\\n1: a/b/c, Running, paused, turn 1, 1 tool calls");
    }
}
