//! The store: what has to survive a worker. Audit chains, effects and their claims, transcripts and contents, approval
//! requests, policy bundles and the quarantine list, on one SQLite file that several worker processes of one machine
//! share.
//!
//! Promises: every writing transaction takes the write lock before it reads (`BEGIN IMMEDIATE`), so what it read still
//! holds when it commits, and a commit is on the disk (`WAL`, `synchronous=FULL`) before it returns. Rows that hold
//! content name their encoding; audit records hold no content. Every statement is a fixed text.
//!
//! Deliberately absent: network file systems (their locks are not to be trusted) and any decision. What a row means
//! for a call is decided by the governed path.

use std::{io, path::PathBuf, sync::Arc};

use mandate_domain::{AddressKey, ChainHead, EffectId, StoreId, canonical};
use sqlx::{Sqlite, SqlitePool, Transaction};

mod effects;
mod facts;
mod inspect;
mod keys;
mod notices;
mod open;
mod own;
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
pub use policy::{BundleRow, BundleSummary};
pub use questions::{QuestionRow, QuestionState};
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
    /// One connection: writers of one process queue here instead of polling the file lock.
    writer: SqlitePool,
    readers: SqlitePool,
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
    /// The file cannot be opened or is no store of ours. Fix path or permissions; nothing was changed.
    #[error("store `{}` cannot be opened", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Others held the store for too long. Retry.
    #[error("the store is busy")]
    Busy,
    /// The database failed. Retry: a full disk or a lost file may come back.
    #[error("the store failed")]
    Query(#[source] sqlx::Error),
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

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, `SQLITE_CORRUPT` and `SQLITE_NOTADB`: the low byte of the extended codes.
const BUSY: [i32; 2] = [5, 6];
const DAMAGED: [i32; 2] = [11, 26];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(code) if BUSY.contains(&code) => Self::Busy,
            Some(code) if DAMAGED.contains(&code) => Self::Corrupt { what: error.to_string() },
            Some(_) | None if matches!(error, sqlx::Error::PoolTimedOut) => Self::Busy,
            Some(_) | None => Self::Query(error),
        }
    }
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

    fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string() }
    }
}

impl StoreError {
    /// Whether trying again can help: the store cannot be reached or is busy now. Everything else says that it holds
    /// something else than was expected, and stays so.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Busy | Self::Query(_) | Self::AddressKey { .. } => true,
            Self::UnknownEncoding { .. }
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
        if let Some(key) = self.inner.tenants.known(tenant, &self.inner.readers).await? {
            return Ok(key);
        }
        let mut tx = self.begin_immediate().await?;
        let key = self.inner.tenants.key(tenant, &mut tx).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Takes the write lock before anything is read.
    async fn begin_immediate(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.inner.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Closes all connections. Open transactions are waited for.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }
}

#[cfg(test)]
mod tests;
