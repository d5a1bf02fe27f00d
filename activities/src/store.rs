//! The store: what has to survive a worker. Audit chains, effects and their claims, transcripts and contents, approval
//! requests, policy bundles and the quarantine list: in one SQLite file that the worker processes of one machine share,
//! or in one PostgreSQL database that the workers of many machines share. `engine.rs` has what differs.
//!
//! Promises: every writing transaction locks what it depends on before it reads, so what it read still holds when it
//! commits, and a commit is on the disk before it returns. Rows that hold content name their encoding; audit records
//! hold no content. Every statement is a fixed text.
//!
//! Deliberately absent: any decision. What a row means for a call is decided by the governed path.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mandate_domain::{AddressKey, ChainHead, EffectId, StoreId, canonical};

use crate::clock::{BootTime, ReadClockError};

mod effects;
mod engine;
mod facts;
mod inspect;
mod keys;
mod notices;
mod open;
mod own;
mod place;
mod policy;
mod questions;
mod reads;
mod reconciliation;
mod requests;
mod rows;
mod sayings;
mod tenants;
mod transcript;
mod tx;

pub use effects::{CallEndRow, Claimed, EffectRow, EffectState, EndedCall, Settled};
pub use inspect::{Inspection, TenantKey};
pub use keys::AddressKeySource;
pub use open::StoreSettings;
pub(crate) use own::{NewBundle, OwnTx, bounded};
pub use place::{ParsePostgresUrlError, PostgresUrl, StorePlace};
pub use policy::{BundleRow, BundleSummary};
pub use questions::{NewQuestion, QuestionRow, QuestionState};
pub use reads::{ReplyRow, RunRow, RunSummary};
pub use reconciliation::OpenRunRow;
pub use requests::{MadeRequest, RequestRow, RequestState};
pub use sayings::{InstructionRow, RevisionRow};
pub use tx::{Appended, NewRun, Tx};

/// A handle on the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    id: StoreId,
    engine: Box<dyn engine::Engine>,
    /// Transactions that were committed through this handle.
    commits: AtomicU64,
    tenants: tenants::Tenants,
    transcripts: transcript::Cache,
    runs: reads::RunCache,
    facts: facts::Cache,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be opened or is none of ours. Fix path, address, password or permissions; nothing was changed.
    #[error("store `{place}` cannot be opened")]
    Unreadable {
        /// The file or the database.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer program has written the store. Use that program; nothing was changed.
    #[error("store `{place}` has schema {found} and this program knows schemas up to {known}")]
    SchemaNewer {
        /// The file or the database.
        place: String,
        /// The schema that it has.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// Others held the store for too long. Retry.
    #[error("the store is busy")]
    Busy,
    /// The database failed. Retry: a full disk may be emptied, a server that is gone may come back.
    #[error("the store failed")]
    Query(#[source] sqlx::Error),
    /// The clock that claims are made by cannot be read.
    #[error("the clock of this machine cannot be read")]
    Clock(#[from] ReadClockError),
    /// The row was written by a newer program. Upgrade this one.
    #[error("{what} has the unknown encoding `{encoding}`")]
    UnknownEncoding {
        /// Which row.
        what: &'static str,
        /// Its encoding.
        encoding: String,
    },
    /// The run belongs to another store. Give the worker that store.
    #[error("the run is pinned to store `{pinned}` and this is store `{found}`")]
    OtherStore {
        /// The run's.
        pinned: StoreId,
        /// This one.
        found: StoreId,
    },
    /// The workflow saw records that this store does not have: it is an older copy. Restore the newer one.
    #[error("the store is behind its run: record {} was seen and the chain has {} records", seen.records, found.records)]
    BehindRun {
        /// What the workflow saw.
        seen: ChainHead,
        /// What stands here.
        found: ChainHead,
    },
    /// What stands in the store cannot be read as what it should be. Somebody changed it, or a defect.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What is wrong.
        what: String,
    },
    /// The same thing was written before with other content. A defect of the caller, or a replayed activity whose
    /// code changed.
    #[error("`{key}` is recorded already with other content")]
    KeyConflict {
        /// The key.
        key: String,
    },
    /// The effect was claimed before for something else.
    #[error("effect `{effect}` is recorded already for another target or input")]
    EffectConflict {
        /// The effect.
        effect: EffectId,
    },
    /// The effect has an outcome or waits for a person: it cannot be claimed or parked again. Look first.
    #[error("effect `{effect}` is {state} and cannot be claimed or parked")]
    EffectNotOpen {
        /// The effect.
        effect: EffectId,
        /// Its state.
        state: &'static str,
    },
    /// What was asked for is not in the store.
    #[error("{what} is not in the store")]
    NotFound {
        /// What.
        what: String,
    },
    /// The value has no canonical form, so it cannot be addressed or recorded.
    #[error("the value cannot be recorded")]
    NotCanonical(#[source] canonical::CanonicalError),
    /// The tenant's address key is not the one its content was written under. Put the right key back.
    #[error("the address key of tenant `{tenant}` is not the one that this store was written with")]
    WrongAddressKey {
        /// The tenant.
        tenant: String,
    },
    /// The file of an address key cannot be read or made.
    #[error("address key `{}` cannot be used", path.display())]
    AddressKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key. Take their permissions away.
    #[error("address key `{}` has mode {mode:03o} and may be read by others than its owner", path.display())]
    AddressKeyExposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no key.
    #[error("address key `{}` is not 64 hexadecimal digits", path.display())]
    AddressKeyMalformed {
        /// The file.
        path: PathBuf,
    },
    /// Not a tenant's name.
    #[error("`{tenant}` is not the name of a tenant")]
    BadTenant {
        /// The text.
        tenant: String,
    },
}

impl From<canonical::CanonicalError> for StoreError {
    fn from(error: canonical::CanonicalError) -> Self {
        Self::NotCanonical(error)
    }
}

impl StoreError {
    fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string() }
    }
}

impl StoreError {
    /// Whether trying again can help: the store cannot be reached or is busy now. Everything else says that it holds
    /// something else than was expected, and stays so.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Busy | Self::Query(_) | Self::Clock(_) | Self::AddressKey { .. } => true,
            Self::SchemaNewer { .. }
            | Self::UnknownEncoding { .. }
            | Self::OtherStore { .. }
            | Self::BehindRun { .. }
            | Self::Corrupt { .. }
            | Self::KeyConflict { .. }
            | Self::EffectConflict { .. }
            | Self::EffectNotOpen { .. }
            | Self::NotFound { .. }
            | Self::NotCanonical(_)
            | Self::WrongAddressKey { .. }
            | Self::AddressKeyExposed { .. }
            | Self::AddressKeyMalformed { .. }
            | Self::BadTenant { .. } => false,
        }
    }
}

impl Store {
    /// The id of this store, which runs are pinned to.
    #[must_use]
    pub fn id(&self) -> &StoreId {
        &self.inner.id
    }

    /// Refuses a run of another store.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`], naming both.
    pub fn check_pinned(&self, pinned: &StoreId) -> Result<(), StoreError> {
        if pinned == self.id() {
            return Ok(());
        }
        Err(StoreError::OtherStore { pinned: pinned.clone(), found: self.id().clone() })
    }

    /// The tenant's address key; made when the tenant first appears.
    ///
    /// # Errors
    /// [`StoreError::WrongAddressKey`] when it is not the key of the first time, and whatever keeps the file from
    /// being read.
    pub async fn address_key(&self, tenant: &str) -> Result<AddressKey, StoreError> {
        if let Some(key) = self.inner.tenants.verified(tenant) {
            return Ok(key);
        }
        if let Some(key) = self.inner.tenants.known(tenant, &mut *self.reader().await?).await? {
            return Ok(key);
        }
        let locks = engine::Locks { chain: None, standing: engine::Standing::Reads };
        let mut tx = self.inner.engine.begin(locks).await?;
        let key = self.inner.tenants.key(tenant, &mut *tx).await?;
        tx.commit().await?;
        self.count_commit();
        Ok(key)
    }

    /// The present moment on the clock by which this store's claims are made.
    ///
    /// # Errors
    /// [`StoreError`] of the clock or the database.
    pub async fn now(&self) -> Result<BootTime, StoreError> {
        self.reader().await?.now().await
    }

    /// How many transactions were committed through this handle and its clones.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.inner.commits.load(Ordering::Relaxed)
    }

    fn count_commit(&self) {
        self.inner.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that reads what is committed.
    async fn reader(&self) -> Result<Box<dyn engine::Connection>, StoreError> {
        self.inner.engine.reader().await
    }

    /// Closes all connections. Open transactions are waited for.
    pub async fn close(&self) {
        self.inner.engine.close().await;
    }
}

#[cfg(test)]
impl Store {
    /// Changes the store behind everybody's back, and answers how many rows it changed.
    pub(crate) async fn damage(&self, statement: &'static str) -> u64 {
        self.damage_with(statement, &[]).await
    }

    /// Tells the one writing connection of a store on SQLite something, outside any transaction.
    pub(crate) async fn pragma(&self, pragma: &'static str) {
        self.inner.engine.pragma(pragma).await;
    }

    pub(crate) async fn damage_with(&self, statement: &'static str, values: &[&str]) -> u64 {
        let locks = engine::Locks { chain: None, standing: engine::Standing::Changes };
        let mut tx = self.inner.engine.begin(locks).await.unwrap();
        let query = values.iter().fold(engine::query(statement), |query, value| query.bind(*value));
        let changed = query.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        changed
    }
}

#[cfg(test)]
mod tests;
