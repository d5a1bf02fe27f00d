//! What stands in a store, looked at and changed behind everybody's back, on either engine.

use std::{path::PathBuf, time::Duration};

use mandate_activities::{
    store::{AddressKeySource, StorePlace, StoreSettings},
    test_postgres,
};
use mandate_domain::audit::AuditRecord;
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

/// Which engine holds a test's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A file.
    Sqlite,
    /// A database of the test run's server.
    Postgres,
}

/// The database of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFile {
    /// A file.
    Sqlite(PathBuf),
    /// A database, by its URL.
    Postgres(String),
}

impl StoreFile {
    /// A new one: a file that is not there yet, or a database with the tables of a store.
    pub async fn new(on: On, path: PathBuf) -> Self {
        match on {
            On::Sqlite => Self::Sqlite(path),
            On::Postgres => Self::Postgres(test_postgres::shared().database().await),
        }
    }

    /// How it is opened.
    pub fn settings(&self, address_keys: AddressKeySource) -> StoreSettings {
        match self {
            Self::Sqlite(path) => StoreSettings { place: StorePlace::File(path.clone()), address_keys },
            Self::Postgres(url) => test_postgres::settings(url, address_keys),
        }
    }

    /// Changes rows: how many.
    pub async fn change(&self, statement: &'static str, value: &str) -> u64 {
        let value = value.to_owned();
        match self {
            Self::Sqlite(_) => {
                let mut database = self.sqlite().await.expect("the store");
                sqlx::query::<sqlx::Sqlite>(statement).bind(value).execute(&mut database).await.unwrap().rows_affected()
            }
            Self::Postgres(url) => {
                let mut database = PgConnection::connect(url).await.expect("the store");
                let done = sqlx::query::<sqlx::Postgres>(statement).bind(value).execute(&mut database).await;
                done.unwrap().rows_affected()
            }
        }
    }

    /// The first row of a statement with a text and a number.
    pub async fn text_and_number(&self, statement: &'static str, value: &str) -> Option<(String, i64)> {
        let value = value.to_owned();
        match self {
            Self::Sqlite(_) => {
                let mut database = self.sqlite().await.expect("the store");
                sqlx::query_as::<sqlx::Sqlite, _>(statement).bind(value).fetch_optional(&mut database).await.unwrap()
            }
            Self::Postgres(url) => {
                let mut database = PgConnection::connect(url).await.expect("the store");
                sqlx::query_as::<sqlx::Postgres, _>(statement).bind(value).fetch_optional(&mut database).await.unwrap()
            }
        }
    }

    /// The audit records of all runs, chain by chain.
    pub(crate) async fn records(&self) -> Vec<AuditRecord> {
        let statement = "SELECT canonical FROM records ORDER BY chain, sequence";
        let rows: Vec<(String,)> = match self {
            Self::Sqlite(_) => {
                let mut database = self.sqlite().await.expect("the store");
                sqlx::query_as::<sqlx::Sqlite, _>(statement).fetch_all(&mut database).await.expect("the records")
            }
            Self::Postgres(url) => {
                let mut database = PgConnection::connect(url).await.expect("the store");
                sqlx::query_as::<sqlx::Postgres, _>(statement).fetch_all(&mut database).await.expect("the records")
            }
        };
        rows.iter().map(|(text,)| serde_json::from_str(text).expect("a record")).collect()
    }

    /// Characters of all messages.
    pub(crate) async fn message_bytes(&self) -> i64 {
        let statement = "SELECT '', CAST(coalesce(sum(length(body)), 0) AS BIGINT) FROM messages WHERE body <> $1";
        self.text_and_number(statement, "").await.expect("a sum").1
    }

    async fn sqlite(&self) -> sqlx::Result<SqliteConnection> {
        let Self::Sqlite(path) = self else { panic!("no file: {self:?}") };
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
        SqliteConnection::connect_with(&options).await
    }
}
