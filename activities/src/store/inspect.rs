//! Looking at a store from outside: nothing is made, migrated or written.

use std::path::Path;

use mandate_domain::StoreId;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    Store, StoreError, StoreSettings,
    open::{BUSY_TIMEOUT, MIGRATIONS, cannot_open},
    rows,
    tenants::Tenants,
};

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its id.
    pub id: StoreId,
    /// The version of its schema.
    pub schema: i64,
    /// The version that this program knows: opening migrates an older store and refuses a newer one.
    pub schema_known: i64,
}

/// A tenant, and what keeps its address key from being used.
pub type TenantKey = (String, Result<(), StoreError>);

impl Store {
    /// Looks at the store that is there.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] naming the path when there is none, it cannot be read or is something else;
    /// [`StoreError::Busy`] when others hold it.
    pub async fn inspect(path: &Path) -> Result<Inspection, StoreError> {
        let mut db = open_read_only(path).await?;
        let (id, schema) = identity(&mut db).await.map_err(|error| cannot_open(path, error))?;
        let schema_known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        Ok(Inspection { id: rows::parse("store id", &id)?, schema, schema_known })
    }

    /// Whether the address key of each tenant is there and is the one that its content was written under.
    ///
    /// # Errors
    /// As [`Store::inspect`]: the store does not say which tenants it has.
    pub async fn inspect_address_keys(settings: StoreSettings) -> Result<Vec<TenantKey>, StoreError> {
        let mut db = open_read_only(&settings.path).await?;
        let named = sqlx::query_as("SELECT tenant FROM tenants ORDER BY tenant").fetch_all(&mut db).await;
        let named: Vec<(String,)> = named.map_err(|error| cannot_open(&settings.path, error))?;
        let keys = Tenants::new(settings.address_keys);
        let mut tenants = Vec::with_capacity(named.len());
        for (tenant,) in named {
            let key = keys.known(&tenant, &mut db).await.map(drop);
            tenants.push((tenant, key));
        }
        Ok(tenants)
    }
}

async fn open_read_only(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    options.connect().await.map_err(|error| cannot_open(path, error))
}

async fn identity(db: &mut SqliteConnection) -> Result<(String, i64), sqlx::Error> {
    let (id,): (String,) = sqlx::query_as("SELECT store_id FROM store").fetch_one(&mut *db).await?;
    let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
    let (schema,): (i64,) = sqlx::query_as(newest).fetch_one(db).await?;
    Ok((id, schema))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::AddressKeySource;

    #[tokio::test]
    async fn a_store_is_looked_at_without_being_made_or_changed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/mandate.db");
        let keys = home.path().join("keys");
        let settings = StoreSettings { path: path.clone(), address_keys: AddressKeySource::Folder(keys.clone()) };
        assert!(matches!(Store::inspect(&path).await, Err(StoreError::Unreadable { .. })));
        assert!(!path.parent().unwrap().exists(), "nothing is made");

        let store = Store::open(settings.clone()).await.unwrap();
        store.address_key("acme").await.unwrap();
        let seen = Store::inspect(&path).await.unwrap();
        assert_eq!((&seen.id, seen.schema), (store.id(), seen.schema_known));
        let inspect = async || Store::inspect_address_keys(settings.clone()).await.unwrap();
        assert!(matches!(&inspect().await[..], [(tenant, Ok(()))] if tenant == "acme"));
        store.close().await;
        assert_eq!(Store::inspect(&path).await.unwrap(), seen, "also when nobody else has it open");

        fs::remove_file(keys.join("acme.key")).unwrap();
        assert!(matches!(&inspect().await[..], [(_, Err(StoreError::AddressKey { .. }))]));
        assert!(!keys.join("acme.key").exists(), "no second key is made");
    }

    #[tokio::test]
    async fn a_file_that_is_no_store_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("mandate.db");
        fs::write(&path, "this is no database, and long enough to be looked at as one").unwrap();
        let error = Store::inspect(&path).await.unwrap_err();
        assert!(error.to_string().contains("mandate.db"), "{error}");
    }
}
