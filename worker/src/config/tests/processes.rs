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
fn what_a_server_may_answer_is_bounded_and_so_is_what_a_model_is_given_of_it() {
    assert_eq!(server("").1.answer_max_bytes, 32 << 20);
    assert_eq!(server("answer_max_bytes = 4096").1.answer_max_bytes, 4096);
    let more = "[servers.refunds]\nanswer_max_bytes = 268435457";
    check("mandate.toml", "[servers.refunds]", more, "mandate.toml:6:20", &["`answer_max_bytes` must be from 4096"]);
    let less = "[limits]\nresult_max_bytes = 1023\n[groups]";
    check("mandate.toml", "[groups]", less, "mandate.toml:3:20", &["`result_max_bytes` must be from 1024"]);
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
