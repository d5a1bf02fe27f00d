//! `mandate doctor`: everything that a worker needs, checked before it starts or when something is wrong.
//!
//! Each check has a line: what was found and, unless all is well, what to do. A check that fails keeps only those from
//! running that need what it looked for. No store is made or migrated, no tool called and no model asked; no line holds
//! a secret.

use mandate_domain::render;
use serde::Serialize;

use super::load;
use crate::{
    cli::{Global, Listing},
    config::{Config, ConfigErrors},
    output::{self, Exit, OutputFormat, Progress},
};

mod bundle;
mod models;
mod runs;
mod secrets;
mod store;
mod temporal;
mod tools;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// A worker runs all the same.
    Warn,
    /// A worker does not run, or some of its runs will fail.
    Fail,
}

/// One check and what came of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    status: Status,
    detail: String,
    advice: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), status: Status::Ok, detail: detail.into(), advice: None }
    }

    fn warn(check: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, advice: Some(advice.into()), ..Self::ok(check, detail) }
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, advice: Some(advice.into()), ..Self::ok(check, detail) }
    }

    fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        let advice = self.advice.as_ref().map(|advice| format!(". {advice}")).unwrap_or_default();
        // What servers and files say is foreign text.
        render::escape_line(&format!("{status}  {}: {}{advice}", self.check, self.detail))
    }
}

/// Runs every check and prints what was found.
///
/// # Errors
/// When stdout cannot be written.
pub async fn doctor(global: &Global, options: &Listing) -> anyhow::Result<Exit> {
    let progress = Progress::start();
    let loaded = load(&global.folder);
    let exit =
        if loaded.as_ref().is_err_and(anyhow::Error::is::<ConfigErrors>) { Exit::Invalid } else { Exit::Failure };
    let mut findings = vec![configuration(&loaded)];
    progress.say("looking at Temporal");
    findings.extend(temporal::checks(global).await);
    if let Ok(config) = &loaded {
        progress.say("looking at the store");
        findings.extend(store_checks(config).await);
        progress.say("looking at secrets");
        findings.extend(secrets::checks(&config.catalog).await);
        progress.say("looking at tools");
        findings.extend(tools::checks(&config.catalog).await);
        findings.extend(models::checks(&config.catalog));
    }
    progress.end();
    match options.output {
        OutputFormat::Json => output::json(&findings)?,
        OutputFormat::Text => findings.iter().try_for_each(|finding| output::data(finding.line()))?,
    }
    Ok(if findings.iter().any(|finding| finding.status == Status::Fail) { exit } else { Exit::Done })
}

fn configuration(loaded: &anyhow::Result<Config>) -> Finding {
    let check = "configuration";
    match loaded {
        Ok(config) => {
            let (folder, profile, catalog) = (config.folder.display(), config.profile, &config.catalog);
            let (agents, tools) = (catalog.agents.len(), catalog.tools.len());
            Finding::ok(check, format!("`{folder}`, profile {profile}, {agents} agent(s), {tools} tool(s)"))
        }
        Err(error) => {
            let lines = error.downcast_ref::<ConfigErrors>().map(ConfigErrors::plain_lines).unwrap_or_default();
            let detail = match &lines[..] {
                [] => output::chain(error),
                [only] => only.clone(),
                [first, rest @ ..] => format!("{first}, and {} more problem(s)", rest.len()),
            };
            Finding::fail(check, detail, "`mandate check` shows every problem and its place; mend them all")
        }
    }
}

/// What the store holds. Each check looks for itself, so that one that fails does not hide another.
async fn store_checks(config: &Config) -> Vec<Finding> {
    let mut findings = vec![store::opens(config).await, store::address_keys(config).await];
    findings.extend(bundle::checks(config).await);
    findings.extend(runs::checks(config).await);
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        let shown = [
            Finding::ok("store", "`/a`").line(),
            Finding::warn("store", "there is none", "Start a worker").line(),
            Finding::fail("server x", "cannot start: bad\nnews", "Mend it").line(),
        ];
        let expected = [
            "ok    store: `/a`",
            "warn  store: there is none. Start a worker",
            "fail  server x: cannot start: bad\\nnews. Mend it",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn programs_read_the_same_of_each_check() {
        let findings = [Finding::ok("store", "`/a`"), Finding::fail("tool x", "gone", "Mend it")];
        let expected = json!([
            { "check": "store", "status": "ok", "detail": "`/a`", "advice": null },
            { "check": "tool x", "status": "fail", "detail": "gone", "advice": "Mend it" },
        ]);
        assert_eq!(serde_json::to_value(findings).unwrap(), expected);
    }

    #[test]
    fn a_folder_that_cannot_be_used_shows_its_first_problem() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let found = configuration(&Config::load(folder.path(), folder.path()).map_err(anyhow::Error::from));
            assert_eq!(found.status, Status::Fail);
            assert!(found.line().contains(expected) && found.line().contains("mandate check"), "{found:?}");
        };
        check("mandate.toml: the file is missing");
        std::fs::write(folder.path().join("mandate.toml"), "profile = \"development\"\na = 1\nb = 2\n").unwrap();
        check("unknown key `a`");
        check("and 1 more problem(s)");
    }
}
