//! The programs under test, from the build that the tests belong to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the workspace.
#[must_use]
pub fn workspace_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The folder of the profile that the tests were built in, such as `target/debug`.
#[must_use]
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    test.parent().and_then(Path::parent).expect("<target>/<profile>/deps/<test>").to_owned()
}

/// The target folder that the tests were built in.
#[must_use]
pub fn target_folder() -> PathBuf {
    profile_folder().parent().expect("<target>/<profile>").to_owned()
}

/// A program of this workspace. The first call brings all of them up to date, which does nothing where everything was
/// built before. Where `MANDATE_PROGRAM` names a `mandate`, that one and those beside it are taken as they are.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    if let Some(given) = std::env::var_os("MANDATE_PROGRAM").map(PathBuf::from) {
        let program = given.with_file_name(name);
        assert!(program.exists(), "`{}` is not there", program.display());
        return program;
    }
    BUILT.get_or_init(|| {
        let built = cargo(&["build", "--workspace", "--bins", "--quiet"]).output().expect("cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    });
    let program = profile_folder().join(name);
    assert!(program.exists(), "`{}` was not built", program.display());
    program
}

/// Cargo in this workspace, on the same target folder and profile.
#[must_use]
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).arg("--target-dir").arg(target_folder()).current_dir(workspace_folder());
    // What Cargo tells a test of its own package. Build scripts that watch these would build everything anew each time.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") || name_text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
    if profile_folder().ends_with("release") {
        command.arg("--release");
    }
    command
}
