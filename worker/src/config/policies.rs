//! Policy files: the shared ones, which may permit, and those of a tenant, unit or agent, which may only forbid.

use std::path::{Path, PathBuf};

use mandate_domain::policy::{PolicyScope, PolicySource};

use super::{
    folder::{entries, files_with_extension},
    problems::Problems,
    reader::read_text,
};

/// Where policies stand, at every level. No unit and no agent can have this name.
pub(super) const FOLDER: &str = "policies";

/// Depth of an agent's folder below `tenants`.
const AGENT_DEPTH: usize = 3;

/// Reads every policy file.
pub(super) fn read(problems: &Problems, folder: &Path) -> Vec<PolicySource> {
    let mut sources = read_folder(problems, folder, Path::new(FOLDER), &PolicyScope::Everybody);
    let mut folders = vec![PathBuf::from("tenants")];
    for _ in 0..AGENT_DEPTH {
        let inside = folders.iter().flat_map(|path| entries(problems, folder, path));
        folders = inside.filter(|path| !path.ends_with(FOLDER) && folder.join(path).is_dir()).collect();
        for path in &folders {
            let name: Vec<_> = path.iter().skip(1).map(|part| part.to_string_lossy()).collect();
            let scope = PolicyScope::Below(name.join("/"));
            sources.extend(read_folder(problems, folder, &path.join(FOLDER), &scope));
        }
    }
    sources
}

fn read_folder(problems: &Problems, folder: &Path, path: &Path, scope: &PolicyScope) -> Vec<PolicySource> {
    let files = files_with_extension(problems, folder, path, "cedar");
    let source = |path: PathBuf| {
        let text = read_text(problems, folder, &path)?;
        Some(PolicySource { path: path.display().to_string(), text, scope: scope.clone() })
    };
    files.into_iter().filter_map(source).collect()
}
