//! Operators at the program: which bundle is the active one, and what is in quarantine. No run is needed for any of it.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Said, Scenario, run};
use serde_json::Value;

const KIM: &str = "kim@acme.example";
const BO: &str = "bo@acme.example";
const POLICIES: &str = "policies/refunds.cedar";
/// A row that somebody put there, and that no program can use.
const BROKEN: &str = "INSERT INTO bundles SELECT max(version) + 1, $1, 1, 'nobody', NULL, 'plain', '{' FROM bundles";

async fn production(name: &str) -> Scenario {
    let scenario = Scenario::new(name).await;
    scenario.in_production();
    scenario
}

/// Asserts that it was refused for a reason and that the refusal stands in the store's own chain.
async fn refused(scenario: &Scenario, said: &Said, expected: (&str, &str), words: &str) {
    assert!(said.code == 3 && said.stderr.contains(words), "`{words}`: {said:?}");
    let bodies = scenario.records().await.into_iter().map(|record| record.body);
    let mut last = bodies.filter_map(|body| match body {
        RecordBody::OperatorRefused { action, by, reason, .. } => Some((action, by.to_string(), reason)),
        _ => None,
    });
    let (action, by, reason) = last.next_back().unwrap();
    assert_eq!((action.as_str(), by.as_str()), expected);
    assert!(reason.contains(words), "{reason}");
}

async fn bundles(scenario: &Scenario) -> Vec<Value> {
    serde_json::from_str(&scenario.mandate(&["bundles", "--output", "json"]).await.ok()).unwrap()
}

#[test]
fn a_bundle_is_shown_then_applied_and_rolled_back_by_whom_policy_permits() {
    run(async {
        let scenario = production("apply").await;
        let dry = scenario.mandate(&["apply", "--by", KIM, "--dry-run"]).await;
        assert!(dry.stdout.contains("+ policy refund.large") && dry.stdout.contains("none → version 1"), "{dry:?}");
        assert!(dry.code == 0 && dry.stderr.contains("would be permitted"), "{dry:?}");
        assert!(!scenario.path("var/mandate.db").exists(), "a dry run makes no store");
        let said = scenario.mandate(&["bundles"]).await;
        assert!(said.code == 1 && said.stderr.contains("nothing was applied in this folder yet"), "{said:?}");

        // The first is judged by itself.
        let said = scenario.mandate(&["apply", "--by", BO, "--yes"]).await;
        refused(&scenario, &said, ("apply", BO), "no policy permits this").await;
        assert!(bundles(&scenario).await.is_empty());
        let said = scenario.mandate(&["apply", "--by", KIM]).await;
        assert!(said.code == 2 && said.stderr.contains("--yes") && said.stdout.contains("+ policy"), "{said:?}");
        let said = scenario.mandate(&["apply", "--by", KIM, "--yes", "--note", "the first"]).await.ok();
        assert!(said.contains("active now: version 1"), "{said}");
        let said = scenario.mandate(&["apply", "--by", BO]).await.ok();
        assert!(said.contains("active already: version 1"), "whoever asks, and without --yes: {said}");

        // From then on the active one judges.
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 5000");
        scenario.edit("tools/payments.refund.toml", "timeout_secs = 30", "timeout_secs = 31");
        scenario.edit("mandate.toml", r#"platform = ["kim@acme.example"]"#, r#"platform = ["bo@acme.example"]"#);
        let said = scenario.mandate(&["apply", "--by", BO, "--yes"]).await;
        refused(&scenario, &said, ("apply", BO), "no policy permits this").await;
        let dry = scenario.mandate(&["apply", "--by", BO, "--dry-run"]).await;
        assert!(dry.code == 3 && dry.stderr.contains("it would be refused"), "{dry:?}");
        let said = scenario.mandate(&["apply", "--by", KIM, "--yes", "--output", "json"]).await;
        assert!(said.stderr.contains("- when { context.input.amount_cents > 10000 }"), "for people: {said:?}");
        let shown: Value = serde_json::from_str(&said.ok()).unwrap();
        assert_eq!((&shown["outcome"], &shown["permitted"]), (&"applied".into(), &true.into()), "{shown}");
        assert_eq!((&shown["before"]["version"], &shown["after"]["version"]), (&1.into(), &2.into()), "{shown}");
        let changed = &shown["difference"];
        assert_eq!(changed["policies"]["changed"][0]["name"], "refund.large", "{shown}");
        assert_eq!(changed["tools"]["changed"][0]["lines"][0], "timeout_secs: 30 → 31", "{shown}");
        assert_eq!(changed["groups"]["changed"][0]["lines"][1], "+ bo@acme.example", "{shown}");

        // Rolling back does not need a folder that is in order.
        scenario.edit(POLICIES, "amount_cents > 5000 }", "ammount_cents > 5000 }");
        let broken = scenario.mandate(&["apply", "--by", BO, "--yes"]).await;
        assert!(broken.code == 4 && broken.stderr.contains("ammount_cents"), "{broken:?}");
        let listed = bundles(&scenario).await;
        let digest = |bundle: &Value| bundle["digest"].as_str().unwrap().to_owned();
        let first = digest(&listed[1]);
        assert_eq!((&listed[1]["note"], &listed[1]["active"]), (&"the first".into(), &false.into()), "{listed:?}");
        let back = ["rollback", &first[..8]];
        let said = scenario.mandate(&[&back[..], &["--by", KIM, "--yes"]].concat()).await;
        refused(&scenario, &said, ("rollback", KIM), "no policy permits this").await;
        let said = scenario.mandate(&[&back[..], &["--by", BO, "--yes"]].concat()).await.ok();
        assert!(said.contains("+ when { context.input.amount_cents > 10000 }"), "{said}");
        assert!(said.contains(&format!("active now: version 3, {first}")), "{said}");
        let listed = bundles(&scenario).await;
        assert_eq!((listed.len(), digest(&listed[0]), &listed[0]["active"]), (3, first.clone(), &true.into()));
        let said = scenario.mandate(&[&back[..], &["--by", BO]].concat()).await.ok();
        assert!(said.contains("active already"), "{said}");
        let said = scenario.mandate(&["rollback", "00000000", "--by", KIM, "--yes"]).await;
        assert!(said.code == 1 && said.stderr.contains("`mandate bundles`"), "{said:?}");
        let shown = scenario.mandate(&["bundles"]).await.ok();
        assert_eq!(shown.lines().filter(|line| line.contains("active")).count(), 1, "{shown}");
        scenario.edit(POLICIES, "ammount_cents > 5000 }", "amount_cents > 5000 }");
        let verified = scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
        assert!(verified.starts_with("holds  store"), "{verified}");
    });
}

#[test]
fn each_bundle_stands_in_the_stores_own_chain_with_the_digest_before() {
    run(async {
        let scenario = production("apply-records").await;
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 5000");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let listed = bundles(&scenario).await;
        let [second, first] = [0, 1].map(|index| listed[index]["digest"].as_str().unwrap().to_owned());
        scenario.mandate(&["rollback", &first, "--by", KIM, "--yes"]).await.ok();
        let bodies = scenario.records().await.into_iter().map(|record| record.body);
        let applied: Vec<_> = bodies
            .filter_map(|body| match body {
                RecordBody::BundleApplied { version, digest, previous, by, policies, rollback, .. } => {
                    let previous = previous.map(|digest| digest.to_string());
                    assert_eq!((by.as_str(), policies[0].as_str()), (KIM, "operate.platform"));
                    Some((version, digest.to_string(), previous, rollback))
                }
                _ => None,
            })
            .collect();
        let expected = [
            (1, first.clone(), None, false),
            (2, second.clone(), Some(first.clone()), false),
            (3, first, Some(second), true),
        ];
        assert_eq!(applied, expected);
        let told = scenario.mandate(&["explain", "mandate-store"]).await.ok();
        assert!(told.contains("rolled back to policies") && told.contains("permitted by operate.platform"), "{told}");
    });
}

#[test]
fn at_a_terminal_only_a_yes_applies() {
    run(async {
        let scenario = production("apply-asks").await;
        let apply = ["apply", "--by", KIM];
        let said = scenario.mandate_at_terminal(&apply, async || (), "").await;
        assert!(said.code == 3 && said.stderr.contains("apply? [y/N] nothing was applied"), "{said:?}");
        assert!(said.stdout.contains("+ policy refund.large"), "the difference is shown first: {said:?}");
        assert!(bundles(&scenario).await.is_empty());
        let said = scenario.mandate_at_terminal(&apply, async || (), "y").await.ok();
        assert!(said.contains("active now: version 1"), "{said}");
        assert_eq!(bundles(&scenario).await.len(), 1);
    });
}

#[test]
fn of_two_people_who_apply_at_once_the_slower_one_is_told() {
    run(async {
        let scenario = production("apply-race").await;
        let apply = ["apply", "--by", KIM, "--yes"];
        scenario.mandate(&apply).await.ok();
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 5000");
        let faster = async || {
            scenario.edit(POLICIES, "amount_cents > 5000 }", "amount_cents > 4000 }");
            scenario.mandate(&apply).await.ok();
        };
        let said = scenario.mandate_at_terminal(&apply[..3], faster, "y").await;
        let why = "version 2 is active, not version 1; nothing was changed: apply again and read the new difference";
        assert!(said.code == 1 && said.stderr.contains(why), "{said:?}");
        assert_eq!(bundles(&scenario).await.len(), 2);
    });
}

#[test]
fn a_broken_folder_is_refused_with_the_place_and_changes_nothing() {
    run(async {
        let scenario = production("apply-broken").await;
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let records = scenario.records().await.len();
        scenario.edit(POLICIES, "amount_cents > 10000", "ammount_cents > 10000");
        let said = scenario.mandate(&["apply", "--by", KIM, "--yes"]).await;
        assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{said:?}");
        for part in ["policies/refunds.cedar:42:8", "context.input.ammount_cents", "did you mean `amount_cents`"] {
            assert!(said.stderr.contains(part), "`{part}`: {}", said.stderr);
        }
        assert_eq!((bundles(&scenario).await.len(), scenario.records().await.len()), (1, records));
    });
}

#[test]
fn a_bundle_that_nobody_could_replace_is_warned_about() {
    run(async {
        let scenario = production("apply-lockout").await;
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        scenario.edit(
            "policies/people.cedar",
            r#"principal in Mandate::Group::"platform","#,
            "principal == Mandate::User::\"x\",",
        );
        let said = scenario.mandate(&["apply", "--by", KIM, "--dry-run"]).await;
        assert!(said.code == 0 && said.stderr.contains("nobody of the configured groups may apply"), "{said:?}");
    });
}

#[test]
fn a_bundle_that_cannot_be_used_is_replaced_by_the_judgement_of_the_one_before() {
    run(async {
        let scenario = production("apply-over-broken").await;
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let first = bundles(&scenario).await[0]["digest"].as_str().unwrap().to_owned();
        assert_eq!(scenario.tamper(BROKEN, &"ab".repeat(32)).await, 1);
        let mut worker = scenario.worker_process(&[]).await;
        assert_eq!(worker.wait().await, 4, "{}", worker.log());
        assert!(worker.log().contains("policy bundle version 2 cannot be used"), "{}", worker.log());

        let said = scenario.mandate(&["rollback", &"ab".repeat(4), "--by", KIM, "--yes"]).await;
        assert!(said.code != 0 && said.stderr.contains("files of a bundle"), "{said:?}");
        let locked = ["quarantine", "add", "tool:clock", "--by", BO, "--reason", "wrong time"];
        let said = scenario.mandate(&locked).await;
        assert!(said.code == 0 && said.stderr.contains("version 2 cannot be used, and version 1 judges"), "{said:?}");
        let said = scenario.mandate(&["rollback", &first, "--by", BO, "--yes"]).await;
        refused(&scenario, &said, ("rollback", BO), "no policy permits this").await;
        let said = scenario.mandate(&["rollback", &first, "--by", KIM, "--yes"]).await.ok();
        assert!(said.contains(&format!("active now: version 3, {first}")), "{said}");
        assert!(said.contains("version 2, unusable →") && said.contains("compared with version 1, "), "{said}");
        assert_eq!(scenario.start_worker().await.stop().await, 0);
    });
}

#[test]
fn quarantine_is_listed_added_and_lifted_by_whom_policy_permits() {
    run(async {
        let scenario = production("quarantine-list").await;
        let add = async |target: &str, by: &str| {
            scenario.mandate(&["quarantine", "add", target, "--by", by, "--reason", "pays\u{1b}[2J twice"]).await
        };
        let lift = async |target: &str, by: &str| scenario.mandate(&["quarantine", "lift", target, "--by", by]).await;
        let none = add("tool:payments.refund", BO).await;
        assert!(none.code == 1 && none.stderr.contains("there is no store"), "{none:?}");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let said = scenario.mandate(&["quarantine", "list"]).await;
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.trim()), (0, "", "nothing is in quarantine"));

        let said = add("tool:payments.refund", "mallory@acme.example").await;
        refused(&scenario, &said, ("quarantine", "mallory@acme.example"), "no policy permits this").await;
        // Locking up does not need a folder that is in order.
        scenario.edit(POLICIES, "amount_cents > 10000", "ammount_cents > 10000");
        let said = add("tool:payments.refund", BO).await;
        assert_eq!(
            (said.stdout.trim(), said.stderr.as_str()),
            ("tool:payments.refund is in quarantine", ""),
            "{said:?}"
        );
        assert!(add("tool:payments.refund", "eve@acme.example").await.ok().contains("the first reason stays"));
        for target in ["agent:acme/gone/agent", "tool:gone", "server:gone", "model:gone"] {
            let said = add(target, BO).await;
            assert!(said.code == 2 && said.stderr.contains("the active policies know no"), "{said:?}");
            let all_the_same = ["quarantine", "add", target, "--by", BO, "--reason", "gone", "--unknown"];
            scenario.mandate(&all_the_same).await.ok();
        }
        let said = add("tool:payments.refnd", BO).await;
        assert!(said.code == 2 && said.stderr.contains("did you mean `payments.refund`?"), "{said:?}");
        let said = add("person:mallory@acme.example", BO).await;
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "anybody may be locked up: {said:?}");

        let listed = scenario.mandate(&["quarantine", "list", "--output", "json"]).await.ok();
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        assert_eq!(
            (listed.len(), &listed[0]["target"], &listed[0]["by"]),
            (6, &"tool:payments.refund".into(), &BO.into())
        );
        let shown = scenario.mandate(&["quarantine", "list"]).await.ok();
        assert!(shown.contains("tool:payments.refund") && !shown.contains('\u{1b}'), "{shown}");

        let said = lift("tool:payments.refund", BO).await;
        refused(&scenario, &said, ("lift", BO), "no policy permits this").await;
        lift("tool:payments.refund", KIM).await.ok();
        assert!(lift("tool:payments.refund", KIM).await.ok().contains("was not in quarantine"));
        let said = lift("tool:gnoe", KIM).await;
        assert!(said.code == 0 && said.stderr.contains("did you mean `tool:gone`?"), "{said:?}");

        // Whoever is locked up does nothing, also to their own quarantine.
        let said = add("person:kim@acme.example", BO).await;
        assert!(said.code == 0 && said.stderr.contains("nobody of the configured groups may lift this"), "{said:?}");
        let said = lift("person:kim@acme.example", KIM).await;
        refused(&scenario, &said, ("lift", KIM), "`person:kim@acme.example` is in quarantine").await;
        let verified = scenario.mandate(&["audit", "verify", "--witness", "none"]).await;
        assert_eq!(verified.code, 4, "what reads the folder says that it is broken: {verified:?}");
        scenario.edit(POLICIES, "ammount_cents > 10000", "amount_cents > 10000");
        scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
        let said = scenario.mandate(&["doctor"]).await.ok();
        assert!(said.contains("warn  quarantine: agent:acme/gone/agent, "), "{said}");
    });
}

#[test]
fn in_production_a_worker_does_not_start_without_an_active_bundle() {
    run(async {
        let scenario = production("no-bundle").await;
        let mut worker = scenario.worker_process(&[]).await;
        assert_eq!(worker.wait().await, 4, "{}", worker.log());
        assert!(worker.log().contains("no policy bundle is active"), "{}", worker.log());
        assert!(worker.log().contains("`mandate apply`"), "{}", worker.log());
        let said = scenario.mandate(&["doctor"]).await;
        assert!(said.code == 1 && said.stdout.contains("fail  bundle: none was applied"), "{said:?}");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        assert_eq!(scenario.start_worker().await.stop().await, 0);
        // A changed folder changes nothing by itself.
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 5000");
        assert_eq!(scenario.start_worker().await.stop().await, 0);
        assert_eq!(bundles(&scenario).await.len(), 1);
        let said = scenario.mandate(&["doctor"]).await.ok();
        assert!(said.contains("warn  bundle: version 1, ") && said.contains("not the folder's"), "{said}");
    });
}

#[test]
fn in_development_a_worker_that_starts_replaces_a_bundle_that_cannot_be_used() {
    run(async {
        let scenario = Scenario::new("broken-bundle-in-development").await;
        assert_eq!(scenario.start_worker().await.stop().await, 0);
        assert_eq!(scenario.tamper(BROKEN, &"ab".repeat(32)).await, 1);
        let worker = scenario.start_worker().await;
        assert!(worker.log().contains("the folder's policies were applied version=3"), "{}", worker.log());
        let listed = bundles(&scenario).await;
        assert_eq!((listed.len(), &listed[0]["digest"]), (3, &listed[2]["digest"]), "{listed:?}");
    });
}
