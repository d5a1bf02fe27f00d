//! Which Temporal server to use.

use std::collections::HashMap;
use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use temporalio_common::envconfig::{LoadClientConfigProfileOptions, load_client_config_profile};

use super::build::{self, BuildServerError};

/// Names the Go module to build the server from, in place of the one beside the source code.
const MODULE_VARIABLE: &str = "MANDATE_TEMPORAL_MODULE";
/// Temporal's own defaults for what a profile leaves out.
const DEFAULT_ADDRESS: &str = "localhost:7233";
const DEFAULT_NAMESPACE: &str = "default";

/// Where a server comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The environment or `temporal.toml` names a server: nothing is started. The client loads the same profile, with
    /// its TLS settings and credentials; these two are for messages.
    Existing {
        /// Where it listens.
        address: String,
        /// The namespace that is used.
        namespace: String,
    },
    /// The `temporal` program that can be started as a development server.
    Program(PathBuf),
}

/// Why no server was found.
#[derive(Debug, thiserror::Error)]
pub enum FindServerError {
    /// `TEMPORAL_*` or `temporal.toml` cannot be understood. Correct it.
    /// The cause is text, as the client's error type cannot cross threads.
    #[error("cannot read the Temporal profile from the environment or temporal.toml: {0}")]
    Profile(String),
    /// A pinned server could not be built. The text says what helps.
    #[error(transparent)]
    Build(#[from] BuildServerError),
    /// The build was interrupted because this program is ending.
    #[error("the search for a Temporal server was interrupted")]
    Interrupted,
}

/// Finds a server: the one that is configured, else `temporal` on `PATH`, else a build of the pinned Go module, which
/// takes some minutes once and shows its progress on stderr.
///
/// # Errors
/// When the profile is malformed, or nothing is found and the module cannot be built.
pub async fn find() -> Result<Found, FindServerError> {
    search(find_in).await
}

/// The server with authorization, a build of the Go module `tools/temporal-server`: for tests that need callers whom the
/// server knows. It takes some minutes once and shows its progress on stderr.
///
/// # Errors
/// When the module cannot be built.
pub async fn built_server() -> Result<PathBuf, FindServerError> {
    search(|variables| built_server_in(&build::SERVER.module(), variables)).await
}

/// Runs a search, which may take minutes, beside everything else.
async fn search<T: Send + 'static>(
    search: impl FnOnce(&HashMap<String, String>) -> Result<T, FindServerError> + Send + 'static,
) -> Result<T, FindServerError> {
    // A name or value that is not Unicode cannot be one of ours.
    let variables: HashMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let searched = tokio::task::spawn_blocking(move || search(&variables)).await;
    searched.unwrap_or(Err(FindServerError::Interrupted))
}

/// Finds a server in the given environment.
pub(super) fn find_in(variables: &HashMap<String, String>) -> Result<Found, FindServerError> {
    if let Some(existing) = configured(variables)? {
        return Ok(existing);
    }
    if let Some(program) = on_path(variables.get("PATH").map_or("", String::as_str)) {
        return Ok(Found::Program(program));
    }
    let module = set(variables, MODULE_VARIABLE).map_or_else(|| build::CLI.module(), PathBuf::from);
    Ok(Found::Program(build::cached_or_built(&build::CLI, &module, variables)?))
}

/// The server with authorization, built from `module` in the given environment.
pub(super) fn built_server_in(module: &Path, variables: &HashMap<String, String>) -> Result<PathBuf, FindServerError> {
    Ok(build::cached_or_built(&build::SERVER, module, variables)?)
}

/// A profile that is chosen by name counts even without an address: the person asked for it, and Temporal has a default.
fn configured(variables: &HashMap<String, String>) -> Result<Option<Found>, FindServerError> {
    let profile = load_client_config_profile(LoadClientConfigProfileOptions::default(), Some(variables))
        .map_err(|error| FindServerError::Profile(error.to_string()))?;
    let address = profile.address.filter(|address| !address.is_empty());
    let address = address.or_else(|| set(variables, "TEMPORAL_PROFILE").map(|_| DEFAULT_ADDRESS.to_owned()));
    let namespace = profile.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    Ok(address.map(|address| Found::Existing { address, namespace }))
}

/// A variable that is there and not empty.
pub(super) fn set<'a>(variables: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn on_path(path: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join("temporal")).find(|file| is_program(file))
}

pub(super) fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
