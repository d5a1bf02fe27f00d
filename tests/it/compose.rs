//! The compose file is one.

use std::process::Command;

use mandate_tests::workspace_folder;

use crate::web_ui::prepared;

#[test]
fn the_compose_file_satisfies_the_compose_schema() {
    let python = prepared("MANDATE_PYTHON");
    let check = |file: &std::path::Path| {
        let arguments = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"];
        Command::new(&python).args(arguments).arg(file).output().unwrap()
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
