//! `[store]`: a file of this machine, or a PostgreSQL database that many workers share.

use std::path::Path;

use mandate_activities::catalog::SecretRef;

use super::{
    AddressKeys, StoreAt, StoreSettings,
    reader::{At, Table},
    root::read_secret,
};

/// Reads the part. Without it the store is a file below the folder.
pub(super) fn read(table: Option<Table<'_>>, folder: &Path) -> StoreSettings {
    let (file, keys) = (StoreAt::File(folder.join("var/mandate.db")), AddressKeys::Folder(folder.join("var/keys")));
    let Some(mut table) = table else { return StoreSettings { place: file, address_keys: keys } };
    let path = table.text("path");
    // A plain URL is blotted out like any other plain secret: it holds the password.
    let written_url = table.has("url");
    let url = read_secret(&mut table, "url", folder);
    let named_keys = read_keys(&mut table, folder);
    if let (Some(path), true) = (&path, written_url) {
        let message = "`path` and `url` exclude each other: a store is one file or one database";
        table.problems.at(&path.place, message, "remove one of them", None);
    }
    if let (Some(url), None) = (&url, &named_keys) {
        require_keys(&table, url);
    }
    let place = match (url, path) {
        (Some(url), _) => StoreAt::Url(url.value),
        (None, Some(path)) => StoreAt::File(folder.join(path.value)),
        (None, None) => file,
    };
    table.finish();
    StoreSettings { place, address_keys: named_keys.unwrap_or(keys) }
}

fn read_keys(table: &mut Table<'_>, folder: &Path) -> Option<AddressKeys> {
    let keys = table.text("address_keys");
    let named = keys.as_ref().map(|keys| AddressKeys::Folder(folder.join(&keys.value)));
    let written = table.has("address_key");
    let Some(key) = read_secret(table, "address_key", folder) else {
        // Reported already, and not again as missing.
        return named.or_else(|| written.then(|| AddressKeys::Folder(folder.join("var/keys"))));
    };
    if keys.is_some() {
        let message = "`address_key` and `address_keys` exclude each other";
        table.problems.at(&key.place, message, "remove one of them", None);
    }
    Some(AddressKeys::One(key.value))
}

/// Keys that each machine made for itself would be different ones.
fn require_keys(table: &Table<'_>, url: &At<SecretRef>) {
    let message =
        "a store in a database needs `address_key` or `address_keys`: all its workers address by the same keys";
    let help = "write `address_key = \"env:NAME\"`, or `address_keys` with a folder that all workers share";
    table.problems.at(&url.place, message, "no address keys", Some(help.to_owned()));
}
