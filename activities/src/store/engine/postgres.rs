//! PostgreSQL: one database that the workers of many machines share.
//!
//! Transactions are `READ COMMITTED`: each statement sees what was committed before it began, so what a lock waits for
//! is read by the statements after it, never by the one that waits. A writing transaction first takes the standing
//! lock (shared, or exclusive to change bundles or the quarantine list), then the head row of its chain; where there is
//! no row yet, a lock on the chain's name in its place. Everybody takes them in that order, so they cannot deadlock.
//!
//! Bounded: connections, the wait for one, the wait for a lock, the time of a statement, and how long a transaction may
//! lie idle before the server ends it and frees its locks.

use std::time::Duration;

use futures::future::BoxFuture;
use mandate_domain::{RunChain, canonical};
use sqlx::{
    Column as _, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool, Postgres, Row as _,
    TypeInfo as _, ValueRef as _,
    migrate::Migrator,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::Query as SqlxQuery,
};

use super::{Connection, Engine, Locks, Query, Row, Standing, Transaction, Value, query, query_as};
use crate::{
    clock::BootTime,
    store::{PostgresUrl, StoreError, open::refused_schema},
};

mod nul;
mod turns;

use turns::{Turn, Turns};

pub(in crate::store) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The name of the database's clock, where SQLite's claims have the id of a boot.
const CLOCK: &str = "postgres";
/// Connections that write, of one worker. A run holds at most one.
const WRITERS_MAX: u32 = 16;
/// Connections that read, of one worker.
const READERS_MAX: u32 = 4;
/// How long a connection is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker waits for others that bring the database to a newer schema.
const MIGRATION_LOCK_TIMEOUT: &str = "SET lock_timeout = '60s'";

/// What each connection is told. A server that answers before a commit is on its disk is told to wait; one that waits
/// for a standby as well keeps doing so.
const SESSION: &str = "SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '15s', false),
    set_config('idle_in_transaction_session_timeout', '20s', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        false)";
const READ_ONLY: &str = "SET default_transaction_read_only = on";

/// The standing lock: shared by those who decide, exclusive for those who change what all decide by. The number is
/// nobody else's by its size.
const STANDING_LOCK: i64 = 0x6d61_6e64_6174_6501;

/// Lock not available, deadlock, serialisation failure, statement timeout: others were in the way.
const BUSY: [&str; 4] = ["55P03", "40P01", "40001", "57014"];
/// Data or index corrupted.
const DAMAGED: [&str; 2] = ["XX001", "XX002"];

pub(in crate::store) struct PostgresEngine {
    writers: PgPool,
    readers: PgPool,
    turns: Turns,
}

/// A transaction, and this process's turn on its chain, which ends after it.
struct Begun {
    db: sqlx::Transaction<'static, Postgres>,
    _turn: Option<Turn>,
}

impl PostgresEngine {
    /// Connects, and brings the database to the schema that this program knows.
    pub(in crate::store) async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        let options = options(url)?;
        migrate(url, &options).await?;
        let pool =
            |connections_max| PgPoolOptions::new().max_connections(connections_max).acquire_timeout(ACQUIRE_TIMEOUT);
        let writers = pool(WRITERS_MAX).after_connect(|db, _| Box::pin(async move { prepared(db, &[SESSION]).await }));
        let readers =
            pool(READERS_MAX).after_connect(|db, _| Box::pin(async move { prepared(db, &[SESSION, READ_ONLY]).await }));
        Ok(Self {
            writers: writers.connect_lazy_with(options.clone()),
            readers: readers.connect_lazy_with(options),
            turns: Turns::default(),
        })
    }
}

/// Connects for one look. Nothing is made, migrated or written.
pub(in crate::store) async fn look(url: &PostgresUrl) -> Result<Box<dyn Connection>, StoreError> {
    let mut db = connect(url, &options(url)?).await?;
    prepared(&mut db, &[SESSION, READ_ONLY]).await.map_err(|error| cannot_open(url, failed(error)))?;
    Ok(Box::new(db))
}

/// Whether the database holds a store.
pub(in crate::store) async fn is_there(url: &PostgresUrl) -> Result<bool, StoreError> {
    let mut db = look(url).await?;
    let (tables,): (bool,) = query_as("SELECT to_regclass('store') IS NOT NULL").fetch_one(&mut *db).await?;
    if !tables {
        return Ok(false);
    }
    let (named,): (bool,) = query_as("SELECT EXISTS (SELECT 1 FROM store)").fetch_one(&mut *db).await?;
    Ok(named)
}

async fn migrate(url: &PostgresUrl, options: &PgConnectOptions) -> Result<(), StoreError> {
    let mut db = connect(url, options).await?;
    prepared(&mut db, &[MIGRATION_LOCK_TIMEOUT]).await.map_err(|error| cannot_open(url, failed(error)))?;
    if let Err(error) = MIGRATIONS.run(&mut db).await {
        return Err(refused_schema(&mut db, &MIGRATIONS, &url.to_string(), error).await);
    }
    // What it holds is committed, whether the server hears the farewell or not.
    let _ = db.close().await;
    Ok(())
}

async fn connect(url: &PostgresUrl, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let connected = connected.map_err(|_| unreachable_in_time(url))?;
    connected.map_err(|error| cannot_open(url, failed(error)))
}

fn options(url: &PostgresUrl) -> Result<PgConnectOptions, StoreError> {
    // The password is in no message of this parser.
    let parsed: Result<PgConnectOptions, sqlx::Error> = url.expose().parse();
    let options = parsed.map_err(|error| cannot_open(url, failed(error)))?;
    // Slow statements would be logged with nothing but their fixed text; they are still noise.
    Ok(options.application_name("mandate").disable_statement_logging())
}

async fn prepared(db: &mut PgConnection, statements: &[&'static str]) -> Result<(), sqlx::Error> {
    for statement in statements {
        db.execute(*statement).await?;
    }
    Ok(())
}

impl Engine for PostgresEngine {
    fn begin<'a>(&'a self, locks: Locks<'a>) -> BoxFuture<'a, Result<Box<dyn Transaction>, StoreError>> {
        Box::pin(async move {
            let turn = match locks.chain {
                Some(chain) => Some(self.turns.wait(chain, ACQUIRE_TIMEOUT).await?),
                None => None,
            };
            let mut db = self.writers.begin().await.map_err(failed)?;
            lock_standing(&mut db, locks.standing).await?;
            if let Some(chain) = locks.chain {
                lock_chain(&mut db, chain).await?;
            }
            Ok(Box::new(Begun { db, _turn: turn }) as Box<dyn Transaction>)
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
        unreachable!("`{pragma}` is for SQLite")
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.writers.close().await;
        })
    }
}

async fn lock_standing(db: &mut PgConnection, standing: Standing) -> Result<(), StoreError> {
    let lock = match standing {
        Standing::Reads => "SELECT pg_advisory_xact_lock_shared($1)",
        Standing::Changes => "SELECT pg_advisory_xact_lock($1)",
    };
    query(lock).bind(STANDING_LOCK).execute(db).await?;
    Ok(())
}

/// Two who open the same chain at once meet at its name; the second one then finds the row of the first.
async fn lock_chain(db: &mut PgConnection, chain: &RunChain) -> Result<(), StoreError> {
    if lock_head(db, chain).await? {
        return Ok(());
    }
    query("SELECT pg_advisory_xact_lock($1)").bind(name_lock(chain)).execute(db).await?;
    lock_head(db, chain).await?;
    Ok(())
}

async fn lock_head(db: &mut PgConnection, chain: &RunChain) -> Result<bool, StoreError> {
    let row: Option<(i64,)> =
        query_as("SELECT id FROM chains WHERE workflow_id = $1 AND first_run_id = $2 FOR NO KEY UPDATE")
            .bind(&chain.workflow_id)
            .bind(&chain.first_run_id)
            .fetch_optional(db)
            .await?;
    Ok(row.is_some())
}

/// The number that stands for a chain's name. Two names with one number wait for each other and nothing worse.
fn name_lock(chain: &RunChain) -> i64 {
    let digest = canonical::sha256(chain.to_string().as_bytes());
    let start: String = digest.as_str().chars().take(16).collect();
    u64::from_str_radix(&start, 16).unwrap_or_default().cast_signed()
}

impl Connection for PgConnection {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            let rows = bound(query).fetch_all(self).await.map_err(failed)?;
            rows.iter().map(read).collect()
        })
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(bound(query).execute(self).await.map_err(failed)?.rows_affected()) })
    }

    /// The database's own clock, which all workers share, as it is now and not as it was when the transaction began.
    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        Box::pin(async move {
            let (millis,): (i64,) =
                query_as("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)").fetch_one(self).await?;
            Ok(BootTime { boot_id: CLOCK.to_owned(), millis: crate::store::rows::number("time", millis)? })
        })
    }
}

impl Connection for Begun {
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        (*self.db).rows(query)
    }

    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>> {
        (*self.db).change(query)
    }

    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>> {
        (*self.db).now()
    }
}

impl Transaction for Begun {
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.db.commit().await.map_err(failed) })
    }
}

impl Connection for PoolConnection<Postgres> {
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

fn bound(query: Query) -> SqlxQuery<'static, Postgres, PgArguments> {
    let sent = sqlx::query::<Postgres>(query.statement.postgres);
    query.values.into_iter().fold(sent, |sent, value| match value {
        Value::Text(text) => sent.bind(text.map(nul::written)),
        Value::Integer(number) => sent.bind(number),
        Value::Bool(whether) => sent.bind(whether),
    })
}

fn read(row: &PgRow) -> Result<Row, StoreError> {
    row.columns().iter().map(|column| cell(row, column.ordinal())).collect()
}

fn cell(row: &PgRow, index: usize) -> Result<Value, StoreError> {
    let raw = row.try_get_raw(index).map_err(failed)?;
    if raw.is_null() {
        return Ok(Value::Text(None));
    }
    let value = match raw.type_info().name() {
        "INT8" => row.try_get::<i64, _>(index).map(Value::from),
        "BOOL" => row.try_get::<bool, _>(index).map(Value::from),
        "VOID" => Ok(Value::Text(None)),
        _ => row.try_get::<String, _>(index).map(|text| Value::from(nul::read(text))),
    };
    value.map_err(failed)
}

/// What a failure means. A commit of a transaction that had failed before is told as a rollback by the server, and as
/// an error by the statement that failed.
fn failed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        Some(code) if BUSY.contains(&code) => StoreError::Busy,
        Some(code) if DAMAGED.contains(&code) => StoreError::Corrupt { what: error.to_string() },
        Some(_) | None => StoreError::Query(error),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever keeps it from opening is told the same way")]
fn cannot_open(url: &PostgresUrl, error: StoreError) -> StoreError {
    match error {
        StoreError::Busy => StoreError::Busy,
        StoreError::Query(source) => StoreError::Unreadable { place: url.to_string(), source: source.into() },
        damaged => StoreError::Unreadable { place: url.to_string(), source: damaged.into() },
    }
}

fn unreachable_in_time(url: &PostgresUrl) -> StoreError {
    let source = format!("no answer within {ACQUIRE_TIMEOUT:?}");
    StoreError::Unreadable { place: url.to_string(), source: source.into() }
}
