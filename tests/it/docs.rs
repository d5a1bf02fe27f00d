//! What the documents tell a person to type does what they say. A block directly after the line `<!-- test -->` is
//! taken as it stands.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use mandate_domain::{PersonId, RunChain, Verdict, instruction::Instruction};
use mandate_tests::{Draft, Issuer, Process, Said, Scenario, keys, program, say, server, until, workspace_folder};
use mandate_workflows::lenient::Lenient;
use serde_json::Value;
use tempfile::TempDir;

/// Said before the block that follows is one for the test.
const MARK: &str = "<!-- test -->\n```sh\n";
/// The same for a block that is typed on the server that knows its callers: `principal.rs` runs it.
const PRINCIPALS_MARK: &str = "<!-- test with principals -->\n```sh\n";
/// How long the demo, the quickstart or a page may take.
const LONG: Duration = Duration::from_mins(2);
/// How long the page about approvals may take, on which six runs wait for people.
const LONGER: Duration = Duration::from_mins(4);

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

/// The blocks of a document for the server that knows its callers, in order.
pub(super) fn blocks_with_principals(document: &str) -> Vec<String> {
    blocks_after(&read(document), PRINCIPALS_MARK)
}

/// Checks that what a page shows is what was printed, up to where it leaves something out.
fn check_shown(page: &str, said: &str) {
    for block in blocks_after(page, "```text\n") {
        for line in block.lines().map(|line| line.split('…').next().unwrap()) {
            assert!(said.contains(line), "`{line}` is not what was printed:\n{said}");
        }
    }
}

/// Commands that a text tells to type and that no marked block runs: blocks without a mark, and commands between
/// backticks that are not the beginning of one in a block.
pub(super) fn unrun(text: &str) -> Vec<String> {
    let marked = [MARK, PRINCIPALS_MARK].map(|mark| blocks_after(text, mark).concat()).concat();
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
    programs: PathBuf,
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
        Self { folder, programs, env }
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
        // Runs of other tests may wait on the same server.
        let waiting: Value = serde_json::from_str(&said).unwrap();
        let own = |one: &&Value| one["workflow_id"] == "refund-o1";
        let request = waiting.as_array().unwrap().iter().find(own).unwrap_or_else(|| panic!("{said}"));
        desk.types(&approve.replace(&shown, request["request_id"].as_str().unwrap())).await.ok();
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
        check_shown(&page, &said);
        nothing_is_left(desk.path()).await;
    });
}

#[test]
fn each_policy_and_each_case_on_the_page_about_policies_can_be_used() {
    mandate_tests::run(async {
        let page = read("docs/policies.md");
        let example = Scenario::new("policies-page-texts").await;
        // Four eyes need people who are proved.
        keys::accept_keys(&example.path(""));
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

/// A program by which a person gets tokens. It leaves the nonce, and this process signs.
struct Login {
    issuer: Issuer,
    folder: PathBuf,
    person: &'static str,
}

impl Login {
    /// Puts `company-login` on a desk.
    fn on(desk: &Desk, person: &'static str) -> Self {
        let (issuer, folder) = (Issuer::new(), desk.path().with_extension("login"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("keys.json"), issuer.key_set().to_string()).unwrap();
        let script = format!(
            "#!/bin/sh\nset -eu\ncd '{}'\n\
             if [ \"$*\" = --print-keys ]; then exec cat keys.json; fi\n\
             printf '%s' \"$MANDATE_NONCE\" > nonce.new\nmv nonce.new nonce\n\
             until [ -f token ]; do sleep 0.1; done\ncat token\n",
            folder.display()
        );
        let program = desk.programs.join("company-login");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { issuer, folder, person }
    }

    /// Signs for the nonce that somebody left.
    fn signs(&self) {
        let Ok(nonce) = fs::read_to_string(self.folder.join("nonce")) else { return };
        fs::remove_file(self.folder.join("nonce")).unwrap();
        let token = self.issuer.sign(&Draft::proving(self.person, &nonce));
        fs::write(self.folder.join("token.new"), token).unwrap();
        fs::rename(self.folder.join("token.new"), self.folder.join("token")).unwrap();
    }
}

#[test]
fn the_page_about_approvals_runs_from_top_to_bottom() {
    mandate_tests::run(async {
        let page = read("docs/approvals.md");
        assert_eq!(unrun(&page), Vec::<String>::new(), "commands that nobody runs: mark their blocks");
        let desk = Desk::new("approvals-page").await;
        let example = Scenario::new("approvals-page-example").await;
        desk.types(&format!("mkdir examples; cp -r {} examples/refunds", example.path("").display())).await.ok();
        let login = Login::on(&desk, "eve@acme.example");
        let blocks = blocks("docs/approvals.md");
        let script = format!("trap 'kill ${{!-}} 2>/dev/null || true' EXIT\n{}", blocks.concat());
        let mut shell = desk.starts(&script, desk.path().with_extension("log")).await;
        let ended = mandate_tests::until_within(LONGER, async || {
            login.signs();
            shell.ended()
        })
        .await;
        let said = shell.log();
        assert_eq!(ended, Some(0), "{said}");
        check_shown(&page, &said);
        // What one run after the other came to.
        let answers = ["I refunded 500.00 EUR", "I refunded 90.00 EUR for order o6", "was rejected by a finance lead"];
        for part in answers.into_iter().chain(["\"amount_cents\":8000", "jwt iss=", "halted by kim@acme.example"]) {
            assert!(said.contains(part), "`{part}` is missing:\n{said}");
        }
        assert_eq!((said.matches("exit code 2\n").count(), said.matches("exit code 3\n").count()), (1, 3), "{said}");
        assert!(said.contains("holds") && !said.contains("does not hold"), "{said}");
        nothing_is_left(desk.path()).await;
    });
}

#[test]
fn each_policy_and_each_setting_on_the_page_about_approvals_can_be_used() {
    mandate_tests::run(async {
        let page = read("docs/approvals.md");
        let example = Scenario::new("approvals-page-texts").await;
        let before = fs::read_to_string(example.path("mandate.toml")).unwrap();
        let claims = "[identity]\naccept = [\"claimed\"]\n";
        assert!(before.contains(claims), "{before}");
        let check = async |what: &str| {
            let said = example.mandate(&["check"]).await;
            assert_eq!(said.code, 0, "{what}\n{said:?}");
        };
        let settings: Vec<_> = blocks_after(&page, "```toml\n");
        assert!(settings.iter().all(|block| block.starts_with("[identity]\n")) && settings.len() == 3, "{settings:#?}");
        for identity in settings {
            // At the end, since tables may follow.
            example.write("mandate.toml", &(before.replace(claims, "") + "\n" + &identity));
            check(&identity).await;
        }
        fs::remove_dir_all(example.path("policies")).unwrap();
        let policies = blocks_after(&page, "```cedar\n");
        assert!(policies.len() >= 2, "{policies:#?}");
        for policy in policies {
            example.write("policies/page.cedar", &policy);
            check(&policy).await;
        }
    });
}

#[test]
fn the_statements_on_the_page_about_approvals_are_what_is_signed() {
    let shown: Vec<Value> = blocks_after(&read("docs/approvals.md"), "```json\n")
        .iter()
        .map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}")))
        .collect();
    let kinds: Vec<_> = shown.iter().map(|one| one["mandate"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["decision/1", "instruction/1", "start/1"]);
    for one in &shown {
        let text = |key: &str| one[key].as_str();
        let some = |key: &str| text(key).unwrap_or_else(|| panic!("`{key}` of {one}"));
        let statement = match some("mandate") {
            "decision/1" => {
                let (digest, verdict) = (some("request_digest").parse().unwrap(), Verdict::Approve);
                let (request, comment) = (some("request"), text("comment"));
                keys::SaysOf { request, digest: &digest, verdict, comment, arguments: None }.statement()
            }
            "instruction/1" => {
                let (workflow_id, first_run_id) = (some("workflow_id").to_owned(), some("first_run_id").to_owned());
                let kind = serde_json::from_value(one["kind"].clone()).unwrap();
                let run = RunChain { workflow_id, first_run_id };
                keys::instruction(&run, some("message_id"), kind, text("about"), text("text"))
            }
            _ => keys::start(some("agent"), some("prompt"), some("on_behalf_of"), some("workflow_id")),
        };
        let signed = statement.bytes(&PersonId::parse(some("by")).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&signed).unwrap(), *one);
    }
}

/// What a signal of this name makes of an input.
fn received(signal: &str, input: &str) -> Result<(), String> {
    let input = Lenient::json(input.as_bytes().to_vec());
    match signal {
        "approve" => input.decision(Verdict::Approve).map(drop),
        "reject" => input.decision(Verdict::Reject).map(drop),
        "answer" => input.answer().map(drop),
        "steer" => input.steer().map(drop),
        "pause" => input.plain(Instruction::Pause).map(drop),
        "resume" => input.plain(Instruction::Resume).map(drop),
        "resolve" => input.resolution().map(drop),
        "halt" => input.halt().by.map(drop).ok_or_else(|| "nobody is named".to_owned()),
        other => Err(format!("there is no signal `{other}`")),
    }
}

#[test]
fn the_messages_on_the_page_about_approvals_are_understood() {
    let page = read("docs/approvals.md");
    let part = page.split("\n## With nothing but Temporal\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut signals = Vec::new();
    for row in part.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let input = spans(cells[2]).remove(0);
        for signal in spans(cells[1]) {
            assert_eq!(received(&signal, &input), Ok(()), "{row}");
            signals.push(signal);
        }
    }
    signals.sort_unstable();
    signals.dedup();
    assert_eq!(signals, ["answer", "approve", "halt", "pause", "reject", "resolve", "resume", "steer"]);
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
