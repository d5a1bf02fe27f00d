//! Can each configured model be used? Scripts are read; a provider is not asked, since each answer has its price.

use std::collections::BTreeMap;

use mandate_activities::{
    catalog::{Catalog, ModelSettings},
    models::Models,
};
use mandate_domain::ModelName;

use super::Finding;
use crate::output;

/// Reads scripts and builds clients.
pub(super) fn checks(catalog: &Catalog) -> Vec<Finding> {
    catalog.models.iter().map(|(name, settings)| of_model(name, settings)).collect()
}

fn of_model(name: &ModelName, settings: &ModelSettings) -> Finding {
    let check = format!("model {name}");
    let detail = match settings {
        ModelSettings::Scripted { script } => format!("scripted by `{}`", script.display()),
        ModelSettings::OpenAi { base_url, .. } => format!("at `{base_url}`, which was not asked"),
    };
    match Models::new(BTreeMap::from([(name.clone(), settings.clone())])) {
        Ok(_) => Finding::ok(check, detail),
        Err(error) => {
            let advice = format!("Correct `[models.{name}]` or the file that it names");
            Finding::fail(check, output::chain(&error.into()), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_cannot_be_read_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script.toml");
        std::fs::write(&script, "conversation = 5\n").unwrap();
        let found = of_model(&"support".parse().unwrap(), &ModelSettings::Scripted { script }).line();
        assert!(found.starts_with("fail  model support: ") && found.contains("script.toml`, line 1"), "{found}");
        assert!(found.ends_with("Correct `[models.support]` or the file that it names"), "{found}");
    }
}
