//! A person releases a call through Temporal alone.

use mandate_domain::audit::RecordBody;
use mandate_tests::{Scenario, run, until};
use serde_json::{Value, json};

#[test]
fn a_large_refund_waits_for_a_finance_lead_and_is_released_by_a_signal() {
    run(async {
        let scenario = Scenario::new("approved").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.wait_state("AwaitingApproval").await;
        let query = r#"MandateState="AwaitingApproval" AND MandateApprovers="finance-leads" AND WorkflowId="approved""#;
        until("the list query finds the run", async || {
            let listed = scenario.temporal(&["workflow", "list", "--query", query]).await.ok();
            listed.contains("approved").then_some(())
        })
        .await;

        let details = scenario.details().await;
        for part in ["payments.refund", "50000", "temporal workflow signal", "--name approve", "finance-leads"] {
            assert!(details.contains(part), "`{part}` is missing:\n{details}");
        }
        let pending = scenario.pending().await;
        assert_eq!((pending.len(), pending[0].tool.as_str()), (1, "payments.refund"), "{pending:?}");
        let arguments: Value = serde_json::from_str(&pending[0].arguments).unwrap();
        assert_eq!(arguments["amount_cents"], 50_000);
        assert!(details.contains(&pending[0].request_id));
        assert!(scenario.refund_calls().await.is_empty(), "nothing is sent before the decision");

        scenario.approve(&pending[0].request_id, "bo@acme.example").await;
        let result = scenario.result().await;
        assert_eq!(result["state"], "Completed", "{result}");
        assert!(result["answer"]["text"].as_str().unwrap().contains("500.00 EUR for order o1"), "{result}");
        let records = scenario.records().await.into_iter().filter(|record| record.run.workflow_id == scenario.name);
        assert_eq!(result["audit"]["records"], records.count(), "{result}");
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 50_000));
        assert_eq!(scenario.refund_calls().await.len(), 1);
        let turns = scenario.history().await.activities("invoke_model");
        assert_eq!((scenario.read_calls().await.len(), turns), (1, 3), "what was done before is not done again");
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("approved") && verified.contains("confirmed by Temporal's history"), "{verified}");
        scenario.store_history("approval").await;
        let summaries: Vec<_> = scenario.history().await.0.into_iter().filter_map(|event| event.summary).collect();
        let released = format!("payments.refund · released by {}", pending[0].request_id);
        assert!(summaries.contains(&released), "{summaries:?}");
    });
}

#[test]
fn the_printed_command_releases_the_call_as_it_stands() {
    run(async {
        let scenario = Scenario::new("printed-command").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        scenario.wait_state("AwaitingApproval").await;
        let command = scenario.pending().await[0].commands[0].replace("YOUR-ID", "bo@acme.example");
        // The CLI under its usual name, as in the person's own shell.
        let shell = format!("temporal() {{ \"{}\" \"$@\"; }}\n{command}", scenario.server.cli().display());
        scenario.server.shell(&shell).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
    });
}

#[test]
fn two_calls_of_one_turn_are_decided_in_any_order() {
    run(async {
        let scenario = Scenario::new("two-calls").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o5").await;
        let mut pending = until("both calls wait", async || {
            let pending = scenario.pending().await;
            (pending.len() == 2).then_some(pending)
        })
        .await;
        // Requests are numbered as the calls come by, and the two race.
        pending.sort_by_key(|request| request.call);
        scenario.approve(&pending[1].request_id, "eve@acme.example").await;
        until("the second call is performed", async || (scenario.payments().await.len() == 1).then_some(())).await;
        assert_eq!(scenario.pending().await.len(), 1, "the first call still waits");
        scenario.reject(&pending[0].request_id, "bo@acme.example").await;
        scenario.answer().await;
        let payments = scenario.payments().await;
        assert_eq!((payments.len(), payments[0].cents), (1, 25_000), "{payments:?}");
        scenario.store_history("parallel").await;
        scenario.audit_verify().await.ok();
    });
}

/// Decided out of order, by signal and by update, two of them at once, one of them twice.
#[test]
fn five_calls_of_one_turn_wait_together_and_each_is_decided_once() {
    run(async {
        let scenario = Scenario::new("five-calls").await;
        let cents = [10_100, 10_200, 10_300, 10_400, 10_500];
        let call = |cents: &u32| {
            let arguments = format!("{{ order_id = \"o1\", amount_cents = {cents}, currency = \"EUR\" }}");
            format!("{{ tool = \"payments.refund\", arguments = {arguments} }}")
        };
        let calls = cents.iter().map(call).collect::<Vec<_>>().join(", ");
        scenario.edit(
            "scripts/refunds.toml",
            "when = \"order o1\"\n",
            &format!("when = \"order o1\"\n\n[[conversation.reply]]\ncalls = [{calls}]\n\n[[conversation.reply]]\ntext = \"Done.\"\n"),
        );
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let mut pending = until("all five wait", async || {
            let pending = scenario.pending().await;
            (pending.len() == cents.len()).then_some(pending)
        })
        .await;
        pending.sort_by_key(|request| request.call);
        let [first, second, third, fourth, fifth] = [0, 1, 2, 3, 4].map(|index| pending[index].request_id.as_str());
        let update = async |request: &str, verdict: &str| {
            let input = json!({ "request_id": request, "verdict": verdict, "by": "eve@acme.example" }).to_string();
            let update = ["workflow", "update", "execute", "--workflow-id", &scenario.name, "--name", "decide"];
            scenario.temporal(&[&update[..], &["--input", &input]].concat()).await
        };
        update(fourth, "approve").await.ok();
        scenario.approve(second, "bo@acme.example").await;
        let (by_update, ()) = tokio::join!(update(fifth, "approve"), scenario.approve(first, "bo@acme.example"));
        by_update.ok();
        scenario.approve(fourth, "bo@acme.example").await;
        update(third, "reject").await.ok();
        assert!(scenario.answer().await.contains("Done."));
        let mut paid: Vec<_> = scenario.payments().await.into_iter().map(|payment| payment.cents).collect();
        paid.sort_unstable();
        assert_eq!(paid, [10_100, 10_200, 10_400, 10_500], "each approved one once, and not the rejected one");
        let counted = |body: &RecordBody| matches!(body, RecordBody::ApprovalDecided { refused: None, .. });
        assert_eq!(scenario.records_where(counted).await.len(), 5);
        scenario.store_history("five-calls").await;
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn the_update_decide_answers_whoever_asks() {
    run(async {
        let scenario = Scenario::new("update-decide").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let name = scenario.name.clone();
        let decide = async |request: &str, by: &str| {
            let input = json!({ "request_id": request, "verdict": "approve", "by": by }).to_string();
            let update = ["workflow", "update", "execute", "--workflow-id", &name, "--name", "decide"];
            scenario.temporal(&[&update[..], &["--input", &input]].concat()).await
        };
        let unknown = decide("r9-000000", "bo@acme.example").await;
        assert!(unknown.code != 0 && unknown.stderr.contains("no request `r9-000000` is pending"), "{unknown:?}");
        let stranger = decide(&request, "mallory@acme.example").await;
        let said = format!("{}{}", stranger.stdout, stranger.stderr);
        assert!(
            said.contains("`mallory@acme.example` is in none of the approver groups (finance-leads)"),
            "{stranger:?}"
        );
        assert!(scenario.refund_calls().await.is_empty(), "a stranger's decision does nothing");
        let requester = decide(&request, "ana@acme.example").await;
        assert!(scenario.refund_calls().await.is_empty());
        let said = format!("{}{}", requester.stdout, requester.stderr);
        assert!(said.contains("ana@acme.example"), "{requester:?}");
        decide(&request, "bo@acme.example").await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
        let refused =
            scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { refused: Some(_), .. })).await;
        assert_eq!(refused.len(), 2, "both refusals are recorded");
        scenario.audit_verify().await.ok();
        scenario.store_history("update-decide").await;
    });
}
