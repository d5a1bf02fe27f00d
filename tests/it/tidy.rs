//! Habits of the repository that a reader relies on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mandate_tests::workspace_folder;

/// The line of dependencies: each crate may name those before it.
const LINE: [(&str, &str); 5] = [
    ("domain", "mandate-domain"),
    ("workflows", "mandate-workflows"),
    ("activities", "mandate-activities"),
    ("worker", "mandate-worker"),
    ("tests", "mandate-tests"),
];
/// No file has more lines: it would hold a second concept.
const LINES_MAX: usize = 500;

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["domain", "workflows", "activities", "worker", "tests", "examples"] {
        collect(&workspace_folder().join(folder), &mut files);
    }
    assert!(files.len() > 50, "the files are found");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// A file as people name it.
fn named(path: &Path) -> String {
    path.strip_prefix(workspace_folder()).unwrap().display().to_string()
}

fn offenders(is_one: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let texts = rust_files().into_iter().map(|path| (named(&path), fs::read_to_string(&path).unwrap()));
    texts.filter(|(name, text)| is_one(name, text)).map(|(name, _)| name).collect()
}

/// All dependencies that a crate names, of any kind.
fn dependencies(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace_folder().join(folder).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&text).unwrap();
    let mut names = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        names.extend(
            manifest.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys).cloned(),
        );
    }
    names
}

#[test]
fn dependencies_form_one_line() {
    for (position, (folder, _)) in LINE.iter().enumerate() {
        let later: Vec<_> = LINE[position..].iter().map(|(_, name)| (*name).to_owned()).collect();
        let named = dependencies(folder);
        let wrong: Vec<_> = named.iter().filter(|name| later.contains(name)).collect();
        assert!(wrong.is_empty(), "`{folder}` names {wrong:?}");
        let temporal = named.iter().any(|name| name.starts_with("temporalio"));
        assert_eq!(temporal, *folder != "domain", "`domain` alone knows nothing of Temporal: {folder}");
    }
    for name in ["tokio", "temporalio-sdk", "temporalio-client"] {
        assert!(!dependencies("workflows").iter().any(|named| named == name), "workflows names {name}");
        assert!(!dependencies("domain").iter().any(|named| named == name), "domain names {name}");
    }
}

#[test]
fn only_the_modules_that_reach_outside_name_their_clients() {
    let over_http = [
        "activities/src/models",
        "activities/src/identity",
        "activities/src/webhook",
        "activities/src/egress",
        "activities/src/tools",
    ];
    let at = [("rmcp", vec!["activities/src/tools"]), ("reqwest", over_http.to_vec())];
    for (client, modules) in at {
        let naming = offenders(|name, text| {
            let names = text.contains(&format!("{client}::")) || text.contains(&format!("use {client}"));
            names
                && !modules.iter().any(|module| name.starts_with(module))
                && !name.starts_with("examples/")
                && name != "tests/it/tidy.rs"
        });
        assert!(naming.is_empty(), "`{client}` is named outside {modules:?}: {naming:?}");
        for (folder, _) in LINE.iter().filter(|(folder, _)| *folder != "activities") {
            assert!(!dependencies(folder).iter().any(|name| name == client), "`{folder}` depends on `{client}`");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let long = offenders(|_, text| text.lines().count() > LINES_MAX);
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:?}");
    let silent = offenders(|_, text| !text.starts_with("//!"));
    assert!(silent.is_empty(), "no `//!` at the top: {silent:?}");
}

#[test]
fn tests_are_neither_ignored_nor_waiting_on_time() {
    // Written in two parts, so that this file is no offender itself.
    let ignored =
        offenders(|_, text| text.contains(concat!("#[", "ignore")) || text.contains(concat!("should_", "panic]")));
    assert!(ignored.is_empty(), "{ignored:?}");
    // It looks at a condition again and again.
    let poller = "tests/src/poll.rs";
    let asleep =
        offenders(|name, text| name.starts_with("tests/") && name != poller && text.contains(concat!("sl", "eep(")));
    assert!(asleep.is_empty(), "tests that wait on time: {asleep:?}");
}

#[test]
fn the_lock_file_holds_one_of_each_heavy_thing() {
    let lock = fs::read_to_string(workspace_folder().join("Cargo.lock")).unwrap();
    let count = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    for once in ["tokio", "rustls", "reqwest", "hyper", "temporalio-sdk-core"] {
        assert_eq!(count(once), 1, "{once}");
    }
    for never in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert_eq!(count(never), 0, "one TLS stack: {never}");
    }
}
