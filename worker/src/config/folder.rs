//! Walking the operating folder, in one order on every machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::problems::Problems;

/// Most files and folders that one folder may hold.
const ENTRIES_MAX: usize = 10_000;

/// What stands in a folder, sorted by name, hidden names left out. A folder that does not exist is empty.
pub(super) fn entries(problems: &Problems, folder: &Path, path: &Path) -> Vec<PathBuf> {
    match list(&folder.join(path)) {
        Ok(names) => names.into_iter().map(|name| path.join(name)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.file(path, format!("the folder cannot be read: {error}"), None);
            Vec::new()
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)?.take(ENTRIES_MAX) {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The files of a folder with an extension.
pub(super) fn files_with_extension(problems: &Problems, folder: &Path, path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = entries(problems, folder, path);
    files.retain(|file| file.extension().is_some_and(|found| found == extension) && folder.join(file).is_file());
    files
}
