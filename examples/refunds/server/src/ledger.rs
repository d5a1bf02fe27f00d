//! The SQLite file: orders, customers, payments, cancellations, and a log of the requests received.
//!
//! Every write is one immediate transaction, so that two server processes on one file never pay out the same rest of an
//! order twice.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use sqlx::{
    Row as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

/// How long one process waits for another's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS customers (
        customer_id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS orders (
        order_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES customers, total_cents INTEGER NOT NULL,
        currency TEXT NOT NULL, items TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS payments (
        refund_id TEXT PRIMARY KEY, idempotency_key TEXT, order_id TEXT NOT NULL REFERENCES orders,
        amount_cents INTEGER NOT NULL, currency TEXT NOT NULL, note TEXT, created_at TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS cancellations (
        id INTEGER PRIMARY KEY, refund_id TEXT NOT NULL UNIQUE REFERENCES payments, idempotency_key TEXT,
        created_at TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS calls (
        id INTEGER PRIMARY KEY, tool TEXT NOT NULL, idempotency_key TEXT, received_at TEXT NOT NULL) STRICT",
];

const CUSTOMERS: [(&str, &str, &str); 3] = [
    ("c1", "Bakery on the Bridge", "office@bakery.example"),
    ("c2", "Harbour Bikes", "hello@bikes.example"),
    ("c3", "North Mill Print", "accounts@print.example"),
];

const ORDERS: [(&str, &str, i64, &str); 6] = [
    ("o1", "c1", 90_000, "1 dough mixer"),
    ("o2", "c2", 12_000, "4 bicycle tyres"),
    ("o3", "c3", 950_000, "1 offset press, used"),
    ("o4", "c1", 8_000, "2 baking trays"),
    ("o5", "c2", 60_000, "1 cargo bicycle, used"),
    ("o6", "c2", 70_000, "1 workshop stand, 1 compressor"),
];

/// What `refund_payment` is asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refund {
    pub(crate) order_id: String,
    pub(crate) amount_cents: i64,
    pub(crate) currency: String,
    pub(crate) note: Option<String>,
}

/// What came of a refund.
#[derive(Debug)]
pub(crate) enum Refunded {
    /// It was written now.
    Written(Value),
    /// It was written before, under the same key; this is the same answer.
    Before(Value),
    /// Nothing was written.
    Refused(String),
}

/// The open file.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pool: SqlitePool,
    /// A second request with a key pays again.
    forgets_keys: bool,
}

impl Ledger {
    /// Opens the file; creates and fills it, and its folder, if needed.
    pub(crate) async fn open(path: &Path, forgets_keys: bool) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        let ledger = Self { pool, forgets_keys };
        ledger.fill().await.with_context(|| format!("cannot set up `{}`", path.display()))?;
        Ok(ledger)
    }

    async fn fill(&self) -> sqlx::Result<()> {
        let mut write = self.write().await?;
        for statement in SCHEMA {
            sqlx::query(statement).execute(&mut *write).await?;
        }
        for (id, name, email) in CUSTOMERS {
            sqlx::query("INSERT OR IGNORE INTO customers VALUES (?, ?, ?)")
                .bind(id)
                .bind(name)
                .bind(email)
                .execute(&mut *write)
                .await?;
        }
        for (id, customer, total_cents, items) in ORDERS {
            sqlx::query("INSERT OR IGNORE INTO orders VALUES (?, ?, ?, 'EUR', ?)")
                .bind(id)
                .bind(customer)
                .bind(total_cents)
                .bind(items)
                .execute(&mut *write)
                .await?;
        }
        write.commit().await
    }

    // A deferred transaction that reads and then writes fails with "busy" at once when another process wrote between.
    async fn write(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    /// The order, if there is one.
    pub(crate) async fn order(&self, id: &str) -> sqlx::Result<Option<Value>> {
        let row = sqlx::query(
            "SELECT customer_id, total_cents, currency, items,
                (SELECT coalesce(sum(amount_cents), 0) FROM payments p WHERE p.order_id = o.order_id
                    AND p.refund_id NOT IN (SELECT refund_id FROM cancellations)) AS refunded_cents
             FROM orders o WHERE order_id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(json!({
                "order_id": id,
                "customer_id": row.try_get::<String, _>("customer_id")?,
                "total_cents": row.try_get::<i64, _>("total_cents")?,
                "refunded_cents": row.try_get::<i64, _>("refunded_cents")?,
                "currency": row.try_get::<String, _>("currency")?,
                "items": row.try_get::<String, _>("items")?,
            }))
        })
        .transpose()
    }

    /// The customer, if there is one.
    pub(crate) async fn customer(&self, id: &str) -> sqlx::Result<Option<Value>> {
        let row = sqlx::query("SELECT name, email FROM customers WHERE customer_id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let (name, email): (String, String) = (row.try_get("name")?, row.try_get("email")?);
            Ok(json!({ "customer_id": id, "name": name, "email": email }))
        })
        .transpose()
    }

    /// Logs that a request arrived, whatever comes of it.
    pub(crate) async fn log_call(&self, tool: &str, key: Option<&str>) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO calls (tool, idempotency_key, received_at)
             VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        )
        .bind(tool)
        .bind(key)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Pays back, once for each key.
    pub(crate) async fn refund(&self, refund: &Refund, key: Option<&str>) -> sqlx::Result<Refunded> {
        let mut write = self.write().await?;
        if let Some(key) = key.filter(|_| !self.forgets_keys)
            && let Some(before) = payment(&mut write, key).await?
        {
            return Ok(if before.refund == *refund {
                Refunded::Before(before.answer())
            } else {
                Refunded::Refused(format!("error: key `{key}` was used for another refund"))
            });
        }
        if let Some(reason) = refusal(&mut write, refund).await? {
            return Ok(Refunded::Refused(reason));
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&mut *write).await?;
        let payment = Payment { refund_id: format!("rf-{:04}", count + 1), refund: refund.clone() };
        sqlx::query("INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))")
            .bind(&payment.refund_id)
            .bind(key)
            .bind(&refund.order_id)
            .bind(refund.amount_cents)
            .bind(&refund.currency)
            .bind(&refund.note)
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(Refunded::Written(payment.answer()))
    }

    /// Takes a refund back, once: cancelled already, it stays so.
    pub(crate) async fn cancel(&self, refund_id: &str, key: Option<&str>) -> sqlx::Result<Option<Value>> {
        let mut write = self.write().await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM payments WHERE refund_id = ?")
            .bind(refund_id)
            .fetch_optional(&mut *write)
            .await?;
        if known.is_none() {
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO cancellations (refund_id, idempotency_key, created_at)
             VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) ON CONFLICT DO NOTHING",
        )
        .bind(refund_id)
        .bind(key)
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(Some(json!({ "status": "cancelled", "refund_id": refund_id })))
    }

    /// The answer that the refund of this key got, if one was written.
    pub(crate) async fn refund_of(&self, key: &str) -> sqlx::Result<Option<Value>> {
        // A write lock, so that a refund under way in another process counts as what it becomes.
        let mut write = self.write().await?;
        Ok(payment(&mut write, key).await?.map(|payment| payment.answer()))
    }
}

/// One row of `payments`.
#[derive(Debug)]
struct Payment {
    refund_id: String,
    refund: Refund,
}

impl Payment {
    fn answer(&self) -> Value {
        json!({
            "status": "refunded",
            "refund_id": self.refund_id,
            "order_id": self.refund.order_id,
            "amount_cents": self.refund.amount_cents,
            "currency": self.refund.currency,
        })
    }
}

async fn payment(write: &mut Transaction<'static, Sqlite>, key: &str) -> sqlx::Result<Option<Payment>> {
    let row =
        sqlx::query("SELECT refund_id, order_id, amount_cents, currency, note FROM payments WHERE idempotency_key = ?")
            .bind(key)
            .fetch_optional(&mut **write)
            .await?;
    row.map(|row| {
        Ok(Payment {
            refund_id: row.try_get("refund_id")?,
            refund: Refund {
                order_id: row.try_get("order_id")?,
                amount_cents: row.try_get("amount_cents")?,
                currency: row.try_get("currency")?,
                note: row.try_get("note")?,
            },
        })
    })
    .transpose()
}

async fn refusal(write: &mut Transaction<'static, Sqlite>, refund: &Refund) -> sqlx::Result<Option<String>> {
    let row = sqlx::query(
        "SELECT currency, total_cents
            - (SELECT coalesce(sum(amount_cents), 0) FROM payments p WHERE p.order_id = o.order_id
                    AND p.refund_id NOT IN (SELECT refund_id FROM cancellations)) AS left_cents
         FROM orders o WHERE order_id = ?",
    )
    .bind(&refund.order_id)
    .fetch_optional(&mut **write)
    .await?;
    let Some(row) = row else { return Ok(Some(format!("error: there is no order `{}`", refund.order_id))) };
    let (currency, left_cents): (String, i64) = (row.try_get("currency")?, row.try_get("left_cents")?);
    Ok(if refund.currency != currency {
        Some(format!("error: order `{}` was paid in {currency}", refund.order_id))
    } else if refund.amount_cents > left_cents {
        Some(format!("error: {left_cents} cents of order `{}` are left to pay back", refund.order_id))
    } else {
        None
    })
}
