//! Opening: the file, its migrations, its id.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mandate_domain::StoreId;
use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{AddressKeySource, Inner, Store, StoreError, keys, reads::RunCache, rows, tenants::Tenants, transcript};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for the write lock of another process.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction waits for the one writing connection of this process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_MAX: u32 = 4;

/// Where the store is.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The database file. Made, with its folder, if it is not there.
    pub path: PathBuf,
    /// Where address keys come from.
    pub address_keys: AddressKeySource,
}

impl Store {
    /// Opens the store, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] naming the path when the file cannot be opened or is something else;
    /// [`StoreError::Busy`] when others hold it.
    pub async fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let path = settings.path;
        let prepared = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || prepare(&path)).await
        };
        let opening = match prepared {
            Ok(prepared) => prepared.map_err(|source| unreadable(&path, source))?,
            Err(error) => return Err(unreadable(&path, error)),
        };
        let (writer, readers) = connect(&path).await?;
        let id = store_id(&writer, &path).await?;
        drop(opening);
        let inner = Inner {
            id,
            writer,
            readers,
            tenants: Tenants::new(settings.address_keys),
            transcripts: transcript::Cache::default(),
            runs: RunCache::default(),
            facts: super::facts::Cache::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Makes folder and file, and takes the lock under which one process at a time migrates: SQLite has no advisory locks,
/// so two migrators would both create the same table.
///
/// The database itself is never opened here if it exists: closing any descriptor of it would drop the POSIX locks that
/// another handle of this process holds.
fn prepare(path: &Path) -> io::Result<fs::File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path)?;
    lock.lock()?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(lock),
    }
}

async fn connect(path: &Path) -> Result<(SqlitePool, SqlitePool), StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full);
    let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
    let writer = pool()
        .max_connections(1)
        .connect_with(options.clone().journal_mode(SqliteJournalMode::Wal))
        .await
        .map_err(|error| cannot_open(path, error))?;
    MIGRATIONS.run(&writer).await.map_err(|error| unreadable(path, error))?;
    let readers = pool().max_connections(READERS_MAX).connect_lazy_with(options.pragma("query_only", "on"));
    Ok((writer, readers))
}

async fn store_id(writer: &SqlitePool, path: &Path) -> Result<StoreId, StoreError> {
    let proposed = keys::hex(&keys::random::<16>().map_err(|source| unreadable(path, source))?);
    sqlx::query("INSERT INTO store (only, store_id) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(proposed)
        .execute(writer)
        .await
        .map_err(|error| cannot_open(path, error))?;
    let (id,): (String,) = sqlx::query_as("SELECT store_id FROM store").fetch_one(writer).await?;
    rows::parse("store id", &id)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever keeps it from opening is told the same way")]
pub(super) fn cannot_open(path: &Path, error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Busy => StoreError::Busy,
        StoreError::Query(source) => unreadable(path, source),
        // Damaged, or no database at all.
        damaged => unreadable(path, damaged),
    }
}

fn unreadable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unreadable { path: path.to_owned(), source: source.into() }
}
