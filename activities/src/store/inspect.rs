//! Looking at a store from outside: nothing is made, migrated or written.

use mandate_domain::StoreId;

use super::{
    Store, StoreError, StorePlace, StoreSettings,
    engine::{Connection, postgres, query_as, sqlite},
    open::{newest, schema},
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
    /// [`StoreError::Unreadable`] naming the place when there is none, it cannot be read or is something else;
    /// [`StoreError::Busy`] when others hold it.
    pub async fn inspect(place: &StorePlace) -> Result<Inspection, StoreError> {
        let mut db = look(place).await?;
        let (id,): (String,) = query_as("SELECT store_id FROM store").fetch_one(&mut *db).await?;
        let schema_known = match place {
            StorePlace::File(_) => newest(&sqlite::MIGRATIONS),
            StorePlace::Postgres(_) => newest(&postgres::MIGRATIONS),
        };
        Ok(Inspection { id: rows::parse("store id", &id)?, schema: schema(&mut *db).await?, schema_known })
    }

    /// Whether the address key of each tenant is there and is the one that its content was written under.
    ///
    /// # Errors
    /// As [`Store::inspect`]: the store does not say which tenants it has.
    pub async fn inspect_address_keys(settings: StoreSettings) -> Result<Vec<TenantKey>, StoreError> {
        let mut db = look(&settings.place).await?;
        let named: Vec<(String,)> = query_as("SELECT tenant FROM tenants ORDER BY tenant").fetch_all(&mut *db).await?;
        let keys = Tenants::new(settings.address_keys);
        let mut tenants = Vec::with_capacity(named.len());
        for (tenant,) in named {
            let key = keys.known(&tenant, &mut *db).await.map(drop);
            tenants.push((tenant, key));
        }
        Ok(tenants)
    }
}

async fn look(place: &StorePlace) -> Result<Box<dyn Connection>, StoreError> {
    match place {
        StorePlace::File(path) => sqlite::look(path).await,
        StorePlace::Postgres(url) => postgres::look(url).await,
    }
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
        let place = StorePlace::File(path.clone());
        let keys = home.path().join("keys");
        let settings = StoreSettings { place: place.clone(), address_keys: AddressKeySource::Folder(keys.clone()) };
        assert!(matches!(Store::inspect(&place).await, Err(StoreError::Unreadable { .. })));
        assert!(!path.parent().unwrap().exists(), "nothing is made");

        let store = Store::open(settings.clone()).await.unwrap();
        store.address_key("acme").await.unwrap();
        let seen = Store::inspect(&place).await.unwrap();
        assert_eq!((&seen.id, seen.schema), (store.id(), seen.schema_known));
        let inspect = async || Store::inspect_address_keys(settings.clone()).await.unwrap();
        assert!(matches!(&inspect().await[..], [(tenant, Ok(()))] if tenant == "acme"));
        store.close().await;
        assert_eq!(Store::inspect(&place).await.unwrap(), seen, "also when nobody else has it open");

        fs::remove_file(keys.join("acme.key")).unwrap();
        assert!(matches!(&inspect().await[..], [(_, Err(StoreError::AddressKey { .. }))]));
        assert!(!keys.join("acme.key").exists(), "no second key is made");
    }

    #[tokio::test]
    async fn a_file_that_is_no_store_is_named() {
        let home = tempfile::tempdir().unwrap();
        let place = StorePlace::File(home.path().join("mandate.db"));
        fs::write(home.path().join("mandate.db"), "this is no database, and long enough to be looked at as one")
            .unwrap();
        let error = Store::inspect(&place).await.unwrap_err();
        assert!(error.to_string().contains("mandate.db"), "{error}");
    }
}
