//! The `mandate` program: configuration, commands, registration, shutdown. It decides nothing.
//!
//! [`main`] is the whole program; `main.rs` only calls it, so that tests can reach every part. Data goes to stdout and
//! everything else to stderr; the exit code carries the decision ([`output::Exit`]).

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

pub mod bundle;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connection;
pub mod dev_server;
pub mod exporter;
pub mod output;
pub mod registration;
pub mod sandbox;
pub mod schedule;
pub mod search_attributes;
pub mod shutdown;
pub mod telemetry;

/// How long background work may take to end once the command is done.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the program with the arguments and the environment of this process.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else: it runs beside each tool server, and stays small.
    if arguments.next().is_some_and(|command| command == sandbox::COMMAND) {
        return sandbox::main(arguments);
    }
    // One TLS provider for every client in this process. Only a second call can fail, and then one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    telemetry::start(cli.global.log_format);
    match carry_out(cli) {
        Ok(exit) => exit.into(),
        Err(error) => output::report(error).into(),
    }
}

fn carry_out(cli: cli::Cli) -> anyhow::Result<output::Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(commands::run(cli));
    // A thread that waits for a line of the terminal cannot be woken: dropping the runtime would wait for it.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    done
}
