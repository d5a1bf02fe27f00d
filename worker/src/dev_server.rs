//! A Temporal server for development: the one piece of code that finds one, starts it and stops it.
//!
//! [`find`] answers which server to use: one that the environment or `temporal.toml` names, else the `temporal` program
//! on `PATH`, else a build of the Go module `tools/temporal` that pins it. [`DevServer::start`] runs that program.
//! `mandate demo` and the tests share both, so they meet the same server. [`built_server`] is the server that tests of
//! who may do what need: that of the CLI takes every caller.
//!
//! Promises: listens on the loopback address only, every port is free and explicit, and the server ends with its owner,
//! even when the owner is killed. Deliberately absent: anything for production.

mod build;
mod find;
mod launch;
mod link;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

pub use build::BuildServerError;
pub use find::{FindServerError, Found, built_server, find};
pub use launch::{free_ports, port_was_taken};
pub use link::workflow_url;

use launch::{Ports, ReadyError};

/// How long a server may take to end by itself before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often a start is tried again because somebody else took one of the ports in between.
const START_ATTEMPTS_MAX: usize = 3;

/// What a development server keeps and shows.
#[derive(Debug, Clone)]
pub struct DevServerOptions {
    /// The SQLite file that keeps executions between starts; without one they are lost when the server stops.
    pub database: Option<PathBuf>,
    /// Whether the Web UI is served.
    pub ui: bool,
    /// Where the server's own output is appended.
    pub log_file: PathBuf,
}

/// A running development server. It is stopped by [`DevServer::stop`], killed when dropped, and ends by itself when
/// this process ends in any other way.
#[derive(Debug)]
pub struct DevServer {
    child: Child,
    ports: Ports,
    ui: bool,
}

/// Why a development server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartServerError {
    /// No port could be reserved. Check the machine's limits.
    #[error("no free port on 127.0.0.1")]
    NoPort(#[source] std::io::Error),
    /// The log file or the database folder cannot be written. Choose another place.
    #[error("cannot write `{}`", path.display())]
    Unwritable {
        /// What was to be written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The program cannot be run at all. Check the path and its permissions.
    #[error("cannot run `{}`", program.display())]
    NotRun {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The program ended before it answered; the text is the end of its log.
    #[error("Temporal server `{}` ended at once ({status}), its log `{}` ends with:\n{tail}", program.display(), log_file.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its whole log.
        log_file: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The program runs but does not answer. Look into its log.
    #[error("Temporal server at {address} did not answer within {waited:?}, its log `{}` ends with:\n{tail}", log_file.display())]
    NotReady {
        /// Where it should answer.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// Its whole log.
        log_file: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

impl DevServer {
    /// Starts `program` and waits until it answers and knows the search attributes.
    ///
    /// # Errors
    /// When the program cannot be run, ends early, or does not answer in time.
    pub async fn start(program: &Path, options: DevServerOptions) -> Result<Self, StartServerError> {
        let mut attempt = 1;
        loop {
            match Self::start_once(program, &options).await {
                Err(StartServerError::Ended { tail, .. })
                    if attempt < START_ATTEMPTS_MAX && launch::port_was_taken(&tail) =>
                {
                    attempt += 1;
                }
                started_or_failed => return started_or_failed,
            }
        }
    }

    async fn start_once(program: &Path, options: &DevServerOptions) -> Result<Self, StartServerError> {
        let ports = Ports::reserve().map_err(StartServerError::NoPort)?;
        let child = launch::spawn(program, options, ports)?;
        let mut server = Self { child, ports, ui: options.ui };
        match launch::wait_until_ready(&mut server.child, ports, options.ui).await {
            Ok(()) => Ok(server),
            Err(ReadyError::Ended(status)) => Err(StartServerError::Ended {
                program: program.to_path_buf(),
                status,
                log_file: options.log_file.clone(),
                tail: launch::log_tail(&options.log_file),
            }),
            Err(ReadyError::TimedOut(waited)) => Err(StartServerError::NotReady {
                address: server.address(),
                waited,
                log_file: options.log_file.clone(),
                tail: launch::log_tail(&options.log_file),
            }),
        }
    }

    /// Where the gRPC frontend listens, as `host:port`: the value for `TEMPORAL_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.grpc)
    }

    /// The Web UI's base URL, if it is served.
    #[must_use]
    pub fn ui_url(&self) -> Option<String> {
        self.ui.then(|| format!("http://127.0.0.1:{}", self.ports.ui))
    }

    /// The page of one run in this server's Web UI, if it is served.
    #[must_use]
    pub fn workflow_url(&self, namespace: &str, workflow_id: &str, run_id: &str) -> Option<String> {
        self.ui_url().map(|base| workflow_url(&base, namespace, workflow_id, run_id))
    }

    /// Asks the server to end, and kills it if it has not ended ten seconds later.
    pub async fn stop(mut self) {
        // Closing the pipe is the request: the supervisor answers it with TERM.
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            self.kill();
            // The wait only collects the killed process, so its result says nothing new.
            let _ = self.child.wait().await;
        }
    }

    /// Kills the supervisor and the server. `id()` is `None` once the process was collected, so a reused id is never hit.
    fn kill(&self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group {
            // It may have ended in between: nothing is left to be killed then.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
