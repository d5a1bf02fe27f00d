//! Each way to prove who decided, on a real server and with the command that people type: a key, a token of an identity
//! provider whose keys the worker fetches, and the principal that the server stamps. What each refuses is in the hostile
//! suite.

use std::fs;

use mandate_domain::{
    Verdict,
    audit::{AuditRecord, Proof, RecordBody},
    proof::InstructionKind,
};
use mandate_tests::{AGENT, Draft, Issuer, Scenario, keys, run, until};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const ANA: &str = "ana@acme.example";
const BO: &str = "bo@acme.example";
const KIM: &str = "kim@acme.example";

/// What stands in for the program that gets a token from an identity provider: it leaves the nonce and waits for the
/// token, which it takes away.
const GET_TOKEN: &str = r#"printf %s "$MANDATE_NONCE" >nonce.new && mv nonce.new nonce
until [ -e token ]; do sleep 0.05; done
mv token given && cat given
"#;

async fn waiting(scenario: &Scenario) -> PendingRequest {
    scenario.start_run("Refund order o1").await;
    scenario.wait_state("AwaitingApproval").await;
    scenario.pending().await.remove(0)
}

fn is_decided(body: &RecordBody) -> bool {
    matches!(body, RecordBody::ApprovalDecided { .. })
}

/// The only decision: who, how they were proved, by what, and why it does not count.
fn only(records: &[AuditRecord]) -> (&str, Proof, Option<&str>, Option<&str>) {
    let [record] = records else { panic!("one decision: {records:#?}") };
    let RecordBody::ApprovalDecided { by, proof, evidence, refused, .. } = &record.body else { panic!("{record:?}") };
    (by.as_str(), *proof, evidence.as_deref(), refused.as_deref())
}

#[test]
fn a_key_signs_on_the_command_line() {
    run(async {
        let scenario = Scenario::new("identity-key").await;
        scenario.accept_keys();
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        let approve = ["approve", &scenario.name, "--request", &request.request_id, "--by", BO, "--yes"];
        let said = scenario.mandate(&approve).await;
        assert!(said.code != 0 && said.stderr.contains("--key"), "a claim is not even sent: {said:?}");
        let said = scenario.mandate(&[&approve[..], &["--key", "keys/eve@acme.example.pem"]].concat()).await;
        assert!(said.code != 0 && said.stderr.contains("signature"), "with somebody else's key: {said:?}");
        let refused = scenario.records_where(is_decided).await;
        let (_, _, _, reason) = only(&refused);
        assert!(reason.is_some_and(|reason| reason.contains("signature")), "{refused:#?}");
        scenario.mandate(&[&approve[..], &["--key", "keys/bo@acme.example.pem"]].concat()).await.ok();
        scenario.answer().await;
        let decided = scenario.records_where(is_decided).await;
        let (by, proof, evidence, refused) = only(&decided[1..]);
        assert_eq!((by, proof, refused), (BO, Proof::Key, None));
        assert!(evidence.is_some_and(|evidence| evidence.contains("key")), "{decided:#?}");
        assert!(scenario.mandate(&["explain", &scenario.name]).await.ok().contains("(key"));
        scenario.audit_verify().await.ok();
    });
}

/// Serves the keys of an identity provider on a port of its own, until the test is over.
async fn serve_keys(issuer: &Issuer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let keys = issuer.key_set().to_string();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
                keys.len()
            );
            // A caller that went away asks again.
            if caller.read(&mut request).await.is_ok() && caller.write_all(answer.as_bytes()).await.is_ok() {
                let _gone = caller.shutdown().await;
            }
        }
    });
    url
}

/// Answers [`GET_TOKEN`] once, as the identity provider of `person`. Returns the nonce.
async fn issue(scenario: &Scenario, issuer: &Issuer, person: &str) -> String {
    let nonce = until("a token is asked for", async || fs::read_to_string(scenario.path("nonce")).ok()).await;
    fs::remove_file(scenario.path("nonce")).expect("the nonce");
    let token = issuer.sign(&Draft::proving(person, &nonce));
    scenario.write("token.new", &token);
    fs::rename(scenario.path("token.new"), scenario.path("token")).expect("the token");
    nonce
}

#[test]
fn a_token_counts_whose_nonce_is_the_request_and_whose_keys_are_fetched() {
    run(async {
        let scenario = Scenario::new("identity-token").await;
        let issuer = scenario.accept_tokens();
        scenario.edit("mandate.toml", "file:keys/jwks.json", &serve_keys(&issuer).await);
        scenario.write("get-token.sh", GET_TOKEN);
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        let token = ["--token", "exec:sh get-token.sh", "--yes"];
        let approve = [&["approve", &scenario.name, "--request", &request.request_id][..], &token].concat();
        let (said, nonce) = tokio::join!(scenario.mandate(&approve), issue(&scenario, &issuer, BO));
        said.ok();
        assert!(request.digest.is_some_and(|digest| digest.as_str().contains(&nonce)), "the digest is the nonce");
        scenario.answer().await;
        let decided = scenario.records_where(is_decided).await;
        let (by, proof, evidence, refused) = only(&decided);
        assert_eq!((by, proof, refused), (BO, Proof::Jwt, None));
        assert!(
            evidence.is_some_and(|evidence| evidence.starts_with("jwt iss=https://login.acme.example")),
            "{decided:?}"
        );
        let history: Value = serde_json::to_value(&decided).expect("JSON");
        let token = fs::read_to_string(scenario.path("given")).expect("the token");
        assert!(!history.to_string().contains(&token), "the record names the token and does not hold it");
        scenario.audit_verify().await.ok();
    });
}

/// How the person that a run acts for was proved, and by what.
async fn starter(scenario: &Scenario) -> (Proof, Option<String>) {
    let opened = scenario.records_where(|body| matches!(body, RecordBody::RunOpened { .. })).await;
    let [record] = &opened[..] else { panic!("{opened:#?}") };
    let RecordBody::RunOpened { evidence, .. } = &record.body else { panic!("{record:?}") };
    (record.who.proof, evidence.clone())
}

/// Types a command that asks for a token, and issues it as the identity provider of `person`.
async fn with_token(scenario: &Scenario, issuer: &Issuer, person: &str, typed: &[&str]) {
    let typed = [typed, &["--token", "exec:sh get-token.sh", "--yes"]].concat();
    let (said, _nonce) = tokio::join!(scenario.mandate(&typed), issue(scenario, issuer, person));
    said.ok();
}

/// What people told a run, as (what, who, how they were proved, by what, why it does not count).
async fn told(scenario: &Scenario) -> Vec<(InstructionKind, String, Proof, Option<String>, Option<String>)> {
    let told = scenario.records_where(|body| matches!(body, RecordBody::Instructed { .. })).await;
    let told = told.into_iter().map(|record| {
        let RecordBody::Instructed { instruction, by, proof, evidence, refused, .. } = record.body else {
            unreachable!("picked above")
        };
        (instruction, by.to_string(), proof, evidence, refused)
    });
    told.collect()
}

#[test]
fn tokens_prove_a_start_and_what_people_tell_the_run() {
    run(async {
        let scenario = Scenario::new("identity-told").await;
        let issuer = scenario.accept_tokens();
        scenario.write("get-token.sh", GET_TOKEN);
        let _worker = scenario.start_worker().await;
        let prompt = "Refund order o6";
        let nonce = keys::start(AGENT, prompt, ANA, &scenario.name).nonce().to_owned();
        let proof = json!({ "token": issuer.sign(&Draft::proving(ANA, &nonce)) });
        let task = json!({ "agent": AGENT, "prompt": prompt, "on_behalf_of": ANA, "proof": proof });
        scenario.start_input(&task.to_string()).await;
        scenario.wait_state("AwaitingAnswer").await;
        let (proof, evidence) = starter(&scenario).await;
        assert_eq!(proof, Proof::Jwt);
        assert!(evidence.is_some_and(|evidence| evidence.starts_with("jwt iss=https://login.acme.example")));

        // Her token for the start is no token for anything else.
        let stolen = json!({ "by": ANA, "message_id": "m1", "token": task["proof"]["token"] });
        scenario.signal("pause", &stolen.to_string()).await.ok();
        until("it is refused", async || (!told(&scenario).await.is_empty()).then_some(())).await;
        let name = scenario.name.as_str();
        with_token(&scenario, &issuer, KIM, &["pause", name]).await;
        scenario.wait_state("Paused").await;
        with_token(&scenario, &issuer, KIM, &["resume", name]).await;
        with_token(&scenario, &issuer, BO, &["steer", name, "Tell her by phone."]).await;
        with_token(&scenario, &issuer, BO, &["answer", name, "90.00 EUR"]).await;
        scenario.answer().await;
        assert_eq!(scenario.payments().await.len(), 1);

        let told = told(&scenario).await;
        let (kind, _, _, _, Some(reason)) = &told[0] else { panic!("{told:#?}") };
        assert!(*kind == InstructionKind::Pause && reason.contains("the token is for something else"), "{told:#?}");
        let expected = [
            (InstructionKind::Pause, KIM),
            (InstructionKind::Resume, KIM),
            (InstructionKind::Steer, BO),
            (InstructionKind::Answer, BO),
        ];
        let counted: Vec<_> = told[1..].iter().map(|(kind, by, ..)| (*kind, by.as_str())).collect();
        assert_eq!(counted, expected);
        for (kind, _, proof, evidence, refused) in &told[1..] {
            assert_eq!((*proof, refused), (Proof::Jwt, &None), "{kind:?}");
            assert!(
                evidence.as_ref().is_some_and(|evidence| evidence.starts_with("jwt iss=")),
                "{kind:?}: {evidence:?}"
            );
        }
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn in_a_production_folder_the_start_is_proved_and_recorded() {
    run(async {
        let scenario = Scenario::new("identity-production").await;
        scenario.in_production();
        scenario.mandate(&["apply", "--by", "kim@acme.example", "--yes"]).await.ok();
        let _worker = scenario.start_worker().await;
        let request = waiting(&scenario).await;
        let (proof, evidence) = starter(&scenario).await;
        assert_eq!(proof, Proof::Key);
        assert!(evidence.is_some(), "what proved her is recorded");
        scenario.decide_signed(&request, Verdict::Approve, BO).await;
        scenario.answer().await;
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn whoever_the_server_says_it_is_starts_and_approves() {
    run(async {
        let scenario = Scenario::on_authorized("identity-principal").await;
        scenario.accept_principals();
        let worker = scenario.start_worker().await;
        scenario.keep(worker);
        let request = waiting(&scenario).await;
        let (proof, evidence) = starter(&scenario).await;
        assert_eq!(proof, Proof::Principal);
        assert!(evidence.is_some_and(|evidence| evidence.contains(ANA)));
        let bo = scenario.as_person(BO).await;
        bo.mandate(&["approve", &scenario.name, "--request", &request.request_id, "--yes"]).await.ok();
        scenario.answer().await;
        let decided = scenario.records_where(is_decided).await;
        let (by, proof, evidence, refused) = only(&decided);
        assert_eq!((by, proof, refused), (BO, Proof::Principal, None));
        assert!(evidence.is_some_and(|evidence| evidence.contains("jwt/bo@acme.example")), "{decided:?}");
        assert_eq!(scenario.payments().await.len(), 1);
        scenario.audit_verify().await.ok();
    });
}
