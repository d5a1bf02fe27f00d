//! SQLite: one file that the worker processes of one machine share.
//!
//! A writing transaction takes the write lock before it reads (`BEGIN IMMEDIATE`), which is every lock at once, and a
//! commit is on the disk (`WAL`, `synchronous=FULL`) before it returns. Network file systems are not supported: their
//! locks are not to be trusted.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::BoxFuture;
use sqlx::{
    ConnectOptions as _, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo as _, ValueRef as _,
    migrate::Migrator,
    pool::PoolConnection,
    query::Query as SqlxQuery,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{Connection, Engine, Locks, Query, Row, Transaction, Value};
use crate::{
    clock::{BootClock, BootTime},
    store::{StoreError, open::refused_schema},
};

pub(in crate::store) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for the write lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction waits for the one writing connection of this process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_MAX: u32 = 4;
/// Takes the write lock before anything is read.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, `SQLITE_CORRUPT` and `SQLITE_NOTADB`: the low byte of the extended codes.
const BUSY: [i32; 2] = [5, 6];
const DAMAGED: [i32; 2] = [11, 26];

pub(in crate::store) struct SqliteEngine {
    /// One connection: writers of one process queue here instead of polling the file lock.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteEngine {
    /// Opens the file, or makes it, and brings it to the schema that this program knows.
    pub(in crate::store) async fn open(path: &Path) -> Result<Self, StoreError> {
        let prepared = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || prepare(&path)).await
        };
        let _opening = match prepared {
            Ok(prepared) => prepared.map_err(|source| unreadable(path, source))?,
            Err(error) => return Err(unreadable(path, error)),
        };
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
        let writing = options(path).journal_mode(SqliteJournalMode::Wal);
        let writer = pool().max_connections(1).connect_with(writing).await;
        let writer = writer.map_err(|error| cannot_open(path, failed(error)))?;
        if let Err(error) = MIGRATIONS.run(&writer).await {
            let mut db = writer.acquire().await.map_err(failed)?;
            return Err(refused_schema(&mut *db, &MIGRATIONS, &path.display().to_string(), error).await);
        }
        let readers = pool().max_connections(READERS_MAX).connect_lazy_with(options(path).pragma("query_only", "on"));
        Ok(Self { writer, readers })
    }
}

/// Opens the file for one look. Nothing is made, migrated or written.
pub(in crate::store) async fn look(path: &Path) -> Result<Box<dyn Connection>, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let connected = options.connect().await.map_err(|error| cannot_open(path, failed(error)))?;
    Ok(Box::new(Lone { path: path.to_owned(), connection: connected }))
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

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
}

impl Engine for SqliteEngine {
    /// The write lock is one for the whole file: it covers every chain, the bundles and the quarantine list.
    fn begin<'a>(&'a self, _: Locks<'a>) -> BoxFuture<'a, Result<Box<dyn Transaction>, StoreError>> {
        Box::pin(async move {
            let mut begun = self.writer.begin_with(BEGIN).await;
            if matches!(begun, Err(sqlx::Error::InvalidSavePointStatement)) {
                // SQLite itself rolls back when the disk is full, and then the library's rollback fails: the connection
                // counts a transaction for ever that is none. Another one takes its place.
                self.writer.acquire().await.map_err(failed)?.close().await.map_err(failed)?;
                begun = self.writer.begin_with(BEGIN).await;
            }
            Ok(Box::new(begun.map_err(failed)?) as Box<dyn Transaction>)
        })
    }

    fn reader(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, StoreError>> {
        Box::pin(async move {
            let reader = self.readers.acquire().await.map_err(failed)?;
            Ok(Box::new(reader) as Box<dyn Connection>)
        })
    }

    #[cfg(test)]
    fn pragma(&self, pragma: &'static str) -> BoxFuture<'_, ()> {
        Box::pin(async move { drop(sqlx::query(pragma).fetch_all(&self.writer).await.unwrap()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.writer.close().await;
        })
    }
}

impl Connection for SqliteConnection {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            let rows = bound(query).fetch_all(self).await.map_err(failed)?;
            rows.iter().map(read).collect()
        })
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(bound(query).execute(self).await.map_err(failed)?.rows_affected()) })
    }

    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        Box::pin(async { Ok(BootClock::now()?) })
    }
}

impl Connection for sqlx::Transaction<'static, Sqlite> {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        (**self).rows(query)
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        (**self).change(query)
    }

    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        (**self).now()
    }
}

impl Transaction for sqlx::Transaction<'static, Sqlite> {
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { (*self).commit().await.map_err(failed) })
    }
}

impl Connection for PoolConnection<Sqlite> {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        (**self).rows(query)
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        (**self).change(query)
    }

    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        (**self).now()
    }
}

/// A connection of no pool, whose failures name the file.
struct Lone {
    path: PathBuf,
    connection: SqliteConnection,
}

impl Connection for Lone {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move { self.connection.rows(query).await.map_err(|error| cannot_open(&self.path, error)) })
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.connection.change(query).await.map_err(|error| cannot_open(&self.path, error)) })
    }

    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        self.connection.now()
    }
}

fn bound(query: Query) -> SqlxQuery<'static, Sqlite, SqliteArguments> {
    let sent = sqlx::query::<Sqlite>(query.statement.sqlite);
    query.values.into_iter().fold(sent, |sent, value| match value {
        Value::Text(text) => sent.bind(text),
        Value::Integer(number) => sent.bind(number),
        Value::Bool(whether) => sent.bind(whether),
    })
}

fn read(row: &SqliteRow) -> Result<Row, StoreError> {
    (0..row.len()).map(|index| column(row, index)).collect()
}

fn column(row: &SqliteRow, index: usize) -> Result<Value, StoreError> {
    let raw = row.try_get_raw(index).map_err(failed)?;
    if raw.is_null() {
        return Ok(Value::Text(None));
    }
    let of_text = raw.type_info().name() == "TEXT";
    let value = if of_text {
        row.try_get_unchecked::<String, _>(index).map(Value::from)
    } else {
        row.try_get_unchecked::<i64, _>(index).map(Value::from)
    };
    value.map_err(failed)
}

/// What a failure means.
fn failed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff) {
        Some(code) if BUSY.contains(&code) => StoreError::Busy,
        Some(code) if DAMAGED.contains(&code) => StoreError::Corrupt { what: error.to_string() },
        Some(_) | None if matches!(error, sqlx::Error::PoolTimedOut) => StoreError::Busy,
        Some(_) | None => StoreError::Query(error),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever keeps it from opening is told the same way")]
fn cannot_open(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Busy => StoreError::Busy,
        StoreError::Query(source) => unreadable(path, source),
        // Damaged, or no database at all.
        damaged => unreadable(path, damaged),
    }
}

fn unreadable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unreadable { place: path.display().to_string(), source: source.into() }
}
