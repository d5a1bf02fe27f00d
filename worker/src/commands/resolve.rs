//! `mandate resolve`: says what became of a call whose outcome nobody knows, with what is known in view, and waits until
//! the run took or refused it.

use mandate_domain::{Instruction, Resolution, ToolCallId};
use mandate_workflows::snapshot::Status;

use super::tell::Conversation;
use crate::{
    cli::{Global, Resolve, ToRun},
    output::{self, Exit, Refused},
};

/// Shows the call, asks, sends the word, and prints what came of it.
///
/// # Errors
/// [`Refused`] when the call's outcome is not unknown, or the word does not count; [`output::UsageError`] for a way of
/// proof that the run does not accept, and without a terminal and without `--yes`.
pub async fn resolve(global: &Global, options: Resolve) -> anyhow::Result<Exit> {
    let Resolve { run: ToRun { workflow_id, sender, yes }, call, resolution } = options;
    let run = Conversation::with(global, &workflow_id).await?;
    let card = known(&run.status, call)?;
    let sender = run.sender(sender)?;
    output::note(card);
    let asked = format!("say that {call} {}?", words(resolution));
    let asked = Some(asked.as_str()).filter(|_| !yes);
    run.tell(&sender, &Instruction::Resolve { call, resolution }, asked).await
}

/// What is known of the call. A worker that is older than this program says only which calls they are.
fn known(status: &Status, call: ToolCallId) -> Result<String, Refused> {
    if let Some(unknown) = status.unknown_calls.iter().find(|unknown| unknown.call == call) {
        return Ok(unknown.card.clone());
    }
    if status.unknown_outcomes.contains(&call) {
        return Ok(format!("Nobody knows whether `{call}` happened."));
    }
    let others: Vec<_> = status.unknown_outcomes.iter().map(ToString::to_string).collect();
    let others = if others.is_empty() { String::new() } else { format!("; that of {} is", others.join(", ")) };
    Err(Refused(format!("the outcome of call `{call}` is not unknown in this run{others}")))
}

fn words(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Happened => "happened",
        Resolution::DidNotHappen => "did not happen, so that the agent may propose it again",
        Resolution::Skip => "stays unknown for good",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::tell::tests::status;

    #[test]
    fn only_a_call_whose_outcome_is_unknown_can_be_resolved() {
        let call =
            json!({ "call": "t1.0", "tool": "mail.send", "reason": "sent", "card": "card", "command": "say it" });
        let lost = status(&json!({ "unknown_outcomes": ["t1.0"], "unknown_calls": [call] }));
        assert_eq!(known(&lost, ToolCallId::new(1, 0)).unwrap(), "card");
        let error = known(&lost, ToolCallId::new(2, 0)).unwrap_err().to_string();
        assert_eq!(error, "the outcome of call `t2.0` is not unknown in this run; that of t1.0 is");
        let error = known(&status(&json!({})), ToolCallId::new(2, 0)).unwrap_err().to_string();
        assert!(error.ends_with("in this run"), "{error}");
        let older = status(&json!({ "unknown_outcomes": ["t1.0"] }));
        assert_eq!(known(&older, ToolCallId::new(1, 0)).unwrap(), "Nobody knows whether `t1.0` happened.");
    }
}
