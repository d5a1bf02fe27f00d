//! The harness of the integration tests: one Temporal server for the whole run, and one that knows its callers for the
//! tests about that; operating folders of their own, real worker processes, and looks from outside: the Temporal CLI,
//! the event history, the payments database.
//!
//! Promises: nothing that a test started outlives the test process; every wait is for a condition. Deliberately
//! absent: fakes. Tests that need no server stand beside the code they test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    unreachable_pub,
    reason = "this crate is test code: a panic is how a test fails"
)]

mod authorized;
mod binaries;
mod choices;
mod database;
mod history;
mod https;
pub mod keys;
mod link;
mod orders;
mod poll;
mod process;
mod receiver;
mod scenario;
mod server;
mod store_file;
mod tokens;

use std::{future::Future, sync::LazyLock};

use tokio::runtime::Runtime;

pub use authorized::{ADMIN, AuthorizedServer, WORKER, authorized_server};
pub use binaries::{cargo, profile_folder, program, target_folder, workspace_folder};
pub use choices::Choices;
pub use database::{Call, Payment};
pub use history::{Event, History};
pub use https::Https;
pub use link::Link;
pub use orders::{Behaviour, Order, Orders};
pub use poll::{LONG, LONG_FOR_MANY, pass, until, until_among_many, until_it_holds, until_within};
pub use process::{Process, Said, Usage, say, say_at_terminal};
pub use receiver::{Closed, Delivery, Receiver};
pub use scenario::{AGENT, Execution, Scenario, Told, Way};
pub use server::{Server, server};
pub use store_file::{On, StoreFile};
pub use tokens::{Draft, Issuer};

/// One runtime for all tests: the client's connection lives on the runtime that made it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Runs one test.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}
