//! Canonical JSON and the digests over it. Every digest of this program goes through here, so that key order, spaces
//! and number spelling never decide whether two values are the same.
//!
//! Canonical form is RFC 8785 (JCS). JCS numbers are IEEE 754 doubles, so an integer beyond 2^53 has no exact form:
//! it is refused instead of rounded.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Address, Digest};

/// The largest integer that every JSON implementation agrees on (RFC 8259 section 6).
const SAFE_INTEGER_MAX: u64 = 1 << 53;

const SHA256_BLOCK_BYTES: usize = 64;

/// A value that has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The value cannot be written as JSON at all. A defect of the caller.
    #[error("value is not JSON: {0}")]
    NotJson(String),
    /// Send such a number as a string.
    #[error("number `{0}` is beyond 2^53 and has no exact canonical form")]
    InexactNumber(String),
}

/// The canonical bytes of a value.
///
/// # Errors
/// [`CanonicalError`] when the value is no JSON or holds an integer beyond 2^53.
pub fn to_canonical(value: &impl Serialize) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|error| CanonicalError::NotJson(error.to_string()))?;
    refuse_inexact(&value)?;
    serde_json_canonicalizer::to_vec(&value).map_err(|error| CanonicalError::NotJson(error.to_string()))
}

fn refuse_inexact(value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => {
            let exact = number.as_u64().map_or_else(
                || number.as_i64().is_none_or(|n| n.unsigned_abs() <= SAFE_INTEGER_MAX),
                |n| n <= SAFE_INTEGER_MAX,
            );
            if exact { Ok(()) } else { Err(CanonicalError::InexactNumber(number.to_string())) }
        }
        Value::Array(items) => items.iter().try_for_each(refuse_inexact),
        Value::Object(entries) => entries.values().try_for_each(refuse_inexact),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    Digest::from_bytes(hash)
}

/// SHA-256 of a value's canonical form.
///
/// # Errors
/// As [`to_canonical`].
pub fn digest(value: &impl Serialize) -> Result<Digest, CanonicalError> {
    Ok(sha256(&to_canonical(value)?))
}

/// A tenant's address key: makes content addresses that cannot be guessed back. It is never rotated, since every
/// address ever written depends on it; encryption keys are others.
#[derive(Clone)]
pub struct AddressKey([u8; 32]);

impl AddressKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The address of some bytes: HMAC-SHA256 (RFC 2104) under this key.
    #[must_use]
    pub fn address(&self, bytes: &[u8]) -> Address {
        // RFC 2104 fills a key shorter than the hash's block with zeros.
        let mut block = [0; SHA256_BLOCK_BYTES];
        block.iter_mut().zip(self.0).for_each(|(to, byte)| *to = byte);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(bytes);
        let tag: [u8; 32] = mac.finalize().into_bytes().into();
        Address::from_bytes(tag)
    }

    /// The address of a value's canonical form.
    ///
    /// # Errors
    /// As [`to_canonical`].
    pub fn address_of(&self, value: &impl Serialize) -> Result<Address, CanonicalError> {
        Ok(self.address(&to_canonical(value)?))
    }
}

impl std::fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn key_order_and_number_spelling_do_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b": 1.0, "a": [1e2]}"#).unwrap();
        assert_eq!(String::from_utf8(to_canonical(&one).unwrap()).unwrap(), r#"{"a":[100],"b":1}"#);
    }

    #[test]
    fn an_integer_beyond_two_to_the_53_is_refused() {
        assert!(to_canonical(&json!({ "n": 1_u64 << 53 })).is_ok());
        for n in [json!((1_u64 << 53) + 1), json!(-(1_i64 << 53) - 1), json!(u64::MAX)] {
            assert!(matches!(to_canonical(&json!([{ "n": n }])), Err(CanonicalError::InexactNumber(_))));
        }
    }

    #[test]
    fn addresses_depend_on_the_key_and_the_key_is_never_printed() {
        let (a, b) = (AddressKey::new([1; 32]), AddressKey::new([2; 32]));
        assert_eq!(a.address(b"x"), a.address(b"x"));
        assert_ne!(a.address(b"x"), b.address(b"x"));
        assert_eq!(format!("{a:?}"), "AddressKey(..)");
    }
}
