//! What is taken back takes effect with the next step of runs that are going already, calls that wait for people too.

use mandate_domain::{DecisionOutcome, audit::RecordBody};
use mandate_tests::{Process, Scenario, keys, run, until};
use serde_json::{Value, json};
use temporalio_client::WorkflowExecutionStatus;

use crate::metrics;

const KIM: &str = "kim@acme.example";
const BO: &str = "bo@acme.example";
const EVE: &str = "eve@acme.example";
const POLICIES: &str = "policies/refunds.cedar";

/// A worker, and a refund that waits for approval: its request id.
async fn waiting(scenario: &Scenario) -> (Process, String) {
    let worker = scenario.start_worker().await;
    scenario.start_run("Refund order o1").await;
    (worker, scenario.pending_id().await)
}

async fn lock(scenario: &Scenario, target: &str) {
    scenario.mandate(&["quarantine", "add", target, "--by", BO, "--reason", "a leak"]).await.ok();
}

/// Decisions about a target, each with outcome, policies, bundle and reason.
async fn decisions(scenario: &Scenario, of: &str) -> Vec<(DecisionOutcome, Vec<String>, String, String)> {
    let bodies = scenario.records().await.into_iter().map(|record| record.body);
    let decided = bodies.filter_map(|body| match body {
        RecordBody::Decision { target, outcome, policies, bundle, reason, .. } if target == of => {
            Some((outcome, policies.iter().map(ToString::to_string).collect(), bundle.to_string(), reason))
        }
        _ => None,
    });
    decided.collect()
}

/// Bundles by version: their digests, the first one first.
async fn digests(scenario: &Scenario) -> Vec<String> {
    let listed = scenario.mandate(&["bundles", "--output", "json"]).await.ok();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    listed.iter().rev().map(|bundle| bundle["digest"].as_str().unwrap().to_owned()).collect()
}

/// Something is locked up while a refund waits that is then approved: how the run ends.
async fn locked_while_waiting(scenario: &Scenario, target: &str) -> (Process, WorkflowExecutionStatus) {
    let (worker, request) = waiting(scenario).await;
    lock(scenario, target).await;
    scenario.approve(&request, EVE).await;
    let status = scenario.wait_closed().await;
    scenario.audit_verify().await.ok();
    (worker, status)
}

/// The run may not ask its model any more, and ends with that.
async fn model_denied(scenario: &Scenario, status: WorkflowExecutionStatus, target: &str) {
    let said = scenario.temporal(&["workflow", "result", "--workflow-id", &scenario.name, "-o", "json"]).await;
    let why = format!("run ended as model_denied: `{target}` is in quarantine: a leak");
    assert!(status == WorkflowExecutionStatus::Failed && said.stdout.contains(&why), "{said:?}");
}

/// The approved call is refused, and says why.
async fn call_refused(scenario: &Scenario, target: &str) {
    assert!(scenario.refund_calls().await.is_empty(), "nothing is sent");
    let (outcome, policies, _, reason) = decisions(scenario, "payments.refund").await.pop().unwrap();
    let expected = format!("`{target}` is in quarantine: a leak");
    assert_eq!((outcome, policies, reason), (DecisionOutcome::Deny, vec![], expected));
}

/// After the quarantine is lifted a new run pays.
async fn works_again(scenario: &Scenario, target: &str) {
    let paid = scenario.payments().await.len();
    scenario.mandate(&["quarantine", "lift", target, "--by", KIM]).await.ok();
    scenario.start_run("Refund order o2").await;
    assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
    assert_eq!(scenario.payments().await.len(), paid + 1);
}

async fn a_tool_or_its_server(name: &str, target: &str) {
    let scenario = Scenario::new(name).await;
    let (_worker, status) = locked_while_waiting(&scenario, target).await;
    assert_eq!(status, WorkflowExecutionStatus::Completed);
    assert!(scenario.answer().await.contains("was not made"));
    call_refused(&scenario, target).await;
    works_again(&scenario, target).await;
}

#[test]
fn an_approved_call_of_a_tool_in_quarantine_is_refused() {
    run(a_tool_or_its_server("quarantined-tool", "tool:payments.refund"));
}

#[test]
fn an_approved_call_of_a_server_in_quarantine_is_refused() {
    run(a_tool_or_its_server("quarantined-server", "server:refunds"));
}

/// The agent or the person it acts for: the call is refused, and the model is not asked any more.
async fn all_of_the_run(name: &str, target: &str) {
    let scenario = Scenario::new(name).await;
    let (_worker, status) = locked_while_waiting(&scenario, target).await;
    model_denied(&scenario, status, target).await;
    call_refused(&scenario, target).await;

    scenario.start_run("Refund order o2").await;
    assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Failed, "no new run is opened");
    works_again(&scenario, target).await;
}

#[test]
fn a_run_of_an_agent_in_quarantine_ends() {
    run(all_of_the_run("quarantined-agent", "agent:acme/support/refunds"));
}

#[test]
fn a_run_for_a_person_in_quarantine_ends() {
    run(all_of_the_run("quarantined-person", "person:ana@acme.example"));
}

#[test]
fn a_model_in_quarantine_is_not_asked_and_what_it_proposed_is_refused() {
    run(async {
        let scenario = Scenario::new("quarantined-model").await;
        let (_worker, status) = locked_while_waiting(&scenario, "model:support").await;
        model_denied(&scenario, status, "model:support").await;
        call_refused(&scenario, "model:support").await;
        let (outcome, _, _, reason) = decisions(&scenario, "support").await.pop().unwrap();
        assert_eq!((outcome, reason.as_str()), (DecisionOutcome::Deny, "`model:support` is in quarantine: a leak"));
        works_again(&scenario, "model:support").await;
    });
}

#[test]
fn in_production_a_tightened_bundle_denies_what_was_approved_without_a_restart() {
    run(async {
        let scenario = Scenario::new("tightened").await;
        scenario.in_production();
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let (worker, request) = waiting(&scenario).await;
        scenario.edit(POLICIES, "amount_cents > 500000 };\n\n// The facts", "amount_cents > 40000 };\n\n// The facts");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let key = keys::key_file(&scenario.path(""), BO);
        let decide = ["approve", &scenario.name, "--request", &request, "--by", BO, "--yes", "--key"];
        scenario.mandate(&[&decide[..], &[key.to_str().unwrap()]].concat()).await.ok();
        assert!(scenario.answer().await.contains("was not made"));
        assert!(scenario.refund_calls().await.is_empty());
        let digests = digests(&scenario).await;
        let decided = decisions(&scenario, "payments.refund").await;
        let shown: Vec<_> =
            decided.iter().map(|(outcome, policies, bundle, _)| (*outcome, &policies[0], bundle)).collect();
        let (large, ceiling) = ("refund.large".to_owned(), "refund.ceiling".to_owned());
        let expected =
            [(DecisionOutcome::RequireApproval, &large, &digests[0]), (DecisionOutcome::Deny, &ceiling, &digests[1])];
        assert_eq!(shown, expected);
        assert!(worker.log().contains("another policy bundle is in force"), "{}", worker.log());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn in_production_a_loosened_bundle_leaves_a_request_until_somebody_decides() {
    run(async {
        let scenario = Scenario::new("loosened").await;
        scenario.in_production();
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        let (_worker, request) = waiting(&scenario).await;
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 60000");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        assert_eq!(scenario.pending_id().await, request);
        scenario.approve(&request, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        let digests = digests(&scenario).await;
        let decided = decisions(&scenario, "payments.refund").await;
        let shown: Vec<_> = decided.iter().map(|(outcome, _, bundle, _)| (*outcome, bundle)).collect();
        assert_eq!(shown, [(DecisionOutcome::RequireApproval, &digests[0]), (DecisionOutcome::Allow, &digests[1])]);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_bundle_that_cannot_be_used_leaves_the_last_good_one_in_force() {
    run(async {
        let scenario = Scenario::new("last-good-bundle").await;
        let worker = scenario.worker_with(&["--metrics-address", "127.0.0.1:0"]).await;
        let bundle = async |stale: f64, failures: f64, version: f64| {
            let served = metrics::get(&metrics::address(&worker), "/metrics").await;
            let found = ["bundle_stale", "load_failures_total", "bundle_version"]
                .map(|name| metrics::value(&served, &format!("mandate_policy_{name}"), &[]));
            assert_eq!(format!("{found:?}"), format!("{:?}", [stale, failures, version]), "{served}");
        };
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        bundle(0.0, 0.0, 1.0).await;
        let broken = "INSERT INTO bundles VALUES (2, $1, 1, 'nobody', NULL, 'plain', '{\"sources\": [')";
        assert_eq!(scenario.tamper(broken, &"ab".repeat(32)).await, 1);
        scenario.approve(&request, BO).await;
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);
        let said = "the last good one stays in force";
        assert_eq!(worker.log().matches(said).count(), 1, "said once: {}", worker.log());
        let digests = digests(&scenario).await;
        let decided = decisions(&scenario, "payments.refund").await;
        assert!(decided.iter().all(|(_, _, bundle, _)| *bundle == digests[0]), "{decided:?}");
        bundle(1.0, 1.0, 1.0).await;
        let said = scenario.mandate(&["doctor"]).await;
        let words = "fail  bundle: version 2, abababababab, applied by nobody, cannot be used here";
        assert!(said.code == 1 && said.stdout.contains(words), "{said:?}");
        assert!(said.stdout.contains("workers keep the last good one"), "{said:?}");

        // The worker goes on with the next good one.
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 1000");
        scenario.mandate(&["apply", "--by", KIM, "--yes"]).await.ok();
        scenario.start_run("Refund order o2").await;
        scenario.pending_id().await;
        bundle(0.0, 1.0, 3.0).await;
        assert!(scenario.mandate(&["doctor"]).await.ok().contains("ok    bundle: version 3"));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn in_development_an_edited_policy_is_in_force_when_the_next_worker_starts_and_all_agree() {
    run(async {
        let scenario = Scenario::new("two-workers").await;
        let first = scenario.start_worker().await;
        scenario.edit(POLICIES, "amount_cents > 10000", "amount_cents > 1000");
        let second = scenario.start_worker().await;
        assert!(second.log().contains("the folder's policies were applied"), "{}", second.log());
        assert_eq!(second.stop().await, 0);
        let third = scenario.start_worker().await;
        assert!(!third.log().contains("the folder's policies were applied"), "nothing changed: {}", third.log());
        assert_eq!(third.stop().await, 0);
        // Only the worker that started with the policies of before is left.
        scenario.start_run("Refund order o2").await;
        scenario.pending_id().await;
        let digests = digests(&scenario).await;
        assert_eq!(digests.len(), 2);
        let decided = decisions(&scenario, "payments.refund").await;
        assert_eq!((decided[0].0, &decided[0].2), (DecisionOutcome::RequireApproval, &digests[1]), "{decided:?}");
        assert!(first.log().contains("another policy bundle is in force"), "{}", first.log());
    });
}

/// The last decision of a person: who, why it does not count, by which policies and bundle.
async fn last_decision(scenario: &Scenario) -> (String, Option<String>, Vec<String>, Option<String>) {
    let bodies = scenario.records().await.into_iter().map(|record| record.body);
    let mut decided = bodies.filter_map(|body| match body {
        RecordBody::ApprovalDecided { by, refused, policies, bundle, .. } => {
            let policies = policies.iter().map(ToString::to_string).collect();
            Some((by.to_string(), refused, policies, bundle.map(|bundle| bundle.to_string())))
        }
        _ => None,
    });
    decided.next_back().unwrap()
}

#[test]
fn whom_quarantine_or_policy_keeps_from_deciding_is_told_why() {
    run(async {
        let scenario = Scenario::new("may-not-decide").await;
        scenario.write(
            "policies/eve.cedar",
            r#"@id("decide.not_eve") @reason("eve does not decide about refunds")
            forbid (principal == Mandate::User::"eve@acme.example", action in Mandate::Action::"decide",
              resource == Mandate::Tool::"payments.refund");"#,
        );
        let (_worker, _) = waiting(&scenario).await;
        let digest = Some(digests(&scenario).await.remove(0));
        let approve = async |by: &str| scenario.mandate(&["approve", &scenario.name, "--by", by, "--yes"]).await;

        let said = approve(EVE).await;
        assert!(said.code == 3 && said.stderr.contains("eve does not decide about refunds"), "{said:?}");
        let (by, refused, policies, bundle) = last_decision(&scenario).await;
        assert_eq!((by.as_str(), policies, &bundle), (EVE, vec!["decide.not_eve".to_owned()], &digest));
        assert!(refused.unwrap().contains("eve does not decide about refunds"));

        lock(&scenario, "person:bo@acme.example").await;
        let said = approve(BO).await;
        assert!(said.code == 3 && said.stderr.contains("`person:bo@acme.example` is in quarantine"), "{said:?}");
        let (by, refused, policies, bundle) = last_decision(&scenario).await;
        assert_eq!((by.as_str(), policies, &bundle), (BO, vec![], &digest));
        assert!(refused.unwrap().contains("is in quarantine: a leak"));
        assert!(scenario.refund_calls().await.is_empty());

        scenario.mandate(&["quarantine", "lift", "person:bo@acme.example", "--by", KIM]).await.ok();
        approve(BO).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_run_that_its_starter_may_not_start_fails_and_the_refusal_stands_in_the_stores_own_chain() {
    run(async {
        let scenario = Scenario::new("may-not-start").await;
        let _worker = scenario.start_worker().await;
        let task = json!({ "agent": mandate_tests::AGENT, "prompt": "Refund order o2", "on_behalf_of": "ana@acme.example",
            "started_by": "mallory@acme.example" });
        scenario.start_input(&task.to_string()).await;
        assert_eq!(scenario.wait_closed().await, WorkflowExecutionStatus::Failed);
        let shown = scenario.temporal(&["workflow", "show", "--workflow-id", &scenario.name, "-o", "json"]).await.ok();
        for part in ["StartDenied", "mallory@acme.example", "no policy permits this"] {
            assert!(shown.contains(part), "`{part}` is missing: {shown}");
        }
        let records = until("the refusal is recorded", async || {
            let records = scenario.records().await;
            (!records.is_empty()).then_some(records)
        })
        .await;
        let refused: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.body {
                RecordBody::OperatorRefused { action, target, by, reason, bundle, .. } => {
                    Some((record.run.workflow_id.as_str(), action.as_str(), target.as_str(), by, reason, bundle))
                }
                _ => None,
            })
            .collect();
        let [(chain, action, target, by, reason, Some(_))] = refused[..] else { panic!("{refused:?}") };
        assert_eq!((chain, action), ("mandate-store", "start_run"));
        assert_eq!(target, "agent:acme/support/refunds for ana@acme.example");
        assert_eq!((by.as_str(), reason.as_str()), ("mallory@acme.example", "no policy permits this"));
        assert!(!records.iter().any(|record| matches!(record.body, RecordBody::RunOpened { .. })), "no run was opened");
        let typed =
            "run --agent acme/support/refunds --on-behalf-of ana@acme.example --started-by mallory@acme.example";
        let typed: Vec<&str> = typed.split(' ').chain(["--task-queue", &scenario.name, "Refund order o2"]).collect();
        let said = scenario.mandate(&typed).await;
        assert!(said.code == 3 && said.stderr.contains("`mallory@acme.example` may not start agent"), "{said:?}");
        let verified = scenario.mandate(&["audit", "verify", "--witness", "none"]).await.ok();
        assert!(verified.starts_with("holds  store"), "{verified}");
    });
}
