//! Which policies are in force, whether they are the folder's, and what is in quarantine. Nothing is made or migrated.

use mandate_activities::{
    policy::load_version,
    store::{BundleSummary, Store},
};

use super::Finding;
use crate::{
    commands::{open_store, place_of},
    config::{Config, Profile},
    output,
};

const BUNDLE: &str = "bundle";
const QUARANTINE: &str = "quarantine";

/// Both lines, or one that says why they cannot be told.
pub(super) async fn checks(config: &Config) -> Vec<Finding> {
    if !is_current(config).await {
        let detail = "the store cannot be asked yet, see its own line";
        return vec![none(config, detail)];
    }
    match look(config).await {
        Ok(findings) => findings,
        Err(error) => {
            let advice = "Mend the store first";
            vec![Finding::fail(BUNDLE, output::chain(&error), advice)]
        }
    }
}

async fn is_current(config: &Config) -> bool {
    let Ok(place) = place_of(&config.store).await else { return false };
    place.has_store().await.unwrap_or(false)
        && Store::inspect(&place).await.is_ok_and(|inspection| inspection.schema == inspection.schema_known)
}

async fn look(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let store = open_store(config).await?;
    let bundle = match store.bundles().await?.first() {
        Some(active) => of_active(config, active, load_version(&store, active.version).await?.err()),
        None => none(config, "none was applied"),
    };
    let listed = store.quarantine_list().await?;
    store.close().await;
    let quarantine = if listed.is_empty() {
        Finding::ok(QUARANTINE, "nothing is in it")
    } else {
        let targets: Vec<_> = listed.iter().map(|quarantined| quarantined.target.to_string()).collect();
        let advice = "`mandate quarantine list` tells why, `mandate quarantine lift` takes something out";
        Finding::warn(QUARANTINE, targets.join(", "), advice)
    };
    Ok(vec![bundle, quarantine])
}

fn none(config: &Config, detail: &str) -> Finding {
    match config.profile {
        Profile::Development => Finding::warn(BUNDLE, detail, "The next worker applies the folder's policies"),
        Profile::Production => {
            Finding::fail(BUNDLE, detail, "`mandate apply` makes the folder's policies the active ones")
        }
    }
}

fn of_active(config: &Config, active: &BundleSummary, trouble: Option<String>) -> Finding {
    let digest: String = active.digest.as_str().chars().take(12).collect();
    let detail = format!("version {}, {digest}, applied by {}", active.version, active.applied_by);
    if let Some(reason) = trouble {
        let detail = format!("{detail}, cannot be used here: {reason}; workers keep the last good one");
        return Finding::fail(BUNDLE, detail, "Apply a good one with `mandate apply` or `mandate rollback`");
    }
    if active.digest == *config.policy.digest() {
        return Finding::ok(BUNDLE, format!("{detail}, the folder's"));
    }
    let advice = match config.profile {
        Profile::Development => "The next worker applies the folder's",
        Profile::Production => "`mandate apply --dry-run` shows the difference",
    };
    Finding::warn(BUNDLE, format!("{detail}, not the folder's"), advice)
}
