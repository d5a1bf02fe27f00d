//! The process of an MCP server, under `mandate sandbox-exec`: its start, its last words, its end.
//!
//! What is held here is the supervisor, which ends the server and everything that it started when it is asked to, when
//! the server's standard input is closed, or when this process is gone.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use secrecy::ExposeSecret;
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    task::JoinHandle,
};

use super::{blot::Secrets, stderr_tail::StderrTail};
use crate::catalog::{EnvValue, ProcessLimits, ServerSettings};

/// How long the end may take: the supervisor gives 3 s, asks, gives 2 s more and kills.
const END_LIMIT: Duration = Duration::from_secs(7);
/// How long the news of an end and the last words may take to arrive.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);
/// How often it is looked whether it has ended.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// Variables of the worker that every server gets.
const PASSED_ON: [&str; 2] = ["PATH", "HOME"];

/// A server's process. Dropped, it is asked to end.
#[derive(Debug)]
pub(super) struct ServerProcess {
    supervisor: Mutex<Child>,
    pid: Option<Pid>,
    tail: StderrTail,
    drained: Mutex<Option<JoinHandle<()>>>,
    /// What it was given.
    secrets: Secrets,
}

/// The pipes of a server: what it reads and what it writes.
pub(super) type Pipes = (ChildStdout, ChildStdin);

impl ServerProcess {
    /// Starts it.
    pub(super) async fn start(settings: &ServerSettings) -> Result<(Self, Pipes), String> {
        let (mut command, secrets) = command(settings).await?;
        let started = command.spawn();
        let mut child =
            started.map_err(|error| format!("cannot start `{}`: {error}", settings.supervisor.display()))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("it has no pipes".to_owned());
        };
        let tail = StderrTail::default();
        let drained = Mutex::new(Some(tokio::spawn(tail.clone().drain(errors))));
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Ok((Self { supervisor: Mutex::new(child), pid, tail, drained, secrets }, (output, input)))
    }

    /// The secrets that it was given.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The end of its standard error, which is foreign text, to stand behind a reason.
    pub(super) fn complaint(&self) -> String {
        let tail = self.tail.text();
        if tail.is_empty() { String::new() } else { self.secrets.blotted(format!("; its standard error ends: {tail}")) }
    }

    /// How it ended, if it did or does so now, in words of ours.
    pub(super) async fn how_it_ended(&self) -> String {
        let ended = async {
            let status = self.ended(&mut *self.supervisor.lock().await).await;
            if let Some(drained) = self.drained.lock().await.as_mut() {
                let _ = drained.await;
            }
            status
        };
        let status = tokio::time::timeout(LAST_WORDS_LIMIT, ended).await.ok().flatten();
        let limit = self.tail.of_the_supervisor().map(|said| format!(", {said}")).unwrap_or_default();
        status.map(ended_with).unwrap_or_default() + &limit
    }

    /// Asks it to end, without waiting.
    fn ask_to_end(&self) {
        // Its number is not given to another process before its end was fetched, which `wait` alone does.
        if let Some(pid) = self.pid
            && self.supervisor.try_lock().is_ok_and(|child| child.id().is_some())
        {
            end_what_is_left(pid);
            let _ = kill(pid, Signal::SIGTERM);
        }
    }

    /// Waits until it and everything that it started has ended, which the close of its input began.
    pub(super) async fn end(&self) {
        let mut supervisor = self.supervisor.lock().await;
        if tokio::time::timeout(END_LIMIT, self.ended(&mut supervisor)).await.is_err()
            && let Some(pid) = self.pid
        {
            tracing::warn!(%pid, "a tool server does not end; its process group is killed");
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }

    /// Waits for the end of the supervisor, and ends what is left in its group if it was killed itself.
    async fn ended(&self, supervisor: &mut Child) -> Option<ExitStatus> {
        if let Some(pid) = self.pid.filter(|_| supervisor.id().is_some()) {
            while !end_what_is_left(pid) {
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        }
        supervisor.wait().await.ok()
    }
}

/// Whether a supervisor has ended. One that was killed could end nothing: its group is, before its end is fetched and its
/// number may be another's.
fn end_what_is_left(supervisor: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(supervisor), flags) {
        Ok(WaitStatus::StillAlive) => false,
        Ok(WaitStatus::Signaled(..)) => {
            let _ = killpg(supervisor, Signal::SIGKILL);
            true
        }
        Ok(_) | Err(_) => true,
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

fn ended_with(status: ExitStatus) -> String {
    status
        .code()
        .map_or_else(|| "; its supervisor was killed".to_owned(), |code| format!("; it ended with exit code {code}"))
}

async fn command(settings: &ServerSettings) -> Result<(Command, Secrets), String> {
    let mut command = Command::new(&settings.supervisor);
    command.arg("sandbox-exec").args(arguments(&settings.limits)).arg("--").arg(&settings.program);
    command.args(&settings.args).current_dir(&settings.directory).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut secrets = Vec::new();
    for (name, value) in &settings.env {
        match value {
            EnvValue::Plain(text) => command.env(name, text),
            EnvValue::Secret(reference) => {
                let secret = reference.resolve().await.map_err(|error| format!("variable `{name}`: {error}"))?;
                command.env(name, secret.expose_secret());
                secrets.push(secret);
                continue;
            }
        };
    }
    Ok((command, Secrets::new(secrets.iter().map(ExposeSecret::expose_secret))))
}

fn arguments(limits: &ProcessLimits) -> impl Iterator<Item = String> {
    let ProcessLimits { memory_max_bytes, cpu_max_secs, open_files_max, file_max_bytes } = *limits;
    let options = [
        ("--memory-max-bytes", memory_max_bytes),
        ("--cpu-max-secs", cpu_max_secs),
        ("--open-files-max", open_files_max),
        ("--file-max-bytes", file_max_bytes),
    ];
    options.into_iter().filter_map(|(name, limit)| Some(format!("{name}={}", limit?)))
}
