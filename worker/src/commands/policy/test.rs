//! `mandate policy test`: asks the folder's policies the cases that stand beside them. Nothing but files is read.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use mandate_domain::{
    PolicyId,
    policy::{PolicyBundle, case::CaseAnswer},
    render,
};
use serde::Serialize;

use crate::{
    cli::{Global, TestPolicy},
    commands::load,
    config::CaseAt,
    output::{self, Exit, OutputFormat, UsageError},
};

/// The file that makes a folder an operating folder.
const ROOT_FILE: &str = "mandate.toml";

/// What a test came to.
#[derive(Debug, Serialize)]
struct Tested {
    passed: usize,
    failed: usize,
    cases: Vec<Checked>,
    /// Policies that determined no case.
    uncovered: Vec<PolicyId>,
}

/// One case.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    file: PathBuf,
    line: usize,
    /// What it asks about: a tool, a model, an act, a viewer.
    asked: String,
    passed: bool,
    /// Each way in which the answer is not what was expected.
    wrong: Vec<String>,
    got: String,
    policies: BTreeSet<PolicyId>,
    reason: String,
}

/// Asks all cases and says which fail.
///
/// # Errors
/// [`crate::config::ConfigErrors`] when the folder or a case cannot be used.
pub fn test(global: &Global, options: TestPolicy) -> anyhow::Result<Exit> {
    let (folder, paths) = places(&global.folder, options.paths)?;
    let config = load(&folder)?;
    let tested = tested(&config.policy, config.policy_cases(&paths)?);
    match options.output {
        OutputFormat::Json => output::json(&tested)?,
        OutputFormat::Text => output::data(text(&tested))?,
    }
    for id in &tested.uncovered {
        output::note(format_args!("note: no case is determined by policy `{id}`"));
    }
    Ok(if tested.failed == 0 { Exit::Done } else { Exit::Failure })
}

/// The operating folder and the files of cases: an operating folder among the paths stands for `--folder`.
fn places(folder: &Path, paths: Vec<PathBuf>) -> Result<(PathBuf, Vec<PathBuf>), UsageError> {
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.join(ROOT_FILE).exists());
    match &folders[..] {
        [] => Ok((folder.to_owned(), files)),
        [folder] => Ok((folder.clone(), files)),
        _ => Err(UsageError("name one operating folder: policies of two cannot be tested together".to_owned())),
    }
}

fn tested(bundle: &PolicyBundle, cases: Vec<CaseAt>) -> Tested {
    let cases: Vec<Checked> = cases.into_iter().map(|at| checked(bundle, at)).collect();
    let covered: BTreeSet<&PolicyId> = cases.iter().flat_map(|case| &case.policies).collect();
    let uncovered = bundle.policies().map(|(id, _)| id).filter(|id| !covered.contains(id)).cloned().collect();
    let passed = cases.iter().filter(|case| case.passed).count();
    Tested { passed, failed: cases.len() - passed, cases, uncovered }
}

fn checked(bundle: &PolicyBundle, at: CaseAt) -> Checked {
    let CaseAt { name, file, line, case } = at;
    let (CaseAnswer { answered, policies, reason }, wrong) = case.check(bundle);
    let asked = case.asked.to_string();
    Checked { name, file, line, asked, passed: wrong.is_empty(), wrong, got: answered.to_string(), policies, reason }
}

fn text(tested: &Tested) -> String {
    let failing = tested.cases.iter().filter(|case| !case.passed);
    let mut lines: Vec<String> = failing.map(failure).collect();
    let (all, failed) = (tested.cases.len(), tested.failed);
    let noun = if all == 1 { "case" } else { "cases" };
    lines.push(if failed == 0 { format!("{all} {noun} passed") } else { format!("{failed} of {all} {noun} failed") });
    lines.join("\n")
}

fn failure(case: &Checked) -> String {
    let (file, line, name, wrong) = (case.file.display(), case.line, &case.name, case.wrong.join("; "));
    let by = if case.policies.is_empty() {
        "no policy".to_owned()
    } else {
        case.policies.iter().map(PolicyId::as_str).collect::<Vec<_>>().join(", ")
    };
    render::escape_line(&format!("{file}:{line}: FAILED {name}: {wrong} (by {by}: {})", case.reason))
}
