//! Opening: the engine, its migrations, the store's id.

use std::sync::{Arc, atomic::AtomicU64};

use mandate_domain::StoreId;
use sqlx::migrate::{MigrateError, Migrator};

use super::{
    AddressKeySource, Inner, PostgresUrl, Store, StoreError, StorePlace,
    engine::{Connection, Engine, Locks, Standing, postgres::PostgresEngine, query, query_as, sqlite::SqliteEngine},
    keys,
    reads::RunCache,
    rows,
    tenants::Tenants,
    transcript,
};

/// Which store, and how its content is addressed.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Where it is.
    pub place: StorePlace,
    /// Where address keys come from.
    pub address_keys: AddressKeySource,
}

impl Store {
    /// Opens the store, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] naming the place when it cannot be opened or is something else;
    /// [`StoreError::SchemaNewer`] when a newer program has written it; [`StoreError::Busy`] when others hold it.
    pub async fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let engine = open_engine(&settings.place).await?;
        let id = store_id(engine.as_ref(), &settings.place).await?;
        let inner = Inner {
            id,
            engine,
            commits: AtomicU64::new(0),
            tenants: Tenants::new(settings.address_keys),
            transcripts: transcript::Cache::default(),
            runs: RunCache::default(),
            facts: super::facts::Cache::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

async fn open_engine(place: &StorePlace) -> Result<Box<dyn Engine>, StoreError> {
    Ok(match place {
        StorePlace::File(path) => Box::new(SqliteEngine::open(path).await?),
        StorePlace::Postgres(url) => Box::new(PostgresEngine::open(url).await?),
    })
}

/// The id, made by whoever opens the store first.
async fn store_id(engine: &dyn Engine, place: &StorePlace) -> Result<StoreId, StoreError> {
    let known = read_id(&mut *engine.reader().await?).await?;
    if let Some(id) = known {
        return Ok(id);
    }
    let random = keys::random::<16>();
    let proposed =
        random.map_err(|source| StoreError::Unreadable { place: place.to_string(), source: source.into() })?;
    let mut tx = engine.begin(Locks { chain: None, standing: Standing::Reads }).await?;
    query("INSERT INTO store (\"only\", store_id) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(keys::hex(&proposed))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let made = read_id(&mut *engine.reader().await?).await?;
    made.ok_or_else(|| StoreError::corrupt("the store has no id"))
}

async fn read_id(db: &mut dyn Connection) -> Result<Option<StoreId>, StoreError> {
    let row: Option<(String,)> = query_as("SELECT store_id FROM store").fetch_optional(db).await?;
    row.map(|(id,)| rows::parse("store id", &id)).transpose()
}

/// The newest schema that a program with these migrations knows.
pub(super) fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The version of the schema that stands in the database.
pub(super) async fn schema(db: &mut dyn Connection) -> Result<i64, StoreError> {
    let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
    let (schema,): (i64,) = query_as(newest).fetch_one(db).await?;
    Ok(schema)
}

/// Why a store could not be brought to the schema that this program knows.
pub(super) async fn refused_schema(
    db: &mut dyn Connection,
    migrations: &Migrator,
    place: &str,
    error: MigrateError,
) -> StoreError {
    if matches!(error, MigrateError::VersionMissing(_))
        && let Ok(found) = schema(db).await
    {
        return StoreError::SchemaNewer { place: place.to_owned(), found, known: newest(migrations) };
    }
    StoreError::Unreadable { place: place.to_owned(), source: error.into() }
}

impl StorePlace {
    /// Whether there is a store. Nothing is made.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the database cannot be asked.
    pub async fn has_store(&self) -> Result<bool, StoreError> {
        match self {
            Self::File(path) => Ok(path.exists()),
            Self::Postgres(url) => is_there(url).await,
        }
    }
}

async fn is_there(url: &PostgresUrl) -> Result<bool, StoreError> {
    super::engine::postgres::is_there(url).await
}
