//! Can each secret be had that a model, a tool server or the webhook refers to? The secret itself is dropped unseen.

use mandate_activities::catalog::{Catalog, EnvValue, HeaderSetting, ModelSettings, SecretRef};

use super::Finding;
use crate::output;

/// A reference and who uses it.
struct Use {
    reference: SecretRef,
    by: Vec<String>,
}

/// Resolves each reference once.
pub(super) async fn checks(catalog: &Catalog) -> Vec<Finding> {
    let used = uses(catalog);
    if used.is_empty() {
        return vec![Finding::ok("secrets", "no model, no server and no webhook refers to one")];
    }
    futures::future::join_all(used.iter().map(resolve)).await
}

async fn resolve(used: &Use) -> Finding {
    let check = format!("secret {}", used.reference);
    let by = used.by.join(", ");
    match used.reference.resolve().await {
        Ok(_) => Finding::ok(check, format!("is there, for {by}")),
        Err(error) => {
            let detail = format!("{}; it is for {by}", output::chain(&error.into()));
            Finding::fail(check, detail, advice(&used.reference))
        }
    }
}

fn advice(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Env(name) => {
            format!("Set `{name}` in the worker's environment, and run this command in the same one")
        }
        SecretRef::File(path) => format!("Put the secret into `{}`, readable by the worker's user", path.display()),
        SecretRef::Exec(_) => {
            "Run the program as the worker's user: it has to print the secret and end with 0".to_owned()
        }
    }
}

fn uses(catalog: &Catalog) -> Vec<Use> {
    let models = catalog.models.iter().filter_map(|(name, settings)| match settings {
        ModelSettings::OpenAi { api_key, .. } => api_key.as_ref().map(|key| (key, format!("model `{name}`"))),
        ModelSettings::Scripted { .. } => None,
    });
    let servers = catalog.servers.iter().flat_map(|(server, settings)| {
        settings.env.iter().filter_map(move |(name, value)| match value {
            EnvValue::Secret(reference) => Some((reference, format!("`{name}` of server `{server}`"))),
            EnvValue::Plain(_) => None,
        })
    });
    let headers = catalog.remotes.iter().flat_map(|(server, settings)| {
        settings.headers.iter().filter_map(move |(name, value)| match value {
            HeaderSetting::Secret { reference, .. } => {
                Some((reference, format!("header `{name}` of server `{server}`")))
            }
            HeaderSetting::Plain(_) => None,
        })
    });
    let notify = catalog.notify.iter().flat_map(|settings| &settings.secrets);
    let webhook = notify.map(|reference| (reference, "the webhook of `[notify]`".to_owned()));
    let mut uses: Vec<Use> = Vec::new();
    for (reference, by) in models.chain(servers).chain(headers).chain(webhook) {
        match uses.iter_mut().find(|known| known.reference == *reference) {
            Some(known) => known.by.push(by),
            None => uses.push(Use { reference: reference.clone(), by: vec![by] }),
        }
    }
    uses
}
