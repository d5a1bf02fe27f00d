//! Evidence, statements and keys.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn person(name: &str) -> PersonId {
    PersonId::parse(format!("{name}@acme.example")).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_random(&[seed; 32])
}

fn evidence(signature: Option<&str>, token: Option<&str>) -> Evidence {
    Evidence { signature: signature.map(str::to_owned), token: token.map(str::to_owned) }
}

fn run() -> RunChain {
    RunChain { workflow_id: "refund-o1".into(), first_run_id: "run-1".into() }
}

fn decision(verdict: Verdict, arguments: Option<&Map<String, Value>>) -> Result<Statement, CanonicalError> {
    let (request, digest) = (RequestId::parse("r1-7f3a9c").unwrap(), Address::from_bytes([7; 32]));
    let comment = Some("as discussed");
    Statement::decision(&DecisionSaid { request: &request, request_digest: &digest, verdict, comment, arguments })
}

fn text_by(statement: &Statement, by: &str) -> String {
    String::from_utf8(statement.bytes(&person(by)).unwrap()).unwrap()
}

#[test]
fn evidence_is_one_thing_within_its_bound() {
    assert_eq!(evidence(None, None).check(), Ok(()));
    assert_eq!(evidence(Some(&"a".repeat(88)), None).check(), Ok(()));
    assert_eq!(evidence(None, Some(&"a".repeat(4096))).check(), Ok(()));
    let words = |evidence: Evidence| evidence.check().unwrap_err().to_string();
    assert_eq!(words(evidence(Some(&"a".repeat(89)), None)), "the signature is longer than 88 characters");
    assert_eq!(words(evidence(None, Some(&"a".repeat(4097)))), "the token is longer than 4096 bytes");
    assert_eq!(words(evidence(Some("a"), Some("b"))), "a signature and a token exclude each other");
}

#[test]
fn evidence_is_left_out_of_messages_where_there_is_none_and_can_be_flattened() {
    #[derive(Serialize, Deserialize)]
    struct Message {
        by: PersonId,
        #[serde(flatten)]
        evidence: Evidence,
    }
    let message: Message = serde_json::from_value(json!({"by": "bo@acme.example"})).unwrap();
    assert!(message.evidence.is_none());
    assert_eq!(serde_json::to_value(&message).unwrap(), json!({"by": "bo@acme.example"}));
    let message: Message = serde_json::from_value(json!({"by": "bo@acme.example", "token": "a.b.c"})).unwrap();
    assert_eq!(message.evidence, evidence(None, Some("a.b.c")));
}

#[test]
fn a_token_is_never_printed() {
    let printed = format!("{:?}", evidence(None, Some("eyJhbGciOiJFZERTQSJ9.e30.c2ln")));
    assert_eq!(printed, r#"Evidence { signature: None, token: Some("a token of 29 bytes") }"#);
}

proptest! {
    #[test]
    fn no_part_of_any_token_is_printed(token in "[A-Za-z0-9_-]{20,60}\\.[A-Za-z0-9_-]{20,60}\\.[A-Za-z0-9_-]{20,60}") {
        let printed = format!("{:?} {:#?}", evidence(None, Some(&token)), evidence(None, Some(&token)));
        for part in token.split('.') {
            prop_assert!(!printed.contains(part), "{printed}");
        }
    }
}

#[test]
fn a_decision_is_signed_with_all_that_it_says_and_its_nonce_is_the_digest_of_the_request() {
    let arguments = json!({"amount": 10, "order": "o1"}).as_object().cloned().unwrap();
    let approved = decision(Verdict::Approve, Some(&arguments)).unwrap();
    let digest = "07".repeat(32);
    assert_eq!(approved.nonce(), digest);
    assert_eq!(
        text_by(&approved, "bo"),
        format!(
            r#"{{"arguments":{{"amount":10,"order":"o1"}},"by":"bo@acme.example","comment":"as discussed","mandate":"decision/1","request":"r1-7f3a9c","request_digest":"{digest}","verdict":"approve"}}"#
        )
    );
    let rejected = decision(Verdict::Reject, None).unwrap();
    assert!(text_by(&rejected, "bo").starts_with(r#"{"arguments":null,"by":"bo@acme.example""#));
    assert!(text_by(&rejected, "bo").ends_with(r#""verdict":"reject"}"#));
}

#[test]
fn arguments_without_a_canonical_form_are_no_statement() {
    let arguments = json!({"amount": u64::MAX}).as_object().cloned().unwrap();
    assert!(matches!(decision(Verdict::Approve, Some(&arguments)), Err(CanonicalError::InexactNumber(_))));
}

#[test]
fn an_instruction_has_the_nonce_of_everything_but_the_person() {
    let said = |kind, message_id, text| {
        let run = run();
        Statement::instruction(&InstructionSaid { run: &run, message_id, kind, about: Some("t1.0"), text }).unwrap()
    };
    let statement = said(InstructionKind::Steer, "1", Some("use order o2"));
    let everything_else = r#"{"about":"t1.0","first_run_id":"run-1","kind":"steer","mandate":"instruction/1","message_id":"1","text":"use order o2","workflow_id":"refund-o1"}"#;
    assert_eq!(statement.nonce(), canonical::sha256(everything_else.as_bytes()).as_str());
    let signed = text_by(&statement, "bo");
    assert_eq!(signed, everything_else.replace(r#""first_run_id""#, r#""by":"bo@acme.example","first_run_id""#));
    let others = [
        said(InstructionKind::Pause, "1", Some("use order o2")),
        said(InstructionKind::Steer, "2", Some("use order o2")),
        said(InstructionKind::Steer, "1", None),
    ];
    assert!(others.iter().all(|other| other.nonce() != statement.nonce()));
}

#[test]
fn a_start_has_the_nonce_of_everything_but_the_person() {
    let agent = AgentName::parse("acme/support/refunds").unwrap();
    let said = |workflow_id| {
        let on_behalf_of = &person("ana");
        Statement::start(&StartSaid { agent: &agent, prompt: "Refund order o1", on_behalf_of, workflow_id }).unwrap()
    };
    let statement = said("refund-o1");
    let everything_else = r#"{"agent":"acme/support/refunds","mandate":"start/1","on_behalf_of":"ana@acme.example","prompt":"Refund order o1","workflow_id":"refund-o1"}"#;
    assert_eq!(statement.nonce(), canonical::sha256(everything_else.as_bytes()).as_str());
    assert!(text_by(&statement, "kim").contains(r#""by":"kim@acme.example""#));
    assert_ne!(said("refund-o2").nonce(), statement.nonce());
    assert_ne!(statement.digest(&person("kim")), statement.digest(&person("ana")));
}

#[test]
fn a_signature_counts_for_its_key_its_person_and_its_words_alone() {
    let statement = decision(Verdict::Approve, None).unwrap();
    let signature = key(1).sign(&statement.bytes(&person("bo")).unwrap());
    let verify = |key: &SigningKey, statement: &Statement, by| {
        key.public_key().verify(&statement.bytes(&person(by)).unwrap(), &signature)
    };
    assert_eq!(verify(&key(1), &statement, "bo"), Ok(()));
    assert_eq!(verify(&key(2), &statement, "bo"), Err(SignatureRefused));
    assert_eq!(verify(&key(1), &statement, "eve"), Err(SignatureRefused));
    assert_eq!(verify(&key(1), &decision(Verdict::Reject, None).unwrap(), "bo"), Err(SignatureRefused));
}

#[test]
fn keys_and_signatures_come_back_from_their_texts() {
    let key = key(1);
    let public = key.public_key();
    assert_eq!(public.to_string().parse(), Ok(public));
    assert_eq!(PublicKey::from_pem(&public.to_pem().unwrap()), Ok(public));
    let pem = key.to_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(SigningKey::from_pem(&pem).unwrap().public_key(), public);
    let signature = key.sign(b"words");
    assert_eq!(signature.to_string().len(), SIGNATURE_CHARS_MAX);
    assert_eq!(signature.to_string().parse(), Ok(signature));
    assert_eq!(public.fingerprint().len(), 16);
}

#[test]
fn a_key_that_another_tool_made_is_read() {
    // `openssl genpkey -algorithm ed25519` with the key of RFC 8032, section 7.1, test 1.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    let key = SigningKey::from_pem(pem);
    assert_eq!(key.unwrap().public_key().to_string(), "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
}

#[test]
fn what_is_no_key_is_refused_without_being_repeated() {
    let refused = |text: &str| text.parse::<PublicKey>().unwrap_err();
    let weak = format!("ed25519:{}", "A".repeat(43) + "=");
    assert_eq!(refused(&weak), ParseKeyError::NoPoint);
    for text in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &"A".repeat(43), &format!("{} ", key(1).public_key())] {
        assert_eq!(refused(text), ParseKeyError::PublicForm, "{text}");
    }
    assert_eq!(PublicKey::from_pem(&key(1).to_pem().unwrap()), Err(ParseKeyError::PublicPem));
    let public = key(1).public_key().to_pem().unwrap();
    assert_eq!(SigningKey::from_pem(&public).unwrap_err(), ParseKeyError::PrivatePem);
}

#[test]
fn a_signature_has_one_text() {
    let text = key(1).sign(b"words").to_string();
    assert!(text.parse::<Signature>().is_ok());
    let unpadded = text.trim_end_matches('=');
    let url_safe = text.replace('+', "-").replace('/', "_");
    for other in [unpadded, &url_safe, &format!("{text}\n"), ""] {
        assert!(other == text || other.parse::<Signature>().is_err(), "{other}");
    }
}

#[test]
fn a_secret_key_does_not_print_itself() {
    let key = key(1);
    assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public_key().fingerprint()));
}
