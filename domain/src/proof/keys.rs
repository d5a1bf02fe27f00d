//! Ed25519 keys and signatures (RFC 8032), in the texts that files and messages hold.
//!
//! Verification is strict: one message has one signature by a key, and nobody without the key can make a second one
//! out of it. A secret key never prints itself. Random bytes come from the caller.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    Signer as _, VerifyingKey,
    pkcs8::{
        DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
        spki::der::pem::LineEnding,
    },
};
use serde::{Deserialize, Serialize, de::Error as _};

use crate::canonical;

/// What stands before the base64 of a public key.
const PREFIX: &str = "ed25519:";
/// Hexadecimal digits of a fingerprint.
const FINGERPRINT_CHARS: usize = 16;

/// A text that is no key or no signature. Nothing of the text is repeated: it may be a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// Write it as `mandate key show` prints it.
    #[error("a public key is written `ed25519:` and the base64 of its 32 bytes")]
    PublicForm,
    /// Nobody can have such a key, or everybody can sign for it.
    #[error("these 32 bytes are no Ed25519 public key")]
    NoPoint,
    /// A file that begins with `-----BEGIN PUBLIC KEY-----`.
    #[error("this is no Ed25519 public key in PEM form")]
    PublicPem,
    /// A file that begins with `-----BEGIN PRIVATE KEY-----`.
    #[error("this is no Ed25519 private key in PKCS#8 PEM form")]
    PrivatePem,
    /// The key cannot be written.
    #[error("the key cannot be written in PEM form")]
    Write,
    /// 88 characters.
    #[error("a signature is written as the base64 of its 64 bytes")]
    SignatureForm,
}

/// A signature that the key did not make over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureRefused;

/// A person's public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
// INVARIANT (usable key): a point of the curve and none of the few for which anybody can sign.
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    fn of(key: VerifyingKey) -> Result<Self, ParseKeyError> {
        if key.is_weak() { Err(ParseKeyError::NoPoint) } else { Ok(Self(key)) }
    }

    /// From a PEM file, `-----BEGIN PUBLIC KEY-----`.
    ///
    /// # Errors
    /// [`ParseKeyError`] when it is no Ed25519 public key.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        Self::of(VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| ParseKeyError::PublicPem)?)
    }

    /// As a PEM file.
    ///
    /// # Errors
    /// [`ParseKeyError::Write`], which a key of this type never meets.
    pub fn to_pem(&self) -> Result<String, ParseKeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| ParseKeyError::Write)
    }

    /// The first 16 hexadecimal digits of the SHA-256 of its 32 bytes: what people compare, and what records name.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        canonical::sha256(self.0.as_bytes()).as_str().chars().take(FINGERPRINT_CHARS).collect()
    }

    /// Whether this key made this signature over these bytes.
    ///
    /// # Errors
    /// [`SignatureRefused`] when it did not.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureRefused> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(message, &signature).map_err(|_| SignatureRefused)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(ParseKeyError::PublicForm)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| ParseKeyError::PublicForm)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseKeyError::PublicForm)?;
        Self::of(VerifyingKey::from_bytes(&bytes).map_err(|_| ParseKeyError::NoPoint)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A signature. Its text is the base64 of its 64 bytes, and no other text is the same signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Its 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Signature {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| ParseKeyError::SignatureForm)?;
        bytes.try_into().map(Self).map_err(|_| ParseKeyError::SignatureForm)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A person's secret key. It is wiped from memory when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// From a PKCS#8 file, `-----BEGIN PRIVATE KEY-----`.
    ///
    /// # Errors
    /// [`ParseKeyError::PrivatePem`] when it is no Ed25519 private key.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(text.trim()).map(Self).map_err(|_| ParseKeyError::PrivatePem)
    }

    /// As a PKCS#8 file, in the version that every tool reads. Whoever has the text can sign.
    ///
    /// # Errors
    /// [`ParseKeyError::Write`], which a key of this type never meets.
    pub fn to_pem(&self) -> Result<impl std::ops::Deref<Target = String> + use<>, ParseKeyError> {
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| ParseKeyError::Write)
    }

    /// The public key that verifies what this one signs.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key().fingerprint())
    }
}
