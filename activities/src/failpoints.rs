//! Points of the governed path at which a worker can be told to die: a real SIGKILL, as a crash would come.
//!
//! With `MANDATE_FAILPOINT=<name>` the process kills itself the first time it passes that point. With
//! `MANDATE_FAILPOINT_MARK=<file>` it creates the file first, and does nothing where the file exists, so that a worker
//! started again goes on. Cannot be compiled in release.

#[cfg(not(debug_assertions))]
compile_error!("the feature `fault-injection` must not be compiled in release");

use std::fs::OpenOptions;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// All points, in the order in which a run with one tool call passes them.
pub const ALL: [&str; 22] = [
    "open.before_commit",
    "open.after_commit",
    "model.before_intent",
    "model.after_intent",
    "model.after_effect",
    "model.after_outcome",
    "tool.before_intent",
    "tool.after_intent",
    "tool.after_effect",
    "tool.after_outcome",
    "review.before_commit",
    "review.after_commit",
    "question.before_commit",
    "question.after_commit",
    "instruction.before_commit",
    "instruction.after_commit",
    "notice.before_intent",
    "notice.after_intent",
    "notice.after_effect",
    "notice.after_outcome",
    "close.before_commit",
    "close.after_commit",
];

/// Passes a point.
pub(crate) fn pass(point: &str) {
    debug_assert!(ALL.contains(&point), "`{point}` is not registered");
    if std::env::var("MANDATE_FAILPOINT").is_ok_and(|wanted| wanted == point) && mark() {
        // Whatever it answers: a process that lives on fails the test that set the point.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Whether this is the first time.
fn mark() -> bool {
    match std::env::var_os("MANDATE_FAILPOINT_MARK") {
        Some(file) => OpenOptions::new().write(true).create_new(true).open(file).is_ok(),
        None => true,
    }
}
