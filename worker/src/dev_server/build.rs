//! Builds a pinned program from its Go module, once for each content of the module.
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

/// The Temporal CLI, which is a development server too.
pub(super) const CLI: Pinned = Pinned {
    what: "Temporal server",
    program: "temporal",
    package: "github.com/temporalio/cli/cmd/temporal",
    module: "tools/temporal",
    instead: "install the Temporal CLI so that `temporal` is on PATH, or set `TEMPORAL_ADDRESS` to a running server",
};
/// The server as organisations run it. The development server of the CLI cannot ask callers who they are.
pub(super) const SERVER: Pinned = Pinned {
    what: "Temporal server with authorization",
    program: "temporal-server",
    package: "go.temporal.io/server/cmd/server",
    module: "tools/temporal-server",
    instead: "leave out the tests that need it",
};
/// How often the build is looked at, and the spinner turned.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// How much of the digest names the cache folder.
const KEY_DIGITS: usize = 16;

/// A program and the Go module that pins it.
#[derive(Debug)]
pub(super) struct Pinned {
    /// What messages call it.
    what: &'static str,
    /// Its file, which also begins the name of its cache folder.
    program: &'static str,
    /// The package in the module that is the program.
    package: &'static str,
    /// The module in the source tree.
    module: &'static str,
    /// What helps whoever cannot build it.
    instead: &'static str,
}

impl Pinned {
    /// The module in the source tree this program was built from.
    pub(super) fn module(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(self.module)
    }
}

/// Why a pinned server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildServerError {
    /// This program runs without its source tree. The text says what helps instead.
    #[error("no {what}: the module `{}` is not on this machine; {instead}", module.display())]
    NoModule {
        /// What was to be built.
        what: &'static str,
        /// Where the module should be.
        module: PathBuf,
        /// What helps.
        instead: &'static str,
    },
    /// Go is not installed. Install it, or do what the text says.
    #[error("no {what}: building the pinned one needs Go 1.26, and `go` is not on PATH; install Go, or {instead}")]
    NoGo {
        /// What was to be built.
        what: &'static str,
        /// What helps.
        instead: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The compiler refused or a module could not be fetched; the text is the end of its output.
    #[error("building the {what} in `{}` failed ({status}), the output `{}` ends with:\n{tail}", module.display(), log_file.display())]
    Failed {
        /// What was to be built.
        what: &'static str,
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
    #[error("no place to keep the {what}: neither `XDG_CACHE_HOME` nor `HOME` is set")]
    NoCache {
        /// What was to be kept.
        what: &'static str,
    },
    /// A file of the cache or the module cannot be used. Correct its permissions.
    #[error("cannot use `{}` while building the {what}", path.display())]
    Unusable {
        /// What was to be built.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The program built from `module`: from the cache, or built now. A second caller waits for the first one's build.
pub(super) fn cached_or_built(
    pinned: &Pinned,
    module: &Path,
    variables: &HashMap<String, String>,
) -> Result<PathBuf, BuildServerError> {
    let key = pinned.key(module)?;
    let cache = cache_home(variables).ok_or(BuildServerError::NoCache { what: pinned.what })?;
    let folder = cache.join("mandate").join(format!("{}-{key}", pinned.program));
    let program = folder.join(pinned.program);
    if is_program(&program) {
        return Ok(program);
    }
    fs::create_dir_all(&folder).map_err(pinned.unusable(&folder))?;
    let _lock = pinned.lock(&folder.join("build.lock"))?;
    // Whoever held the lock before may have built it.
    if !is_program(&program) {
        pinned.build(module, &folder, &program, variables)?;
    }
    Ok(program)
}

fn cache_home(variables: &HashMap<String, String>) -> Option<PathBuf> {
    let explicit = set(variables, "XDG_CACHE_HOME").map(PathBuf::from);
    let usual = || set(variables, "HOME").map(|home| Path::new(home).join(".cache"));
    explicit.or_else(usual)
}

impl Pinned {
    /// The first 16 hex digits of SHA-256 over `go.mod` and `go.sum`: another pin is another program.
    fn key(&self, module: &Path) -> Result<String, BuildServerError> {
        let mut hasher = Sha256::new();
        for name in ["go.mod", "go.sum"] {
            let path = module.join(name);
            let content = fs::read(&path).map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    let module = module.to_path_buf();
                    BuildServerError::NoModule { what: self.what, module, instead: self.instead }
                } else {
                    self.unusable(&path)(source)
                }
            })?;
            hasher.update(content);
        }
        let digest = Digest::from_bytes(hasher.finalize().into());
        Ok(digest.as_str().chars().take(KEY_DIGITS).collect())
    }

    fn lock(&self, path: &Path) -> Result<File, BuildServerError> {
        let file = File::create(path).map_err(self.unusable(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                note(&format!("another process builds the {}, waiting for it", self.what));
                file.lock().map_err(self.unusable(path))?;
            }
            Err(TryLockError::Error(source)) => return Err(self.unusable(path)(source)),
        }
        Ok(file)
    }

    /// Builds under another name and renames, so that an interrupted build never looks like a program.
    fn build(
        &self,
        module: &Path,
        folder: &Path,
        program: &Path,
        variables: &HashMap<String, String>,
    ) -> Result<(), BuildServerError> {
        let unfinished = program.with_extension("unfinished");
        let log_file = folder.join("build.log");
        let log = File::create(&log_file).map_err(self.unusable(&log_file))?;
        let errors = log.try_clone().map_err(self.unusable(&log_file))?;
        let mut child = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .args([unfinished.as_os_str(), self.package.as_ref()])
            .current_dir(module)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| BuildServerError::NoGo { what: self.what, instead: self.instead, source })?;
        let status = self.follow(&mut child).map_err(self.unusable(&log_file))?;
        if !status.success() {
            let (what, module, tail) = (self.what, module.to_path_buf(), log_tail(&log_file));
            return Err(BuildServerError::Failed { what, module, status, log_file, tail });
        }
        fs::rename(&unfinished, program).map_err(self.unusable(program))
    }

    /// Shows progress until the build ends: a spinner on a terminal, a line now and then elsewhere.
    fn follow(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let started = Instant::now();
        let spinner = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if spinner.is_hidden() {
            note(&format!("building the pinned {}, once; this takes some minutes", self.what));
        }
        let mut next_line = LINE_EVERY;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let elapsed = started.elapsed();
            spinner.set_message(format!("building the pinned {}, once: {} s", self.what, elapsed.as_secs()));
            spinner.tick();
            if spinner.is_hidden() && elapsed >= next_line {
                note(&format!("still building the {}: {} s", self.what, elapsed.as_secs()));
                next_line += LINE_EVERY;
            }
            thread::sleep(POLL_EVERY);
        };
        spinner.finish_and_clear();
        Ok(status)
    }

    fn unusable(&self, path: &Path) -> impl FnOnce(io::Error) -> BuildServerError + use<> {
        let (what, path) = (self.what, path.to_path_buf());
        move |source| BuildServerError::Unusable { what, path, source }
    }
}

/// A line for the person who waits. Progress belongs on stderr; if that is closed, there is nobody to tell.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
