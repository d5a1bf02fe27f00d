//! `mandate sandbox-exec`: the small supervisor under which every tool server of a worker runs.
//!
//! It promises that nothing of a tool server outlives its worker, however that one ends, and that each process of the
//! server stays within its limits. It is two stages of one program: the first becomes the reaper of everything that is
//! started below it, watches, and ends all of it; the second sets limits on itself and becomes the program.
//!
//! The worker is watched by the server's standard input: a pipe whose other end the worker alone holds, which the kernel
//! closes however the worker ends. Deliberately absent: threads, an async runtime, configuration, and any reading of what
//! goes between worker and server, whose pipes the server gets as they are.
//!
//! It guards against faults, not against malice: a program that runs as the worker's user can kill its supervisor. Then
//! the program dies with it, and the worker ends the rest of its process group.

use std::{
    ffi::OsString,
    fs::File,
    io::Write as _,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stdout, getpid, getppid, setsid},
};

mod descendants;
mod limits;

use limits::Limits;

/// The word behind `mandate`.
pub const COMMAND: &str = "sandbox-exec";

/// How long everything may take to end after it was asked to.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// How often what refuses to go is killed again: its children become known only when it is gone.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// How long killing may take. Longer only takes a process that waits inside the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// Exit code where the program cannot be started, as in a shell.
const NOT_STARTED: u8 = 127;
/// What is added to the number of a signal, as in a shell.
const BY_SIGNAL: i32 = 128;

/// Run a program within limits, and end it and all that it started when this end of its standard input closes.
#[derive(Debug, Parser)]
#[command(name = "mandate sandbox-exec")]
struct Options {
    #[command(flatten)]
    limits: Limits,
    /// Seconds that the program may take to end by itself once its standard input was closed
    #[arg(long, value_name = "N", default_value_t = 3)]
    grace_secs: u64,
    /// The second stage, and the process id of the first
    #[arg(long, hide = true, value_name = "PID")]
    under: Option<i32>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Runs the command with the arguments behind `mandate sandbox-exec`.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(std::iter::once(COMMAND.into()).chain(arguments)) {
        Ok(options) => options,
        Err(error) => return crate::output::usage(&error),
    };
    let done = match options.under {
        None => supervise(&options),
        Some(supervisor) => become_program(&options, Pid::from_raw(supervisor)),
    };
    done.map_or_else(
        |error| {
            say(format_args!("{error:#}"));
            NOT_STARTED.into()
        },
        ExitCode::from,
    )
}

/// One line on standard error, behind the program's own.
fn say(text: std::fmt::Arguments<'_>) {
    // Where the worker is gone, nobody reads it.
    let _ = writeln!(std::io::stderr(), "mandate {COMMAND}: {text}");
}

/// The second stage. Returns only if there is no such program.
fn become_program(options: &Options, supervisor: Pid) -> anyhow::Result<u8> {
    // Should the supervisor be killed, this process goes too. It may have been killed before this line.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask for a signal")?;
    anyhow::ensure!(getppid() == supervisor, "the supervisor is gone");
    prctl::set_no_new_privs().context("cannot give up new privileges")?;
    options.limits.set()?;
    SigSet::empty().thread_set_mask().context("cannot unblock signals")?;
    let (program, arguments) = options.command.split_first().context("no program is named")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start `{}`", program.display()))
}

/// The first stage.
fn supervise(options: &Options) -> anyhow::Result<u8> {
    // Its own session: a Ctrl-C at the worker's terminal is the worker's. It fails where this is one already.
    let _ = setsid();
    prctl::set_child_subreaper(true).context("cannot become the reaper of what is started")?;
    let mut watched = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD] {
        watched.add(signal);
    }
    // Before the start, or the news of an early end is lost. The second stage lifts it for itself.
    watched.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    let signals = signals.context("cannot receive signals")?;
    let program = start(options)?;
    // The program's output ends when the program does, not when this process does.
    dup2_stdout(File::create("/dev/null")?).context("cannot give up standard output")?;
    let mut supervisor =
        Supervisor { program, ended: None, grace: Duration::from_secs(options.grace_secs), phase: Phase::Running };
    supervisor.run(&signals)?;
    Ok(supervisor.report(&options.limits))
}

fn start(options: &Options) -> anyhow::Result<Pid> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(this);
    command.arg(COMMAND).args(options.limits.arguments()).args(["--under", &getpid().to_string(), "--"]);
    let child = command.args(&options.command).spawn().context("cannot start the second stage")?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The worker is there.
    Running,
    /// The input was closed: the program may end by itself until then.
    Closing(Instant),
    /// Everything was asked to end, and may take until then.
    Asked(Instant),
    /// Everything is killed, and what is still there then is given up.
    Killing(Instant),
    /// Nothing is left, or nothing more can be done.
    Done,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Code(i32),
    Signal(Signal),
}

struct Supervisor {
    program: Pid,
    ended: Option<Ended>,
    grace: Duration,
    phase: Phase,
}

impl Supervisor {
    /// Until nothing is left.
    fn run(&mut self, signals: &SignalFd) -> anyhow::Result<()> {
        let input = std::io::stdin();
        while self.phase != Phase::Done {
            // Nothing is asked of the input: that its other end closed is told all the same.
            let mut watched =
                vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(input.as_fd(), PollFlags::empty())];
            // Once closed it stays so.
            watched.truncate(if self.phase == Phase::Running { 2 } else { 1 });
            match poll(&mut watched, self.wait()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait"),
            }
            let closed = watched.get(1).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
            let mut asked = false;
            while let Ok(Some(signal)) = signals.read_signal() {
                asked |= i32::try_from(signal.ssi_signo) != Ok(Signal::SIGCHLD as i32);
            }
            self.step(closed, asked);
        }
        Ok(())
    }

    fn wait(&self) -> PollTimeout {
        let until = match self.phase {
            Phase::Running | Phase::Done => return PollTimeout::NONE,
            Phase::Closing(until) | Phase::Asked(until) => until.saturating_duration_since(Instant::now()),
            Phase::Killing(_) => KILL_EVERY,
        };
        // A whole millisecond more: rounded down it would turn round and round before the time.
        PollTimeout::try_from(until + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    fn step(&mut self, closed: bool, asked: bool) {
        if self.reap() {
            self.phase = Phase::Done;
            return;
        }
        let now = Instant::now();
        self.phase = match self.phase {
            Phase::Running | Phase::Closing(_) if asked || self.ended.is_some() => ask(now),
            Phase::Running if closed => Phase::Closing(now + self.grace),
            Phase::Closing(until) if now >= until => ask(now),
            Phase::Asked(until) if now >= until => kill(now + KILLED_WITHIN),
            Phase::Killing(until) if now < until => kill(until),
            Phase::Killing(_) => {
                say(format_args!("some of what the program started cannot be ended"));
                Phase::Done
            }
            phase @ (Phase::Running | Phase::Closing(_) | Phase::Asked(_) | Phase::Done) => phase,
        };
    }

    /// Fetches what ended, also orphans, which come to this process. Whether nothing is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.program => self.ended = Some(Ended::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.program => {
                    self.ended = Some(Ended::Signal(signal));
                }
                Ok(WaitStatus::StillAlive) => return false,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Says how the program ended if not well, and passes its exit code on.
    fn report(&self, limits: &Limits) -> u8 {
        let code = match self.ended {
            Some(Ended::Code(0)) => return 0,
            Some(Ended::Code(code)) => {
                say(format_args!("the program ended with exit code {code}; limits of each process: {limits}"));
                code
            }
            Some(Ended::Signal(signal)) => {
                let why = limits.exceeded(signal).unwrap_or_default();
                say(format_args!("the program was ended by {signal}{why}; limits of each process: {limits}"));
                BY_SIGNAL + signal as i32
            }
            None => BY_SIGNAL + Signal::SIGKILL as i32,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

fn ask(now: Instant) -> Phase {
    descendants::signal_all(Signal::SIGTERM);
    Phase::Asked(now + ASKED_WITHIN)
}

fn kill(until: Instant) -> Phase {
    descendants::signal_all(Signal::SIGKILL);
    Phase::Killing(until)
}
