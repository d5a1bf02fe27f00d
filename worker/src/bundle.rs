//! The policy bundle that a worker judges by: the active one of its store. In the development profile the folder's
//! policies become the active ones by themselves.

use anyhow::Context as _;
use mandate_activities::{
    operator::{Applied, BundleToApply, Judged, Judgement, Operator},
    policy::ActivePolicy,
    store::Store,
};
use mandate_domain::{PersonId, Proof, policy::PolicyBundle};

use crate::config::{Config, Profile};

pub mod difference;

pub use difference::Difference;

/// Who applies in the development profile.
const DEVELOPMENT: &str = "development profile";

/// Loads the active bundle; in the development profile the folder's is made the active one first.
///
/// # Errors
/// When no bundle is active, or it cannot be used.
pub async fn in_force(config: &Config, store: &Store, identity: &str) -> anyhow::Result<ActivePolicy> {
    if config.profile == Profile::Development {
        apply_folder(config, store, identity).await?;
    }
    Ok(ActivePolicy::open(store).await?)
}

/// Makes the folder's policies the active ones without asking anybody: for development and for the demo.
///
/// # Errors
/// When the store refuses.
pub async fn apply_folder(config: &Config, store: &Store, identity: &str) -> anyhow::Result<()> {
    let by = PersonId::parse(DEVELOPMENT)?;
    let judgement = Judgement::Permitted { policies: Vec::new(), bundle: None };
    let judged = Judged { by, proof: Proof::Claimed, judgement };
    let applied = Operator::new(store.clone(), identity).apply(&judged, &to_apply(&config.policy)?).await?;
    if let Applied::Applied { version } = applied {
        tracing::info!(version, digest = %config.policy.digest(), "the folder's policies were applied");
    }
    Ok(())
}

/// The folder's policies as an operator applies them.
///
/// # Errors
/// When they cannot be written as JSON: a defect.
pub fn to_apply(policy: &PolicyBundle) -> anyhow::Result<BundleToApply> {
    let files = serde_json::to_value(policy.files()).context("the policies cannot be written down")?;
    Ok(BundleToApply { files, digest: policy.digest().clone(), note: None, rollback: false, expected_version: None })
}
