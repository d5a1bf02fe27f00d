//! Tokens that say who somebody is, signed with a key that this test run made.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// The name of the only key.
const KEY_ID: &str = "this-run";
/// Bytes of one coordinate of a P-256 point.
const COORDINATE: usize = 32;
/// How long a token is valid: longer than any test run.
const VALID_FOR: Duration = Duration::from_hours(24);

/// Whoever says in a token who somebody is.
#[derive(Debug)]
pub struct Issuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    /// An issuer with a new key.
    #[must_use]
    pub fn new() -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("the key");
        Self { key, random }
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn key_set(&self) -> Value {
        // An uncompressed point: a leading 4, then both coordinates.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(COORDINATE);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y }] })
    }

    /// A JSON Web Token (RFC 7519) for a person with permissions such as `default:write`.
    #[must_use]
    pub fn token(&self, person: &str, permissions: &[&str]) -> String {
        self.signed(
            &json!({ "sub": person, "permissions": permissions, "exp": seconds(SystemTime::now() + VALID_FOR) }),
        )
    }

    /// A token that was valid until an hour ago.
    #[must_use]
    pub fn expired(&self, person: &str, permissions: &[&str]) -> String {
        let over = SystemTime::now() - Duration::from_hours(1);
        self.signed(&json!({ "sub": person, "permissions": permissions, "exp": seconds(over) }))
    }

    fn signed(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": KEY_ID });
        let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let signature = self.key.sign(&self.random, text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}
