//! `mandate doctor`: each check's line, what it advises, and the exit code.

use std::{collections::BTreeSet, fs};

use mandate_tests::{Said, Scenario, run, until};
use serde_json::Value;

/// The line of a check; a warning or failure carries its advice.
fn line<'a>(said: &'a Said, check: &str) -> &'a str {
    let is_one = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{check}: ")));
    let found: Vec<&str> = said.stdout.lines().filter(is_one).collect();
    let [line] = found[..] else { panic!("`{check}`: {found:?} in {said:#?}") };
    line
}

/// Asserts status, exit code and parts of a line, and that nothing else failed.
fn check_failed(said: &Said, check: &str, parts: &[&str]) {
    let line = line(said, check);
    for part in parts {
        assert!(line.starts_with("fail  ") && line.contains(part), "`{part}`: {line}");
    }
    let failed: Vec<_> = said.stdout.lines().filter(|line| line.starts_with("fail")).collect();
    assert_eq!((said.code, failed), (1, vec![line]), "{said:#?}");
    assert_eq!(said.stderr, "", "progress is for terminals");
}

#[test]
fn the_example_is_well_beside_its_worker() {
    run(async {
        let scenario = Scenario::new("doctor-well").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        scenario.answer().await;
        let said = scenario.mandate(&["doctor"]).await;
        assert!(said.code == 0 && said.stdout.lines().all(|line| line.starts_with("ok    ")), "{said:#?}");
        let temporal = format!("ok    temporal: `{}`, namespace `default`, server 1.", scenario.server.address());
        let store = format!("ok    store: `{}`, id ", scenario.path("var/mandate.db").display());
        for (check, expected) in [
            ("configuration", "profile development, 1 agent(s), 7 tool(s)"),
            ("temporal", &temporal),
            ("search attributes", "all 6 are registered"),
            ("store", &store),
            ("address keys", "1 tenant(s)"),
            ("bundle", "version 1, "),
            ("quarantine", "nothing is in it"),
            ("secrets", "no model, no server and no webhook refers to one"),
            ("server refunds", "starts"),
            ("tool orders.read", "as registered"),
            ("tool clock", "built in"),
            ("model support", "refunds.toml"),
        ] {
            assert!(line(&said, check).contains(expected), "`{expected}`: {}", line(&said, check));
        }
        assert_eq!(said.stderr, "", "progress is for terminals");

        let listed = scenario.mandate(&["doctor", "--output", "json"]).await.ok();
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let keys = |found: &Value| found.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let expected = ["check", "status", "detail", "advice"].map(str::to_owned).into();
        assert_eq!(listed.len(), said.stdout.lines().count());
        for found in &listed {
            assert_eq!(keys(found), expected, "{found}");
            assert_eq!((&found["status"], &found["advice"]), (&"ok".into(), &Value::Null), "{found}");
        }
    });
}

#[test]
fn without_temporal_everything_else_is_looked_at() {
    run(async {
        let scenario = Scenario::new("doctor-alone").await;
        let said = scenario.mandate(&["doctor", "--address", "127.0.0.1:1"]).await;
        check_failed(
            &said,
            "temporal",
            &["cannot reach `127.0.0.1:1`", "temporal server start-dev", "TEMPORAL_ADDRESS"],
        );
        assert!(
            line(&said, "store").starts_with("warn") && line(&said, "store").contains("there is none"),
            "{said:#?}"
        );
        assert!(!scenario.path("var/mandate.db").exists(), "no store is made");
        for check in
            ["configuration", "address keys", "secrets", "server refunds", "tool payments.refund", "model support"]
        {
            assert!(line(&said, check).starts_with("ok"), "{said:#?}");
        }
        assert!(!said.stdout.contains("search attributes"), "nobody can say: {said:#?}");
    });
}

#[test]
fn a_namespace_is_missed_and_its_search_attributes_come_with_the_command() {
    run(async {
        let namespace = "doctor-fresh";
        let scenario = Scenario::new(namespace).await;
        let said = scenario.mandate(&["doctor", "--namespace", namespace]).await;
        let create = format!("temporal operator namespace create --namespace {namespace}");
        check_failed(&said, "temporal", &["has no namespace `doctor-fresh`", &create]);

        scenario.temporal(&["operator", "namespace", "create", "--namespace", namespace]).await.ok();
        let doctor = async || scenario.mandate(&["doctor", "--namespace", namespace]).await;
        // The server's other parts see a new namespace some seconds later.
        let missing = until("the namespace is there", async || {
            let said = doctor().await;
            let missing = said.stdout.lines().find(|line| line.contains("missing: MandateAgent"))?.to_owned();
            Some(missing)
        })
        .await;
        let (_, advised) = missing.split_once("an administrator runs: temporal ").unwrap();
        assert!(missing.starts_with("warn  search attributes: "), "{missing}");
        let words: Vec<&str> = advised.split(' ').collect();
        until("the administrator's command is carried out", async || {
            (scenario.temporal(&words).await.code == 0).then_some(())
        })
        .await;
        until("the search attributes are there", async || {
            let said = doctor().await;
            said.stdout.contains("ok    search attributes: all 6 are registered").then_some(())
        })
        .await;
    });
}

#[test]
fn a_secret_that_is_not_there_is_named_and_one_that_is_stays_unseen() {
    run(async {
        let scenario = Scenario::new("doctor-secret").await;
        let live = "[models.live]\nprovider = \"openai\"\nbase_url = \"https://models.example/v1\"\nmodel = \"m\"\n\
                    api_key = \"env:DOCTOR_KEY\"\n";
        let root = fs::read_to_string(scenario.path("mandate.toml")).unwrap();
        scenario.write("mandate.toml", &format!("{root}\n{live}"));
        let said = scenario.mandate(&["doctor"]).await;
        let expected = ["is not set", "model `live`", "Set `DOCTOR_KEY` in the worker's environment"];
        check_failed(&said, "secret env:DOCTOR_KEY", &expected);
        assert!(line(&said, "model live").contains("`https://models.example/v1`, which was not asked"), "{said:#?}");

        let said = scenario.mandate_with_env(&[("DOCTOR_KEY", "sk-unseen-value")], &["doctor"]).await;
        assert!(line(&said, "secret env:DOCTOR_KEY").starts_with("ok"), "{said:#?}");
        assert!(!format!("{said:?}").contains("unseen"), "{said:#?}");

        scenario.edit("mandate.toml", r#"address_keys = "var/keys""#, r#"address_key = "env:DOCTOR_ADDRESS_KEY""#);
        let env = [("DOCTOR_KEY", "sk-unseen-value"), ("DOCTOR_ADDRESS_KEY", "unseen, and too short")];
        let said = scenario.mandate_with_env(&env, &["doctor"]).await;
        check_failed(&said, "address keys", &["64 hexadecimal digits", "[store] address_key"]);
        assert!(!format!("{said:?}").contains("unseen"), "{said:#?}");
    });
}

#[test]
fn a_server_that_cannot_start_and_a_tool_that_differs_are_named() {
    run(async {
        let scenario = Scenario::new("doctor-tools").await;
        scenario.set_server(&["sh", "-c", "echo the ledger is gone >&2; exit 3"]);
        let said = scenario.mandate(&["doctor"]).await;
        let expected = [
            "the ledger is gone",
            "tools that need it: customers.read, orders.read, payments.refund, payments.refund_status",
            "Start the program of `[servers.refunds] command` by hand",
        ];
        check_failed(&said, "server refunds", &expected);
        assert!(!said.stdout.contains("tool orders.read:"), "its server says nothing of it: {said:#?}");
        assert!(line(&said, "tool clock").starts_with("ok") && line(&said, "model support").starts_with("ok"));

        scenario.server_command(&[]);
        scenario.edit("tools/orders.read.toml", r#"tool = "read_order""#, r#"tool = "read_odrer""#);
        let said = scenario.mandate(&["doctor"]).await;
        check_failed(&said, "tool orders.read", &["no tool `read_odrer`", "`[mcp] tool` in `tools/orders.read.toml`"]);
        scenario.edit("tools/orders.read.toml", r#"tool = "read_odrer""#, r#"tool = "read_customer""#);
        let said = scenario.mandate(&["doctor"]).await;
        check_failed(&said, "tool orders.read", &["not as the registry states", "Write the schema of the server"]);
    });
}

#[test]
fn a_broken_folder_and_a_broken_store_are_told_apart() {
    run(async {
        let scenario = Scenario::new("doctor-broken").await;
        scenario.write("var/mandate.db", "this is no database, and long enough to be looked at as one");
        let said = scenario.mandate(&["doctor"]).await;
        check_failed(&said, "store", &["mandate.db", "restore the store from a backup"]);
        assert!(line(&said, "address keys").starts_with("warn"), "{said:#?}");

        scenario.edit("mandate.toml", "turns_max = 20", "turn_max = 20");
        let said = scenario.mandate(&["doctor"]).await;
        let found = line(&said, "configuration");
        assert!(said.code == 4 && found.starts_with("fail") && found.contains("`turn_max`"), "{said:#?}");
        assert!(found.contains("`mandate check` shows every problem"), "{found}");
        assert!(line(&said, "temporal").starts_with("ok"), "Temporal is looked at all the same: {said:#?}");
        assert!(!said.stdout.contains("store:"), "{said:#?}");
    });
}
