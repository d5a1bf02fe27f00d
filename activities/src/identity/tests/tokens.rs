//! Tokens: what makes one prove its person, and everything that keeps it from doing so.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::{Value, json};

use super::{
    provider::{Provider, claims, encoded, header, in_a_file, with},
    *,
};

/// What becomes of an approval with the good token, changed like this.
async fn outcome(header_changes: &Value, claim_changes: &Value) -> String {
    let (provider, _folder, settings) = in_a_file();
    let token = provider.token(&with(header(), header_changes), &with(claims(), claim_changes));
    outcome_of(settings, &token).await
}

async fn outcome_of(settings: IdentitySettings, token: &str) -> String {
    let evidence = Evidence { signature: None, token: Some(token.to_owned()) };
    ask(settings, Some("bo"), &evidence, Some(&signal(None))).await
}

#[tokio::test]
async fn a_token_of_each_accepted_algorithm_proves_its_person() {
    for (algorithm, kid) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa")] {
        let changes = json!({ "alg": algorithm, "kid": kid });
        assert_eq!(outcome(&changes, &json!({})).await, "bo@acme.example by jwt", "{algorithm}");
    }
}

#[tokio::test]
async fn a_token_with_one_wrong_claim_proves_nobody() {
    let audience = "the token is not made for `mandate-approvals` alone";
    let missing = |claim: &str| format!("the token has no usable claim `{claim}`");
    let nobody = "the token names no person in its claim `email`";
    let nonce = format!("the token is for something else: its `nonce` has to be {}", "07".repeat(32));
    for (changes, refused) in [
        (json!({ "iss": "https://idp.mallory.example" }), "the token is not from `https://idp.acme.example`"),
        (json!({ "iss": null }), &missing("iss")),
        (json!({ "aud": "payroll" }), audience),
        (json!({ "aud": ["mandate-approvals", "payroll"] }), audience),
        (json!({ "aud": [] }), audience),
        (json!({ "aud": null }), &missing("aud")),
        (json!({ "exp": NOW - 10 }), "the token had expired when it was sent"),
        (json!({ "exp": null }), &missing("exp")),
        (json!({ "exp": "tomorrow" }), &missing("exp")),
        (json!({ "nbf": NOW + 11 }), "the token was not valid yet when it was sent"),
        (json!({ "iat": NOW + 11 }), "the token was not valid yet when it was sent"),
        (json!({ "nonce": "08".repeat(32) }), &nonce),
        (json!({ "nonce": null }), &nonce),
        (json!({ "email": null }), nobody),
        (json!({ "email": 17 }), nobody),
        (json!({ "email": "bo\n@acme.example" }), nobody),
        (json!({ "email_verified": null }), "the identity provider has not verified the token's e-mail address"),
        (json!({ "email_verified": false }), "the identity provider has not verified the token's e-mail address"),
        (
            json!({ "email": "eve@acme.example" }),
            "the token is of `eve@acme.example`, and the message says that it is from `bo@acme.example`",
        ),
    ] {
        assert_eq!(outcome(&json!({}), &changes).await, refused, "{changes}");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway_and_an_array_may_name_the_one_audience() {
    for changes in [
        json!({ "exp": NOW - 9 }),
        json!({ "exp": 1_700_000_060.5 }),
        json!({ "nbf": NOW + 10, "iat": NOW + 10 }),
        json!({ "nbf": null, "iat": null, "jti": null }),
        json!({ "aud": ["mandate-approvals"], "email_verified": "true" }),
    ] {
        assert_eq!(outcome(&json!({}), &changes).await, "bo@acme.example by jwt", "{changes}");
    }
}

#[tokio::test]
async fn a_token_with_a_wrong_header_proves_nobody() {
    let none = "the token cannot be read: its header is none of a signed token";
    for (changes, refused) in [
        (json!({ "alg": "none" }), none),
        (json!({ "alg": null }), none),
        (json!({ "alg": "HS256", "kid": "shared" }), "tokens signed with `HS256` are not accepted"),
        (json!({ "alg": "PS256", "kid": "rsa" }), "tokens signed with `PS256` are not accepted"),
        (json!({ "kid": null }), "the token cannot be read: its header names no key"),
        (json!({ "crit": ["b64"], "b64": true }), "the token cannot be read: its header asks for extensions"),
        (json!({ "kid": "gone" }), "the identity provider has no key `gone`"),
        (json!({ "kid": "ec" }), "the identity provider's key `ec` is not one for `EdDSA` signatures"),
        (json!({ "kid": "rsa" }), "the identity provider's key `rsa` is not one for `EdDSA` signatures"),
        (json!({ "kid": "enc" }), "the identity provider's key `enc` is not one for `EdDSA` signatures"),
        (json!({ "kid": "new" }), "the identity provider's key `new` is not one for `EdDSA` signatures"),
        (json!({ "alg": "ES256" }), "the identity provider's key `ed` is not one for `ES256` signatures"),
    ] {
        assert_eq!(outcome(&changes, &json!({})).await, refused, "{changes}");
    }
}

#[tokio::test]
async fn a_token_that_was_changed_proves_nobody() {
    let (provider, _folder, settings) = in_a_file();
    let token = provider.token(&header(), &with(claims(), &json!({ "email": "eve@acme.example" })));
    let parts: Vec<_> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], encoded(claims().to_string()), parts[2]);
    assert_eq!(outcome_of(settings.clone(), &forged).await, "the token's signature does not verify");
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(outcome_of(settings.clone(), &unsigned).await, "the token's signature does not verify");
    for broken in ["", "a.b.c", parts[0], &token.replace('.', ""), &format!("{token}.x")] {
        let words = outcome_of(settings.clone(), broken).await;
        assert!(words.starts_with("the token cannot be read: ") && !words.contains(parts[0]), "{words}");
    }
}

#[tokio::test]
async fn a_token_is_judged_at_the_time_of_the_event_and_else_by_the_clock() {
    let (provider, _folder, settings) = in_a_file();
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let at = |now: u64| with(claims(), &json!({ "iat": now, "nbf": now, "exp": now + 60 }));
    let evidence = |claims: &Value| Evidence { signature: None, token: Some(provider.token(&header(), claims)) };
    // Sent in time, read years later.
    assert_eq!(ask(settings.clone(), None, &evidence(&at(NOW)), Some(&signal(None))).await, "bo@acme.example by jwt");
    let expired = "the token had expired when it was sent";
    assert_eq!(ask(settings.clone(), None, &evidence(&at(NOW)), None).await, expired);
    assert_eq!(ask(settings, None, &evidence(&at(now)), None).await, "bo@acme.example by jwt");
}

/// The other signature of the same key over the same bytes: (r, n - s).
fn twin(signature: &[u8]) -> Vec<u8> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut twin = signature.to_vec();
    let mut borrow = 0i16;
    for index in (0..32).rev() {
        let digit = i16::from(u8::from_str_radix(&ORDER[index * 2..index * 2 + 2], 16).unwrap());
        let difference = digit - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        twin[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    twin
}

#[tokio::test]
async fn a_token_is_used_up_with_its_twin_and_the_record_names_it_without_showing_it() {
    let (provider, _folder, settings) = in_a_file();
    let identities = Identities::new(settings).unwrap();
    let token = provider.token(&with(header(), &json!({ "alg": "ES256", "kid": "ec" })), &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let twin = format!("{signed}.{}", encoded(twin(&URL_SAFE_NO_PAD.decode(signature).unwrap())));
    assert_ne!(token, twin);
    let (statement, event) = (statement(Verdict::Approve), signal(None));
    let mut used = Vec::new();
    for token in [&token, &twin] {
        let evidence = Evidence { signature: None, token: Some(token.clone()) };
        let asked = Asked { claimed_by: None, evidence: &evidence, statement: &statement, event: Some(&event) };
        let proved = identities.prove(asked).await.unwrap().unwrap();
        assert_eq!(proved.evidence.as_deref(), Some("jwt iss=https://idp.acme.example kid=ec jti=t-1"));
        for printed in [format!("{proved:?}"), format!("{asked:?}"), format!("{identities:?}")] {
            assert!(!printed.contains(signed) && !printed.contains(signature), "{printed}");
        }
        used.push(proved.once.unwrap());
    }
    assert_eq!(used[0], used[1]);
}

#[test]
fn the_published_rsa_key_is_read_as_modulus_and_exponent() {
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(Provider::new().jwks()).unwrap();
    let key = DecodingKey::from_jwk(jwks.find("rsa").unwrap()).unwrap();
    assert!(matches!(key.kind(), DecodingKeyKind::RsaModulusExponent { .. }));
}
