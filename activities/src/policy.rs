//! The policy bundle in force: the active row of the store, loaded once, the same for all workers.
//!
//! Every deciding transaction asks for the row's version. Another version is loaded before it decides; one that cannot
//! be loaded never replaces a good one, and it is said in the log and by [`ActivePolicy::trouble`]. Operator acts are
//! judged by the same rule, from the rows alone: [`newest_usable`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mandate_domain::policy::{BundleFiles, PolicyBundle};

use crate::{
    guards::{Guard, on},
    metrics::Metrics,
    store::{BundleRow, Store, StoreError, Tx},
};

/// Most bundles that are tried before none is said to be usable.
const TRIED_MAX: usize = 100;

/// The bundle in force. Cheap to clone.
#[derive(Clone)]
pub struct ActivePolicy {
    store: Store,
    kept: Arc<Mutex<Kept>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Kept {
    version: u64,
    bundle: Arc<PolicyBundle>,
    trouble: Option<Trouble>,
    /// The version whose trouble stands in the audit log.
    recorded: Option<u64>,
}

/// A bundle that is active and cannot be used: the one before is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The version that is active.
    pub active: u64,
    /// The version that is in force here.
    pub kept: u64,
    /// Why the active one cannot be used.
    pub reason: String,
}

/// Why no bundle is in force.
#[derive(Debug, thiserror::Error)]
pub enum OpenPolicyError {
    /// The store failed. Retry.
    #[error("the store refuses")]
    Store(#[from] StoreError),
    /// Nothing was applied yet. Apply a bundle.
    #[error("no policy bundle is active in this store; `mandate apply` makes the folder's policies the active ones")]
    Nothing,
    /// The active bundle cannot be used by this program. Apply a good one, or upgrade.
    #[error("policy bundle version {version} cannot be used: {reason}")]
    Unusable {
        /// Its version.
        version: u64,
        /// Why.
        reason: String,
    },
}

/// A bundle from its row: it has to load here, and to be what was applied.
///
/// # Errors
/// In a sentence, what is wrong with it.
pub fn load_row(row: &BundleRow) -> Result<PolicyBundle, String> {
    let files: BundleFiles =
        serde_json::from_value(row.files.clone()).map_err(|error| format!("it is written in another form: {error}"))?;
    let bundle = PolicyBundle::load(&files.sources, &files.registry).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        all.join("; ")
    })?;
    if *bundle.digest() == row.digest || !on(Guard::BundleAsApplied) {
        return Ok(bundle);
    }
    Err(format!("its digest is {} here and was {} when it was applied", bundle.digest(), row.digest))
}

/// The bundle of a version, or in a sentence why this program cannot use it.
///
/// # Errors
/// [`StoreError`] of the database.
pub async fn load_version(store: &Store, version: u64) -> Result<Result<PolicyBundle, String>, StoreError> {
    read(store, version).await
}

/// The bundle that operator acts are judged by: the active one, or the newest before it that this program can use, as a
/// worker keeps it.
#[derive(Debug)]
pub struct Usable {
    /// Its version.
    pub version: u64,
    /// The bundle.
    pub bundle: PolicyBundle,
    /// What is wrong with the active one, if that is another.
    pub trouble: Option<Trouble>,
}

/// Finds the bundle that operator acts are judged by.
///
/// # Errors
/// [`OpenPolicyError::Unusable`] names the active one where none before it can be used either.
pub async fn newest_usable(store: &Store) -> Result<Usable, OpenPolicyError> {
    let active = store.active_bundle_version().await?.ok_or(OpenPolicyError::Nothing)?;
    let mut wrong = None;
    for version in (1..=active).rev().take(TRIED_MAX) {
        match read(store, version).await? {
            Ok(bundle) => {
                let trouble = wrong.map(|reason| Trouble { active, kept: version, reason });
                return Ok(Usable { version, bundle, trouble });
            }
            Err(reason) => wrong = wrong.or(Some(reason)),
        }
    }
    Err(OpenPolicyError::Unusable { version: active, reason: wrong.unwrap_or_default() })
}

/// The bundle of a version, or in a sentence why it cannot be used. A row that cannot be read is no failure of the store.
async fn read(store: &Store, version: u64) -> Result<Result<PolicyBundle, String>, StoreError> {
    match store.bundle_version(version).await {
        Ok(Some(row)) => Ok(load_row(&row)),
        Ok(None) => Ok(Err("there is no such bundle".to_owned())),
        Err(error) if error.may_pass() => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

impl ActivePolicy {
    /// Loads the active bundle.
    ///
    /// # Errors
    /// [`OpenPolicyError`]: a worker does not start without a bundle.
    pub async fn open(store: &Store) -> Result<Self, OpenPolicyError> {
        let version = store.active_bundle_version().await?.ok_or(OpenPolicyError::Nothing)?;
        let bundle = read(store, version).await?.map_err(|reason| OpenPolicyError::Unusable { version, reason })?;
        let kept = Kept { version, bundle: Arc::new(bundle), trouble: None, recorded: None };
        Ok(Self { store: store.clone(), kept: Arc::new(Mutex::new(kept)), metrics: Metrics::default() })
    }

    /// The same policy, which says on these instruments what is in force.
    #[must_use]
    pub fn reporting(self, metrics: Metrics) -> Self {
        metrics.policy_bundle_in_use(self.version());
        Self { metrics, ..self }
    }

    /// The bundle that decides in this transaction.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn in_force(&self, tx: &mut Tx) -> Result<Arc<PolicyBundle>, StoreError> {
        let active = tx.active_bundle_version().await?;
        if let Some(known) = self.known(active) {
            return Ok(known);
        }
        // The transaction keeps others from applying a bundle, so that version stays the active one.
        if let Some(version) = active {
            self.take(version, read(&self.store, version).await?);
        }
        Ok(Arc::clone(&self.kept().bundle))
    }

    /// The bundle that this worker judged by last: for what is shown, not for what is decided.
    #[must_use]
    pub fn last(&self) -> Arc<PolicyBundle> {
        Arc::clone(&self.kept().bundle)
    }

    /// The version of that bundle.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.kept().version
    }

    /// What is wrong with the active bundle, if an older one is in force.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.kept().trouble.clone()
    }

    /// What is wrong with the active bundle, until [`Self::recorded`] says that the audit log has it.
    pub(crate) fn unrecorded(&self) -> Option<Trouble> {
        let kept = self.kept();
        kept.trouble.clone().filter(|trouble| kept.recorded != Some(trouble.active))
    }

    /// The audit log has what is wrong with a version.
    pub(crate) fn recorded(&self, version: u64) {
        self.kept().recorded = Some(version);
    }

    /// The kept bundle, if it is the active one or the active one was found to be unusable before.
    fn known(&self, active: Option<u64>) -> Option<Arc<PolicyBundle>> {
        let kept = self.kept();
        let unusable = kept.trouble.as_ref().map(|trouble| trouble.active);
        let known = active.is_none() || active == Some(kept.version) || active == unusable;
        known.then(|| Arc::clone(&kept.bundle))
    }

    fn take(&self, version: u64, read: Result<PolicyBundle, String>) {
        match read {
            Ok(bundle) => {
                tracing::info!(version, digest = %bundle.digest(), "another policy bundle is in force");
                self.metrics.policy_bundle_in_use(version);
                *self.kept() = Kept { version, bundle: Arc::new(bundle), trouble: None, recorded: None };
            }
            Err(reason) => {
                self.metrics.policy_load_failed();
                self.metrics.policy_bundle_stale();
                let mut kept = self.kept();
                tracing::error!(
                    active = version,
                    kept = kept.version,
                    reason,
                    "the active policy bundle cannot be used; the last good one stays in force"
                );
                kept.trouble = Some(Trouble { active: version, kept: kept.version, reason });
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held, and what it holds is whole at every step.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
