//! `[identity]`: what is taken as written, and every way in which it cannot be used.

use std::collections::BTreeSet;

use mandate_activities::identity::{IdentitySettings, JwksSource, JwtAlgorithm};
use mandate_domain::{Proof, proof::SigningKey};

use super::*;

const JWT: &str = r#"
[identity.jwt]
issuer = "https://idp.acme.example"
audience = "mandate-approvals"
jwks = "https://idp.acme.example/jwks.json"
"#;

fn key(seed: u8) -> String {
    SigningKey::from_random(&[seed; 32]).public_key().to_string()
}

/// A folder of this profile with this in place of the usual `[identity]`.
fn folder(profile: Profile, identity: &str) -> Fixture {
    let fixture = Fixture::new();
    let (rest, _) = ROOT.split_once("[identity]").unwrap();
    fixture.write("mandate.toml", format!("profile = \"{profile}\"\n{rest}{identity}"));
    fixture.write("keys/jwks.json", r#"{ "keys": [] }"#);
    let key = SigningKey::from_random(&[9; 32]);
    fixture.write("keys/bo.pub.pem", key.public_key().to_pem().unwrap());
    fixture.write("keys/bo.pem", key.to_pem().unwrap().as_str());
    fixture
}

fn settings(profile: Profile, identity: &str) -> IdentitySettings {
    let config = folder(profile, identity).load().map_err(|errors| rendered(&errors)).unwrap();
    config.catalog.identity
}

/// The one problem of a development folder with this `[identity]`: where, and what.
fn problem(identity: &str) -> String {
    problem_in(Profile::Development, identity)
}

fn problem_in(profile: Profile, identity: &str) -> String {
    let fixture = folder(profile, identity);
    let Err(errors) = fixture.load() else { panic!("it loads: {identity}") };
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].trim_start_matches(&format!("{}/", fixture.folder().display())).to_owned()
}

fn check(identity: &str, place: &str, words: &[&str]) {
    let line = problem(identity);
    assert!(line.starts_with(&format!("mandate.toml:{place}: ")), "{place}: {line}");
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn a_development_folder_takes_claims_unless_it_says_otherwise() {
    for identity in ["", "[identity]", "[identity]\naccept = [\"claimed\"]"] {
        assert_eq!(settings(Profile::Development, identity), IdentitySettings::default(), "{identity}");
    }
}

#[test]
fn a_production_folder_says_how_people_are_proved_and_takes_no_claim() {
    for identity in ["", "[identity]"] {
        let line = problem_in(Profile::Production, identity);
        assert!(line.contains("`accept` of `[identity]` is missing") && line.contains("[\"key\"]"), "{line}");
    }
    let line = problem_in(Profile::Production, "[identity]\naccept = [\"claimed\"]");
    assert!(line.starts_with("mandate.toml:14:11: `claimed` proves nobody"), "{line}");
    let settings = settings(Profile::Production, "[identity]\naccept = [\"principal\"]\nworkers = [\"worker-1\"]");
    assert!(settings.strict && settings.accepts(Proof::Principal));
    assert_eq!(settings.workers, BTreeSet::from(["worker-1".to_owned()]));
}

#[test]
fn keys_tokens_and_principals_are_taken_as_written() {
    let identity = format!(
        "[identity]\naccept = [\"jwt\", \"key\"]\n[identity.keys]\n\"bo@acme.example\" = [\"{}\", \"file:keys/bo.pub.pem\"]\n\
         {JWT}person_claim = \"email\"\nleeway_secs = 5\nalgorithms = [\"ES256\"]",
        key(1)
    );
    let settings = settings(Profile::Production, &identity);
    assert_eq!(settings.accepted, BTreeSet::from([Proof::Key, Proof::Jwt]));
    let keys: Vec<_> = settings.keys[&"bo@acme.example".parse().unwrap()].iter().map(ToString::to_string).collect();
    assert_eq!(keys, [key(1), key(9)]);
    let jwt = settings.jwt.unwrap();
    assert_eq!((jwt.issuer.as_str(), jwt.audience.as_str()), ("https://idp.acme.example", "mandate-approvals"));
    assert_eq!((jwt.person_claim.as_str(), jwt.leeway_secs), ("email", 5));
    assert_eq!(jwt.algorithms, BTreeSet::from([JwtAlgorithm::Es256]));
    assert_eq!(jwt.jwks, JwksSource::Url("https://idp.acme.example/jwks.json".parse().unwrap()));
}

#[test]
fn what_an_identity_provider_does_not_say_has_a_default() {
    let fixture = folder(Profile::Production, &format!("[identity]\naccept = [\"jwt\"]\n{JWT}"));
    let root = fs::read_to_string(fixture.folder().join("mandate.toml")).unwrap();
    fixture.write("mandate.toml", root.replace("https://idp.acme.example/jwks.json", "file:keys/jwks.json"));
    let jwt = fixture.load().unwrap().catalog.identity.jwt.unwrap();
    assert_eq!((jwt.person_claim.as_str(), jwt.leeway_secs), ("sub", 30));
    assert_eq!(jwt.algorithms, JwtAlgorithm::usual());
    assert_eq!(jwt.jwks, JwksSource::File(fixture.folder().canonicalize().unwrap().join("keys/jwks.json")));
}

#[test]
fn ways_that_cannot_be_used_are_reported_where_they_stand() {
    check("[identity]\naccept = [\"keys\"]", "14:11", &["unknown way of proof `keys`", "did you mean `key`?"]);
    check("[identity]\naccept = [\"saml\"]", "14:11", &["unknown way of proof `saml`", "known: `claimed`, `key`"]);
    check("[identity]\naccept = []", "14:10", &["names no way"]);
    check("[identity]\naccept = \"key\"", "14:10", &["`accept` must be an array of strings"]);
    check("[identity]\nacept = [\"claimed\"]", "14:1", &["unknown key `acept`", "did you mean `accept`?"]);
    check("[identity]\naccept = [\"key\"]", "14:11", &["`key` is accepted and nobody has a key", "mandate key new"]);
    check("[identity]\naccept = [\"key\"]\n[identity.keys]", "14:11", &["nobody has a key"]);
    check("[identity]\naccept = [\"jwt\"]", "14:11", &["no identity provider is named", "[identity.jwt]"]);
    check("[identity]\naccept = [\"principal\"]", "14:11", &["no principal of a worker is named", "add `workers`"]);
    check("[identity]\naccept = [\"principal\"]\nworkers = []", "14:11", &["no principal of a worker is named"]);
    check("[identity]\naccept = [\"principal\"]\nworkers = [\" \"]", "15:12", &["names no principal"]);
    check("[identity]\nworkers = [\"w\"]", "14:11", &["`workers` is for `principal`, which is not accepted"]);
    let unused = format!("[identity.keys]\n\"bo@acme.example\" = [\"{}\"]", key(1));
    check(&unused, "13:1", &["`[identity.keys]` is for `key`", "add `\"key\"` to `accept`"]);
    check(JWT, "14:1", &["`[identity.jwt]` is for `jwt`"]);
    let both = format!("[identity]\naccept = [\"key\", \"claimed\"]\n{unused}");
    check(&both, "14:18", &["whoever sends no proof would be believed", "remove `claimed`"]);
}

#[test]
fn keys_that_cannot_be_used_are_reported_where_they_stand() {
    let check = |keys: &str, place: &str, words: &[&str]| {
        check(&format!("[identity]\naccept = [\"key\"]\n[identity.keys]\n{keys}"), place, words);
    };
    let two = format!("\"bo@acme.example\" = [\"{0}\"]\n\"eve@acme.example\" = [\"{0}\"]", key(1));
    check(&two, "17:23", &["is `bo@acme.example`'s already"]);
    check(&format!("\"bo@acme.example\" = [\"{0}\", \"{0}\"]", key(1)), "16:78", &["is `bo@acme.example`'s already"]);
    check("\"bo@acme.example\" = []", "16:21", &["`bo@acme.example` has no key"]);
    check("\"bo@acme.example\" = [\"ed25519:AAAA\"]", "16:22", &["base64 of its 32 bytes", "mandate key show"]);
    check("\"bo@acme.example\" = [\"file:keys/none.pem\"]", "16:22", &["`keys/none.pem` does not exist"]);
    check("\"bo@acme.example\" = [\"file:keys/bo.pem\"]", "16:22", &["no Ed25519 public key", "mandate key show"]);
    check(&format!("\"\" = [\"{}\"]", key(1)), "16:1", &["not a valid person"]);
}

#[test]
fn a_secret_key_among_the_public_ones_is_not_shown() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIAkJCQkJCQkJ";
    let identity = format!("[identity]\naccept = [\"key\"]\n[identity.keys]\n\"bo@acme.example\" = [\"{secret}\"]");
    let errors = folder(Profile::Development, &identity).errors();
    let all = format!("{}\n{}\n{errors:?}", rendered(&errors), errors.plain_lines().join("\n"));
    assert!(!all.contains(secret), "{all}");
}

#[test]
fn an_identity_provider_that_cannot_be_used_is_reported_where_it_stands() {
    let check = |old: &str, new: &str, place: &str, words: &[&str]| {
        assert!(JWT.contains(old));
        check(&format!("[identity]\naccept = [\"jwt\"]{}", JWT.replace(old, new)), place, words);
    };
    let jwks = "\"https://idp.acme.example/jwks.json\"";
    check(jwks, "\"http://idp.acme.example/jwks.json\"", "18:8", &["must begin with `https://`"]);
    check(jwks, "\"https://u:p@idp.acme.example/\"", "18:8", &["must not hold a user name"]);
    check(jwks, "\"keys/jwks.json\"", "18:8", &["this is no URL", "file:PATH"]);
    check(jwks, "\"file:keys/none.json\"", "18:8", &["`keys/none.json` does not exist"]);
    check("jwks =", "#", "15:1", &["`jwks` is missing"]);
    check("issuer =", "#", "15:1", &["`issuer` is missing"]);
    check("\"mandate-approvals\"", "\"\"", "17:12", &["`audience` is empty"]);
    check("jwks =", "leeway_secs = 61\njwks =", "18:15", &["`leeway_secs` must be from 0 to 60"]);
    check("jwks =", "person_claim = \"\"\njwks =", "18:16", &["`person_claim` is empty"]);
    check("jwks =", "algorithms = []\njwks =", "18:14", &["no token could be verified"]);
    check("jwks =", "algorithms = [\"HS256\"]\njwks =", "18:15", &["`HS256` are not verified here"]);
    check("jwks =", "audiences = []\njwks =", "18:1", &["unknown key `audiences`", "did you mean `audience`?"]);
}

#[test]
fn keys_may_be_fetched_from_this_machine_without_tls() {
    let local = JWT.replace("https://idp.acme.example/jwks.json", "http://127.0.0.1:8080/jwks.json");
    let settings = settings(Profile::Development, &format!("[identity]\naccept = [\"jwt\"]{local}"));
    assert!(matches!(settings.jwt.unwrap().jwks, JwksSource::Url(_)));
}

#[test]
fn gates_that_claims_cannot_hold_are_reported_where_they_stand() {
    let gate = |more: &str| {
        format!(
            "// A gate.\n@id(\"large\") @reason(\"a person decides\") @decision(\"require_approval\")\n\
             @approvers(\"finance-leads\") {more}\n\
             forbid (principal, action == Mandate::Action::\"orders.read\", resource)\n\
             unless {{ context.approved.contains(\"large\") }};\n"
        )
    };
    let proved = "[identity]\naccept = [\"principal\"]\nworkers = [\"worker-1\"]";
    let people = r#"finance-leads = ["bo@acme.example", "eve@acme.example"]"#;
    for (more, asks_for) in [
        ("@four_eyes(\"requester\")", "asks for four eyes"),
        ("@quorum(\"2\")", "asks for 2 people"),
        ("@quorum(\"2\") @four_eyes(\"agent_owner\")", "asks for 2 people and four eyes"),
        ("@quorum(\"1\")", ""),
    ] {
        let fixtures = [folder(Profile::Development, ""), folder(Profile::Development, proved)];
        for fixture in &fixtures {
            let root = fs::read_to_string(fixture.folder().join("mandate.toml")).unwrap();
            fixture.write("mandate.toml", root.replace(r#"finance-leads = ["bo@acme.example"]"#, people));
            fixture.write("policies/a.cedar", gate(more));
        }
        let [claimed, proved] = fixtures;
        assert!(proved.load().is_ok(), "{more}");
        let lines = claimed.load().map_or_else(|errors| errors.plain_lines(), |_| Vec::new());
        assert_eq!(lines.len(), usize::from(!asks_for.is_empty()), "{lines:#?}");
        for line in lines {
            let place = format!("{}/policies/a.cedar:2:1: gate `large` ", claimed.folder().display());
            assert!(line.starts_with(&place) && line.contains(asks_for) && line.contains("accept `key`"), "{line}");
        }
    }
}
