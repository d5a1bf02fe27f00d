//! `mandate policy`: for whoever writes policies.

use crate::{
    cli::{Global, Policy},
    output::Exit,
};

pub mod backtest;
pub mod explain;
pub mod test;

/// Carries out the command.
///
/// # Errors
/// Whatever kept it from being done.
pub async fn policy(global: &Global, command: Policy) -> anyhow::Result<Exit> {
    match command {
        Policy::Test(options) => test::test(global, options),
        Policy::Explain(options) => explain::explain(global, &options),
        Policy::Backtest(options) => backtest::backtest(global, &options).await,
    }
}
