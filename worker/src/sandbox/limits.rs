//! What a process may use, set by itself before it becomes the program. Each limit holds for each process of a server by
//! itself; they are inherited, and none of them can raise one again.

use std::fmt;

use anyhow::Context as _;
use clap::Args;
use nix::sys::{
    resource::{Resource, getrlimit, rlim_t, setrlimit},
    signal::Signal,
};

/// The limits. One that is absent stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(super) struct Limits {
    /// Memory that it may write to, in bytes
    #[arg(long, value_name = "N")]
    memory_max_bytes: Option<u64>,
    /// Processor time, in seconds
    #[arg(long, value_name = "N")]
    cpu_max_secs: Option<u64>,
    /// Open files, sockets and pipes
    #[arg(long, value_name = "N")]
    open_files_max: Option<u64>,
    /// Size of a file that it writes, in bytes
    #[arg(long, value_name = "N")]
    file_max_bytes: Option<u64>,
}

impl Limits {
    /// Sets them on this process, for good.
    pub(super) fn set(&self) -> anyhow::Result<()> {
        // Memory by what can be written to, not by address space: some runtimes reserve far more than they ever use.
        let limits = [
            (Resource::RLIMIT_DATA, self.memory_max_bytes),
            (Resource::RLIMIT_CPU, self.cpu_max_secs),
            (Resource::RLIMIT_NOFILE, self.open_files_max),
            (Resource::RLIMIT_FSIZE, self.file_max_bytes),
            // A dump of its memory would hold its secrets.
            (Resource::RLIMIT_CORE, Some(0)),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                set(resource, limit).with_context(|| format!("cannot set the limit {resource:?}"))?;
            }
        }
        Ok(())
    }

    /// The same as arguments, for the second stage.
    pub(super) fn arguments(&self) -> Vec<String> {
        let options = [
            ("--memory-max-bytes", self.memory_max_bytes),
            ("--cpu-max-secs", self.cpu_max_secs),
            ("--open-files-max", self.open_files_max),
            ("--file-max-bytes", self.file_max_bytes),
        ];
        options.into_iter().filter_map(|(name, limit)| Some([name.to_owned(), limit?.to_string()])).flatten().collect()
    }

    /// Which limit a signal tells of.
    pub(super) fn exceeded(&self, signal: Signal) -> Option<String> {
        if signal == Signal::SIGXCPU {
            return Some(format!(": more than {} s of processor time", self.cpu_max_secs?));
        }
        if signal == Signal::SIGXFSZ {
            return Some(format!(": a file of more than {} bytes", self.file_max_bytes?));
        }
        None
    }
}

/// What is allowed already can only become less.
fn set(resource: Resource, limit: rlim_t) -> nix::Result<()> {
    let (_, allowed) = getrlimit(resource)?;
    // At the hard limit of processor time the kernel kills without a word: a second later, for what stays deaf.
    let grace = u64::from(resource == Resource::RLIMIT_CPU);
    setrlimit(resource, limit.min(allowed), limit.saturating_add(grace).min(allowed))
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.memory_max_bytes.map(|bytes| format!("{bytes} bytes of memory")),
            self.cpu_max_secs.map(|secs| format!("{secs} s of processor time")),
            self.open_files_max.map(|files| format!("{files} open files")),
            self.file_max_bytes.map(|bytes| format!("files of {bytes} bytes")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn the_second_stage_reads_what_the_first_was_told() {
        let all = Limits {
            memory_max_bytes: Some(1 << 30),
            cpu_max_secs: Some(5),
            open_files_max: Some(64),
            file_max_bytes: Some(1),
        };
        let none = Limits { memory_max_bytes: None, cpu_max_secs: None, open_files_max: None, file_max_bytes: None };
        for limits in [all, none] {
            let line = Line::parse_from(std::iter::once("mandate".to_owned()).chain(limits.arguments()));
            assert_eq!(line.limits, limits);
        }
        assert_eq!(none.to_string(), "none");
        assert_eq!(
            all.to_string(),
            "1073741824 bytes of memory, 5 s of processor time, 64 open files, files of 1 bytes"
        );
    }

    #[test]
    fn a_signal_of_a_limit_names_it() {
        let limits =
            Limits { memory_max_bytes: None, cpu_max_secs: Some(5), open_files_max: None, file_max_bytes: Some(9) };
        assert_eq!(limits.exceeded(Signal::SIGXCPU).as_deref(), Some(": more than 5 s of processor time"));
        assert_eq!(limits.exceeded(Signal::SIGXFSZ).as_deref(), Some(": a file of more than 9 bytes"));
        assert_eq!(limits.exceeded(Signal::SIGSEGV), None);
    }
}
