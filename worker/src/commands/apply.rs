//! `mandate apply`: the folder's policies become the active ones, for all workers at once.

use mandate_activities::operator::BundleToApply;

use super::{
    change::{Before, Proposal, carry_out},
    load, open_store, open_store_if_there,
};
use crate::{
    bundle,
    cli::{self, Global},
    output::Exit,
};

/// Loads the folder, shows what would change, and applies it.
///
/// # Errors
/// [`crate::config::ConfigErrors`] with everything that is wrong in the folder; [`crate::output::Refused`] when policy
/// does not permit it.
pub async fn apply(global: &Global, options: cli::Apply) -> anyhow::Result<Exit> {
    let config = load(&global.folder)?;
    let cli::Apply { dry_run, change } = options;
    // A dry run makes no store.
    let store = if dry_run { open_store_if_there(&config).await? } else { Some(open_store(&config).await?) };
    let before = match &store {
        Some(store) => Before::of(store).await?,
        None => Before::nothing(),
    };
    let bundle = BundleToApply { note: change.note.clone(), ..bundle::to_apply(&config.policy)? };
    let proposal = Proposal { policy: &config.policy, bundle, dry_run };
    let exit = carry_out(store.as_ref(), before, proposal, &change).await;
    if let Some(store) = store {
        store.close().await;
    }
    exit
}
