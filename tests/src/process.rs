//! Child processes that end with the test process, however that ends.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};

use crate::until;

/// Kills the program and what it started when the pipe to the test process closes, which the kernel does however that
/// one ends.
const SUPERVISOR: &str = r#"
exec 3<&0
pid_file=$1
shift
"$@" </dev/null 3<&- &
program=$!
echo "$program" >"$pid_file.new" && mv "$pid_file.new" "$pid_file"
{ read -r _ <&3; kill -KILL 0; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$program"
status=$?
kill "$watcher"
wait "$watcher" 2>/dev/null
exit "$status"
"#;

/// How a question that waits for an answer ends.
const ASKS: &[u8] = b"[y/N] ";
/// How much of a program's log a failed test shows.
const SHOWN_LINES: usize = 80;

/// The unit of times that Linux tells programs.
const MILLIS_PER_TICK: u64 = 10;

/// What a program used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Time on any core, in steps of ten milliseconds.
    pub cpu: Duration,
    /// Memory that is in use now.
    pub resident_bytes: u64,
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    supervisor: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a program that writes both its outputs to the log.
    pub async fn start(program: &Path, arguments: &[&str], env: &[(&str, &str)], folder: &Path, log: PathBuf) -> Self {
        let output = File::create(&log).expect("the log");
        let errors = output.try_clone().expect("the log");
        let pid_file = log.with_extension("pid");
        let mut command = Command::new("/bin/sh");
        let supervisor = command
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(&pid_file)
            .arg(program)
            .args(arguments)
            .envs(env.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .expect("a shell");
        let pid = until("the program's process id", async || fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        Self { supervisor, pid: Pid::from_raw(pid.await), log }
    }

    /// Everything that it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it ended, and with which code; 137 after SIGKILL.
    pub fn ended(&mut self) -> Option<i32> {
        self.supervisor.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits until it ended.
    pub async fn wait(&mut self) -> i32 {
        until("the program ends", async || self.ended()).await
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended in between.
        let _ = kill(self.pid, signal);
    }

    /// What it uses, by the kernel's own books.
    ///
    /// # Panics
    /// When it ended.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let book = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid)).expect("it runs");
        let (stat, status) = (book("stat"), book("status"));
        // Behind the name, which may hold anything: the state is field 3, user and system time are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|index| fields[*index].parse::<u64>().expect("ticks")).sum();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kilobytes: u64 = resident.trim_end_matches("kB").trim().parse().expect("a number");
        Usage { cpu: Duration::from_millis(ticks * MILLIS_PER_TICK), resident_bytes: kilobytes * 1024 }
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }

    /// Asks it to end, and waits until it did.
    pub async fn stop(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait().await
    }
}

/// A test that fails shows the end of what its programs said.
impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (log, ended) = (self.log(), self.ended());
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("--- the end of {}, ended: {ended:?} ---\n{end}\n---", self.log.display());
        }
    }
}

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// The output, if it ended well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }
}

/// Runs a program that asks at a terminal: once it asks, `meanwhile` happens, then the answer is typed.
pub async fn say_at_terminal(
    program: &Path,
    arguments: &[&str],
    env: &[(&str, &str)],
    folder: &Path,
    meanwhile: impl AsyncFnOnce(),
    answer: &str,
) -> Said {
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = Command::new(program);
    command.args(arguments).envs(env.iter().copied()).current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::from(terminal.slave)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let (mut output, mut errors) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let asked = async {
        while !stderr.ends_with(ASKS) {
            assert!(errors.read_buf(&mut stderr).await.expect("stderr") > 0, "it does not ask: {stderr:?}");
        }
        meanwhile().await;
        File::from(terminal.master.try_clone().expect("the terminal"))
            .write_all(format!("{answer}\n").as_bytes())
            .expect("the answer");
        errors.read_to_end(&mut stderr).await.expect("stderr");
        output.read_to_end(&mut stdout).await.expect("stdout");
        child.wait().await.expect("the program ends")
    };
    let ended = tokio::time::timeout(crate::LONG, asked).await;
    let status = ended.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
    Said {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs a program to its end.
pub async fn say(program: &Path, arguments: &[&str], env: &[(&str, &str)], folder: &Path) -> Said {
    let mut command = Command::new(program);
    command.args(arguments).envs(env.iter().copied()).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(crate::LONG, command.output());
    let output = output.await.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("the program runs");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
