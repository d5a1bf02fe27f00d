//! The compose file is one.

use std::process::Command;

use mandate_tests::workspace_folder;

#[test]
fn the_compose_file_satisfies_the_compose_schema() {
    let program = std::env::var_os("MANDATE_CHECK_JSONSCHEMA")
        .expect("MANDATE_CHECK_JSONSCHEMA names the program check-jsonschema; `tools/test` installs it and sets this");
    let check = |file: &std::path::Path| {
        Command::new(&program).args(["--builtin-schema", "vendor.compose-spec"]).arg(file).output().unwrap()
    };
    let compose = workspace_folder().join("docker-compose.yml");
    let said = check(&compose);
    assert!(said.status.success(), "{said:?}");
    // A wrong key is noticed, so the check above says something.
    let broken = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    let text = std::fs::read_to_string(&compose).unwrap().replacen("image:", "imagine:", 1);
    std::fs::write(broken.path(), text).unwrap();
    assert!(!check(broken.path()).status.success());
}
