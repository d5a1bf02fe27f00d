//! Which address key each tenant's content was written under.

use std::{collections::HashMap, sync::Mutex};

use mandate_domain::AddressKey;

use super::{
    StoreError, Tx,
    engine::{Connection, query, query_as},
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

    /// The key, checked against the row of a tenant that the store knows; none for a new tenant. The row has to be
    /// committed: what a transaction made and then dropped verifies nothing.
    pub(super) async fn known(
        &self,
        tenant: &str,
        committed: &mut dyn Connection,
    ) -> Result<Option<AddressKey>, StoreError> {
        let Some(expected) = key_check(tenant, committed).await? else { return Ok(None) };
        let key = self.checked(tenant, &expected)?;
        locked(&self.verified).insert(tenant.to_owned(), key.clone());
        Ok(Some(key))
    }

    /// The key for writing: makes key and row of a new tenant. Of two machines that make a key for it at once, the
    /// one whose row is not the one that stands is refused, before it writes anything under its own.
    pub(super) async fn key(&self, tenant: &str, writing: &mut dyn Connection) -> Result<AddressKey, StoreError> {
        if let Some(key) = self.verified(tenant) {
            return Ok(key);
        }
        if let Some(expected) = key_check(tenant, writing).await? {
            return self.checked(tenant, &expected);
        }
        let key = self.source.load(tenant, IfMissing::Make)?;
        query("INSERT INTO tenants (tenant, key_check) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(tenant)
            .bind(key.address(CHECK_TEXT).as_str())
            .execute(writing)
            .await?;
        let stands = key_check(tenant, writing).await?;
        let stands = stands.ok_or_else(|| StoreError::corrupt(format_args!("tenant `{tenant}` is gone")))?;
        self.checked(tenant, &stands)
    }

    fn checked(&self, tenant: &str, expected: &str) -> Result<AddressKey, StoreError> {
        let key = self.source.load(tenant, IfMissing::Refuse)?;
        if key.address(CHECK_TEXT).as_str() == expected {
            return Ok(key);
        }
        Err(StoreError::WrongAddressKey { tenant: tenant.to_owned() })
    }
}

impl Tx {
    /// The key that this transaction writes a tenant's content under.
    pub(super) async fn tenant_key(&mut self, tenant: &str) -> Result<AddressKey, StoreError> {
        self.store.inner.tenants.key(tenant, &mut *self.db).await
    }
}

async fn key_check(tenant: &str, db: &mut dyn Connection) -> Result<Option<String>, StoreError> {
    let row: Option<(String,)> =
        query_as("SELECT key_check FROM tenants WHERE tenant = $1").bind(tenant).fetch_optional(db).await?;
    Ok(row.map(|(check,)| check))
}
