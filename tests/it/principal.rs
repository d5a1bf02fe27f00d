//! What a server that knows its callers says of them: the principal that it stamps on each event. `identity` and the
//! `by` of a decision are what somebody claims; the principal is what the server checked.

use std::time::Duration;

use mandate_domain::{
    audit::{Proof, RecordBody},
    proof::InstructionKind,
};
use mandate_tests::{ADMIN, Scenario, authorized_server, keys, run, until};
use serde_json::json;
use temporalio_client::tonic::IntoRequest as _;
use temporalio_common::protos::temporal::api::{
    common::v1::ActivityType,
    enums::v1::{ActivityExecutionStatus, EventType},
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        DescribeActivityExecutionRequest, StartActivityExecutionRequest, TerminateActivityExecutionRequest,
    },
};

const ANA: Option<&str> = Some("jwt/ana@acme.example");
const BO: Option<&str> = Some("jwt/bo@acme.example");
const WORKER: Option<&str> = Some("jwt/worker-1");
/// The server itself, and whoever reaches the frontend that is for it alone.
const INTERNAL: Option<&str> = Some("temporal/internal");

/// A run that waits for the approval of its refund, and the id of the request.
async fn waiting(name: &str) -> (Scenario, String) {
    let scenario = Scenario::on_authorized(name).await;
    let worker = scenario.start_worker().await;
    scenario.keep(worker);
    scenario.start_run("Refund order o1").await;
    let request = scenario.pending_id().await;
    (scenario, request)
}

/// The arguments of an approval by signal, in somebody's name.
fn approval<'a>(workflow: &'a [&'a str], input: &'a str) -> Vec<&'a str> {
    [&["workflow", "signal", "--name", "approve", "--input", input], workflow].concat()
}

fn decision(request: &str, by: &str) -> String {
    json!({ "request_id": request, "by": by }).to_string()
}

async fn signal_principals(scenario: &Scenario) -> Vec<Option<String>> {
    let history = scenario.history().await;
    let principals = history.principals(EventType::WorkflowExecutionSignaled);
    principals.into_iter().map(|principal| principal.map(str::to_owned)).collect()
}

#[test]
fn each_event_names_who_caused_it_whatever_they_claim() {
    run(async {
        let (scenario, request) = waiting("stamped").await;
        let bo = scenario.as_person("bo@acme.example").await;
        let input = decision(&request, "bo@acme.example");
        let workflow = ["--workflow-id", scenario.name.as_str(), "--identity", "eve@acme.example"];
        bo.temporal(&approval(&workflow, &input)).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
        assert_eq!(scenario.payments().await.len(), 1);

        let history = scenario.history().await;
        assert_eq!(history.principals(EventType::WorkflowExecutionStarted), [ANA]);
        assert_eq!(history.principals(EventType::WorkflowTaskScheduled).first(), Some(&ANA));
        assert_eq!(history.principals(EventType::WorkflowExecutionSignaled), [BO]);
        let signal = history.0.iter().find(|event| event.kind == EventType::WorkflowExecutionSignaled).unwrap();
        assert_eq!(signal.identity.as_deref(), Some("eve@acme.example"), "the claim stands beside it");
        for kind in [
            EventType::WorkflowTaskStarted,
            EventType::WorkflowTaskCompleted,
            EventType::ActivityTaskScheduled,
            EventType::ActivityTaskStarted,
            EventType::ActivityTaskCompleted,
            EventType::WorkflowExecutionCompleted,
        ] {
            let principals = history.principals(kind);
            assert!(
                !principals.is_empty() && principals.iter().all(|principal| *principal == WORKER),
                "{kind:?}: {principals:?}"
            );
        }
        let verified = scenario.audit_verify().await.ok();
        assert!(verified.contains("confirmed by Temporal's history"), "{verified}");
    });
}

#[test]
fn a_cancellation_names_who_asked_for_it() {
    run(async {
        let (scenario, _request) = waiting("cancelled-by").await;
        let bo = scenario.as_person("bo@acme.example").await;
        bo.temporal(&["workflow", "cancel", "--workflow-id", &scenario.name]).await.ok();
        scenario.wait_closed().await;
        assert_eq!(scenario.history().await.principals(EventType::WorkflowExecutionCancelRequested), [BO]);
        assert!(scenario.refund_calls().await.is_empty());
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn who_may_not_write_reaches_no_run() {
    run(async {
        let (scenario, request) = waiting("refused").await;
        let server = authorized_server().await;
        let input = decision(&request, "bo@acme.example");
        let workflow = ["--workflow-id", scenario.name.as_str()];
        let signal = approval(&workflow, &input);
        let bo = "bo@acme.example";
        let tokens = [
            ("none", None),
            ("one to read", Some(server.token(bo, &["default:read"]))),
            ("one for another namespace", Some(server.token(bo, &["elsewhere:admin"]))),
            ("one without permissions", Some(server.token(bo, &[]))),
            ("an old one", Some(server.issuer.expired(bo, &["default:write"]))),
            ("one of somebody else", Some(mandate_tests::Issuer::new().token(bo, &["default:write"]))),
        ];
        for (which, token) in tokens {
            let said = server.cli(token.as_deref(), &signal).await;
            assert!(said.code != 0 && said.stderr.contains("unauthorized"), "token: {which}: {said:?}");
        }
        assert_eq!(signal_principals(&scenario).await, []);
        assert_eq!(scenario.pending().await.len(), 1, "the request still waits");

        // The same signal with a good token is taken, so the refusals above are about the tokens.
        server.cli(Some(&server.token(bo, &["default:write"])), &signal).await.ok();
        scenario.answer().await;
    });
}

#[test]
fn a_worker_may_not_register_search_attributes() {
    run(async {
        let server = authorized_server().await;
        let create =
            ["operator", "search-attribute", "create", "--namespace", "default", "--name", "Extra", "--type", "Int"];
        let said = server.caller(mandate_tests::WORKER).await.temporal(&create).await;
        assert!(said.code != 0 && said.stderr.contains("unauthorized"), "{said:?}");
        server.caller(ADMIN).await.temporal(&create).await.ok();
    });
}

#[test]
fn a_batch_of_signals_carries_the_server_as_its_principal() {
    run(async {
        let (scenario, request) = waiting("batch").await;
        let bo = scenario.as_person("bo@acme.example").await;
        let input = decision(&request, "bo@acme.example");
        let query = format!("WorkflowId = '{}'", scenario.name);
        bo.temporal(&approval(&["--query", &query, "--reason", "all at once", "--yes"], &input)).await.ok();
        until("the batch is carried out", async || (!signal_principals(&scenario).await.is_empty()).then_some(()))
            .await;
        assert_eq!(signal_principals(&scenario).await, [INTERNAL.map(str::to_owned)], "not who started the batch");
        scenario.answer().await;
    });
}

#[test]
fn the_frontend_of_the_server_itself_asks_nobody() {
    run(async {
        let (scenario, request) = waiting("internal").await;
        let server = authorized_server().await;
        let (input, internal) = (decision(&request, "bo@acme.example"), server.internal_address());
        let workflow = ["--workflow-id", scenario.name.as_str(), "--address", internal.as_str()];
        server.cli(None, &approval(&workflow, &input)).await.ok();
        assert_eq!(signal_principals(&scenario).await, [INTERNAL.map(str::to_owned)]);
        scenario.answer().await;
    });
}

#[test]
fn an_update_carries_the_worker_that_took_it_and_not_the_caller() {
    run(async {
        let (scenario, request) = waiting("updated").await;
        let bo = scenario.as_person("bo@acme.example").await;
        let input = json!({ "request_id": request, "verdict": "approve", "by": "bo@acme.example" }).to_string();
        let update = ["workflow", "update", "execute", "--workflow-id", &scenario.name, "--name", "decide"];
        bo.temporal(&[&update[..], &["--input", &input]].concat()).await.ok();
        scenario.answer().await;
        let history = scenario.history().await;
        assert_eq!(history.principals(EventType::WorkflowExecutionUpdateAccepted), [WORKER]);
        assert_eq!(history.principals(EventType::WorkflowExecutionUpdateCompleted), [WORKER]);
    });
}

#[test]
fn the_server_takes_activities_without_a_workflow() {
    run(async {
        let ana = authorized_server().await.caller("ana@acme.example").await;
        let (namespace, activity_id) = ("default".to_owned(), "standalone".to_owned());
        let mut service = ana.client.connection().workflow_service();
        let start = StartActivityExecutionRequest {
            namespace: namespace.clone(),
            activity_id: activity_id.clone(),
            activity_type: Some(ActivityType { name: "nobody_has_it".to_owned() }),
            task_queue: Some(TaskQueue { name: "nobody-polls".to_owned(), ..TaskQueue::default() }),
            schedule_to_close_timeout: Some(Duration::from_mins(1).try_into().unwrap()),
            ..StartActivityExecutionRequest::default()
        };
        let run_id = service.start_activity_execution(start.into_request()).await.unwrap().into_inner().run_id;
        let describe = DescribeActivityExecutionRequest {
            namespace: namespace.clone(),
            activity_id: activity_id.clone(),
            run_id: run_id.clone(),
            ..DescribeActivityExecutionRequest::default()
        };
        let status = async || {
            let mut service = ana.client.connection().workflow_service();
            let described = service.describe_activity_execution(describe.clone().into_request()).await.unwrap();
            described.into_inner().info.unwrap().status()
        };
        assert_eq!(status().await, ActivityExecutionStatus::Running);
        let terminate = TerminateActivityExecutionRequest {
            namespace,
            activity_id,
            run_id,
            ..TerminateActivityExecutionRequest::default()
        };
        service.terminate_activity_execution(terminate.into_request()).await.unwrap();
        until("it is over", async || (status().await == ActivityExecutionStatus::Terminated).then_some(())).await;
    });
}

#[test]
fn the_command_on_the_page_about_approvals_approves_as_whoever_sends_it() {
    run(async {
        let scenario = Scenario::on_authorized("page-principal").await;
        scenario.accept_principals();
        let worker = scenario.start_worker().await;
        scenario.keep(worker);
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let blocks = super::docs::blocks_with_principals("docs/approvals.md");
        let [typed] = &blocks[..] else { panic!("{blocks:#?}") };
        let typed = typed.replace("refund-o1", &scenario.name).replace("r1-7f3a9c", &request);
        let bo = scenario.as_person("bo@acme.example").await.server;
        bo.shell(&format!("temporal() {{ \"{}\" \"$@\"; }}\n{typed}", bo.cli().display())).await.ok();
        assert!(scenario.answer().await.contains("500.00 EUR"));
        let decided = scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { .. })).await;
        let [record] = &decided[..] else { panic!("{decided:#?}") };
        let RecordBody::ApprovalDecided { by, proof, refused: None, .. } = &record.body else { panic!("{record:?}") };
        assert_eq!((by.as_str(), *proof), ("bo@acme.example", Proof::Principal));
    });
}

#[test]
fn people_tell_a_run_what_to_do_as_whoever_the_server_says_they_are() {
    run(async {
        let scenario = Scenario::on_authorized("told-principal").await;
        scenario.accept_principals();
        let worker = scenario.start_worker().await;
        scenario.keep(worker);
        scenario.start_run("Refund order o6").await;
        scenario.wait_state("AwaitingAnswer").await;
        let (kim, bo) = (scenario.as_person("kim@acme.example").await, scenario.as_person("bo@acme.example").await);
        let name = scenario.name.as_str();
        // Whoever may write sends it in somebody's name, and the server says who they are.
        let mallory = scenario.as_person("mallory@acme.example").await;
        mallory.signal("pause", &json!({ "by": "kim@acme.example" }).to_string()).await.ok();
        until("it is refused", async || (scenario.status().await.refused_messages == 1).then_some(())).await;
        kim.mandate(&["pause", name, "--yes"]).await.ok();
        scenario.wait_state("Paused").await;
        kim.mandate(&["resume", name, "--yes"]).await.ok();
        bo.mandate(&["steer", name, "Tell her by phone.", "--yes"]).await.ok();
        bo.mandate(&["answer", name, "90.00 EUR", "--yes"]).await.ok();
        scenario.answer().await;
        assert_eq!(scenario.payments().await.len(), 1);

        let told = scenario.records_where(|body| matches!(body, RecordBody::Instructed { .. })).await;
        let RecordBody::Instructed { refused: Some(reason), .. } = &told[0].body else { panic!("{told:#?}") };
        assert!(reason.contains("the principal is of `mallory@acme.example`"), "{reason}");
        let counted = told[1..].iter().map(|record| {
            let RecordBody::Instructed { instruction, by, proof, evidence, refused: None, .. } = &record.body else {
                panic!("{record:?}")
            };
            let stamped = format!("jwt/{by}");
            assert!(evidence.as_ref().is_some_and(|evidence| evidence.contains(&stamped)), "{record:?}");
            (*instruction, by.as_str(), *proof)
        });
        let expected = [
            (InstructionKind::Pause, "kim@acme.example", Proof::Principal),
            (InstructionKind::Resume, "kim@acme.example", Proof::Principal),
            (InstructionKind::Steer, "bo@acme.example", Proof::Principal),
            (InstructionKind::Answer, "bo@acme.example", Proof::Principal),
        ];
        assert_eq!(counted.collect::<Vec<_>>(), expected);
        scenario.audit_verify().await.ok();
    });
}

/// Finance leads may start runs for others, who are proved by their keys.
fn lets_leads_start_for_others(scenario: &Scenario) {
    scenario.accept_principals();
    scenario.edit("mandate.toml", r#"accept = ["principal"]"#, r#"accept = ["principal", "key"]"#);
    let key = keys::key_of("ana@acme.example").public_key();
    scenario.edit(
        "mandate.toml",
        "\n[groups]\n",
        &format!("\n[identity.keys]\n\"ana@acme.example\" = [\"{key}\"]\n\n[groups]\n"),
    );
    let own = "resource in Mandate::Unit::\"acme/support\"\n)\nwhen { principal == context.on_behalf_of };";
    let others = own.replace(" };", " || principal in Mandate::Group::\"finance-leads\" };");
    scenario.edit("policies/people.cedar", own, &others);
}

#[test]
fn whoever_starts_a_run_for_somebody_else_is_recorded_beside_them() {
    run(async {
        let scenario = Scenario::on_authorized("started-for").await;
        lets_leads_start_for_others(&scenario);
        let worker = scenario.start_worker().await;
        scenario.keep(worker);
        let task = scenario.signed_task("Refund order o2", "ana@acme.example");
        scenario.as_person("bo@acme.example").await.start_input(&task.to_string()).await;
        assert!(scenario.answer().await.contains("45.00 EUR"));
        let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
        let [record] = &opened[..] else { panic!("{opened:#?}") };
        let RecordBody::RunOpened { started_by, started_by_proof, started_by_evidence, evidence, .. } = &record.body
        else {
            panic!("{record:?}")
        };
        assert_eq!((record.who.on_behalf_of.as_str(), record.who.proof), ("ana@acme.example", Proof::Key));
        assert!(evidence.as_ref().is_some_and(|evidence| evidence.contains("key")), "{record:?}");
        let starter = started_by.as_ref().map(|by| (by.as_str(), *started_by_proof));
        assert_eq!(starter, Some(("bo@acme.example", Some(Proof::Principal))));
        assert!(started_by_evidence.as_ref().is_some_and(|evidence| evidence.contains("jwt/bo@acme.example")));
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn nobody_starts_a_run_for_somebody_else_who_may_not() {
    run(async {
        let scenario = Scenario::on_authorized("not-started-for").await;
        lets_leads_start_for_others(&scenario);
        let worker = scenario.start_worker().await;
        scenario.keep(worker);
        // Her signature is good, and whoever sends it is not her.
        let task = scenario.signed_task("Refund order o2", "ana@acme.example");
        scenario.as_person("mallory@acme.example").await.start_input(&task.to_string()).await;
        scenario.wait_closed().await;
        assert!(scenario.refund_calls().await.is_empty());
        let refused = scenario.records_where(|body| matches!(body, RecordBody::OperatorRefused { .. })).await;
        let [record] = &refused[..] else { panic!("{refused:#?}") };
        let RecordBody::OperatorRefused { action, by, proof, .. } = &record.body else { panic!("{record:?}") };
        assert_eq!((action.as_str(), by.as_str(), *proof), ("start_run", "mallory@acme.example", Proof::Principal));
    });
}
