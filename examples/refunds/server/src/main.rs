//! `refunds-mcp`: the system of record of the refunds example. Orders, customers and payments stand in one SQLite file,
//! served as MCP tools over standard input and output, or over HTTP on this machine.
//!
//! It honours the idempotency key that comes in `_meta`, and logs every order read and refund request it receives,
//! so that a test can tell how often it was asked from how often money moved.

mod ledger;
mod tools;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rmcp::{
    ServiceExt,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, stdio,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::TcpListener;

/// Orders, customers and payments as MCP tools.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// SQLite file. Created and filled with the example's orders on first use.
    #[arg(long, value_name = "PATH")]
    database: PathBuf,
    /// Serve over HTTP at this address, one of this machine, instead of standard input and output. Port 0 takes a free
    /// one; where it listens is printed.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Test aid: milliseconds to wait in `refund_payment` after the payment was written and before the answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// Test aid: milliseconds to wait in `refund_payment` before the payment is written.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_before_ms: u64,
    /// Ask from which account a refund is paid that is above so many cents, before it is paid.
    #[arg(long, value_name = "N")]
    ask_above_cents: Option<i64>,
    /// Test aid: wait in `refund_payment` before the payment is written until this file is there.
    #[arg(long, value_name = "PATH")]
    hold_before: Option<PathBuf>,
    /// Test aid: pay again for a key that was paid for, so that a second request shows as a second payment.
    #[arg(long)]
    forget_keys: bool,
    /// Test aid: milliseconds to wait in `read_order`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_read_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = tools::Refunds {
        ledger: ledger::Ledger::open(&args.database, args.forget_keys).await?,
        delay_before: Duration::from_millis(args.delay_before_ms),
        delay: Duration::from_millis(args.delay_ms),
        delay_read: Duration::from_millis(args.delay_read_ms),
        ask_above_cents: args.ask_above_cents,
        hold_before: args.hold_before,
    };
    if let Some(address) = args.listen {
        return listen(address, server).await;
    }
    server.serve(stdio()).await?.waiting().await?;
    Ok(())
}

async fn listen(address: SocketAddr, server: tools::Refunds) -> anyhow::Result<()> {
    anyhow::ensure!(address.ip().is_loopback(), "`{address}` is not of this machine, and nobody is asked who they are");
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let sessions = Arc::new(LocalSessionManager::default());
    let service =
        StreamableHttpService::new(move || Ok(server.clone()), sessions, StreamableHttpServerConfig::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // A client that breaks off is no matter of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
