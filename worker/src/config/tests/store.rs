//! `[store]` as it is written, and what is wrong with it.

use super::*;

#[test]
fn a_store_is_a_file_or_a_database_with_keys_that_all_workers_share() {
    let with = |store: &str| {
        let fixture = Fixture::new();
        fixture.write("mandate.toml", format!("{ROOT}[store]\n{store}\n"));
        let loaded = fixture.load().map(|config| config.store);
        (loaded, fixture.folder().canonicalize().unwrap())
    };
    let url = "url = \"env:MANDATE_DATABASE_URL\"";
    let at = StoreAt::Url(SecretRef::Env("MANDATE_DATABASE_URL".to_owned()));
    let (store, _) = with(&format!("{url}\naddress_key = \"env:KEY\""));
    assert_eq!(
        store.unwrap(),
        StoreSettings { place: at.clone(), address_keys: AddressKeys::One(SecretRef::Env("KEY".to_owned())) }
    );
    let (store, folder) = with(&format!("{url}\naddress_keys = \"shared\""));
    assert_eq!(store.unwrap(), StoreSettings { place: at, address_keys: AddressKeys::Folder(folder.join("shared")) });
    let refused = |store: &str, words: &str| {
        let errors = with(store).0.unwrap_err();
        let all = rendered(&errors);
        assert!(all.contains(words) && all.contains("mandate.toml:") && !all.contains("hunter2"), "{all}");
    };
    refused(url, "needs `address_key` or `address_keys`");
    refused(&format!("{url}\npath = \"m.db\"\naddress_key = \"env:KEY\""), "`path` and `url` exclude each other");
    refused("url = \"postgres://u:hunter2@h/d\"\naddress_key = \"env:KEY\"", "a secret reference is expected");
}
