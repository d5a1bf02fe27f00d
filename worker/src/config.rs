//! The operating folder: `mandate.toml`, tools, policies and agents, read and checked as a whole.
//!
//! A folder is usable or it is not: [`Config::load`] returns every problem with its place, never a part of a
//! configuration. Nothing is resolved or started here: secrets stay references until an effect needs them.

use std::path::{Path, PathBuf};

use mandate_activities::catalog::{Catalog, SecretRef};
use mandate_domain::{
    RunLimits,
    policy::{PolicyBundle, Registry},
};

mod agents;
mod cases;
mod classes;
mod folder;
mod http_tools;
mod identity;
mod input_schema;
mod limits;
mod models;
mod notify;
mod policies;
mod problems;
mod profile;
mod reader;
mod reconciler;
mod remotes;
mod root;
mod servers;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod tools;
mod undo;

pub use cases::CaseAt;
pub(crate) use problems::suggestion;
pub use problems::{ConfigErrors, ConfigProblem};
pub use profile::Profile;
pub use reconciler::ReconcilerSettings;
pub use summary::{AgentSummary, CheckSummary, ModelSummary, ServerSummary, ToolSummary};

use problems::Problems;
use root::{Folders, ROOT_FILE, Root};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The operating folder, absolute.
    pub folder: PathBuf,
    /// What the folder is for.
    pub profile: Profile,
    /// What the activities read.
    pub catalog: Catalog,
    /// Where the store is.
    pub store: StoreSettings,
    /// The Temporal task queue that the worker polls.
    pub task_queue: String,
    /// How often runs are compared with what Temporal reports.
    pub reconciler: ReconcilerSettings,
    /// Bounds of a run whose agent states none.
    pub limits: RunLimits,
    /// The folder's policies. What is in force is the bundle that was applied.
    pub policy: PolicyBundle,
}

/// Where the store is and where its address keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The file or the database.
    pub place: StoreAt,
    /// The keys that content is addressed with.
    pub address_keys: AddressKeys,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// A file of this machine, absolute.
    File(PathBuf),
    /// A PostgreSQL database, by a secret reference to its URL.
    Url(SecretRef),
}

/// Where address keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressKeys {
    /// A folder of key files, one for each tenant, made on first use and readable by the worker alone.
    Folder(PathBuf),
    /// One key for all tenants: 64 hexadecimal digits.
    One(SecretRef),
}

impl Config {
    /// Reads and checks the operating folder. `programs` is the folder of the running executable, where tool servers
    /// are looked for before `PATH`.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every problem that was found.
    pub fn load(folder: &Path, programs: &Path) -> Result<Self, ConfigErrors> {
        let problems = Problems::default();
        match read(&problems, folder, programs) {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => Err(problems.into_errors(folder)),
        }
    }
}

impl StoreSettings {
    /// Reads where the store is and nothing else: what has to be stopped does not wait until the folder is in order.
    ///
    /// # Errors
    /// [`ConfigErrors`] when `mandate.toml` is missing, no TOML, or wrong in its part about the store.
    pub fn load(folder: &Path) -> Result<Self, ConfigErrors> {
        let problems = Problems::default();
        match start(&problems, folder).and_then(|folder| root::read_store_alone(&problems, &folder)) {
            Some(store) if problems.is_empty() => Ok(store),
            Some(_) | None => Err(problems.into_errors(folder)),
        }
    }
}

fn read(problems: &Problems, folder: &Path, programs: &Path) -> Option<Config> {
    let folder = start(problems, folder)?;
    let root = root::read(problems, Folders { operating: &folder, programs })?;
    let tools = tools::read(problems, &folder, &root);
    let agents = agents::read(problems, &folder, &agents::Known { root: &root, tools: &tools });
    let sources = policies::read(problems, &folder);
    // Policies are typed by the tools: with a tool missing, each mention of it would be reported again.
    if !problems.is_empty() {
        return None;
    }
    let Root {
        profile,
        store,
        task_queue,
        reconciler,
        limits,
        groups,
        data_classes,
        servers,
        models,
        identity,
        notify,
    } = root;
    let (tools, models) = (tools.usable, models.usable);
    let (servers, remotes) = remotes::split(servers.usable);
    let registry = Registry {
        tools: tools.clone(),
        models: models.iter().filter_map(|(name, model)| Some((name.clone(), model.provider()?))).collect(),
        groups,
        agents: agents.keys().cloned().collect(),
        data_classes: data_classes.usable,
    };
    let policy = PolicyBundle::load(&sources, &registry)
        .map_err(|errors| errors.into_iter().for_each(|error| problems.policy(error)))
        .ok()?;
    identity::check_gates(problems, &identity, &policy);
    let catalog = Catalog { agents, tools, servers, remotes, models, identity, notify };
    Some(Config { folder, profile, catalog, store, task_queue, reconciler, limits, policy })
}

fn start(problems: &Problems, folder: &Path) -> Option<PathBuf> {
    let absolute = folder.canonicalize().ok().filter(|folder| folder.join(ROOT_FILE).exists());
    if absolute.is_none() {
        let help = "name the operating folder that holds it, or start from a copy of `examples/refunds`";
        problems.file(Path::new(ROOT_FILE), "the file is missing", Some(help));
    }
    absolute
}
