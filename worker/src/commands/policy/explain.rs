//! placeholder
use crate::{
    cli::{ExplainPolicy, Global},
    output::Exit,
};
/// x
/// # Errors
/// x
pub fn explain(_global: &Global, _options: &ExplainPolicy) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
