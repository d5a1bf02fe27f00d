//! The server is found in the promised order, and its arguments and errors are what a person needs.
//! Programs are shell scripts here; the real server is started by the integration tests.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::find::{built_server_in, find_in};
use super::launch::{Ports, arguments, log_tail, port_was_taken};
use super::{DevServer, DevServerOptions, Found, StartServerError};

fn variables(folder: &Path, extra: &[(&str, &str)]) -> HashMap<String, String> {
    let folder = folder.display().to_string();
    // A file of its own, so that the profile of whoever runs the tests is not read.
    let profile = format!("{folder}/temporal.toml");
    if !Path::new(&profile).exists() {
        fs::write(&profile, "").unwrap();
    }
    let own = [("TEMPORAL_CONFIG_FILE", profile.as_str()), ("XDG_CACHE_HOME", folder.as_str())];
    own.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn script(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

fn found(folder: &Path, extra: &[(&str, &str)]) -> Result<Found, String> {
    find_in(&variables(folder, extra)).map_err(|error| error.to_string())
}

#[test]
fn a_configured_server_wins_over_everything() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    script(folder, "temporal", "");
    fs::write(folder.join("temporal.toml"), "[profile.staging]\naddress = \"staging:7233\"\nnamespace = \"agents\"\n")
        .unwrap();
    let path = folder.display().to_string();
    let existing = |address: &str, namespace: &str| {
        Ok(Found::Existing { address: address.to_owned(), namespace: namespace.to_owned() })
    };
    assert_eq!(found(folder, &[("PATH", &path), ("TEMPORAL_ADDRESS", "here:1")]), existing("here:1", "default"));
    assert_eq!(found(folder, &[("PATH", &path), ("TEMPORAL_PROFILE", "staging")]), existing("staging:7233", "agents"));
    assert_eq!(found(folder, &[("PATH", &path)]), Ok(Found::Program(folder.join("temporal"))));
}

#[test]
fn an_unknown_profile_is_an_error_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let error = found(folder.path(), &[("TEMPORAL_PROFILE", "absent")]).unwrap_err();
    assert!(error.starts_with("cannot read the Temporal profile") && error.contains("absent"), "{error}");
}

fn module(folder: &Path) -> String {
    let module = folder.join("module");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("go.mod"), "module x\n").unwrap();
    fs::write(module.join("go.sum"), "").unwrap();
    module.display().to_string()
}

#[test]
fn the_module_is_built_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    // Stands for the compiler: `go build -trimpath -ldflags "-s -w" -o FILE PACKAGE`.
    script(&bin, "go", "echo built >>\"$XDG_CACHE_HOME/builds\"; printf '#!/bin/sh\\n' >\"$6\"; chmod 755 \"$6\"");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let module = module(folder);
    let extra = [("PATH", path.as_str()), ("MANDATE_TEMPORAL_MODULE", module.as_str())];
    let first = found(folder, &extra).unwrap();
    assert_eq!(found(folder, &extra).unwrap(), first);
    assert_eq!(fs::read_to_string(folder.join("builds")).unwrap(), "built\n");
}

#[test]
fn the_server_with_authorization_is_kept_beside_the_cli_and_needs_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    script(&bin, "go", "echo \"$7\" >>\"$XDG_CACHE_HOME/builds\"; printf '#!/bin/sh\\n' >\"$6\"; chmod 755 \"$6\"");
    // Neither a server that is configured nor a program on PATH asks callers who they are.
    script(&bin, "temporal", "");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let extra = [("PATH", path.as_str()), ("TEMPORAL_ADDRESS", "here:1")];
    let module = module(folder);
    let variables = variables(folder, &extra);
    let first = built_server_in(Path::new(&module), &variables).unwrap();
    assert_eq!(built_server_in(Path::new(&module), &variables).unwrap(), first);
    assert_eq!(fs::read_to_string(folder.join("builds")).unwrap(), "go.temporal.io/server/cmd/server\n");
    let kept = first.strip_prefix(folder.join("mandate")).unwrap().display().to_string();
    assert!(kept.starts_with("temporal-server-") && kept.ends_with("/temporal-server"), "{kept}");
}

#[test]
fn without_its_module_the_server_with_authorization_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = built_server_in(Path::new("/absent"), &variables(folder.path(), &[])).unwrap_err().to_string();
    assert!(error.starts_with("no Temporal server with authorization: the module `/absent`"), "{error}");
    assert!(!error.contains("TEMPORAL_ADDRESS"), "{error}");
}

#[test]
fn a_failed_build_shows_the_end_of_its_output_and_is_not_cached() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    script(&bin, "go", ": >\"$6\"; chmod 755 \"$6\"; echo 'missing go.sum entry' >&2; exit 1");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let module = module(folder);
    let extra = [("PATH", path.as_str()), ("MANDATE_TEMPORAL_MODULE", module.as_str())];
    for _ in 0..2 {
        let error = found(folder, &extra).unwrap_err();
        assert!(error.ends_with("ends with:\nmissing go.sum entry"), "{error}");
    }
}

#[test]
fn without_a_module_the_error_says_how_to_get_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let error = found(folder.path(), &[("PATH", ""), ("MANDATE_TEMPORAL_MODULE", "/absent")]).unwrap_err();
    assert!(error.contains("`/absent`") && error.contains("TEMPORAL_ADDRESS") && error.contains("PATH"), "{error}");
}

#[test]
fn the_server_listens_on_loopback_ports_that_are_all_given() {
    let ports = Ports { grpc: 1, ui: 2, http: 3, metrics: 4 };
    let options = DevServerOptions { database: Some("d.db".into()), ui: true, log_file: "l".into() };
    assert_eq!(
        arguments(&options, ports).join(" "),
        "server start-dev --ip 127.0.0.1 --log-level error --port 1 --http-port 3 --metrics-port 4 \
         --dynamic-config-value system.enableActivityEagerExecution=true \
         --search-attribute MandateAgent=Keyword --search-attribute MandateTenant=Keyword \
         --search-attribute MandateState=Keyword --search-attribute MandateApprovers=KeywordList \
         --search-attribute MandateFailure=Keyword --search-attribute MandateCostMicros=Int \
         --db-filename d.db --ui-ip 127.0.0.1 --ui-port 2"
    );
    let headless = arguments(&DevServerOptions { database: None, ui: false, log_file: "l".into() }, ports).join(" ");
    assert!(headless.ends_with("MandateCostMicros=Int --headless"), "{headless}");
}

#[test]
fn reserved_ports_differ() {
    let Ports { grpc, ui, http, metrics } = Ports::reserve().unwrap();
    assert_eq!(std::collections::HashSet::from([grpc, ui, http, metrics]).len(), 4);
}

#[test]
fn a_log_is_shown_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(&log, (1..=30).map(|line| line.to_string()).collect::<Vec<_>>().join("\n")).unwrap();
    assert!(log_tail(&log).starts_with("11\n") && log_tail(&log).ends_with("\n30"));
    assert!(port_was_taken("listen tcp 127.0.0.1:1: bind: address already in use"));
}

async fn failure(folder: &Path, program: &Path) -> StartServerError {
    let options = DevServerOptions { database: None, ui: false, log_file: folder.join("log") };
    DevServer::start(program, options).await.unwrap_err()
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_reported_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let program = script(folder, "temporal", "echo 'unknown flag: --headless' >&2; exit 3");
    let error = failure(folder, &program).await.to_string();
    assert!(error.contains("exit status: 3") && error.ends_with("unknown flag: --headless"), "{error}");
    let absent = failure(folder, Path::new("/absent/temporal")).await.to_string();
    assert_eq!(absent, "cannot run `/absent/temporal`");
}
