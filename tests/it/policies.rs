//! What authors of policies have: cases, the table of what an agent may do, and the past asked again. The backtest reads
//! what real runs left in the store.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use mandate_tests::{AGENT, Said, Scenario, program, run, say, workspace_folder};
use serde_json::Value;

const POLICIES: &str = "policies/refunds.cedar";
const CASES: &str = "policies/tests/refunds.toml";
/// Sets the golden files anew where it is set.
const UPDATE: &str = "UPDATE_GOLDEN";
/// How they are set anew.
const HOW: &str = "UPDATE_GOLDEN=1 cargo test -p mandate-tests --test it -- decision_matrix";

/// `mandate policy …` in the project's folder.
async fn policy(arguments: &[&str]) -> Said {
    say(&program("mandate"), &[&["policy"], arguments].concat(), &[], workspace_folder()).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_cases_of_the_examples_pass() {
    run(async {
        for example in ["examples/refunds", "examples/guardrails"] {
            let said = policy(&["test", example]).await;
            assert!(said.code == 0 && said.stdout.ends_with(" cases passed\n"), "{said:?}");
            let tested = json(&policy(&["test", example, "--output", "json"]).await.ok());
            let cases = tested["cases"].as_array().unwrap();
            assert!(cases.len() > 30 && tested["passed"] == cases.len(), "{tested}");
            assert_eq!(tested["uncovered"], Value::Array(Vec::new()), "each policy of {example} decides some case");
        }
        let one = policy(&["test", "examples/guardrails", "examples/guardrails/policies/tests/mail.toml"]).await;
        assert!(one.code == 0 && one.stderr.contains("no case is determined by policy `files.shared`"), "{one:?}");
        let two = policy(&["test", "examples/refunds", "examples/guardrails"]).await;
        assert!(two.code == 2 && two.stderr.contains("one operating folder"), "{two:?}");
    });
}

#[test]
fn a_failing_case_is_named_with_file_and_line_what_came_and_by_which_policies() {
    run(async {
        let scenario = Scenario::new("policy-test").await;
        scenario.mandate(&["policy", "test"]).await.ok();
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 4000");
        let said = scenario.mandate(&["policy", "test"]).await;
        assert_eq!(said.code, 1, "{said:?}");
        let lines: Vec<&str> = said.stdout.lines().collect();
        let small = "policies/tests/refunds.toml:5: FAILED a small refund needs nobody: expected allow, got \
                     require_approval; expected by refund.permit, got by refund.large (by refund.large: refunds above \
                     100 EUR need a finance lead)";
        assert_eq!(lines[0], small, "{said:?}");
        assert!(lines.last().unwrap().ends_with(" cases failed") && lines.len() > 2, "{said:?}");
        assert!(lines.iter().any(|line| line.contains("the last cent below the cap of a run")), "{said:?}");
        let said = scenario.mandate(&["policy", "test", "--output", "json"]).await;
        let tested = json(&said.stdout);
        assert_eq!((said.code, &tested["failed"]), (1, &(lines.len() - 1).into()), "{tested}");
        let failed = tested["cases"].as_array().unwrap().iter().find(|case| case["passed"] == false).unwrap();
        let shown = [&failed["asked"], &failed["got"], &failed["policies"][0], &failed["wrong"][0]];
        let expected = ["payments.refund", "require_approval", "refund.large", "expected allow, got require_approval"];
        assert_eq!(shown, expected, "{failed}");

        // By another policy, for another reason: a case can say both.
        scenario.edit(POLICIES, "amount_cents > 4000", "amount_cents > 10000");
        scenario.edit(CASES, r#"reason = "finance lead""#, r#"reason = "two leads""#);
        scenario.edit(CASES, r#"policies = ["refund.ceiling", "refund.run_cap"]"#, r#"policies = ["refund.ceiling"]"#);
        let said = scenario.mandate(&["policy", "test"]).await;
        for words in ["expected by refund.ceiling, got by refund.ceiling, refund.run_cap", "a reason with `two leads`"]
        {
            assert!(said.code == 1 && said.stdout.contains(words), "`{words}`: {said:?}");
        }

        // What could never be asked is no failing case.
        scenario.edit(CASES, "amount_cents = 500001", "amount_cent = 500001");
        let said = scenario.mandate(&["policy", "test"]).await;
        let place = "policies/tests/refunds.toml:";
        assert!(said.code == 4 && said.stderr.contains(place) && said.stderr.contains("no call of"), "{said:?}");
    });
}

#[test]
fn an_agent_is_explained_as_a_table_and_as_json() {
    run(async {
        let explain = ["explain", AGENT, "--folder", "examples/refunds"];
        let text = policy(&explain).await.ok();
        for part in [
            "orders.read      allow                           always                             tools.read",
            "ask finance-leads, within 24 h  when { context.input.amount_cents  refund.large",
            "mask contact                    always: the whole result",
            "support (its own)  allow",
            "what nothing allows is denied",
        ] {
            assert!(text.contains(part), "`{part}` is missing:\n{text}");
        }
        let explained = json(&policy(&[&explain[..], &["--output", "json"]].concat()).await.ok());
        let of = |list: &str, name: &str, key: &str| {
            let all = explained[list].as_array().unwrap();
            all.iter().find(|one| one[key] == name).unwrap_or_else(|| panic!("{name}: {explained}")).clone()
        };
        let refund = of("tools", "payments.refund", "tool");
        let says: Vec<_> = refund["rules"].as_array().unwrap().iter().map(|rule| &rule["says"]).collect();
        assert_eq!(says, ["allow", "require_approval", "deny", "deny"], "{refund}");
        let gate = &refund["rules"][1];
        assert_eq!(gate["condition"], "when { context.input.amount_cents > 10000 }", "{gate}");
        assert_eq!(gate["gate"]["approvers"], serde_json::json!(["finance-leads"]), "{gate}");
        assert_eq!(of("tools", "customers.read", "tool")["masked"][0]["class"], "contact");
        let leads = of("views", "group finance-leads on a request", "viewer");
        assert_eq!(leads["does_not_see"], Value::Array(Vec::new()), "{leads}");

        // Where people are proved a gate may say who does not decide.
        let scenario = Scenario::new("policy-explain").await;
        scenario.accept_keys();
        let text = scenario.mandate(&["policy", "explain", AGENT]).await.ok();
        for part in ["ask finance-leads, not the ", "requester, within 24 h"] {
            assert!(text.contains(part), "`{part}` is missing:\n{text}");
        }

        let said = policy(&["explain", "acme/support/refund", "--folder", "examples/refunds"]).await;
        assert!(said.code == 2 && said.stderr.contains("did you mean `acme/support/refunds`"), "{said:?}");
    });
}

#[test]
fn a_misspelt_policy_is_refused_before_any_case_is_asked() {
    run(async {
        let scenario = Scenario::new("policy-misspelt").await;
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cent > 10000");
        for command in [&["test"][..], &["explain", AGENT], &["backtest"]] {
            let said = scenario.mandate(&[&["policy"], command].concat()).await;
            let found = ["refunds.cedar:42:", "amount_cent", "did you mean `amount_cents`"];
            assert!(said.code == 4 && found.iter().all(|part| said.stderr.contains(part)), "{said:?}");
            assert!(said.stdout.is_empty(), "{said:?}");
        }
    });
}

/// The backtest's report.
async fn backtest(scenario: &Scenario, more: &[&str]) -> (i32, Value) {
    let said = scenario.mandate(&[&["policy", "backtest", "--output", "json"], more].concat()).await;
    (said.code, json(&said.stdout))
}

/// Call, target, what was said and what would be, of each change.
fn changes(report: &Value) -> BTreeSet<String> {
    let answer = |answer: &Value| {
        let ids: Vec<_> = answer["policies"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        format!("{} by {}", answer["outcome"].as_str().unwrap(), ids.join(", "))
    };
    let line = |change: &Value| {
        let [run, call, target] = [&change["run"]["workflow_id"], &change["call"], &change["target"]];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let [run, call, target] = [run, call, target].map(text);
        format!("{run} {call} {target}: {} -> {}", answer(&change["then"]), answer(&change["now"]))
    };
    report["changes"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn past_runs_tell_what_a_changed_bundle_would_end_differently_and_by_which_rule() {
    run(async {
        let scenario = Scenario::new("backtest").await;
        let none = scenario.mandate(&["policy", "backtest"]).await;
        assert!(none.code == 1 && none.stderr.contains("no run was opened in this folder yet"), "{none:?}");

        let worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.approve(&scenario.pending_id().await, "bo@acme.example").await;
        assert!(scenario.answer().await.contains("500.00 EUR for order o1"));
        let small = ["--workflow-id", "backtest-o2", "--on-behalf-of", "ana@acme.example", "Refund order o2"];
        let started = ["run", "--agent", AGENT, "--task-queue", "backtest"];
        assert!(scenario.mandate(&[&started[..], &small].concat()).await.ok().contains("45.00 EUR for order o2"));
        assert_eq!(worker.stop().await, 0);
        let before = scenario.records().await.len();

        // Nothing changed, so nothing would.
        let said = scenario.mandate(&["policy", "backtest", "--since", "30d", "--deny-changes"]).await.ok();
        assert!(said.starts_with("2 runs, ") && said.contains(": nothing would end differently"), "{said}");
        let (code, report) = backtest(&scenario, &["--since", "0d"]).await;
        assert_eq!((code, &report["runs"], &report["same"]), (0, &0.into(), &0.into()), "{report}");

        // A lower threshold, a lower cap, and nobody but eve may approve: each change is told with its rule.
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 4000");
        scenario.edit(POLICIES, "amounts.amount_cents > 500000", "amounts.amount_cents > 40000");
        scenario.edit("mandate.toml", r#"["bo@acme.example", "eve@acme.example"]"#, r#"["eve@acme.example"]"#);
        let (code, report) = backtest(&scenario, &["--since", "30d"]).await;
        let request =
            changes(&report).iter().find_map(|line| Some(line.split("r1-").nth(1)?.split(' ').next()?.to_owned()));
        let request = request.unwrap_or_else(|| panic!("{report}"));
        let expected = [
            "backtest t2.0 payments.refund: require_approval by refund.large -> deny by refund.run_cap".to_owned(),
            format!("backtest r1-{request} by bo@acme.example payments.refund: allow by decide.finance -> deny by "),
            "backtest-o2 t2.0 payments.refund: allow by refund.permit -> require_approval by refund.large".to_owned(),
        ];
        assert_eq!((code, changes(&report)), (0, expected.into()), "{report}");
        let by = serde_json::json!({ "": 1, "refund.large": 1, "refund.run_cap": 1 });
        assert_eq!(report["by_policy"], by, "{report}");
        let said = scenario.mandate(&["policy", "backtest", "--since", "30d", "--deny-changes"]).await;
        assert_eq!(said.code, 1, "{said:?}");
        for part in [
            "3 would end differently",
            "by refund.run_cap: 1",
            "by refund.large: 1",
            "by no policy: 1",
            "deny: no policy permits this",
        ] {
            assert!(said.stdout.contains(part), "`{part}` is missing: {said:?}");
        }

        // The bundle of then is in the store, whatever the folder says now.
        let listed = json(&scenario.mandate(&["bundles", "--output", "json"]).await.ok());
        let digest = &listed[0]["digest"].as_str().unwrap()[..12];
        let (code, report) = backtest(&scenario, &["--bundle", digest, "--deny-changes"]).await;
        assert!(code == 0 && changes(&report).is_empty() && report["same"].as_u64() > Some(8), "{report}");

        // Arguments that are gone, or are others than those that were decided about, are not taken for unchanged.
        let erase = "DELETE FROM replies WHERE turn = 2 AND chain = (SELECT id FROM chains WHERE workflow_id = $1)";
        assert_eq!(scenario.tamper(erase, "backtest-o2").await, 1);
        let forge = "UPDATE replies SET reply = replace(reply, '50000', '100') \
                     WHERE turn = 2 AND chain = (SELECT id FROM chains WHERE workflow_id = $1)";
        assert_eq!(scenario.tamper(forge, "backtest").await, 1);
        let (code, report) = backtest(&scenario, &["--bundle", digest, "--deny-changes"]).await;
        let gone: Vec<_> = report["not_replayable"].as_array().unwrap().iter().collect();
        let told: BTreeSet<_> = gone
            .iter()
            .map(|one| [&one["run"]["workflow_id"], &one["call"], &one["why"]])
            .map(|parts| parts.map(|part| part.as_str().unwrap().to_owned()).join(" "))
            .collect();
        let why = "the arguments are not in the store";
        let expected = [format!("backtest t2.0 {why}"), format!("backtest-o2 t2.0 {why}")];
        assert_eq!((code, told), (1, expected.into()), "{report}");
        let said = scenario.mandate(&["policy", "backtest", "--bundle", digest]).await.ok();
        assert!(said.contains("2 not replayable") && said.contains(why), "{said}");
        assert!(!said.contains("nothing would end differently"), "{said}");

        let unknown = scenario.mandate(&["policy", "backtest", "--bundle", "0000000000"]).await;
        assert!(unknown.code == 1 && unknown.stderr.contains("the store has no bundle"), "{unknown:?}");
        assert_eq!(scenario.records().await.len(), before, "a backtest writes nothing");
    });
}

/// What the cases of an example come to: tool by tool, then what else is asked.
async fn matrix(example: &Path) -> String {
    let example = example.to_str().unwrap();
    let tested = json(&policy(&["test", example, "--output", "json"]).await.stdout);
    let cases = tested["cases"].as_array().unwrap();
    let asked: BTreeSet<_> = cases.iter().map(|case| case["asked"].as_str().unwrap()).collect();
    let mut text = format!("# What the policies say, case by case. Written by: {HOW}\n");
    for asked in asked {
        let _ = writeln!(text, "\n{asked}");
        for case in cases.iter().filter(|case| case["asked"] == asked) {
            let ids: Vec<_> = case["policies"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
            let by = if ids.is_empty() { "-".to_owned() } else { ids.join(", ") };
            let _ = writeln!(text, "  {} | {} | {by}", case["name"].as_str().unwrap(), case["got"].as_str().unwrap());
        }
    }
    text
}

/// Registered tools that no case asks about, each with what to do.
fn untested(example: &Path, matrix: &str) -> Vec<String> {
    let files = fs::read_dir(example.join("tools")).unwrap().map(|entry| entry.unwrap().path());
    let tools = files.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".toml")?.to_owned()));
    let missing = tools.filter(|tool| !matrix.lines().any(|line| line == tool));
    let told = |tool: String| {
        let folder = example.join("policies/tests");
        format!("tool `{tool}` is in no decision matrix: add a case to {} and run\n  {HOW}", folder.display())
    };
    missing.map(told).collect()
}

#[test]
fn the_decision_matrix_of_the_examples_is_the_reviewed_one_and_has_every_tool() {
    run(async {
        for name in ["refunds", "guardrails"] {
            let example = workspace_folder().join("examples").join(name);
            let matrix = matrix(&example).await;
            assert_eq!(untested(&example, &matrix), Vec::<String>::new());
            let golden: PathBuf = workspace_folder().join(format!("tests/golden/decisions-{name}.txt"));
            if std::env::var_os(UPDATE).is_some() {
                fs::create_dir_all(golden.parent().unwrap()).unwrap();
                fs::write(&golden, &matrix).unwrap();
            }
            let reviewed = fs::read_to_string(&golden).unwrap_or_default();
            let other = matrix.lines().find(|line| !reviewed.contains(line));
            let other = other.or_else(|| reviewed.lines().find(|line| !matrix.contains(line)));
            let file = golden.display();
            assert!(
                reviewed == matrix,
                "{file} is another at `{}`. If that is meant, run\n  {HOW}",
                other.unwrap_or("?")
            );
        }
    });
}

#[test]
fn a_tool_without_a_case_is_missed_in_the_decision_matrix() {
    run(async {
        let scenario = Scenario::new("matrix").await;
        let folder = scenario.path("");
        assert_eq!(untested(&folder, &matrix(&folder).await), Vec::<String>::new());
        let tool = fs::read_to_string(scenario.path("tools/orders.read.toml")).unwrap();
        scenario.write("tools/orders.list.toml", &tool.replace(r#"name = "orders.read""#, r#"name = "orders.list""#));
        let missed = untested(&folder, &matrix(&folder).await);
        assert!(matches!(&missed[..], [one] if one.contains("`orders.list`") && one.contains(HOW)), "{missed:?}");
    });
}
