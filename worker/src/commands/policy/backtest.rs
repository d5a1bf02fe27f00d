//! placeholder
use crate::{
    cli::{Backtest, Global},
    output::Exit,
};
/// x
/// # Errors
/// x
pub async fn backtest(_global: &Global, _options: &Backtest) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
