//! Which address key each tenant's content was written under.

use std::{collections::HashMap, sync::Mutex};

use mandate_domain::AddressKey;
use sqlx::{SqliteConnection, SqliteExecutor};

use super::{
    StoreError,
    keys::{AddressKeySource, IfMissing},
    rows::locked,
};

/// Its address under a key stands in the `tenants` table and so names the key without telling it.
const CHECK_TEXT: &[u8] = b"mandate address key check v1";

pub(super) struct Tenants {
    source: AddressKeySource,
    /// Keys that agreed with the tenant's row.
    verified: Mutex<HashMap<String, AddressKey>>,
}

impl Tenants {
    pub(super) fn new(source: AddressKeySource) -> Self {
        Self { source, verified: Mutex::default() }
    }

    pub(super) fn verified(&self, tenant: &str) -> Option<AddressKey> {
        locked(&self.verified).get(tenant).cloned()
    }

    /// The key, checked against the row of a tenant that the store knows; none for a new tenant.
    pub(super) async fn known(
        &self,
        tenant: &str,
        db: impl SqliteExecutor<'_>,
    ) -> Result<Option<AddressKey>, StoreError> {
        let expected: Option<(String,)> =
            sqlx::query_as("SELECT key_check FROM tenants WHERE tenant = $1").bind(tenant).fetch_optional(db).await?;
        let Some((expected,)) = expected else { return Ok(None) };
        let key = self.source.load(tenant, IfMissing::Refuse)?;
        if key.address(CHECK_TEXT).as_str() != expected {
            return Err(StoreError::WrongAddressKey { tenant: tenant.to_owned() });
        }
        locked(&self.verified).insert(tenant.to_owned(), key.clone());
        Ok(Some(key))
    }

    /// The key for writing: makes key and row of a new tenant. Needs the write lock.
    pub(super) async fn key(&self, tenant: &str, db: &mut SqliteConnection) -> Result<AddressKey, StoreError> {
        let known = match self.verified(tenant) {
            Some(key) => Some(key),
            None => self.known(tenant, &mut *db).await?,
        };
        let key = known.map_or_else(|| self.source.load(tenant, IfMissing::Make), Ok)?;
        // Also for a verified key: its row may have been read before a transaction that made it rolled back.
        sqlx::query("INSERT INTO tenants (tenant, key_check) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(tenant)
            .bind(key.address(CHECK_TEXT).as_str())
            .execute(db)
            .await?;
        Ok(key)
    }
}
