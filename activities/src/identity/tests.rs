//! Who is proved by what, and every refusal.

use std::collections::{BTreeMap, BTreeSet};

use mandate_domain::{
    Address, RequestId, Verdict, canonical,
    proof::{DecisionSaid, SigningKey},
};

use super::*;

mod keys;
mod provider;
mod tokens;

/// When the server accepted the message: seconds since 1970.
const NOW: u64 = 1_700_000_000;

fn person(name: &str) -> PersonId {
    PersonId::parse(format!("{name}@acme.example")).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_random(&[seed; 32])
}

fn statement(verdict: Verdict) -> Statement {
    let (request, digest) = (RequestId::parse("r1-070707").unwrap(), Address::from_bytes([7; 32]));
    let said = DecisionSaid { request: &request, request_digest: &digest, verdict, comment: None, arguments: None };
    Statement::decision(&said).unwrap()
}

fn accepting(ways: &[Proof]) -> IdentitySettings {
    IdentitySettings {
        accepted: ways.iter().copied().collect(),
        keys: BTreeMap::from([(person("bo"), vec![key(1).public_key(), key(2).public_key()])]),
        workers: BTreeSet::from(["worker-1".to_owned()]),
        ..IdentitySettings::default()
    }
}

fn signal(principal: Option<(&str, &str)>) -> MessageEvent {
    let principal = principal.map(|(kind, name)| Principal { kind: kind.to_owned(), name: name.to_owned() });
    MessageEvent {
        time_ms: NOW * 1000,
        principal,
        carries_principal: true,
        payload: Vec::new(),
        worker_principals: BTreeSet::from(["worker-2".to_owned()]),
        earlier: BTreeSet::new(),
    }
}

/// What becomes of an approval with this evidence, in words.
async fn ask(
    settings: IdentitySettings,
    by: Option<&str>,
    evidence: &Evidence,
    event: Option<&MessageEvent>,
) -> String {
    let identities = Identities::new(settings).unwrap();
    let by = by.map(person);
    let (claimed_by, statement) = (by.as_ref(), &statement(Verdict::Approve));
    match identities.prove(Asked { claimed_by, evidence, statement, event }).await.unwrap() {
        Ok(proved) => format!("{} by {}", proved.by, proved.proof),
        Err(refused) => refused.to_string(),
    }
}

fn signed(key: &SigningKey, by: &str, verdict: Verdict) -> Evidence {
    let signature = key.sign(&statement(verdict).bytes(&person(by)).unwrap());
    Evidence { signature: Some(signature.to_string()), token: None }
}

#[tokio::test]
async fn a_claim_is_believed_where_claims_are_accepted_and_nowhere_else() {
    let claimed = || accepting(&[Proof::Claimed]);
    assert_eq!(ask(claimed(), Some("bo"), &Evidence::none(), None).await, "bo@acme.example by claimed");
    let nobody = "the message does not say who it is from: name the person in `by`";
    assert_eq!(ask(claimed(), None, &Evidence::none(), None).await, nobody);
    let strict = IdentitySettings { strict: true, ..claimed() };
    let refused = "nothing proves who sent this; accepted are: none";
    assert_eq!(ask(strict, Some("bo"), &Evidence::none(), None).await, refused);
    let refused = "nothing proves who sent this; accepted are: key, jwt";
    let settings = accepting(&[Proof::Key, Proof::Jwt]);
    assert_eq!(ask(settings, Some("bo"), &Evidence::none(), None).await, refused);
}

#[tokio::test]
async fn each_key_of_a_person_proves_them_and_other_keys_persons_and_words_do_not() {
    let settings = || accepting(&[Proof::Key]);
    for seed in [1, 2] {
        let evidence = signed(&key(seed), "bo", Verdict::Approve);
        assert_eq!(ask(settings(), Some("bo"), &evidence, None).await, "bo@acme.example by key");
    }
    let bad = "the signature is not one of `bo@acme.example` over these words";
    for evidence in [
        signed(&key(3), "bo", Verdict::Approve),
        signed(&key(1), "eve", Verdict::Approve),
        signed(&key(1), "bo", Verdict::Reject),
        Evidence { signature: Some("AAAA".to_owned()), token: None },
    ] {
        assert_eq!(ask(settings(), Some("bo"), &evidence, None).await, bad, "{evidence:?}");
    }
    let evidence = signed(&key(1), "eve", Verdict::Approve);
    let stranger = "configuration has no key of `eve@acme.example`";
    assert_eq!(ask(settings(), Some("eve"), &evidence, None).await, stranger);
    let nobody = "the message does not say who it is from: name the person in `by`";
    assert_eq!(ask(settings(), None, &evidence, None).await, nobody);
}

#[tokio::test]
async fn a_signature_is_used_up_and_stands_in_the_record_with_its_key() {
    let identities = Identities::new(accepting(&[Proof::Key])).unwrap();
    let (bo, statement, evidence) =
        (person("bo"), statement(Verdict::Approve), signed(&key(1), "bo", Verdict::Approve));
    let asked = Asked { claimed_by: Some(&bo), evidence: &evidence, statement: &statement, event: None };
    let proved = identities.prove(asked).await.unwrap().unwrap();
    let (fingerprint, signature) = (key(1).public_key().fingerprint(), evidence.signature.unwrap());
    assert_eq!(proved.evidence, Some(format!("key {fingerprint} signature {signature}")));
    assert_eq!(proved.once, Some(canonical::sha256(signature.parse::<Signature>().unwrap().as_bytes())));
}

#[tokio::test]
async fn a_way_that_is_not_accepted_is_refused_with_those_that_are() {
    let evidence = signed(&key(1), "bo", Verdict::Approve);
    let refused = "proof by `key` is not accepted; accepted are: claimed";
    assert_eq!(ask(accepting(&[Proof::Claimed]), Some("bo"), &evidence, None).await, refused);
    let evidence = Evidence { signature: None, token: Some("a.b.c".to_owned()) };
    let refused = "proof by `jwt` is not accepted; accepted are: key, principal";
    assert_eq!(ask(accepting(&[Proof::Key, Proof::Principal]), Some("bo"), &evidence, None).await, refused);
    // Accepted, and nobody said whose tokens: still nobody is proved.
    let refused = "proof by `jwt` is not accepted; accepted are: jwt";
    assert_eq!(ask(accepting(&[Proof::Jwt]), Some("bo"), &evidence, None).await, refused);
}

#[tokio::test]
async fn evidence_beyond_its_bounds_is_not_looked_at() {
    let both = Evidence { signature: Some("a".to_owned()), token: Some("b".to_owned()) };
    let long = Evidence { signature: Some("a".repeat(89)), token: None };
    let settings = || accepting(&[Proof::Claimed]);
    let refused = "a signature and a token exclude each other";
    assert_eq!(ask(settings(), Some("bo"), &both, None).await, refused);
    assert_eq!(ask(settings(), Some("bo"), &long, None).await, "the signature is longer than 88 characters");
}

#[tokio::test]
async fn the_principal_of_the_event_is_the_person() {
    let settings = || accepting(&[Proof::Principal]);
    let bo = signal(Some(("jwt", "bo@acme.example")));
    for by in [None, Some("bo")] {
        assert_eq!(ask(settings(), by, &Evidence::none(), Some(&bo)).await, "bo@acme.example by principal");
    }
    let refused = "the principal is of `bo@acme.example`, and the message says that it is from `eve@acme.example`";
    assert_eq!(ask(settings(), Some("eve"), &Evidence::none(), Some(&bo)).await, refused);
    let identities = Identities::new(settings()).unwrap();
    let (evidence, statement) = (Evidence::none(), statement(Verdict::Approve));
    let asked = Asked { claimed_by: None, evidence: &evidence, statement: &statement, event: Some(&bo) };
    let proved = identities.prove(asked).await.unwrap().unwrap();
    assert_eq!((proved.evidence.as_deref(), proved.once), (Some("principal jwt/bo@acme.example"), None));
}

#[tokio::test]
async fn a_principal_that_is_missing_internal_a_worker_or_of_an_update_proves_nobody() {
    let settings = || accepting(&[Proof::Principal]);
    let none = "the Temporal server does not say who sent this: the event has no principal";
    assert_eq!(ask(settings(), Some("bo"), &Evidence::none(), None).await, none);
    let worker = |name| format!("`jwt/{name}` works on runs as a worker and is no person");
    let cases = [
        (signal(None), none.to_owned()),
        (
            signal(Some(("temporal", "internal"))),
            "`temporal/internal` is the Temporal server itself and no person".into(),
        ),
        (signal(Some(("jwt", "worker-1"))), worker("worker-1")),
        (signal(Some(("jwt", "worker-2"))), worker("worker-2")),
        (signal(Some(("jwt", " "))), "the name of principal `jwt/ ` cannot be that of a person".into()),
        (
            MessageEvent { carries_principal: false, ..signal(None) },
            "the Temporal server does not say who sends an update: send the signal instead".into(),
        ),
    ];
    for (event, refused) in cases {
        assert_eq!(ask(settings(), Some("bo"), &Evidence::none(), Some(&event)).await, refused);
    }
}

#[tokio::test]
async fn evidence_comes_before_the_principal_and_is_not_fallen_back_from() {
    let settings = || accepting(&[Proof::Key, Proof::Principal]);
    let eve = signal(Some(("jwt", "eve@acme.example")));
    let evidence = signed(&key(1), "bo", Verdict::Approve);
    assert_eq!(ask(settings(), Some("bo"), &evidence, Some(&eve)).await, "bo@acme.example by key");
    let evidence = signed(&key(1), "bo", Verdict::Reject);
    let bo = signal(Some(("jwt", "bo@acme.example")));
    let bad = "the signature is not one of `bo@acme.example` over these words";
    assert_eq!(ask(settings(), Some("bo"), &evidence, Some(&bo)).await, bad);
}
