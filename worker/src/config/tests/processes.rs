//! What the processes of tool servers may use.

use mandate_activities::catalog::{ProcessLimits, ServerSettings};

use super::*;

fn server(more: &str) -> (Fixture, ServerSettings) {
    let fixture = Fixture::new();
    fixture.write("mandate.toml", format!("{ROOT}\n[servers.more]\ncommand = [\"sh\"]\n{more}\n"));
    let config = fixture.load().map_err(|errors| rendered(&errors)).unwrap();
    let server = config.catalog.servers[&"more".parse().unwrap()].clone();
    (fixture, server)
}

#[test]
fn servers_run_under_the_program_beside_which_they_are_looked_for() {
    let (fixture, server) = server("");
    assert_eq!(server.supervisor, fixture.programs().join("mandate"));
}

#[test]
fn limits_of_processes_are_taken_as_written_and_zero_is_none() {
    assert_eq!(server("").1.limits, ProcessLimits::default());
    let (_, server) = server("memory_max_bytes = 536870912\ncpu_max_secs = 60\nopen_files_max = 0");
    let written = ProcessLimits {
        memory_max_bytes: Some(512 << 20),
        cpu_max_secs: Some(60),
        open_files_max: None,
        ..ProcessLimits::default()
    };
    assert_eq!(server.limits, written);
}

#[test]
fn a_limit_under_which_nothing_runs_is_refused() {
    for (key, value, lowest) in [("memory_max_bytes", 1, 16 << 20), ("open_files_max", 15, 16)] {
        let (old, new) = ("[servers.refunds]", format!("[servers.refunds]\n{key} = {value}"));
        let wanted = format!("`{key}` must be from {lowest}");
        let column = key.len() + 4;
        check("mandate.toml", old, &new, &format!("mandate.toml:6:{column}"), &[&wanted, "or 0 for no limit"]);
    }
}
