//! Is the store there, does this program know its schema, and do its address keys fit?

use std::path::Path;

use mandate_activities::store::{Inspection, Store, StorePlace, TenantKey};
use nix::{
    sys::statfs::{FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs},
    unistd::{AccessFlags, access},
};

use super::Finding;
use crate::{
    commands::{place_of, store_settings},
    config::{AddressKeys, Config},
    output,
};

const STORE: &str = "store";
const KEYS: &str = "address keys";
/// The kernel's numbers of CIFS and SMB 2 (`linux/magic.h`), which have no names in the library.
const CIFS_MAGIC: FsType = FsType(0xFF53_4D42);
const SMB2_MAGIC: FsType = FsType(0xFE53_4D42);

/// The file or database, its id and its schema. A store that is not there is not made.
pub(super) async fn opens(config: &Config) -> Finding {
    let place = match place_of(&config.store).await {
        Ok(place) => place,
        Err(error) => {
            let advice = "Set what `[store] url` refers to, as `postgres://user:password@host:port/database`";
            return Finding::fail(STORE, output::chain(&error), advice);
        }
    };
    let unsuitable = match &place {
        StorePlace::File(path) => unsuitable(path),
        StorePlace::Postgres(_) => None,
    };
    match unsuitable {
        Some(finding) => finding,
        None => look(&place).await,
    }
}

async fn look(place: &StorePlace) -> Finding {
    let (setting, mend) = match place {
        StorePlace::File(_) => {
            ("path", "Correct `[store] path` or the file's permissions, or restore the store from a backup")
        }
        StorePlace::Postgres(_) => {
            ("url", "Start the database, or correct address, user or password in what `[store] url` refers to")
        }
    };
    let inspected = match place.has_store().await {
        Ok(true) => Store::inspect(place).await,
        Ok(false) => {
            let advice =
                format!("A worker makes it at its first start; if there was one before, correct `[store] {setting}`");
            return Finding::warn(STORE, format!("there is none at `{place}` yet"), advice);
        }
        Err(error) => Err(error),
    };
    match inspected {
        Ok(inspection) => of_schema(place, &inspection),
        Err(error) => Finding::fail(STORE, output::chain(&error.into()), mend),
    }
}

/// A place where no store can be kept.
fn unsuitable(path: &Path) -> Option<Finding> {
    let existing = path.ancestors().find(|place| place.exists())?;
    let shown = existing.display();
    if access(existing, AccessFlags::R_OK | AccessFlags::W_OK).is_err() {
        let advice = "Let the worker's user read and write it, and run this command as that user";
        return Some(Finding::fail(STORE, format!("`{shown}` cannot be written by this user"), advice));
    }
    let network = [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, CIFS_MAGIC, SMB2_MAGIC];
    if statfs(existing).is_ok_and(|file_system| network.contains(&file_system.filesystem_type())) {
        let advice = "Move it to a disk of this machine: locks on a network file system cannot be trusted";
        return Some(Finding::fail(STORE, format!("`{shown}` is on a network file system"), advice));
    }
    None
}

fn of_schema(place: &StorePlace, inspection: &Inspection) -> Finding {
    let Inspection { id, schema, schema_known } = inspection;
    let detail = format!("`{place}`, id {id}, schema {schema}");
    if schema > schema_known {
        let detail = format!("{detail}, and this program knows {schema_known}");
        return Finding::fail(STORE, detail, "Use the program that wrote it, or a newer one");
    }
    if schema < schema_known {
        let advice = format!("The next worker brings it to schema {schema_known}: stop the older ones and back it up");
        return Finding::warn(STORE, detail, advice);
    }
    Finding::ok(STORE, detail)
}

/// The key of each tenant that the store knows, or whether there is one key for all.
pub(super) async fn address_keys(config: &Config) -> Finding {
    let settings = match store_settings(config).await {
        Ok(settings) => settings,
        Err(error) => {
            let advice = "Set what `[store] address_key` refers to, as 64 hexadecimal digits";
            return Finding::fail(KEYS, output::chain(&error), advice);
        }
    };
    let place = match &config.store.address_keys {
        AddressKeys::Folder(folder) => format!("in `{}`", folder.display()),
        AddressKeys::One(reference) => format!("one for all tenants, `{reference}`"),
    };
    if let Ok(false) = settings.place.has_store().await {
        return Finding::ok(KEYS, format!("{place}; no store was written with them yet"));
    }
    match Store::inspect_address_keys(settings).await {
        Ok(tenants) => compared(&place, tenants),
        Err(_) => {
            Finding::warn(KEYS, format!("{place}, not compared: the store cannot be read"), "Mend the store first")
        }
    }
}

fn compared(place: &str, tenants: Vec<TenantKey>) -> Finding {
    let known = tenants.len();
    let wrong: Vec<_> = tenants.into_iter().filter_map(|(_, key)| key.err()).collect();
    let wrong: Vec<_> = wrong.into_iter().map(|error| output::chain(&error.into())).collect();
    if wrong.is_empty() {
        return Finding::ok(KEYS, format!("{place}, {known} tenant(s)"));
    }
    let advice = "Put the key back that belongs to this store, with mode 0600; it cannot be made again";
    Finding::fail(KEYS, wrong.join(", "), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_compared_with_the_one_that_is_known() {
        let of = |schema, schema_known| {
            let id = "0".repeat(32).parse().unwrap();
            of_schema(&StorePlace::File("/m.db".into()), &Inspection { id, schema, schema_known }).line()
        };
        assert!(of(1, 1).starts_with("ok    store: `/m.db`, id 00") && of(1, 1).ends_with("schema 1"), "{}", of(1, 1));
        assert!(of(1, 2).starts_with("warn") && of(1, 2).contains("schema 2"), "{}", of(1, 2));
        assert!(of(3, 2).starts_with("fail") && of(3, 2).contains("newer"), "{}", of(3, 2));
    }

    #[test]
    fn a_wrong_key_is_named_and_the_right_ones_are_counted() {
        use mandate_activities::store::StoreError::WrongAddressKey;
        assert_eq!(compared("in `k`", vec![("a".into(), Ok(()))]).line(), "ok    address keys: in `k`, 1 tenant(s)");
        let wrong = WrongAddressKey { tenant: "b".into() };
        let found = compared("in `k`", vec![("a".into(), Ok(())), ("b".into(), Err(wrong))]).line();
        assert!(found.starts_with("fail") && found.contains("tenant `b`") && found.contains("0600"), "{found}");
    }
}
