//! The program against a live run: what each command prints, and what its exit code says.

use mandate_tests::{AGENT, Said, Scenario, run, until};
use serde_json::Value;

const ON_BEHALF: &str = "ana@acme.example";

/// `mandate run` of the refunds agent on this test's task queue.
async fn start(scenario: &Scenario, workflow_id: &str, prompt: &str, more: &[&str]) -> Said {
    let agent = ["run", "--agent", AGENT, "--on-behalf-of", ON_BEHALF, "--task-queue", scenario.name.as_str()];
    let named = ["--workflow-id", workflow_id];
    scenario.mandate(&[&agent[..], &named, more, &[prompt]].concat()).await
}

fn json(said: Said) -> Value {
    serde_json::from_str(&said.clone().ok()).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Asserts the exit code, one `error:` line with a text, and that nothing was printed as data.
fn check_refused(said: &Said, code: i32, expected: &str) {
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
    let errors: Vec<_> = said.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(matches!(errors[..], [error] if error.contains(expected)), "`{expected}`: {said:?}");
}

#[test]
fn a_run_is_started_watched_and_approved_by_commands_alone() {
    run(async {
        let scenario = Scenario::new("commands").await;
        let _worker = scenario.start_worker().await;
        let id = scenario.name.as_str();
        let started = json(start(&scenario, id, "Refund order o1", &["--detach"]).await);
        assert_eq!(started["workflow_id"], id);
        assert_eq!(started["run_id"], scenario.describe().await.run_id());
        check_refused(&start(&scenario, id, "Refund order o1", &["--detach"]).await, 3, "is open already");

        let request = scenario.pending_id().await;
        let status = json(scenario.mandate(&["status", id, "--output", "json"]).await);
        assert_eq!((&status["state"], &status["agent"]), (&"AwaitingApproval".into(), &AGENT.into()), "{status}");
        assert_eq!((&status["turn"], &status["waiting"]), (&2.into(), &vec![request.clone()].into()), "{status}");
        let listed = until("the inbox lists the request", async || {
            let listed = json(scenario.mandate(&["approvals", "--output", "json"]).await);
            listed.as_array().unwrap().iter().find(|waiting| waiting["workflow_id"] == id).cloned()
        })
        .await;
        assert_eq!((&listed["request_id"], &listed["run_id"]), (&request.into(), &started["run_id"]), "{listed}");
        assert_eq!((&listed["tool"], &listed["approvers"][0]), (&"payments.refund".into(), &"finance-leads".into()));
        assert!(listed["arguments"].as_str().unwrap().contains("50000"), "{listed}");

        let approve = async |by: &str| scenario.mandate(&["approve", id, "--by", by, "--yes"]).await;
        let stranger = approve("mallory@acme.example").await;
        check_refused(&stranger, 3, "finance-leads");
        assert!(stranger.stderr.contains("50000"), "the exact arguments are shown first: {stranger:?}");
        let without_terminal = scenario.mandate(&["approve", id, "--by", "bo@acme.example"]).await;
        check_refused(&without_terminal, 2, "--yes");
        assert!(scenario.refund_calls().await.is_empty(), "nothing was sent so far");
        assert!(!approve("bo@acme.example").await.ok().is_empty(), "what came of it is data");
        assert!(scenario.answer().await.contains("500.00 EUR"));
        check_refused(&approve("eve@acme.example").await, 3, "no request is pending");
        assert_eq!(scenario.payments().await.len(), 1);

        let told = json(scenario.mandate(&["explain", id, "--output", "json"]).await);
        let kinds: Vec<_> = told.as_array().unwrap().iter().map(|record| record["body"]["kind"].clone()).collect();
        assert_eq!((&kinds[0], kinds.last().unwrap()), (&"run_opened".into(), &"run_closed".into()), "{told}");
        assert_eq!(kinds.iter().filter(|kind| **kind == "approval_decided").count(), 2, "{told}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_rejection_by_command_keeps_the_money() {
    run(async {
        let scenario = Scenario::new("commands-reject").await;
        let _worker = scenario.start_worker().await;
        let id = scenario.name.as_str();
        start(&scenario, id, "Refund order o1", &["--detach"]).await.ok();
        let request = scenario.pending_id().await;
        let other = ["reject", id, "--request", "r9-000000", "--by", "bo@acme.example", "--yes"];
        check_refused(&scenario.mandate(&other).await, 3, &request);
        let reject = ["reject", id, "--request", &request, "--by", "bo@acme.example", "--comment", "no", "--yes"];
        scenario.mandate(&reject).await.ok();
        assert!(scenario.answer().await.contains("rejected by a finance lead"));
        assert!(scenario.refund_calls().await.is_empty());
    });
}

#[test]
fn a_followed_run_prints_its_result_and_ends_as_the_run_did() {
    run(async {
        let scenario = Scenario::new("commands-follow").await;
        let _worker = scenario.start_worker().await;
        let said = start(&scenario, "commands-followed", "Refund order o2", &[]).await;
        assert!(said.stderr.contains("started commands-followed"), "{said:?}");
        let result = json(said);
        assert_eq!(result["state"], "Completed", "{result}");
        assert!(result["answer"]["text"].as_str().unwrap().contains("45.00 EUR for order o2"), "{result}");

        let denied = Scenario::new("commands-stopped").await;
        denied.edit("tenants/acme/support/refunds/agent.toml", "turns_max = 12", "turns_max = 1");
        let _worker = denied.start_worker().await;
        let said = start(&denied, &denied.name, "Refund order o2", &[]).await;
        let result: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!((said.code, &result["state"]), (3, &"Stopped".into()), "{result}");
    });
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    run(async {
        let scenario = Scenario::new("commands-wrong").await;
        let missing = format!("no open run `nobody` in namespace `default` at `{}`", scenario.server.address());
        let decide = ["approve", "nobody", "--by", "bo@acme.example", "--yes"];
        for (line, expected) in [
            (&["status", "nobody"][..], missing.as_str()),
            (&decide[..], missing.as_str()),
            (&["resolve", "nobody", "t1.0", "skip", "--by", "bo@acme.example"][..], missing.as_str()),
            (&["explain", "nobody"][..], "no run was opened in this folder yet"),
            (&["status", "x", "--address", "127.0.0.1:1"][..], "cannot reach Temporal at `127.0.0.1:1`"),
        ] {
            check_refused(&scenario.mandate(line).await, 1, expected);
        }
        let worker = scenario.start_worker().await;
        check_refused(&scenario.mandate(&["explain", "nobody"]).await, 1, "the store knows no run `nobody`");
        check_refused(&scenario.mandate(&["audit", "verify", "nobody"]).await, 1, "the store knows no run `nobody`");
        assert_eq!(worker.stop().await, 0);
        check_refused(&scenario.mandate(&["status", "x", "--colour"]).await, 2, "--colour");
        scenario.edit("mandate.toml", "turns_max = 20", "turns_max = \"many\"");
        let broken = scenario.mandate(&["check"]).await;
        assert_eq!(broken.code, 4, "{broken:?}");
    });
}
