//! Secret references and how they become secrets.
//!
//! Configuration, history and audit hold references; a secret exists in memory only, from the moment an effect needs
//! it. No error repeats a secret: each names the reference. A program that supplies one must not print it to stderr.

use std::{fmt, path::Path, path::PathBuf, process::Stdio, str::FromStr, time::Duration};

use secrecy::SecretString;
use tokio::{
    io::{AsyncRead, AsyncReadExt, copy, sink},
    process::Command,
    time::timeout,
};

pub use crate::catalog::SecretRef;

/// Largest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Longest time a program may take to print a secret.
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);

/// As much of a program's stderr as an error repeats, in bytes.
const STDERR_BYTES_MAX: u64 = 500;

/// The text is not a secret reference. It is not repeated here: it may be the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseSecretRefError {
    /// No scheme stands before it.
    #[error("a secret reference is expected here, `env:NAME`, `file:PATH` or `exec:PROGRAM ARG…`, not a plain value")]
    Plain,
    /// Nothing stands after the scheme, or something that cannot name a variable or file.
    #[error("the secret reference names nothing after `{scheme}:`")]
    NamesNothing {
        /// The scheme.
        scheme: &'static str,
    },
}

/// A secret could not be had. Mend the source that the reference names; a later attempt reads it again.
#[derive(Debug, thiserror::Error)]
pub enum ResolveSecretError {
    /// The environment variable is not set or is not UTF-8.
    #[error("the secret `{reference}` is not set in this program's environment, or is not text")]
    EnvMissing {
        /// The reference.
        reference: SecretRef,
    },
    /// The file is missing or cannot be read.
    #[error("the secret `{reference}` cannot be read")]
    FileUnreadable {
        /// The reference.
        reference: SecretRef,
        /// Why.
        source: std::io::Error,
    },
    /// The program did not start or its output could not be read.
    #[error("the program of the secret `{reference}` cannot be run")]
    ExecFailed {
        /// The reference.
        reference: SecretRef,
        /// Why.
        source: std::io::Error,
    },
    /// The program ended with an error.
    #[error("the program of the secret `{reference}` ended with {status}: {stderr}")]
    ExecRefused {
        /// The reference.
        reference: SecretRef,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The beginning of what it wrote to stderr.
        stderr: String,
    },
    /// The program took too long and was stopped.
    #[error("the program of the secret `{reference}` did not end within {limit:?}")]
    ExecTimedOut {
        /// The reference.
        reference: SecretRef,
        /// The bound.
        limit: Duration,
    },
    /// What came is empty, too long or not UTF-8.
    #[error("the secret `{reference}` is empty, longer than {SECRET_BYTES_MAX} bytes, or not text")]
    NotUsable {
        /// The reference.
        reference: SecretRef,
    },
}

impl SecretRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`ParseSecretRefError`], without the text.
    pub fn parse(text: &str) -> Result<Self, ParseSecretRefError> {
        let named = |rest: &str, scheme| {
            let rest = rest.trim();
            if rest.is_empty() { Err(ParseSecretRefError::NamesNothing { scheme }) } else { Ok(rest.to_owned()) }
        };
        if let Some(rest) = text.strip_prefix("env:") {
            let name = named(rest, "env")?;
            // Such a name makes the environment's own functions panic or never match.
            let valid = !name.contains(['=', '\0']);
            return if valid { Ok(Self::Env(name)) } else { Err(ParseSecretRefError::NamesNothing { scheme: "env" }) };
        }
        if let Some(rest) = text.strip_prefix("file:") {
            return Ok(Self::File(PathBuf::from(named(rest, "file")?)));
        }
        let rest = text.strip_prefix("exec:").ok_or(ParseSecretRefError::Plain)?;
        Ok(Self::Exec(named(rest, "exec")?.split_whitespace().map(str::to_owned).collect()))
    }

    /// The same reference with relative paths put under `folder`. A program without a slash is left for `PATH`.
    #[must_use]
    pub fn within(self, folder: &Path) -> Self {
        match self {
            Self::Env(name) => Self::Env(name),
            Self::File(path) => Self::File(folder.join(path)),
            Self::Exec(mut words) => {
                if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                    *program = folder.join(&*program).display().to_string();
                }
                Self::Exec(words)
            }
        }
    }

    /// The secret, without the newline at its end.
    ///
    /// # Errors
    /// [`ResolveSecretError`], which names the reference and never the secret.
    pub async fn resolve(&self) -> Result<SecretString, ResolveSecretError> {
        self.resolve_with(&[], EXEC_TIMEOUT).await
    }

    /// The same, where a program that supplies the secret gets further environment variables, and this much time.
    ///
    /// # Errors
    /// [`ResolveSecretError`], which names the reference and never the secret.
    pub async fn resolve_with(
        &self,
        environment: &[(&str, &str)],
        limit: Duration,
    ) -> Result<SecretString, ResolveSecretError> {
        let bytes = match self {
            Self::Env(name) => std::env::var(name)
                .map_err(|_| ResolveSecretError::EnvMissing { reference: self.clone() })?
                .into_bytes(),
            Self::File(path) => self.read(path).await?,
            Self::Exec(words) => timeout(limit, self.run(words, environment))
                .await
                .map_err(|_| ResolveSecretError::ExecTimedOut { reference: self.clone(), limit })??,
        };
        self.usable(bytes)
    }

    fn usable(&self, bytes: Vec<u8>) -> Result<SecretString, ResolveSecretError> {
        let refused = || ResolveSecretError::NotUsable { reference: self.clone() };
        let text = String::from_utf8(bytes).map_err(|_| refused())?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let fits = !text.is_empty() && text.len() as u64 <= SECRET_BYTES_MAX;
        if fits { Ok(SecretString::from(text.to_owned())) } else { Err(refused()) }
    }

    async fn read(&self, path: &Path) -> Result<Vec<u8>, ResolveSecretError> {
        let unreadable = |source| ResolveSecretError::FileUnreadable { reference: self.clone(), source };
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        read_at_most(file, SECRET_BYTES_MAX + 2).await.map_err(unreadable)
    }

    async fn run(&self, words: &[String], environment: &[(&str, &str)]) -> Result<Vec<u8>, ResolveSecretError> {
        let failed = |source| ResolveSecretError::ExecFailed { reference: self.clone(), source };
        let refused = || ResolveSecretError::NotUsable { reference: self.clone() };
        let (program, args) = words.split_first().ok_or_else(refused)?;
        let mut child = Command::new(program)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take().ok_or_else(refused)?, child.stderr.take().ok_or_else(refused)?);
        let (printed, complaint) =
            tokio::try_join!(read_then_drain(stdout, SECRET_BYTES_MAX + 2), read_then_drain(stderr, STDERR_BYTES_MAX))
                .map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(printed);
        }
        let stderr = String::from_utf8_lossy(&complaint).replace(char::is_control, " ").trim().to_owned();
        Err(ResolveSecretError::ExecRefused { reference: self.clone(), status, stderr })
    }
}

async fn read_at_most(from: impl AsyncRead + Unpin, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(bytes_max).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Reads the beginning and throws the rest away, so that the program never waits for a full pipe.
async fn read_then_drain(mut from: impl AsyncRead + Unpin, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let bytes = read_at_most(&mut from, bytes_max).await?;
    copy(&mut from, &mut sink()).await?;
    Ok(bytes)
}

impl FromStr for SecretRef {
    type Err = ParseSecretRefError;

    fn from_str(text: &str) -> Result<Self, ParseSecretRefError> {
        Self::parse(text)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Exec(words) => write!(f, "exec:{}", words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    async fn check(reference: &str, expected: Result<&str, &str>) {
        let resolved = SecretRef::parse(reference).unwrap().resolve().await;
        match (resolved, expected) {
            (Ok(secret), Ok(text)) => assert_eq!(secret.expose_secret(), text, "{reference}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{reference}: {error}"),
            (resolved, _) => panic!("{reference}: {resolved:?}"),
        }
    }

    #[tokio::test]
    async fn each_scheme_yields_its_text_without_the_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "from-file\n\n").unwrap();
        check(&format!("file:{}", file.display()), Ok("from-file\n")).await;
        check("exec:printf from-exec\\r\\n", Ok("from-exec")).await;
        check("env:CARGO_PKG_NAME", Ok("mandate-activities")).await;
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_had_is_named_by_its_reference() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("refuse");
        std::fs::write(&script, "echo leaked-to-stdout\necho locked >&2\nexit 7\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        let at = |name: &str| format!("file:{}", folder.path().join(name).display());
        check("env:MANDATE_NO_SUCH_VARIABLE", Err("env:MANDATE_NO_SUCH_VARIABLE")).await;
        check(&at("missing"), Err("missing` cannot be read")).await;
        check(&at("empty"), Err("is empty")).await;
        check(&at("binary"), Err("not text")).await;
        check("exec:mandate-no-such-program", Err("cannot be run")).await;
        check(&format!("exec:sh {}", script.display()), Err("exit status: 7: locked")).await;
        let refused = SecretRef::Exec(vec!["sh".to_owned(), script.display().to_string()]).resolve().await;
        assert!(!format!("{refused:?}").contains("leaked"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_stopped() {
        let reference = SecretRef::parse("exec:sleep 600").unwrap();
        let error = reference.resolve_with(&[], Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ResolveSecretError::ExecTimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_program_gets_what_is_added_to_its_environment() {
        let reference = SecretRef::parse("exec:printenv MANDATE_NONCE").unwrap();
        let secret = reference.resolve_with(&[("MANDATE_NONCE", "0a1b")], EXEC_TIMEOUT).await.unwrap();
        assert_eq!(secret.expose_secret(), "0a1b");
    }

    #[test]
    fn a_plain_value_is_refused_without_being_repeated() {
        for plain in ["sk-12345", "", "ENV:NAME", " env:NAME"] {
            let error = SecretRef::parse(plain).unwrap_err();
            assert_eq!(error, ParseSecretRefError::Plain, "{plain}");
            assert!(plain.trim().is_empty() || !error.to_string().contains("sk-12345"));
        }
        for (nothing, scheme) in [("env:", "env"), ("file: ", "file"), ("exec:", "exec"), ("env:A=b", "env")] {
            assert_eq!(SecretRef::parse(nothing), Err(ParseSecretRefError::NamesNothing { scheme }), "{nothing}");
        }
    }

    #[test]
    fn relative_paths_are_put_under_the_folder() {
        for (text, expected) in [
            ("env:A", "env:A"),
            ("file:var/key", "file:/op/var/key"),
            ("file:/etc/key", "file:/etc/key"),
            ("exec:bin/show key", "exec:/op/bin/show key"),
            ("exec:pass show key", "exec:pass show key"),
        ] {
            assert_eq!(SecretRef::parse(text).unwrap().within(Path::new("/op")).to_string(), expected);
        }
    }
}
