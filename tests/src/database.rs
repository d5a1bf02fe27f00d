//! What stands in the database of the system of record: the payments.

use std::{path::Path, time::Duration};

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// A payment that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The order it was made for.
    pub order: String,
    /// The amount.
    pub cents: i64,
    /// The key that the request carried.
    pub key: Option<String>,
    /// What was noted.
    pub note: Option<String>,
}

/// A request that the system of record received, whatever came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The tool's name at the server.
    pub tool: String,
    /// The key that it carried.
    pub key: Option<String>,
}

async fn open(path: &Path) -> Option<SqliteConnection> {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path).read_only(true)).await.ok()
}

/// All payments, oldest first; none where the file does not exist yet.
pub(crate) async fn payments(path: &Path) -> Vec<Payment> {
    let Some(mut database) = open(path).await else { return Vec::new() };
    let rows = sqlx::query("SELECT order_id, amount_cents, idempotency_key, note FROM payments ORDER BY refund_id");
    let rows = rows.fetch_all(&mut database).await.unwrap_or_default();
    rows.iter().map(|row| Payment { order: row.get(0), cents: row.get(1), key: row.get(2), note: row.get(3) }).collect()
}

/// Refunds that were taken back, in that order.
pub(crate) async fn cancellations(path: &Path) -> Vec<String> {
    let Some(mut database) = open(path).await else { return Vec::new() };
    let rows = sqlx::query_scalar("SELECT refund_id FROM cancellations ORDER BY id").fetch_all(&mut database).await;
    rows.unwrap_or_default()
}

/// All requests that are logged, oldest first.
pub(crate) async fn calls(path: &Path) -> Vec<Call> {
    let Some(mut database) = open(path).await else { return Vec::new() };
    let rows = sqlx::query("SELECT tool, idempotency_key FROM calls ORDER BY id").fetch_all(&mut database).await;
    rows.unwrap_or_default().iter().map(|row| Call { tool: row.get(0), key: row.get(1) }).collect()
}

/// Adds an order with a text.
pub(crate) async fn add_order(path: &Path, order: &str, items: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut database = SqliteConnection::connect_with(&options).await.expect("the payments database");
    let insert = sqlx::query("INSERT INTO orders VALUES (?, 'c1', 100, 'EUR', ?)").bind(order).bind(items);
    insert.execute(&mut database).await.expect("an order");
}

/// Adds a customer.
pub(crate) async fn add_customer(path: &Path, customer: &str, name: &str, email: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut database = SqliteConnection::connect_with(&options).await.expect("the payments database");
    let insert = sqlx::query("INSERT INTO customers VALUES (?, ?, ?)").bind(customer).bind(name).bind(email);
    insert.execute(&mut database).await.expect("a customer");
}

/// Runs a statement with one value: how many rows it changed.
pub(crate) async fn change(path: &Path, statement: &'static str, value: &str) -> u64 {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
    let mut database = SqliteConnection::connect_with(&options).await.expect("the store");
    let done = sqlx::query(statement).bind(value.to_owned()).execute(&mut database).await;
    done.expect("the statement runs").rows_affected()
}
