//! A server with a small disk of its own: memory that is mounted where only the server sees it (`user_namespaces(7)`).
//! That needs no privilege, and the disk goes with the last process that sees it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::TestPostgres;

/// What the shell does first.
pub(super) const MOUNT: &str =
    r#"mount -t tmpfs -o "size=$SIZE,mode=700" tmpfs "$FOLDER/data" && >"$FOLDER/mounted"; "#;
/// Here this user is root, as whom PostgreSQL does not run.
const AS_NOBODY: [&str; 3] = ["--user", "--map-user=65534", "--map-group=65534"];

/// A shell that sees the disk, once it has mounted it.
pub(super) fn shell(size: &str) -> Command {
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "/bin/sh"]).env("SIZE", size);
    shell
}

/// A program, started by that shell.
pub(super) fn of_the_shell(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(AS_NOBODY).arg(program);
    command
}

/// A program that sees what the shell sees.
pub(super) fn beside(shell: u32, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &shell.to_string(), "--user", "--mount", "--preserve-credentials", "unshare"]);
    command.args(AS_NOBODY).arg(program);
    command
}

impl TestPostgres {
    /// Leaves no room on the server's disk.
    ///
    /// # Panics
    /// When it has no disk of its own.
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a disk");
        for size in [64 * 1024, 4 * 1024] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not full.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("a filler");
    }

    fn filler(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.supervisor.id(), self.data().join("filler").display()))
    }
}
