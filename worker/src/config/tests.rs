//! Bad folders and what is said of them; the example folder and what becomes of it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use mandate_activities::catalog::{EnvValue, ModelSettings, SecretRef};
use mandate_domain::{
    AgentName, PersonId, ToolName,
    policy::{PolicyAction, PolicyOutcome, PolicyRequest},
};
use serde_json::json;
use tempfile::TempDir;

use super::*;

mod cases;
mod classes;
mod identity;
mod notify;
mod processes;
mod remotes;
mod store;
mod undo;

const ROOT: &str = r#"
[groups]
finance-leads = ["bo@acme.example"]

[servers.refunds]
command = ["refunds-mcp", "--database", "var/payments.db"]

[models.support]
provider = "scripted"
script = "script.toml"

[identity]
accept = ["principal"]
workers = ["worker-1"]
"#;

const TOOL: &str = r#"
name = "orders.read"
description = "Read one order."
owner = "support@acme.example"
read_only = true

[mcp]
server = "refunds"
tool = "read_order"

[input_schema]
type = "object"
"#;

const AGENT: &str = r#"
purpose = "Answers."
owner = "support@acme.example"
connected_systems = ["orders"]
memory = "none"
permission_scope = "reads"
escalation_path = "support"
model = "support"
tools = ["orders.read"]
"#;

const TOOL_FILE: &str = "tools/orders.read.toml";
const AGENT_FILE: &str = "tenants/acme/support/refunds/agent.toml";
const INSTRUCTIONS_FILE: &str = "tenants/acme/support/refunds/instructions.md";

/// An operating folder that loads, with a folder of programs beside it.
struct Fixture {
    at: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { at: tempfile::tempdir().unwrap() };
        fixture.write("mandate.toml", ROOT);
        fixture.write(TOOL_FILE, TOOL);
        fixture.write(AGENT_FILE, AGENT);
        fixture.write(INSTRUCTIONS_FILE, "Answer.");
        fixture.write("script.toml", "");
        write_program(&fixture.programs().join("refunds-mcp"));
        fixture
    }

    fn folder(&self) -> PathBuf {
        self.at.path().join("folder")
    }

    fn programs(&self) -> PathBuf {
        self.at.path().join("programs")
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let full = self.folder().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, text).unwrap();
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.folder(), &self.programs())
    }

    fn errors(&self) -> ConfigErrors {
        self.load().map(|config| config.summary()).unwrap_err()
    }
}

fn write_program(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn rendered(errors: &ConfigErrors) -> String {
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    handler.with_width(200).render_report(&mut text, errors).unwrap();
    text
}

/// Replaces `old` by `new` in one file of a good folder and expects one problem: the line starts with `place`, and
/// both forms contain each of `words`.
fn check(file: &str, old: &str, new: &str, place: &str, words: &[&str]) {
    let fixture = Fixture::new();
    let before = fs::read_to_string(fixture.folder().join(file)).unwrap_or_default();
    assert!(before.contains(old), "{file} has no {old:?}");
    fixture.write(file, before.replacen(old, new, 1));
    let Err(errors) = fixture.load() else { panic!("{file} loads with {new:?}") };
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with(&format!("{}/{place}: ", fixture.folder().display())), "{place}: {lines:#?}");
    let report = rendered(&errors);
    assert!(report.contains(file), "{report}");
    for word in words {
        assert!(lines[0].contains(word), "{word}: {lines:#?}");
        assert!(report.contains(word), "{word}: {report}");
    }
}

#[test]
fn the_good_folder_loads() {
    let config = Fixture::new().load().map_err(|errors| rendered(&errors)).unwrap();
    assert_eq!(config.summary().agents.len(), 1);
}

#[test]
fn a_bad_root_file_is_reported_where_it_is_bad() {
    let check = |old, new, place: &str, words: &[&str]| check("mandate.toml", old, new, place, words);
    check("[groups]", "[group]", "mandate.toml:2:2", &["unknown key `group`", "did you mean `groups`?"]);
    check("script =", "scirpt = 1\nscript =", "mandate.toml:10:1", &["unknown key `scirpt`", "did you mean `script`?"]);
    check(
        "[groups]",
        "[limits]\nturns_max = \"9\"\n[groups]",
        "mandate.toml:3:13",
        &["`turns_max` must be an integer"],
    );
    check("[groups]", "[limits]\nturns_max = -1\n[groups]", "mandate.toml:3:13", &["whole number from 0"]);
    check("[groups]", "[limits]\nturns_max = 0\n[groups]", "mandate.toml:3:13", &["`turns_max` must be from 1"]);
    check(
        "[groups]",
        "[limits]\nturn_max = 1\n[groups]",
        "mandate.toml:3:1",
        &["`turn_max`", "did you mean `turns_max`?"],
    );
    check("\"bo@acme.example\"", "7", "mandate.toml:3:18", &["`finance-leads` must be an array of strings"]);
    check("\"bo@acme.example\"", "", "mandate.toml:3:17", &["`finance-leads` has no members"]);
    check("finance-leads", "Finance", "mandate.toml:3:1", &["`Finance` is not a valid group name"]);
    check("refunds-mcp", "refunds-mpc", "mandate.toml:6:12", &["`refunds-mpc` was not found", "programs", "PATH"]);
    check("refunds-mcp", "bin/refunds", "mandate.toml:6:12", &["`bin/refunds` was not found", "folder/bin/refunds"]);
    check("scripted", "script", "mandate.toml:9:12", &["unknown provider `script`", "did you mean `scripted`?"]);
    check("script.toml", "none.toml", "mandate.toml:10:10", &["file `none.toml` does not exist"]);
    check("script = ", "#", "mandate.toml:8:1", &["`script` is missing"]);
    check("[groups]", "[groups", "mandate.toml:2:8", &["not valid TOML"]);
    let at = "mandate.toml:2:11";
    check("[groups]", "profile = \"prodution\"\n[groups]", at, &["`prodution`", "did you mean `production`?"]);
    check("[groups]", "profile = true\n[groups]", at, &["`profile` must be a string"]);
}

#[test]
fn a_bad_tool_is_reported_where_it_is_bad() {
    let check = |old: &str, new: &str, place: &str, words: &[&str]| {
        check(TOOL_FILE, old, new, &format!("{TOOL_FILE}:{place}"), words);
    };
    check("read_only", "readonly", "5:1", &["unknown key `readonly`", "did you mean `read_only`?"]);
    check("true", "\"yes\"", "5:13", &["`read_only` must be `true` or `false`, not a string"]);
    check("owner", "#", "1:1", &["`owner` is missing"]);
    check("\"refunds\"", "\"refund\"", "8:10", &["unknown server `refund`", "did you mean `refunds`?"]);
    check("name = \"orders.read\"", "name = \"orders.raed\"", "2:8", &["`orders.raed`", "rename", "`orders.read`"]);
    check(
        "[mcp]",
        "check = \"orders.reed\"\n[mcp]",
        "7:9",
        &["unknown tool `orders.reed`", "did you mean `orders.read`?"],
    );
    let own_check = "check = \"orders.read\"\ninput_schema = { type = \"object\", additionalProperties = false }\n";
    let own_check = format!("{own_check}mcp = {{ server = \"refunds\", tool = \"read_order\" }}\n#");
    check(&TOOL[TOOL.find("[mcp]").unwrap()..], &own_check, "7:9", &["does not take", "idempotency_key"]);
    check("[mcp]", "timeout_secs = 301\n[mcp]", "7:16", &["from 1 to 300", "tool_timeout_max_secs"]);
    check("[mcp]", "settles_within_secs = 1\n[mcp]", "7:23", &["there is no `check`"]);
    check("[mcp]", "destructive = true\n[mcp]", "7:15", &["`read_only` tool cannot be `destructive`"]);
    check("[mcp]", "builtin = \"current_time\"\n[mcp]", "7:11", &["not both"]);
    check(
        "[mcp]\nserver = \"refunds\"\ntool = \"read_order\"",
        "builtin = \"curent_time\"",
        "7:11",
        &["`curent_time`", "did you mean `current_time`?"],
    );
    check("\"object\"", "\"string\"", "11:1", &["must have `type = \"object\"`"]);
    check("\"object\"", "\"object\"\nrequired = 5", "11:1", &["is not a JSON Schema"]);
}

#[test]
fn a_bad_agent_is_reported_where_it_is_bad() {
    let check = |old: &str, new: &str, place: &str, words: &[&str]| {
        check(AGENT_FILE, old, new, &format!("{AGENT_FILE}:{place}"), words);
    };
    check("orders.read", "orders.reed", "9:10", &["unknown tool `orders.reed`", "did you mean `orders.read`?"]);
    check("model = \"support\"", "model = \"suport\"", "8:9", &["unknown model `suport`", "did you mean `support`?"]);
    check("[\"orders.read\"]", "[\"orders.read\", \"orders.read\"]", "9:25", &["listed twice"]);
    check(
        "tools =",
        "limits = { turns_max = 51 }\ntools =",
        "9:24",
        &["`turns_max` is 51", "limit of 50", "only narrow"],
    );
    for key in
        ["purpose", "owner", "connected_systems", "memory", "permission_scope", "escalation_path", "model", "tools"]
    {
        check(&format!("\n{key} ="), "\n#", "1:1", &[&format!("`{key}` is missing")]);
    }
    check("\"none\"", "\"\"", "5:10", &["`memory` is empty"]);
}

#[test]
fn a_bad_folder_is_reported_by_its_path() {
    let check = |path: &str, text: &[u8], words: &[&str]| {
        let fixture = Fixture::new();
        fixture.write(path, text);
        let errors = fixture.errors();
        let (lines, report) = (errors.plain_lines(), rendered(&errors));
        assert_eq!(lines.len(), 1, "{lines:#?}");
        for word in words {
            assert!(lines[0].contains(word) && report.contains(word), "{word}: {lines:#?}\n{report}");
        }
    };
    check("tenants/acme/agent.toml", AGENT.as_bytes(), &["tenants/acme/agent.toml", "wrong depth", "<unit>"]);
    check("tenants/acme/a/b/c/agent.toml", AGENT.as_bytes(), &["acme/a/b/c/agent.toml", "wrong depth"]);
    check("tenants/Acme/a/b/instructions.md", b"", &["tenants/Acme/a/b/agent.toml", "missing"]);
    check(INSTRUCTIONS_FILE, b" \n", &[INSTRUCTIONS_FILE, "empty"]);
    check(INSTRUCTIONS_FILE, "a".repeat(65 * 1024).as_bytes(), &[INSTRUCTIONS_FILE, "longer than 65536 bytes"]);
    check(INSTRUCTIONS_FILE, b"good\nbad \xff", &["instructions.md:2:5", "not UTF-8"]);
    check(AGENT_FILE, b"\xff", &["agent.toml:1:1", "not UTF-8"]);
    check("policies/a.cedar", b"\n\xff", &["policies/a.cedar:2:1", "not UTF-8"]);
}

#[test]
fn a_folder_without_a_root_file_says_how_to_start() {
    let empty = tempfile::tempdir().unwrap();
    for folder in [empty.path().to_owned(), empty.path().join("none")] {
        let errors = Config::load(&folder, empty.path()).map(|config| config.summary()).unwrap_err();
        let line = errors.plain_lines().join("\n");
        assert!(line.contains("mandate.toml: the file is missing") && line.contains("examples/refunds"), "{line}");
    }
}

#[test]
fn two_tools_with_one_wire_name_collide() {
    let fixture = Fixture::new();
    fixture.write("tools/orders_read.toml", TOOL.replace("orders.read", "orders_read"));
    let lines = fixture.errors().plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for word in ["tools/orders_read.toml:2:8", "`orders_read`", "`orders.read`", "rename"] {
        assert!(lines[0].contains(word), "{word}: {lines:#?}");
    }
}

#[test]
fn a_check_tool_that_changes_something_is_refused() {
    let fixture = Fixture::new();
    let other = TOOL.replace("orders.read", "orders.close").replace("read_only = true", "check = \"orders.status\"");
    fixture.write("tools/orders.close.toml", other);
    fixture.write("tools/orders.status.toml", TOOL.replace("orders.read", "orders.status").replace("true", "false"));
    let lines = fixture.errors().plain_lines();
    assert!(lines.iter().any(|line| line.contains("`orders.status` is not `read_only`")), "{lines:#?}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let fixture = Fixture::new();
    fixture.write("mandate.toml", ROOT.replace("[groups]", "[grops]").replace("script.toml", "none.toml"));
    fixture.write(TOOL_FILE, TOOL.replace("\"refunds\"", "\"other\""));
    fixture.write(AGENT_FILE, AGENT.replace("memory", "memry").replace("orders.read", "none"));
    let errors = fixture.errors();
    assert_eq!(errors.problems().len(), 6, "{:#?}", errors.plain_lines());
    assert!(errors.to_string().ends_with("6 problems"));
}

#[test]
fn a_plain_secret_is_refused_and_never_shown() {
    let secret = "sk-live-0123456789";
    for (model, also) in [
        (format!("provider = \"openai\"\nbase_url = \"https://x.example\"\nmodel = \"m\"\napi_key = \"{secret}\""), ""),
        (
            format!("provider = \"openai\"\nbase_url = \"https://x.example\"\nmodel = \"m\"\napi_key = [\"{secret}\"]"),
            "",
        ),
        (format!("provider = \"openai\"\nbase_url = \"https://u:{secret}@x.example\"\nmodel = \"m\""), ""),
        (format!("provider = \"openai\"\nbase_url = \"https://x.example\"\nmodel = \"m\"\napi_key = {secret}"), ""),
        ("provider = \"nobody\"".to_owned(), "[store]\naddress_key = \"sk-live-0123456789\"\n"),
        (
            "provider = \"nobody\"".to_owned(),
            "[servers.b]\ncommand = [\"sh\"]\nenv = { TOKEN = \"sk-live-0123456789\" }\n",
        ),
    ] {
        let fixture = Fixture::new();
        let root = ROOT.replace("provider = \"scripted\"\nscript = \"script.toml\"", &model);
        fixture.write("mandate.toml", format!("{also}{root}"));
        let errors = fixture.errors();
        let all = format!("{}\n{}\n{errors:?}", rendered(&errors), errors.plain_lines().join("\n"));
        assert!(!all.contains(secret) && !all.contains("0123456789"), "{all}");
    }
    check(
        "mandate.toml",
        "[groups]",
        "[store]\naddress_key = \"plain\"\n[groups]",
        "mandate.toml:3:15",
        &["a secret reference is expected", "env:NAME"],
    );
}

#[test]
fn values_are_taken_as_written() {
    let fixture = Fixture::new();
    let more = "
[store]
path = \"data/m.db\"
address_key = \"file:key\"
[temporal]
task_queue = \"other\"
[limits]
turns_max = 9
[servers.shell]
command = [\"sh\", \"-c\", \"true\"]
env = { PLAIN = \"a\", SECRET = \"env:B\" }
connect_timeout_secs = 5
[models.live]
provider = \"openai\"
base_url = \"https://x.example/v1/\"
model = \"m\"
api_key = \"env:KEY\"
price = { input_micros_per_million = 1, output_micros_per_million = 2 }
";
    fixture.write("mandate.toml", format!("{ROOT}{more}"));
    let config = fixture.load().map_err(|errors| rendered(&errors)).unwrap();
    let folder = fixture.folder().canonicalize().unwrap();
    assert_eq!(config.store.place, StoreAt::File(folder.join("data/m.db")));
    assert_eq!(config.store.address_keys, AddressKeys::One(SecretRef::File(folder.join("key"))));
    assert_eq!((config.task_queue.as_str(), config.limits.turns_max), ("other", 9));
    let shell = &config.catalog.servers[&"shell".parse().unwrap()];
    assert!(shell.program.is_absolute() && shell.program.ends_with("sh"));
    assert_eq!((shell.args.join(" ").as_str(), shell.connect_timeout_secs), ("-c true", 5));
    assert_eq!(shell.env["PLAIN"], EnvValue::Plain("a".to_owned()));
    assert_eq!(shell.env["SECRET"], EnvValue::Secret(SecretRef::Env("B".to_owned())));
    assert_eq!(shell.directory, folder);
    let ModelSettings::OpenAi { base_url, price, max_output_tokens, .. } =
        &config.catalog.models[&"live".parse().unwrap()]
    else {
        panic!("not OpenAI");
    };
    assert_eq!(
        (base_url.as_str(), price.unwrap().output_micros_per_million, *max_output_tokens),
        ("https://x.example/v1", 2, 4096)
    );
    let tool = &config.catalog.tools[&ToolName::parse("orders.read").unwrap()];
    assert!(tool.read_only && !tool.destructive && !tool.idempotent && tool.open_world);
    let agent = &config.catalog.agents[&AgentName::parse("acme/support/refunds").unwrap()];
    assert_eq!((agent.limits.turns_max, agent.instructions.as_str()), (9, "Answer."));
}

#[test]
fn a_folder_is_for_production_unless_it_says_otherwise() {
    let fixture = Fixture::new();
    assert_eq!(fixture.load().unwrap().profile, Profile::Production);
    for profile in Profile::ALL {
        fixture.write("mandate.toml", format!("profile = \"{profile}\"\n{ROOT}"));
        assert_eq!(fixture.load().unwrap().profile, profile);
    }
}

#[test]
fn policies_are_loaded_against_tools_and_groups() {
    let fixture = Fixture::new();
    let policy = "@id(\"large\")
@reason(\"a person decides\")
@decision(\"require_approval\")
@approvers(\"finance-leeds\")
forbid (principal, action == Mandate::Action::\"orders.read\", resource)
unless { context.approved.contains(\"large\") };
";
    fixture.write("policies/a.cedar", policy);
    let errors = fixture.errors();
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let place = format!("{}/policies/a.cedar:", fixture.folder().display());
    assert!(lines[0].starts_with(&place) && lines[0].contains("`finance-leeds`"), "{lines:#?}");
    assert!(lines[0].contains("`finance-leads`"), "{lines:#?}");
    assert!(rendered(&errors).contains("a.cedar:"), "{}", rendered(&errors));
}

/// The example, with a program that stands for its tool server.
fn example() -> (TempDir, Config) {
    let programs = tempfile::tempdir().unwrap();
    write_program(&programs.path().join("refunds-mcp"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/refunds");
    let config = Config::load(&folder, programs.path()).map_err(|errors| rendered(&errors)).unwrap();
    (programs, config)
}

#[test]
fn the_example_policies_decide_as_its_readme_says() {
    let (_programs, config) = example();
    let decide = |tool: &str, arguments: serde_json::Value, approved: &[&str]| {
        let request = PolicyRequest {
            agent: &AgentName::parse("acme/support/refunds").unwrap(),
            agent_owner: &PersonId::parse("support@acme.example").unwrap(),
            on_behalf_of: &PersonId::parse("ana@acme.example").unwrap(),
            workflow_id: "w",
            action: PolicyAction::CallTool {
                tool: &config.catalog.tools[&ToolName::parse(tool).unwrap()],
                arguments: arguments.as_object().unwrap(),
            },
            facts: &mandate_domain::RunFacts::default(),
            approved: &approved.iter().map(|id| id.parse().unwrap()).collect(),
        };
        match config.policy.decide(&request).outcome {
            PolicyOutcome::Allow => "allow".to_owned(),
            PolicyOutcome::Deny => "deny".to_owned(),
            PolicyOutcome::RequireApproval(gates) => format!("{} gate", gates.len()),
        }
    };
    let refund = |cents: u64, currency: &str, approved: &[&str]| {
        let arguments = json!({"order_id": "o1", "amount_cents": cents, "currency": currency});
        decide("payments.refund", arguments, approved)
    };
    assert_eq!(refund(10_000, "EUR", &[]), "allow");
    assert_eq!(refund(10_001, "EUR", &[]), "1 gate");
    assert_eq!(refund(10_001, "EUR", &["refund.large"]), "allow");
    assert_eq!(refund(500_000, "EUR", &[]), "1 gate");
    assert_eq!(refund(500_001, "EUR", &["refund.large"]), "deny");
    assert_eq!(refund(100, "USD", &[]), "deny");
    assert_eq!(decide("clock", json!({}), &[]), "allow");
    assert_eq!(decide("orders.read", json!({"order_id": "o1"}), &[]), "allow");
}

#[test]
fn the_example_script_calls_offered_tools_and_one_of_them_wrongly() {
    let (_programs, config) = example();
    let script = fs::read_to_string(config.folder.join("scripts/refunds.toml")).unwrap();
    let script: toml::Table = toml::from_str(&script).unwrap();
    let replies = script["conversation"].as_array().unwrap().iter().flat_map(|one| one["reply"].as_array().unwrap());
    let calls: Vec<_> = replies.filter_map(|reply| reply.get("calls")?.as_array()).flatten().collect();
    let agent = &config.catalog.agents[&AgentName::parse("acme/support/refunds").unwrap()];
    let mut wrong = Vec::new();
    for call in &calls {
        let name = ToolName::parse(call["tool"].as_str().unwrap()).unwrap();
        assert!(agent.tools.contains(&name), "{name}");
        let arguments = serde_json::to_value(&call["arguments"]).unwrap();
        if !jsonschema::is_valid(&config.catalog.tools[&name].input_schema, &arguments) {
            wrong.push(arguments);
        }
    }
    assert_eq!(wrong, [json!({"order": "o4"})]);
    assert_eq!(calls.len(), 14);
}

#[test]
fn the_example_folder_loads() {
    let (programs, config) = example();
    let summary = config.summary();
    assert_eq!((summary.agents.len(), summary.tools.len(), summary.policy_files), (1, 7, 3));
    assert_eq!(summary.profile, Profile::Development);
    assert_eq!(config.catalog.servers[&"refunds".parse().unwrap()].program, programs.path().join("refunds-mcp"));
    let refund = &config.catalog.tools[&ToolName::parse("payments.refund").unwrap()];
    assert!(refund.destructive && !refund.idempotent && refund.settles_within_secs == Some(10));
    assert_eq!(refund.check.as_ref().map(ToolName::as_str), Some("payments.refund_status"));
    let agent = &config.catalog.agents[&AgentName::parse("acme/support/refunds").unwrap()];
    assert_eq!((agent.limits.turns_max, agent.limits.tokens_max), (12, 200_000));
}
