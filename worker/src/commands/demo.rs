//! stub
use crate::{cli, output::Exit};
/// x
/// # Errors
/// x
pub async fn demo(_: &cli::Global, _: &cli::Demo) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
