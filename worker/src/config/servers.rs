//! `[servers.<name>]`: MCP servers that the worker starts, and where their programs are looked for.

use std::{
    collections::BTreeMap,
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use mandate_activities::catalog::{EnvValue, ProcessLimits, SecretRef, ServerSettings};

use super::{
    problems::Problems,
    reader::{At, Table},
    root::Folders,
};

/// Longest time to connect unless the server says otherwise, in seconds.
const CONNECT_TIMEOUT_SECS: u64 = 20;

/// The program under which servers run, beside the running executable: that one itself.
const SUPERVISOR: &str = "mandate";

/// Largest message of a server unless it says otherwise, in bytes.
const ANSWER_MAX_BYTES: u64 = 32 << 20;

/// Largest limit of a process.
const LIMIT_MAX: u64 = 1 << 50;

/// Reads one server.
pub(super) fn read(table: &mut Table<'_>, folders: Folders<'_>) -> Option<ServerSettings> {
    let command = table.required_texts("command");
    let env = table.table("env").map(|table| read_env(table, folders.operating)).unwrap_or_default();
    let connect_timeout_secs = table.number_within("connect_timeout_secs", 1..=300, CONNECT_TIMEOUT_SECS);
    let answer_max_bytes = table.number_within("answer_max_bytes", 4096..=1 << 28, ANSWER_MAX_BYTES);
    let limits = read_limits(table);
    let command = command?;
    let mut words = command.value.into_iter();
    let Some(program) = words.next().filter(|program| !program.value.trim().is_empty()) else {
        table.problems.at(&command.place, "`command` names no program", "put the program first", None);
        return None;
    };
    Some(ServerSettings {
        program: find(table.problems, &program, folders)?,
        args: words.map(|word| word.value).collect(),
        env,
        directory: folders.operating.to_owned(),
        connect_timeout_secs,
        answer_max_bytes,
        supervisor: folders.programs.join(SUPERVISOR),
        limits,
    })
}

/// What a process may use. Zero: no limit.
fn read_limits(table: &mut Table<'_>) -> ProcessLimits {
    let mut limit = |key: &str, lowest: u64, default: Option<u64>| {
        let Some(number) = table.number(key) else { return default };
        if number.value != 0 && !(lowest..=LIMIT_MAX).contains(&number.value) {
            let bounds = format!("from {lowest} to {LIMIT_MAX}, or 0 for no limit");
            table.problems.at(&number.place, format!("`{key}` must be {bounds}"), bounds, None);
        }
        (number.value != 0).then_some(number.value)
    };
    let default = ProcessLimits::default();
    ProcessLimits {
        memory_max_bytes: limit("memory_max_bytes", 16 << 20, default.memory_max_bytes),
        cpu_max_secs: limit("cpu_max_secs", 1, default.cpu_max_secs),
        open_files_max: limit("open_files_max", 16, default.open_files_max),
        file_max_bytes: limit("file_max_bytes", 1, default.file_max_bytes),
    }
}

fn read_env(table: Table<'_>, folder: &Path) -> BTreeMap<String, EnvValue> {
    let problems = table.problems;
    let mut env = BTreeMap::new();
    for (name, text) in table.free_texts() {
        if name.value.is_empty() || name.value.contains(['=', '\0']) {
            problems.at(&name.place, "this cannot be the name of an environment variable", "not a name", None);
            continue;
        }
        if let Some(value) = read_env_value(problems, text, folder) {
            env.insert(name.value, value);
        }
    }
    env
}

fn read_env_value(problems: &Problems, text: At<String>, folder: &Path) -> Option<EnvValue> {
    let refers = ["env:", "file:", "exec:"].iter().any(|scheme| text.value.starts_with(scheme));
    if !refers {
        // Allowed, and still not shown: people put tokens here.
        problems.hide(&text.place);
        return Some(EnvValue::Plain(text.value));
    }
    match SecretRef::parse(&text.value) {
        Ok(reference) => Some(EnvValue::Secret(reference.within(folder))),
        Err(error) => {
            problems.at(&text.place, error.to_string(), "not a reference", None);
            None
        }
    }
}

/// Finds a program: in the operating folder if it is a path; else beside the running executable, then on `PATH`.
fn find(problems: &Problems, program: &At<String>, folders: Folders<'_>) -> Option<PathBuf> {
    let name = Path::new(&program.value);
    let candidates: Vec<PathBuf> = if program.value.contains('/') {
        vec![folders.operating.join(name)]
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
        std::iter::once(folders.programs.join(name)).chain(on_path).collect()
    };
    let found = candidates.iter().find(|candidate| is_program(candidate)).cloned();
    if found.is_none() {
        let help = where_looked(program, folders, &candidates);
        problems.at(&program.place, format!("program `{}` was not found", program.value), "not found", Some(help));
    }
    found
}

fn where_looked(program: &At<String>, folders: Folders<'_>, candidates: &[PathBuf]) -> String {
    if program.value.contains('/') {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        return format!("looked at {}, which is not an executable file", tried.join(", "));
    }
    let folder = folders.programs.display();
    format!("looked beside the running program in {folder}, then in the folders of PATH")
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
