//! The commands, one file each.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mandate_activities::store::{AddressKeySource, PostgresUrl, Store, StorePlace, StoreSettings};

use crate::{
    cli::{Audit, Cli, Command, Global},
    config::{self, AddressKeys, Config, StoreAt},
    output::Exit,
};

pub mod answer;
pub mod apply;
pub mod approvals;
mod ask;
mod card;
mod change;
pub mod check;
pub mod decide;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod halt;
pub mod key;
pub mod policy;
pub mod quarantine;
pub mod resolve;
pub mod rollback;
pub mod run;
mod sender;
pub mod status;
pub mod steer;
mod tell;
pub mod verify;
pub mod worker;

/// Carries out the command.
///
/// # Errors
/// Whatever kept it from being done, to be reported by [`crate::output::report`].
pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    match command {
        Command::Demo(options) => demo::demo(&global, &options).await,
        Command::Worker(options) => worker::worker(&global, options).await,
        Command::Run(options) => run::run(&global, options).await,
        Command::Status(options) => status::status(&global, &options).await,
        Command::Approvals(options) => approvals::approvals(&global, &options).await,
        Command::Approve(options) => decide::approve(&global, options).await,
        Command::Reject(options) => decide::reject(&global, options).await,
        Command::Answer(options) => answer::answer(&global, options).await,
        Command::Resolve(options) => resolve::resolve(&global, options).await,
        Command::Steer(options) => steer::steer(&global, options).await,
        Command::Pause(options) => steer::pause(&global, options).await,
        Command::Resume(options) => steer::resume(&global, options).await,
        Command::Halt(options) => halt::halt(&global, options).await,
        Command::Explain(options) => explain::explain(&global, &options).await,
        Command::Check(options) => check::check(&global, &options),
        Command::Policy(command) => policy::policy(&global, command).await,
        Command::Doctor(options) => doctor::doctor(&global, &options).await,
        Command::Apply(options) => apply::apply(&global, options).await,
        Command::Rollback(options) => rollback::rollback(&global, options).await,
        Command::Bundles(options) => rollback::bundles(&global, &options).await,
        Command::Quarantine(options) => quarantine::quarantine(&global, options).await,
        Command::Key(command) => key::key(&command),
        Command::Audit(Audit::Verify(options)) => verify::verify(&global, &options).await,
    }
}

fn load(folder: &Path) -> anyhow::Result<Config> {
    Ok(Config::load(folder, &programs()?)?)
}

/// The folder of this program, where tool servers are looked for first.
fn programs() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    Ok(Store::open(store_settings(config).await?).await?)
}

async fn store_settings(config: &Config) -> anyhow::Result<StoreSettings> {
    settings_of(&config.store).await
}

async fn settings_of(store: &config::StoreSettings) -> anyhow::Result<StoreSettings> {
    let address_keys = match &store.address_keys {
        AddressKeys::Folder(folder) => AddressKeySource::Folder(folder.clone()),
        AddressKeys::One(secret) => AddressKeySource::Fixed(address_key(secret).await?),
    };
    Ok(StoreSettings { place: place_of(store).await?, address_keys })
}

async fn place_of(store: &config::StoreSettings) -> anyhow::Result<StorePlace> {
    match &store.place {
        StoreAt::File(path) => Ok(StorePlace::File(path.clone())),
        StoreAt::Url(reference) => {
            let url = reference.resolve().await.context("cannot read the store's url")?;
            let url = PostgresUrl::parse(url).with_context(|| format!("`{reference}` holds no url of a database"))?;
            Ok(StorePlace::Postgres(url))
        }
    }
}

/// The store for operators, who may have to act while something else in the folder is wrong.
async fn open_operators_store(global: &Global) -> anyhow::Result<Store> {
    let settings = settings_of(&config::StoreSettings::load(&global.folder)?).await?;
    anyhow::ensure!(
        settings.place.has_store().await?,
        "there is no store at `{}`: nothing was applied in this folder yet (`mandate apply` makes it)",
        settings.place
    );
    Ok(Store::open(settings).await?)
}

/// A store that commands only read: one that is not there is an error, not a new store.
async fn open_existing_store(global: &Global) -> anyhow::Result<Store> {
    open_existing_store_of(&load(&global.folder)?).await
}

async fn open_existing_store_of(config: &Config) -> anyhow::Result<Store> {
    let settings = store_settings(config).await?;
    let (there, place) = (settings.place.has_store().await?, &settings.place);
    anyhow::ensure!(there, "there is no store at `{place}`: no run was opened in this folder yet");
    Ok(Store::open(settings).await?)
}

/// The store, if there is one.
async fn open_store_if_there(config: &Config) -> anyhow::Result<Option<Store>> {
    let settings = store_settings(config).await?;
    if settings.place.has_store().await? { Ok(Some(Store::open(settings).await?)) } else { Ok(None) }
}

async fn address_key(secret: &mandate_activities::catalog::SecretRef) -> anyhow::Result<mandate_domain::AddressKey> {
    use secrecy::ExposeSecret as _;
    let text = secret.resolve().await.context("cannot read the address key")?;
    let bytes = hex32(text.expose_secret().trim()).context("the address key is not 64 hexadecimal digits")?;
    Ok(mandate_domain::AddressKey::new(bytes))
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_key_is_64_hexadecimal_digits() {
        assert_eq!(hex32(&"0a".repeat(32)), Some([10; 32]));
        for wrong in ["", "0a", &"0g".repeat(32), &"0a".repeat(33), &"+a".repeat(32)] {
            assert_eq!(hex32(wrong), None, "{wrong}");
        }
    }
}
