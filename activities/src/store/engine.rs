//! The two databases that can hold the store, behind one trait.
//!
//! Every statement is a fixed text on columns of texts, 64-bit integers and booleans. Most are the same text for both
//! engines; where they differ, [`either`] has both side by side. What else differs is here by name: what a writing
//! transaction locks, which clock claims are made by, and what a failure means.
//!
//! Where a statement looks into a JSON text, PostgreSQL reads the whole text first, and refuses the escape of U+0000 even in
//! parts that are not asked for. It is replaced for the look; a backslash before it stays one.
//!
//! Deliberately absent: a query builder. What is built is the list of values that a text is sent with.

use futures::future::BoxFuture;
use mandate_domain::RunChain;

use super::StoreError;
use crate::clock::BootTime;

mod columns;
pub(super) mod postgres;
pub(super) mod sqlite;

pub(super) use columns::{FromColumns, Row, Value};

/// A database that holds the store.
pub(super) trait Engine: Send + Sync {
    /// Begins to write: holds the locks before anything is read.
    fn begin<'a>(&'a self, locks: Locks<'a>) -> BoxFuture<'a, Result<Box<dyn Transaction>, StoreError>>;

    /// A connection that reads what is committed.
    fn reader(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, StoreError>>;

    /// Tells the writing connection something outside any transaction.
    #[cfg(test)]
    fn pragma(&self, pragma: &'static str) -> BoxFuture<'_, ()>;

    /// Closes all connections. Open transactions are waited for.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a writing transaction keeps from changing until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locks<'a> {
    /// The chain that it appends to, there already or not.
    pub(super) chain: Option<&'a RunChain>,
    /// What holds for all runs.
    pub(super) standing: Standing,
}

/// What a transaction does with the bundles and the quarantine list, which hold for all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It reads them: they stay as they are.
    Reads,
    /// It changes them: nothing is decided meanwhile.
    Changes,
}

/// Where statements are sent.
pub(super) trait Connection: Send + Sync {
    /// Sends a statement and answers its rows.
    fn rows(&mut self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Sends a statement and answers how many rows it changed.
    fn change(&mut self, query: Query) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The present moment on the clock by which this database's claims are made.
    fn now(&mut self) -> BoxFuture<'_, Result<BootTime, StoreError>>;
}

/// A writing transaction. Dropped, it changes nothing.
pub(super) trait Transaction: Connection {
    /// Makes everything durable.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// The text of a statement, by engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    sqlite: &'static str,
    postgres: &'static str,
}

impl From<&'static str> for Statement {
    fn from(both: &'static str) -> Self {
        either(both, both)
    }
}

/// A statement that the engines write differently.
pub(super) const fn either(sqlite: &'static str, postgres: &'static str) -> Statement {
    Statement { sqlite, postgres }
}

/// A statement and the values that it is sent with.
#[derive(Debug)]
pub(super) struct Query {
    statement: Statement,
    values: Vec<Value>,
}

/// A statement whose rows do not matter.
pub(super) fn query(statement: impl Into<Statement>) -> Query {
    Query { statement: statement.into(), values: Vec::new() }
}

impl Query {
    /// With the next value: `$1`, `$2` and so on.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Sends it, and answers how many rows it changed.
    pub(super) async fn execute(self, db: &mut dyn Connection) -> Result<u64, StoreError> {
        db.change(self).await
    }
}

/// A statement whose rows are of one type.
pub(super) struct QueryAs<T> {
    query: Query,
    of: std::marker::PhantomData<fn() -> T>,
}

/// A statement that answers rows.
pub(super) fn query_as<T: FromColumns>(statement: impl Into<Statement>) -> QueryAs<T> {
    QueryAs { query: query(statement), of: std::marker::PhantomData }
}

impl<T: FromColumns> QueryAs<T> {
    /// With the next value: `$1`, `$2` and so on.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.query.values.push(value.into());
        self
    }

    /// All rows.
    pub(super) async fn fetch_all(self, db: &mut dyn Connection) -> Result<Vec<T>, StoreError> {
        db.rows(self.query).await?.into_iter().map(T::read).collect()
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional(self, db: &mut dyn Connection) -> Result<Option<T>, StoreError> {
        db.rows(self.query).await?.into_iter().next().map(T::read).transpose()
    }

    /// The row, which has to be there.
    pub(super) async fn fetch_one(self, db: &mut dyn Connection) -> Result<T, StoreError> {
        let row = self.fetch_optional(db).await?;
        row.ok_or_else(|| StoreError::corrupt("a row that has to be there is missing"))
    }
}
