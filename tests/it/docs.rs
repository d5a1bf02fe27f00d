//! What the documents tell a person to type does what they say. A block directly after the line `<!-- test -->` is
//! taken as it stands.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use mandate_tests::{Process, Said, Scenario, program, say, server, until, workspace_folder};
use tempfile::TempDir;

/// Said before the block that follows is one for the test.
const MARK: &str = "<!-- test -->\n```sh\n";
/// How long the demo and the quickstart may take.
const LONG: Duration = Duration::from_mins(2);

/// The marked blocks of a document, in order.
pub(super) fn blocks(document: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace_folder().join(document)).unwrap();
    let parts = text.split(MARK).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// An empty folder, and the programs that a person has on `PATH`.
pub(super) struct Desk {
    folder: TempDir,
    env: Vec<(String, String)>,
}

impl Desk {
    pub(super) async fn new(name: &str) -> Self {
        let server = server().await;
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&server.folder).unwrap();
        let programs = tempfile::Builder::new().prefix("bin-").tempdir_in(&server.folder).unwrap().keep();
        symlink(server.cli(), programs.join("temporal")).unwrap();
        for name in ["mandate", "refunds-mcp"] {
            symlink(program(name), programs.join(name)).unwrap();
        }
        let mut env = server.env();
        env.push(("PATH".to_owned(), format!("{}:{}", programs.display(), std::env::var("PATH").unwrap())));
        Self { folder, env }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn env(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Runs a script to its end.
    pub(super) async fn types(&self, script: &str) -> Said {
        say(Path::new("/bin/sh"), &["-euc", script], &self.env(), self.path()).await
    }

    /// Starts a script of which something may run on in the background.
    async fn starts(&self, script: &str, log: PathBuf) -> Process {
        Process::start(Path::new("/bin/sh"), &["-euc", script], &self.env(), self.path(), log).await
    }
}

#[test]
fn the_quickstart_runs_from_top_to_bottom() {
    mandate_tests::run(async {
        let desk = Desk::new("quickstart").await;
        let blocks = blocks("docs/quickstart.md");
        assert!(blocks.len() >= 8, "{blocks:#?}");
        // A block that fails must not leave the worker behind.
        let script = format!("trap 'kill ${{!-}} 2>/dev/null || true' EXIT\n{}", blocks.concat());
        let log = desk.path().with_extension("log");
        let mut shell = desk.starts(&script, log).await;
        let ended = mandate_tests::until_within(LONG, async || shell.ended()).await;
        let said = shell.log();
        assert_eq!(ended, Some(0), "{said}");
        assert!(said.contains("45.00 EUR for order o2"), "{said}");
        assert!(said.contains("desk-1") && said.contains("holds"), "{said}");
        assert!(!said.contains("does not hold"), "{said}");
        assert_eq!(processes_of(desk.path()), Vec::<String>::new());
    });
}

#[test]
fn the_readme_releases_a_refund_by_hand() {
    mandate_tests::run(async {
        let desk = Desk::new("by-hand").await;
        let example = Scenario::new("mandate").await;
        fs::create_dir(desk.path().join("examples")).unwrap();
        symlink(example.path(""), desk.path().join("examples/refunds")).unwrap();
        let blocks = blocks("README.md");
        let [worker, start, inbox, approve, look] = &blocks[..] else { panic!("{blocks:#?}") };

        let worker = desk.starts(&format!("exec {worker}"), example.path("worker.log")).await;
        until("the worker polls", async || worker.log().contains("worker ready").then_some(())).await;
        desk.types(start).await.ok();
        until("the inbox shows the run", async || {
            let listed = desk.types(inbox).await.ok();
            listed.contains("refund-o1").then_some(())
        })
        .await;
        let said = desk.types("mandate approvals --folder examples/refunds --output json").await.ok();
        let shown = printed_id(approve).unwrap();
        let request = said.split('"').find(|word| word.starts_with("r1-")).unwrap_or_else(|| panic!("{said}"));
        desk.types(&approve.replace(&shown, request)).await.ok();
        let said = desk.types(look).await.ok();
        for part in ["500.00 EUR for order o1", "bo@acme.example", "holds"] {
            assert!(said.contains(part), "`{part}` is missing:\n{said}");
        }
        assert_eq!(example.payments().await.len(), 1);
        worker.stop().await;
    });
}

/// The request id that a document shows, which is another in every run.
fn printed_id(block: &str) -> Option<String> {
    block.split('"').find(|word| word.starts_with("r1-")).map(str::to_owned)
}

#[test]
fn the_demo_approves_by_itself_and_leaves_no_worker_behind() {
    mandate_tests::run(async {
        let desk = Desk::new("demo").await;
        fs::create_dir(desk.path().join("target")).unwrap();
        symlink(program("mandate").parent().unwrap(), desk.path().join("target/debug")).unwrap();
        fs::create_dir(desk.path().join("examples")).unwrap();
        symlink(workspace_folder().join("examples/refunds"), desk.path().join("examples/refunds")).unwrap();
        let blocks = blocks("examples/refunds/README.md");
        let [typed] = &blocks[..] else { panic!("{blocks:#?}") };
        assert!(typed.ends_with("mandate demo\n"), "{typed}");

        let refused = desk.types(typed).await;
        assert_eq!(refused.code, 2, "there is no terminal: {refused:?}");
        assert!(refused.stderr.contains("--approve"), "{refused:?}");

        let state = desk.path().join("state");
        let approving = format!("{} --approve --state {}", typed.trim_end(), state.display());
        let shown = desk.types(&approving).await.ok();
        for part in ["500.00 EUR for order o1", "Timeline", "bo@acme.example", "Audit verdict", "holds"] {
            assert!(shown.contains(part), "`{part}` is missing:\n{shown}");
        }
        assert_eq!(processes_of(&state), Vec::<String>::new());
    });
}

/// Command lines of running processes that name a folder or work in it.
fn processes_of(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // It may have ended in between; those of others cannot be read.
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_in = fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let numbered = process.file_name().to_string_lossy().chars().all(|c| c.is_ascii_digit());
        if numbered && (command.contains(folder.to_str().unwrap()) || works_in.starts_with(folder)) {
            found.push(command);
        }
    }
    found
}
