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

fn read(document: &str) -> String {
    fs::read_to_string(workspace_folder().join(document)).unwrap()
}

/// The blocks of a text that begin in a certain way, in order.
fn blocks_after(text: &str, begin: &str) -> Vec<String> {
    text.split(begin).skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// The marked blocks of a document, in order.
pub(super) fn blocks(document: &str) -> Vec<String> {
    blocks_after(&read(document), MARK)
}

/// Commands that a text tells to type and that no marked block runs: blocks without a mark, and commands between
/// backticks that are not the beginning of one in a block.
fn unrun(text: &str) -> Vec<String> {
    let marked = blocks_after(text, MARK).concat();
    let (blocks, prose): (Vec<_>, Vec<_>) = text.split("\n```").enumerate().partition(|(index, _)| index % 2 == 1);
    let shell = blocks.into_iter().filter_map(|(_, block)| block.strip_prefix("sh\n"));
    let mut unrun: Vec<String> = shell.filter(|block| !marked.contains(block)).map(str::to_owned).collect();
    for (_, prose) in prose {
        let spans = prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "));
        let commands = spans.filter(|span| span.starts_with("mandate "));
        unrun.extend(commands.filter(|command| !marked.lines().any(|line| line.contains(command.as_str()))));
    }
    unrun
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
        nothing_is_left(desk.path()).await;
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

#[test]
fn the_page_about_policies_runs_from_top_to_bottom() {
    mandate_tests::run(async {
        let page = read("docs/policies.md");
        assert_eq!(unrun(&page), Vec::<String>::new(), "commands that nobody runs: mark their blocks");
        let desk = Desk::new("policies-page").await;
        let example = Scenario::new("policies-page-example").await;
        let guardrails = workspace_folder().join("examples/guardrails");
        let (example, guardrails) = (example.path(""), guardrails.display());
        let examples =
            format!("mkdir examples; cp -r {} examples/refunds; ln -s {guardrails} examples", example.display());
        desk.types(&examples).await.ok();
        let blocks = blocks("docs/policies.md");
        let script = format!("trap 'kill ${{!-}} 2>/dev/null || true' EXIT\n{}", blocks.concat());
        let mut shell = desk.starts(&script, desk.path().with_extension("log")).await;
        let ended = mandate_tests::until_within(LONG, async || shell.ended()).await;
        let said = shell.log();
        assert_eq!(ended, Some(0), "{said}");
        for part in ["active now: version 2", "active now: version 3", ": nothing would end differently", "pays twice"]
        {
            assert!(said.contains(part), "`{part}` is missing:\n{said}");
        }
        assert_eq!(said.matches("exit code 1\n").count(), 2, "{said}");
        // What the page shows is what is printed, up to where it leaves something out.
        for block in blocks_after(&page, "```text\n") {
            for line in block.lines().map(|line| line.split('…').next().unwrap()) {
                assert!(said.contains(line), "`{line}` is not what was printed:\n{said}");
            }
        }
        nothing_is_left(desk.path()).await;
    });
}

#[test]
fn each_policy_and_each_case_on_the_page_about_policies_can_be_used() {
    mandate_tests::run(async {
        let page = read("docs/policies.md");
        let example = Scenario::new("policies-page-texts").await;
        let cases = blocks_after(&page, "```toml\n");
        assert!(!cases.is_empty());
        example.write("policies/tests/refunds.toml", &cases.concat());
        example.mandate(&["policy", "test"]).await.ok();
        fs::remove_dir_all(example.path("policies")).unwrap();
        let policies = blocks_after(&page, "```cedar\n");
        assert!(policies.len() > 5, "{policies:#?}");
        for policy in policies {
            example.write("policies/page.cedar", &policy);
            let said = example.mandate(&["check"]).await;
            assert_eq!(said.code, 0, "{policy}\n{said:?}");
        }
    });
}

#[test]
fn the_guardrails_are_checked_tested_and_explained() {
    mandate_tests::run(async {
        let page = read("examples/guardrails/README.md");
        assert_eq!(unrun(&page), Vec::<String>::new());
        let desk = Desk::new("guardrails").await;
        symlink(workspace_folder().join("examples"), desk.path().join("examples")).unwrap();
        let said = desk.types(&blocks_after(&page, MARK).concat()).await.ok();
        for part in ["acme/office/assistant", " cases passed", "contact.stays"] {
            assert!(said.contains(part), "`{part}` is missing:\n{said}");
        }
        for word in page.split('`').filter(|word| word.starts_with("policies/")) {
            assert!(workspace_folder().join("examples/guardrails").join(word).exists(), "there is no {word}");
        }
    });
}

#[test]
fn a_command_on_a_page_that_nobody_runs_is_found() {
    let ran = format!("Type `mandate check`:\n\n{MARK}mandate check --folder x\n```\n");
    assert_eq!(unrun(&ran), Vec::<String>::new());
    assert_eq!(unrun(&ran.replace("<!-- test -->\n", "")), ["mandate check --folder x", "mandate check"]);
    assert_eq!(unrun(&format!("{ran}\nThen `mandate policy\ntest`.\n")), ["mandate policy test"]);
    assert_eq!(unrun(&format!("{ran}\n```sh\nrm x\n```\n")), ["rm x"]);
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
        nothing_is_left(&state).await;
    });
}

/// Whatever was started in a folder has ended. What was killed is gone a moment later.
async fn nothing_is_left(folder: &Path) {
    until("every process of the folder is gone", async || processes_of(folder).is_empty().then_some(())).await;
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
