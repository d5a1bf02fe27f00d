//! `[notify]`: the webhook that is told of requests and questions, and the warnings about people who are not told.

use std::{collections::BTreeSet, path::Path};

use mandate_activities::{
    catalog::{NotifySettings, SecretRef},
    egress::InternalHost,
    webhook::{CheckUrlError, check_url},
};
use mandate_domain::{
    AgentDefinition, RunFacts,
    audit::NoticeKind,
    policy::{PolicyAction, PolicyRequest},
};

use super::{
    Config,
    reader::{At, Table},
    remotes,
    root::secret_of,
};

/// Longest time that a receiver may take unless it is stated, in seconds.
const TIMEOUT_SECS: u64 = 10;
/// Most secrets: the one in use, and those that are on their way in or out.
const SECRETS_MAX: usize = 4;

/// Reads `[notify]`.
pub(super) fn read(table: Option<Table<'_>>, folder: &Path) -> Option<NotifySettings> {
    let mut table = table?;
    let allow_internal = remotes::read_internal(&mut table);
    let url = table.required_text("url").and_then(|url| checked_url(&table, url, &allow_internal));
    let secrets = read_secrets(&mut table, folder);
    // The activity's attempt of 30 seconds has to hold it.
    let timeout_secs = table.number_within("timeout_secs", 1..=25, TIMEOUT_SECS);
    table.finish();
    Some(NotifySettings { url: url?, secrets: secrets?, allow_internal, timeout_secs })
}

fn checked_url(table: &Table<'_>, url: At<String>, allow_internal: &[InternalHost]) -> Option<String> {
    let Err(error) = check_url(&url.value, allow_internal) else { return Some(url.value) };
    let (label, help) = match error {
        CheckUrlError::Credentials => {
            table.problems.hide(&url.place);
            ("credentials", "leave them out: a receiver checks the signature")
        }
        CheckUrlError::NotWeb => ("not such a URL", "write `url = \"https://…\"`"),
        CheckUrlError::Internal(_) => ("an internal address", "name it in `allow_internal` if it is meant"),
        CheckUrlError::Plain => ("not encrypted", "what is told names runs and people's groups: put TLS before it"),
    };
    table.problems.at(&url.place, format!("`url`: {error}"), label, Some(help.to_owned()));
    None
}

/// One secret or several; none with one of them wrong.
fn read_secrets(table: &mut Table<'_>, folder: &Path) -> Option<Vec<SecretRef>> {
    let missing = !table.has("secret");
    let texts = table.secret_texts("secret");
    if missing {
        table.missing("secret");
    }
    let At { value: texts, place } = texts?;
    if !(1..=SECRETS_MAX).contains(&texts.len()) {
        let message = format!("`secret` is one reference, or a list of 1 to {SECRETS_MAX}");
        table.problems.at(&place, message, format!("{} of them", texts.len()), None);
        return None;
    }
    let written = texts.len();
    let secrets = texts.into_iter().filter_map(|text| secret_of(table.problems, "secret", text, folder));
    let secrets: Vec<_> = secrets.map(|secret| secret.value).collect();
    (secrets.len() == written).then_some(secrets)
}

impl Config {
    /// People who are to be told of something and are not.
    #[must_use]
    pub fn notify_warnings(&self) -> Vec<String> {
        if self.catalog.notify.is_some() {
            let silent = "the webhook of `[notify]` is told nothing: no policy names the action `notify`";
            return if self.may_notify() { Vec::new() } else { vec![silent.to_owned()] };
        }
        let reminding = self.policy.gates().filter(|written| written.gate.remind_secs.is_some());
        let warning = |gate| format!("gate `{gate}` has `@remind` and nobody is reminded: there is no `[notify]`");
        reminding.map(|written| warning(&written.gate.id)).collect()
    }

    /// Whether some policy may let the webhook be told. What depends on circumstances counts: they are not known here.
    fn may_notify(&self) -> bool {
        let named = self.policy.policy_texts().values().any(|text| text.contains("Action::\"notify\""));
        named
            || self.catalog.agents.values().any(|agent| NoticeKind::ALL.into_iter().any(|kind| self.tells(agent, kind)))
    }

    fn tells(&self, agent: &AgentDefinition, kind: NoticeKind) -> bool {
        let request = PolicyRequest {
            agent: &agent.name,
            agent_owner: &agent.owner,
            on_behalf_of: &agent.owner,
            workflow_id: "",
            action: PolicyAction::Notify { kind },
            facts: &RunFacts::default(),
            approved: &BTreeSet::new(),
        };
        self.policy.decide(&request).is_allowed()
    }
}
