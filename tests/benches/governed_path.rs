//! What one allowed call costs in the governed path, without Temporal and without a tool server: decision, intent and
//! outcome, on both engines, in microseconds and committed transactions. The bench fails when a call commits more than
//! two.
//!
//! `cargo bench --profile dev --package mandate-tests --bench governed_path`: what only tests may have does not compile in
//! release. PostgreSQL is the one of `MANDATE_POSTGRES_BIN`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "this crate is test code: a panic is how a test fails"
)]

use std::process::ExitCode;

use mandate_tests::On;

#[allow(dead_code, unused_macros, unused_imports, reason = "the bench needs a part of what the tests need")]
#[path = "../it/path"]
mod path {
    mod histories;
    #[path = "../../benches/governed_path/measure.rs"]
    pub(crate) mod measure;
    mod run;
    mod world;
}

use path::measure::{CALLS, WARM_UP, measure};

#[tokio::main]
async fn main() -> ExitCode {
    println!("one allowed call of a built-in tool, {} calls in one run", CALLS - WARM_UP);
    let mut within = true;
    for on in [On::Sqlite, On::Postgres] {
        within &= measure(on).await;
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
