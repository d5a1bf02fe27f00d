//! `mandate steer`, `pause` and `resume`: a further instruction to a running agent, and whether it goes on at all.

use mandate_domain::{Instruction, render};

use super::{card, sender, tell::Conversation};
use crate::{
    cli::{Global, Steer, ToRun},
    output::{self, Exit},
};

/// Tells the agent something more.
///
/// # Errors
/// [`output::Refused`] when it does not count; [`output::UsageError`] for a way of proof that the run does not accept,
/// and without a terminal and without `--yes`.
pub async fn steer(global: &Global, options: Steer) -> anyhow::Result<Exit> {
    let Steer { run, text } = options;
    sender::check_text(&text)?;
    let asked = format!("tell the agent `{}`?", render::escape_line(&text));
    say(global, run, &Instruction::Steer { text }, &asked).await
}

/// Lets a run wait.
///
/// # Errors
/// As [`steer`].
pub async fn pause(global: &Global, run: ToRun) -> anyhow::Result<Exit> {
    say(global, run, &Instruction::Pause, "pause it?").await
}

/// Lets a paused run go on.
///
/// # Errors
/// As [`steer`].
pub async fn resume(global: &Global, run: ToRun) -> anyhow::Result<Exit> {
    say(global, run, &Instruction::Resume, "let it go on?").await
}

/// Shows where the run stands, asks, and sends.
async fn say(global: &Global, run: ToRun, instruction: &Instruction, question: &str) -> anyhow::Result<Exit> {
    let ToRun { workflow_id, sender, yes } = run;
    let run = Conversation::with(global, &workflow_id).await?;
    let sender = run.sender(sender)?;
    output::note(card::run(&workflow_id, &run.status));
    run.tell(&sender, instruction, Some(question).filter(|_| !yes)).await
}
