//! What a person is asked on the terminal before anything is sent.

use std::io::{self, BufRead as _, IsTerminal as _};

use crate::output::{self, Exit, UsageError};

/// Asks for a yes.
///
/// # Errors
/// [`UsageError`] where there is no terminal.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    needs_terminal("read what is shown above and add --yes")?;
    Ok(matches!(read(&format!("{question} [y/N] "))?.as_str(), "y" | "Y" | "yes"))
}

/// Asks for a line.
///
/// # Errors
/// [`UsageError`] where there is no terminal; `instead` says what to do then.
pub(super) fn line(prompt: &str, instead: &str) -> anyhow::Result<String> {
    needs_terminal(instead)?;
    read(&format!("{prompt} "))
}

/// # Errors
/// [`UsageError`] where there is no terminal; `instead` says what to do then.
pub(super) fn needs_terminal(instead: &str) -> Result<(), UsageError> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(UsageError(format!("there is no terminal to ask on; {instead}")))
}

fn read(prompt: &str) -> anyhow::Result<String> {
    eprint!("{prompt}");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// How a command ends when the person said no.
pub(super) fn nothing_was_sent() -> Exit {
    output::note("nothing was sent");
    Exit::Denied
}
