//! `mandate steer`, `pause` and `resume`: a further instruction to a running agent, and whether it goes on at all.

use mandate_domain::{Instruction, render};

use super::{card, sender, tell::Conversation};
use crate::{
    cli::{Global, Pause, SenderOptions, Steer},
    output::{self, Exit},
};

/// Tells the agent something more.
///
/// # Errors
/// [`output::Refused`] when it does not count; [`output::UsageError`] for a way of proof that the run does not accept,
/// and without a terminal and without `--yes`.
pub async fn steer(global: &Global, options: Steer) -> anyhow::Result<Exit> {
    let Steer { workflow_id, text, sender, yes } = options;
    sender::check_text(&text)?;
    let asked = format!("tell the agent `{}`?", render::escape_line(&text));
    let asked = Some(asked).filter(|_| !yes);
    say(global, &workflow_id, sender, &Instruction::Steer { text }, asked.as_deref()).await
}

/// Lets a run wait.
///
/// # Errors
/// As [`steer`].
pub async fn pause(global: &Global, options: Pause) -> anyhow::Result<Exit> {
    let Pause { workflow_id, sender, yes } = options;
    let asked = Some("pause it?").filter(|_| !yes);
    say(global, &workflow_id, sender, &Instruction::Pause, asked).await
}

/// Lets a paused run go on.
///
/// # Errors
/// As [`steer`].
pub async fn resume(global: &Global, options: Pause) -> anyhow::Result<Exit> {
    let Pause { workflow_id, sender, yes } = options;
    let asked = Some("let it go on?").filter(|_| !yes);
    say(global, &workflow_id, sender, &Instruction::Resume, asked).await
}

/// Shows where the run stands, asks, and sends.
async fn say(
    global: &Global,
    workflow_id: &str,
    sender: SenderOptions,
    instruction: &Instruction,
    asked: Option<&str>,
) -> anyhow::Result<Exit> {
    let run = Conversation::with(global, workflow_id).await?;
    let sender = run.sender(sender)?;
    output::note(card::run(workflow_id, &run.status));
    run.tell(&sender, instruction, asked).await
}
