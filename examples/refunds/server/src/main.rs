//! `refunds-mcp`: the system of record of the refunds example. Orders, customers and payments stand in one SQLite file,
//! served as MCP tools over standard input and output.
//!
//! It honours the idempotency key that comes in `_meta`, and logs every order read and refund request it receives,
//! so that a test can tell how often it was asked from how often money moved.

mod ledger;
mod tools;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use rmcp::{ServiceExt, transport::stdio};

/// Orders, customers and payments as MCP tools over standard input and output.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// SQLite file. Created and filled with the example's orders on first use.
    #[arg(long, value_name = "PATH")]
    database: PathBuf,
    /// Test aid: milliseconds to wait in `refund_payment` after the payment was written and before the answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// Test aid: milliseconds to wait in `refund_payment` before the payment is written.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_before_ms: u64,
    /// Test aid: milliseconds to wait in `read_order`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_read_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = tools::Refunds {
        ledger: ledger::Ledger::open(&args.database).await?,
        delay_before: Duration::from_millis(args.delay_before_ms),
        delay: Duration::from_millis(args.delay_ms),
        delay_read: Duration::from_millis(args.delay_read_ms),
    };
    server.serve(stdio()).await?.waiting().await?;
    Ok(())
}
