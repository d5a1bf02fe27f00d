//! Everything that is wrong with an operating folder, said at once and with the place where it stands.
//!
//! Secrets never reach a message: a value that stands where a secret reference is expected is blotted out in every
//! source text that is shown.

use std::{cell::RefCell, fmt, ops::Range, path::Path, path::PathBuf};

use mandate_domain::policy::LoadPolicyError;
use miette::{Diagnostic, NamedSource, SourceSpan};

/// Shortest similarity (Jaro-Winkler) at which another name is suggested.
const SIMILARITY_MIN: f64 = 0.75;

/// The operating folder cannot be used. Mend every problem, then load it again.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the configuration in `{}` cannot be used: {}", .folder.display(), counted(.problems.len()))]
#[diagnostic(code(mandate::config))]
pub struct ConfigErrors {
    folder: PathBuf,
    #[related]
    problems: Vec<ConfigProblem>,
}

fn counted(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

/// One problem of an operating folder.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigProblem {
    /// A file does not say what it has to say.
    #[error("{message}")]
    Text {
        /// What is wrong.
        message: String,
        /// Short words at the place.
        label: String,
        /// The place.
        #[label("{label}")]
        at: SourceSpan,
        /// The file.
        #[source_code]
        source_code: NamedSource<String>,
        /// What to do.
        #[help]
        help: Option<String>,
    },
    /// A file or folder is missing, cannot be read, or stands in the wrong place.
    #[error("{}: {message}", .path.display())]
    File {
        /// The file or folder, relative to the operating folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// What to do.
        #[help]
        help: Option<String>,
    },
    /// A policy does not load.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Policy(LoadPolicyError),
}

impl ConfigErrors {
    /// The problems, at least one.
    #[must_use]
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }

    /// One line for each problem: `path:line:column: message`.
    #[must_use]
    pub fn plain_lines(&self) -> Vec<String> {
        self.problems.iter().map(|problem| plain_line(&self.folder, problem)).collect()
    }
}

fn plain_line(folder: &Path, problem: &ConfigProblem) -> String {
    let help = with_help(problem.help().map(|help| help.to_string()).as_deref());
    match problem {
        ConfigProblem::Text { message, at, source_code, .. } => {
            let (line, column) = line_and_column(source_code.inner(), at.offset());
            format!("{}:{line}:{column}: {message}{help}", folder.join(source_code.name()).display())
        }
        // Their own text begins with the place.
        ConfigProblem::File { .. } | ConfigProblem::Policy(_) => {
            format!("{}{help}", folder.join(problem.to_string()).display())
        }
    }
}

/// Both count from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

fn with_help(help: Option<&str>) -> String {
    help.map(|help| format!(" ({help})")).unwrap_or_default()
}

/// A file that was read, by its position among them.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileId(usize);

/// A place in a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: FileId,
    pub(super) span: Range<usize>,
}

/// What was found so far. Shared by all readers, so that one wrong file does not hide the others.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    files: Vec<SourceText>,
    problems: Vec<Raw>,
}

#[derive(Debug)]
struct SourceText {
    name: String,
    text: String,
    hidden: Vec<Range<usize>>,
}

#[derive(Debug)]
enum Raw {
    At { place: Place, message: String, label: String, help: Option<String> },
    Done(ConfigProblem),
}

impl Problems {
    /// Remembers the text of a file, for showing.
    pub(super) fn add_file(&self, name: &Path, text: &str) -> FileId {
        let mut found = self.found.borrow_mut();
        found.files.push(SourceText {
            name: name.display().to_string(),
            text: text.to_owned(),
            hidden: secret_looking(text),
        });
        FileId(found.files.len() - 1)
    }

    /// The line of a place, counted from 1.
    pub(super) fn line_of(&self, place: &Place) -> usize {
        let found = self.found.borrow();
        found.files.get(place.file.0).map_or(1, |file| line_and_column(&file.text, place.span.start).0)
    }

    /// Blots out a value in every text that is shown.
    pub(super) fn hide(&self, place: &Place) {
        if let Some(file) = self.found.borrow_mut().files.get_mut(place.file.0) {
            file.hidden.push(place.span.clone());
        }
    }

    /// A problem at a place.
    pub(super) fn at(&self, place: &Place, message: impl Into<String>, label: impl Into<String>, help: Option<String>) {
        let raw = Raw::At { place: place.clone(), message: message.into(), label: label.into(), help };
        self.found.borrow_mut().problems.push(raw);
    }

    /// A problem of a whole file or folder.
    pub(super) fn file(&self, path: &Path, message: impl Into<String>, help: Option<&str>) {
        let help = help.map(str::to_owned);
        let problem = ConfigProblem::File { path: path.to_owned(), message: message.into(), help };
        self.found.borrow_mut().problems.push(Raw::Done(problem));
    }

    /// A policy that does not load.
    pub(super) fn policy(&self, error: LoadPolicyError) {
        self.found.borrow_mut().problems.push(Raw::Done(ConfigProblem::Policy(error)));
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().problems.is_empty()
    }

    /// All problems, with the texts they stand in.
    pub(super) fn into_errors(self, folder: &Path) -> ConfigErrors {
        let Found { files, problems } = self.found.into_inner();
        let shown: Vec<(String, String)> = files.into_iter().map(SourceText::blotted).collect();
        let problems = problems.into_iter().map(|raw| raw.finish(&shown)).collect();
        ConfigErrors { folder: folder.to_owned(), problems }
    }
}

impl SourceText {
    fn blotted(self) -> (String, String) {
        let mut bytes = self.text.into_bytes();
        for range in self.hidden {
            for byte in bytes.get_mut(range).into_iter().flatten().filter(|byte| **byte != b'\n') {
                *byte = b'*';
            }
        }
        (self.name, String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Raw {
    fn finish(self, shown: &[(String, String)]) -> ConfigProblem {
        match self {
            Self::Done(problem) => problem,
            Self::At { place, message, label, help } => {
                let (name, text) = shown.get(place.file.0).cloned().unwrap_or_default();
                let start = place.span.start.min(text.len());
                let at = SourceSpan::from(start..place.span.end.clamp(start, text.len()));
                ConfigProblem::Text { message, label, at, source_code: NamedSource::new(name, text), help }
            }
        }
    }
}

/// Values of keys that name a secret, found without a parser: a file that does not parse is shown too.
fn secret_looking(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some((key, value)) = line.split_once('=') {
            let key_lower = key.to_ascii_lowercase();
            let names_secret = ["key", "secret", "token", "password"]
                .iter()
                .any(|word| key_lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == *word));
            let value_start = start + key.len() + 1 + (value.len() - value.trim_start().len());
            let refers = ["env:", "file:", "exec:"].iter().any(|scheme| value.contains(scheme));
            if names_secret && !refers {
                hidden.push(value_start..(start + line.trim_end().len()).max(value_start));
            }
        }
        start += line.len();
    }
    hidden
}

/// "did you mean", or all there is to choose from.
pub(crate) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let scored = known.iter().map(|name| (strsim::jaro_winkler(word, name), *name));
    match scored.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((score, name)) if score >= SIMILARITY_MIN => format!("did you mean `{name}`?"),
        Some(_) => format!("known: {}", Listed(&known)),
        None => "none is configured".to_owned(),
    }
}

struct Listed<'a>(&'a [&'a str]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
