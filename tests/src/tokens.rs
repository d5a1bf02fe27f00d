//! Tokens that say who somebody is, signed with a key that this test run made: for the server that knows its callers, and
//! for a folder that accepts tokens as proof.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// The identity provider that folders believe.
pub const ISSUER: &str = "https://login.acme.example";
/// What a token is made for that is to prove somebody to a folder.
pub const AUDIENCE: &str = "mandate";

/// The name of the only key.
const KEY_ID: &str = "this-run";
/// Bytes of one coordinate of a P-256 point.
const COORDINATE: usize = 32;
/// How long a token for the server is valid: longer than any test run.
const VALID_FOR: Duration = Duration::from_hours(24);
/// How long one is valid that proves somebody to a folder.
const PROVES_FOR: Duration = Duration::from_mins(5);

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
        let (x, y) = self.public_key()[1..].split_at(COORDINATE);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y }] })
    }

    /// The public key, which everybody may know.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// A JSON Web Token (RFC 7519) for a person with permissions such as `default:write`.
    #[must_use]
    pub fn token(&self, person: &str, permissions: &[&str]) -> String {
        self.sign(&Draft::calling(person, permissions, SystemTime::now() + VALID_FOR))
    }

    /// A token that was valid until an hour ago.
    #[must_use]
    pub fn expired(&self, person: &str, permissions: &[&str]) -> String {
        self.sign(&Draft::calling(person, permissions, SystemTime::now() - Duration::from_hours(1)))
    }

    /// Signs what a draft says, with the algorithm of the key, whatever the draft says of that.
    #[must_use]
    pub fn sign(&self, draft: &Draft) -> String {
        let text = draft.text();
        let signature = self.key.sign(&self.random, text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

/// A token that is not signed yet.
#[derive(Debug, Clone)]
pub struct Draft {
    header: Value,
    claims: Value,
}

impl Draft {
    fn new(claims: Value) -> Self {
        Self { header: json!({ "alg": "ES256", "typ": "JWT", "kid": KEY_ID }), claims }
    }

    /// What the server asks of its callers.
    fn calling(person: &str, permissions: &[&str], until: SystemTime) -> Self {
        Self::new(json!({ "sub": person, "permissions": permissions, "exp": seconds(until) }))
    }

    /// What proves to a folder that somebody says the one thing that has this nonce.
    #[must_use]
    pub fn proving(person: &str, nonce: &str) -> Self {
        let now = SystemTime::now();
        Self::new(json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": person, "nonce": nonce,
            "iat": seconds(now), "exp": seconds(now + PROVES_FOR),
        }))
    }

    /// The same with another claim.
    #[must_use]
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims[claim] = value.into();
        self
    }

    /// The same from an earlier time.
    #[must_use]
    pub fn of_before(self, ago: Duration) -> Self {
        let issued = SystemTime::now() - ago;
        self.with("iat", seconds(issued)).with("exp", seconds(issued + PROVES_FOR))
    }

    /// The token without any signature: everybody can make it.
    #[must_use]
    pub fn unsigned(mut self) -> String {
        self.header["alg"] = "none".into();
        format!("{}.", self.text())
    }

    /// The token with a code made of a secret, which whoever verifies has to know: of a public key everybody does.
    #[must_use]
    pub fn with_secret(mut self, secret: &[u8]) -> String {
        self.header["alg"] = "HS256".into();
        let text = self.text();
        let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(code))
    }

    fn text(&self) -> String {
        let [header, claims] = [&self.header, &self.claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        format!("{header}.{claims}")
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}
