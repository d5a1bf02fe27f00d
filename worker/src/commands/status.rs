//! `mandate status`: where a run stands, from its own query.

use anyhow::Context as _;
use mandate_domain::{RunState, render};
use mandate_workflows::snapshot::Status;

use super::tell::NOT_BEGUN;
use crate::{
    cli::{self, Global},
    connection,
    output::{self, Exit, OutputFormat},
};

/// Asks the run and prints its answer.
///
/// # Errors
/// When there is no such run or no worker answers.
pub async fn status(global: &Global, options: &cli::Status) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    let handle = temporal.handle(&options.workflow_id);
    let status = temporal.status(&handle).await?.context(NOT_BEGUN)?;
    match options.output {
        OutputFormat::Json => output::json(&status)?,
        OutputFormat::Text => output::data(text(&status))?,
    }
    Ok(Exit::Done)
}

fn text(status: &Status) -> String {
    let usage = &status.usage;
    let mut lines = vec![
        format!("state    {}", status.state),
        format!("agent    {}", status.agent),
        format!("turn     {}, {} tool calls", status.turn, status.tool_calls),
        format!("tokens   {} in, {} out", usage.input_tokens, usage.output_tokens),
        format!("audit    {} records", status.audit_records),
    ];
    if !status.accepts.is_empty() {
        let ways: Vec<_> = status.accepts.iter().map(ToString::to_string).collect();
        lines.push(format!("accepts  {}", ways.join(", ")));
    }
    if status.paused && status.state != RunState::Paused.as_str() {
        lines.push("paused   nothing new begins until `mandate resume`".to_owned());
    }
    lines.extend(status.waiting.iter().map(|request| format!("waiting  {request}")));
    lines.extend(status.questions.iter().map(|one| format!("asks     {}", one.question_id)));
    lines.extend(status.unknown_outcomes.iter().map(|call| format!("unknown  {call}: see `mandate resolve --help`")));
    if let Some(reason) = &status.last_refusal {
        lines.push(format!("refused  {} message(s), last: {}", status.refused_messages, render::escape_line(reason)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_fact_a_line() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "state": "AwaitingApproval", "agent": "acme/support/refunds", "turn": 2, "tool_calls": 2,
            "usage": { "input_tokens": 10, "output_tokens": 5 }, "audit_records": 9, "waiting": ["r1-7f3a9c"],
            "unknown_outcomes": [], "refused_messages": 1, "last_refusal": "a\nb",
        }))
        .unwrap();
        let expected = "state    AwaitingApproval\nagent    acme/support/refunds\nturn     2, 2 tool calls\n\
                        tokens   10 in, 5 out\naudit    9 records\nwaiting  r1-7f3a9c\nrefused  1 message(s), last: a\\nb";
        assert_eq!(text(&status), expected);
    }

    #[test]
    fn what_people_are_asked_and_how_they_are_proved_stands_in_the_status() {
        let question = serde_json::json!({
            "question_id": "q1-7f3a9c", "call": "t2.0", "asked": "{}", "deadline": "2026-11-22 10:00:00", "card": "card",
            "command": "answer it",
        });
        let status = crate::commands::tell::tests::status(&serde_json::json!({
            "paused": true, "accepts": ["key", "jwt"], "questions": [question], "unknown_outcomes": ["t2.1"],
        }));
        let expected = "accepts  key, jwt\npaused   nothing new begins until `mandate resume`\nasks     q1-7f3a9c\n\
                        unknown  t2.1: see `mandate resolve --help`";
        assert!(text(&status).ends_with(expected), "{}", text(&status));
    }
}
