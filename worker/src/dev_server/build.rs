//! Builds the pinned `temporal` program from its Go module, once for each content of the module.
//!
//! The result lies in the user's cache folder rather than `target/`: it outlives `cargo clean` and serves every
//! checkout that pins the same version.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mandate_domain::Digest;
use sha2::{Digest as _, Sha256};

use super::find::{is_program, set};
use super::launch::log_tail;

/// The package in the module that is the program.
const PACKAGE: &str = "github.com/temporalio/cli/cmd/temporal";
/// How often the build is looked at, and the spinner turned.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// How much of the digest names the cache folder.
const KEY_DIGITS: usize = 16;

/// Why the pinned server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildServerError {
    /// This program runs without its source tree. Install Temporal, or name a server.
    #[error(
        "no Temporal server: the module `{}` is not on this machine; set `TEMPORAL_ADDRESS` to a running server, \
         or install the Temporal CLI so that `temporal` is on PATH", module.display()
    )]
    NoModule {
        /// Where the module should be.
        module: PathBuf,
    },
    /// Go is not installed. Install it, or Temporal itself.
    #[error(
        "no Temporal server: building the pinned one needs Go 1.26, and `go` is not on PATH; install Go, or install \
         the Temporal CLI so that `temporal` is on PATH, or set `TEMPORAL_ADDRESS` to a running server"
    )]
    NoGo(#[source] io::Error),
    /// The compiler refused or a module could not be fetched; the text is the end of its output.
    #[error("building the Temporal server in `{}` failed ({status}), the output `{}` ends with:\n{tail}", module.display(), log_file.display())]
    Failed {
        /// The module.
        module: PathBuf,
        /// How the build ended.
        status: ExitStatus,
        /// The whole output.
        log_file: PathBuf,
        /// The last lines of the output.
        tail: String,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set. Set one.
    #[error("no place to keep the Temporal server: neither `XDG_CACHE_HOME` nor `HOME` is set")]
    NoCache,
    /// A file of the cache or the module cannot be used. Correct its permissions.
    #[error("cannot use `{}` while building the Temporal server", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The program built from `module`: from the cache, or built now. A second caller waits for the first one's build.
pub(super) fn cached_or_built(module: &Path, variables: &HashMap<String, String>) -> Result<PathBuf, BuildServerError> {
    let folder = cache_home(variables)?.join("mandate").join(format!("temporal-{}", module_key(module)?));
    let program = folder.join("temporal");
    if is_program(&program) {
        return Ok(program);
    }
    fs::create_dir_all(&folder).map_err(unusable(&folder))?;
    let _lock = lock(&folder.join("build.lock"))?;
    // Whoever held the lock before may have built it.
    if !is_program(&program) {
        build(module, &folder, &program, variables)?;
    }
    Ok(program)
}

fn cache_home(variables: &HashMap<String, String>) -> Result<PathBuf, BuildServerError> {
    let explicit = set(variables, "XDG_CACHE_HOME").map(PathBuf::from);
    let usual = || set(variables, "HOME").map(|home| Path::new(home).join(".cache"));
    explicit.or_else(usual).ok_or(BuildServerError::NoCache)
}

/// The first 16 hex digits of SHA-256 over `go.mod` and `go.sum`: another pin is another program.
pub(super) fn module_key(module: &Path) -> Result<String, BuildServerError> {
    let mut hasher = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        let content = fs::read(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                BuildServerError::NoModule { module: module.to_path_buf() }
            } else {
                BuildServerError::Unusable { path, source }
            }
        })?;
        hasher.update(content);
    }
    let digest = Digest::from_bytes(hasher.finalize().into());
    Ok(digest.as_str().chars().take(KEY_DIGITS).collect())
}

fn lock(path: &Path) -> Result<File, BuildServerError> {
    let file = File::create(path).map_err(unusable(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            note("another process builds the Temporal server, waiting for it");
            file.lock().map_err(unusable(path))?;
        }
        Err(TryLockError::Error(source)) => return Err(unusable(path)(source)),
    }
    Ok(file)
}

/// Builds under another name and renames, so that an interrupted build never looks like a program.
fn build(
    module: &Path,
    folder: &Path,
    program: &Path,
    variables: &HashMap<String, String>,
) -> Result<(), BuildServerError> {
    let unfinished = folder.join("temporal.unfinished");
    let log_file = folder.join("build.log");
    let log = File::create(&log_file).map_err(unusable(&log_file))?;
    let errors = log.try_clone().map_err(unusable(&log_file))?;
    let mut child = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .args([unfinished.as_os_str(), PACKAGE.as_ref()])
        .current_dir(module)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(BuildServerError::NoGo)?;
    let status = follow(&mut child).map_err(unusable(&log_file))?;
    if !status.success() {
        let tail = log_tail(&log_file);
        return Err(BuildServerError::Failed { module: module.to_path_buf(), status, log_file, tail });
    }
    fs::rename(&unfinished, program).map_err(unusable(program))
}

/// Shows progress until the build ends: a spinner on a terminal, a line now and then elsewhere.
fn follow(child: &mut Child) -> io::Result<ExitStatus> {
    let started = Instant::now();
    let spinner = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if spinner.is_hidden() {
        note("building the pinned Temporal server, once; this takes some minutes");
    }
    let mut next_line = LINE_EVERY;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let elapsed = started.elapsed();
        spinner.set_message(format!("building the pinned Temporal server, once: {} s", elapsed.as_secs()));
        spinner.tick();
        if spinner.is_hidden() && elapsed >= next_line {
            note(&format!("still building the Temporal server: {} s", elapsed.as_secs()));
            next_line += LINE_EVERY;
        }
        thread::sleep(POLL_EVERY);
    };
    spinner.finish_and_clear();
    Ok(status)
}

/// A line for the person who waits. Progress belongs on stderr; if that is closed, there is nobody to tell.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> BuildServerError {
    let path = path.to_path_buf();
    move |source| BuildServerError::Unusable { path, source }
}
