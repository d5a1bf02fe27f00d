//! Tests of the store run on both engines: each gets a folder with its keys, and its own file or database.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{
    store::{AddressKeySource, Store, StorePlace, StoreSettings},
    test_postgres,
};

/// Which engine a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// Where one test's store is.
pub(crate) struct Home {
    folder: TempDir,
    place: StorePlace,
    url: Option<String>,
}

impl Home {
    pub(crate) async fn new(on: On) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (place, url) = match on {
            On::Sqlite => (StorePlace::File(folder.path().join("data/mandate.db")), None),
            On::Postgres => {
                let url = test_postgres::shared().database().await;
                let keys = AddressKeySource::Folder(folder.path().to_owned());
                (test_postgres::settings(&url, keys).place, Some(url))
            }
        };
        Self { folder, place, url }
    }

    /// A folder for what is beside the store.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file of a store on SQLite.
    pub(crate) fn file(&self) -> PathBuf {
        match &self.place {
            StorePlace::File(path) => path.clone(),
            StorePlace::Postgres(url) => panic!("`{url}` is no file"),
        }
    }

    /// The URL of a store on PostgreSQL, with its password.
    pub(crate) fn url(&self) -> String {
        self.url.clone().expect("a store on PostgreSQL")
    }

    pub(crate) fn settings(&self) -> StoreSettings {
        let address_keys = AddressKeySource::Folder(self.path().join("keys"));
        StoreSettings { place: self.place.clone(), address_keys }
    }

    /// One more handle.
    pub(crate) async fn open(&self) -> Store {
        Store::open(self.settings()).await.unwrap()
    }
}

/// Makes a test on each engine of functions that take the engine.
macro_rules! on_both_engines {
    ($($test:ident)+) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::test_stores::On::Sqlite).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::test_stores::On::Postgres).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
