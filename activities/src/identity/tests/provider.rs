//! An identity provider that lives in the tests: real keys of each kind, and the tokens that it signs.

use std::path::Path;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// An RSA key that was made for these tests and opens nothing: PKCS#1 in base64.
const RSA: &str = "\
MIIEogIBAAKCAQEAn1GTxcyS102TrYkDqNGA6Ye7Le6Qydh9xLc2hjg0qagjHODzjAR/P+OXc6O9QeTlAkxH5D8BE+X9wig4OL+b8H+DBFzfnI\
s/Oxid7XKDQtgr/CmEEN4Y08lT60baX6tDCrN1i7kzW+zSN+eTZ/2E/4B+8kGvJmbthKvJ10KwXt5NoNnH36ldH2ShpcjiardVS+zS/bz4GbzX\
ZCtFYWgb8oTKBW0onYEiE7vorTB7jovgiKWHDyfLdFslWjZHNYIeA7YIxjZwOI6dCplKeQCJrHQsUL3/bRc+Q/AksC9GXINzTshBfvxM8upfTz\
MIiGdtzl/dgUyKwvqkALGqzYqEUQIDAQABAoIBAAXoSRPMoEsS2vApxvdVpFi/EglTwcM1j4KcU1gyTD6YXSFFyeC2AnoN8Eh8XejsHzM2J59u\
mCBCzFrXMbAl/QGJAtnwr9Bpcok4Yj5i5dEpfDuz1jbSELwv8wMDxqwFM52kFkPS6fT6wM02nUbooIu2RKQVhtRu/NfeZE6tZVDb0O1plCsG+0\
W00nK7NkWJ1zy6zK0MuY3NNTDSqOsdO1CaTxBuiUG0rf/xHvXptiNfVNkfA7sezs0WbOk6V1xlSUmlo/O5VOU2kAksarjyH393OZJwkR7fwQWL\
XVT+mleBY5fR1c63Syr5R5IGowndtZSuLagMuAPsRynO+Axn8XkCgYEAy/SQCL1lXBr09QAqU8Kuc7g7kSpHgCPOmso3Vyty6Jg1HLuxTOORuS\
gg7g9ebabihBBrOjlD8VbDfBDlLg5SF54uu7kmT9NdIvcZLp+6FWMq5xOKvK1MviJYFJFPLyLqYOh/Y4BwfaKfYpHVg26Xb1JGxXdKzpakJ85q\
onHZ97kCgYEAx/kcyQefiHG/LIVHOTS5T1wS1jzaN/jezvYspwzRGH0p+/dl75pR5/dKamQ6zwi42tgMI2Ap+mgwpy0ry7OlFRhkANv1YKYBF2\
2S0+o3p4Y6fu4zcXEvFE6N8M2ekX8KtcSVQeTZHwMPkhvIlzCM4T2IlRpGNFNAJYwe+LonDVkCgYAgbLIVYZ7ipLp61Nrl1BaN+SUnL/SMD6VC\
AJIJvrOW/NO8zK4kTi2VpSaPEkxt3FE4s6+IYyBFFwkfCUSWLNqqPJCrcYUAvdaZv3T2b5hS3CAu+nFdC6QeujEMnAldsgxW+b9+3yWDI755Gj\
w6l/NlVExCCnQPIe3ZEjzrtHP1qQKBgH80pyv2DnSELuEKMwFf2ZVy84SWlxXN2SX8EPF+xK/4RrHCcXSWTQ3rD8pX0dULLlP/5NDIBkwE5RYj\
NN3Se+vMZSjqws9lKgKWMDVfo2GMkD9YFR9PqWwYgFAy7HCPSOfRkkSlZ7xDfS8rP1F1j9hkBTMb0JbOclqwJK+B8v+ZAoGAIA3zDfaPwvY6C/\
qCcChYdN6a8EMOhM3Qnfsffb/SuXlVvceCCJHzaq0dOy7b5/dcvpQLX3C4TcrUjE0XEGW8o/rTaqPKEeTMbFL/+jBVJ7prNPzZfQk4XtOqHNX+\
UtSmfgp/rOF+2axgGVI0ItsAT7S2JW7u7Db1Kba1akYNNq8=";

pub(super) struct Provider {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    random: SystemRandom,
}

pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            rsa: RsaKeyPair::from_der(&STANDARD.decode(RSA).unwrap()).unwrap(),
            random,
        }
    }

    pub(super) fn jwks(&self) -> Value {
        let (_, point) = self.ec.public_key().as_ref().split_first().unwrap();
        let (x, y) = point.split_at(32);
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": encoded(self.ed.public_key()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": encoded(x), "y": encoded(y) },
            { "kty": "RSA", "kid": "rsa", "n": encoded(&rsa.n), "e": encoded(&rsa.e) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": encoded(self.ed.public_key()) },
            { "kty": "oct", "kid": "shared", "k": encoded("a secret that everybody knows, as it is published") },
            { "kty": "NEW", "kid": "new", "q": 1 },
        ] })
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match algorithm {
            "ES256" => self.ec.sign(&self.random, message).unwrap().as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature).unwrap();
                signature
            }
            "HS256" => {
                let key =
                    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a secret that everybody knows, as it is published");
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
            "none" => Vec::new(),
            _ => self.ed.sign(message).as_ref().to_vec(),
        }
    }

    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", encoded(signature))
    }
}

pub(super) fn header() -> Value {
    json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" })
}

pub(super) fn claims() -> Value {
    json!({
        "iss": "https://idp.acme.example", "aud": "mandate-approvals", "sub": "u-17", "email": "bo@acme.example",
        "email_verified": true, "jti": "t-1", "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 60,
        "nonce": statement(Verdict::Approve).nonce(),
    })
}

/// The header and claims of a good token, with members replaced.
pub(super) fn with(mut good: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            good.as_object_mut().unwrap().remove(name);
        } else {
            good[name] = value.clone();
        }
    }
    good
}

pub(super) fn settings(jwks: JwksSource) -> IdentitySettings {
    let jwt = JwtSettings {
        issuer: "https://idp.acme.example".to_owned(),
        audience: "mandate-approvals".to_owned(),
        jwks,
        person_claim: "email".to_owned(),
        leeway_secs: 10,
        algorithms: JwtAlgorithm::usual(),
    };
    IdentitySettings { jwt: Some(jwt), ..accepting(&[Proof::Jwt]) }
}

fn published(folder: &Path, jwks: &Value) -> JwksSource {
    let path = folder.join("jwks.json");
    std::fs::write(&path, jwks.to_string()).unwrap();
    JwksSource::File(path)
}

/// The provider with its keys in a file.
pub(super) fn in_a_file() -> (Provider, TempDir, IdentitySettings) {
    let (provider, folder) = (Provider::new(), tempfile::tempdir().unwrap());
    let source = published(folder.path(), &provider.jwks());
    (provider, folder, settings(source))
}
