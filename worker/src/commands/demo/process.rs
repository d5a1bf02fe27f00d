//! The demo's worker: this program again, as a process of its own, as it would be in earnest.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::{cli::Global, connection::Temporal};

/// How long the worker may take to end by itself before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How much of the log an error shows.
const TAIL_LINES_MAX: usize = 20;

/// A worker process that this program started. It is killed when dropped.
pub(super) struct WorkerProcess {
    child: Child,
    log_file: PathBuf,
}

impl WorkerProcess {
    /// Starts it. Its log goes to a file, so that it does not run into what the demo says.
    pub(super) fn start(
        global: &Global,
        task_queue: &str,
        log_file: &Path,
        temporal: &Temporal,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        if let Some(folder) = log_file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        let log = File::create(log_file).with_context(|| format!("cannot write `{}`", log_file.display()))?;
        let mut command = Command::new(&program);
        command.arg("worker").arg("--folder").arg(&global.folder).args(["--task-queue", task_queue]);
        command.args(["--address", &temporal.address, "--namespace", &temporal.namespace]);
        if let Some(profile) = &global.profile {
            command.args(["--profile", profile]);
        }
        // A group of its own: a Ctrl-C reaches the demo alone, which then stops the worker before the server.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", program.display()))?;
        Ok(Self { child, log_file: log_file.to_owned() })
    }

    /// Waits until it has ended although nobody asked it to.
    pub(super) async fn ended_early(&mut self) -> anyhow::Error {
        let status = self.child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let (log, tail) = (self.log_file.display(), tail(&self.log_file));
        anyhow::anyhow!("the worker ended ({status}), its log `{log}` ends with:\n{tail}")
    }

    /// Asks it to end, and kills it if it has not ended some seconds later.
    pub(super) async fn stop(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // It may have ended in between: nothing is left to be asked then.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            // Killing collects it, too; an error says that it is gone.
            let _ = self.child.kill().await;
        }
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().rev().take(TAIL_LINES_MAX).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
