//! What the program says: data on stdout, everything else on stderr, the decision in the exit code.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;
use indicatif::ProgressBar;
use mandate_activities::policy::OpenPolicyError;
use serde::Serialize;

use crate::config::ConfigErrors;

/// How often a sign of life moves.
const TICK_EVERY: Duration = Duration::from_millis(120);

/// How a listing is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or allowed.
    Done,
    /// It failed.
    Failure,
    /// The command was used wrongly.
    Usage,
    /// Denied or rejected.
    Denied,
    /// The configuration or a policy cannot be used.
    Invalid,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Invalid => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The command was used wrongly in a way that only shows when it runs. Correct the arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The request was refused by the run. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A sign of life on a terminal; nothing elsewhere.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Begins.
    #[must_use]
    pub fn start() -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(TICK_EVERY);
        Self(bar)
    }

    /// Says what is being done.
    pub fn say(&self, what: impl Into<Cow<'static, str>>) {
        self.0.set_message(what);
    }

    /// Whether nobody sees it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Prints clap's message: help and version are data, everything else is wrong usage.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// Prints an error with its chain of causes, and says how the program ends.
#[must_use]
pub fn report(error: anyhow::Error) -> Exit {
    let exit = exit_of(&error);
    match error.downcast::<ConfigErrors>() {
        Ok(errors) => note(format_args!("{:?}", miette::Report::new(errors))),
        Err(error) => note(format_args!("error: {}", chain(&error))),
    }
    exit
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let no_policy = match error.downcast_ref() {
        Some(OpenPolicyError::Nothing | OpenPolicyError::Unusable { .. }) => true,
        Some(OpenPolicyError::Store(_)) | None => false,
    };
    if error.is::<ConfigErrors>() || no_policy {
        Exit::Invalid
    } else if error.is::<UsageError>() {
        Exit::Usage
    } else if error.is::<Refused>() {
        Exit::Denied
    } else {
        Exit::Failure
    }
}

/// The error and its causes on one line; a cause that the text before it repeats is left out.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

/// A line for people, on stderr.
pub fn note(text: impl Display) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A line of data, on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn data(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever read it has read enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written_or_failed => written_or_failed,
    }
}

/// A JSON document, on stdout.
///
/// # Errors
/// When it cannot be written.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(data(serde_json::to_string_pretty(value)?)?)
}

/// A table without borders around its cells, as plain text. Cells must be escaped before.
#[must_use]
pub fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    lines(&filled(head, rows))
}

/// The same, at most so many columns wide: long cells are broken between words.
#[must_use]
pub fn table_within<const COLUMNS: usize>(
    width: u16,
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = filled(head, rows);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_width(width);
    lines(&table)
}

fn filled<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_carries_the_decision() {
        let codes = [Exit::Done, Exit::Failure, Exit::Usage, Exit::Denied, Exit::Invalid].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(exit_of(&UsageError("x".into()).into()), Exit::Usage);
        assert_eq!(exit_of(&anyhow::Error::from(Refused("x".into())).context("y")), Exit::Denied);
        assert_eq!(exit_of(&OpenPolicyError::Nothing.into()), Exit::Invalid);
        assert_eq!(exit_of(&anyhow::anyhow!("x")), Exit::Failure);
    }

    #[test]
    fn a_broken_folder_is_an_invalid_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let errors = crate::config::Config::load(folder.path(), folder.path()).unwrap_err();
        assert_eq!(exit_of(&errors.into()), Exit::Invalid);
    }

    #[test]
    fn causes_stand_on_one_line_and_none_twice() {
        let error = anyhow::anyhow!("no route").context("cannot reach `a`: no route").context("cannot start");
        assert_eq!(chain(&error), "cannot start: cannot reach `a`: no route");
    }

    #[test]
    fn a_table_is_plain_text() {
        let rows = [["r1-7f3a9c".to_owned(), "x".to_owned()], ["r12-7f3a9c".to_owned(), "y".to_owned()]];
        assert_eq!(table(["REQUEST", "TOOL"], rows), " REQUEST     TOOL\n r1-7f3a9c   x\n r12-7f3a9c  y");
    }
}
