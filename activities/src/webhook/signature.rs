//! Signatures of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, one for each key, and how a receiver checks
//! them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;

/// How far the time of an attempt may be from the receiver's, so that an old message is not taken again.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// What every symmetric secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// What every symmetric signature begins with.
const SIGNATURE_PREFIX: &str = "v1,";
/// Lengths of a key that the specification allows, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The text is no secret of a webhook. It is not repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not `whsec_` and then the base64 of 24 to 64 random bytes")]
pub struct ParseKeyError;

/// Why a message is not to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// `webhook-timestamp` is no number of seconds.
    #[error("the timestamp is no number of seconds")]
    NoTimestamp,
    /// It was sent too long ago, or the clocks differ.
    #[error("the timestamp is more than {} seconds off", TOLERANCE.as_secs())]
    OutOfTime,
    /// No signature is one of this key over these bytes.
    #[error("no signature fits")]
    NoSignature,
}

/// One key.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Reads a secret: `whsec_` and the base64 of the key.
    ///
    /// # Errors
    /// [`ParseKeyError`], without the text.
    pub fn parse(secret: &str) -> Result<Self, ParseKeyError> {
        let encoded = secret.trim().strip_prefix(SECRET_PREFIX).ok_or(ParseKeyError)?;
        let key = BASE64_STANDARD.decode(encoded).map_err(|_| ParseKeyError)?;
        if KEY_BYTES.contains(&key.len()) {
            Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
        } else {
            Err(ParseKeyError)
        }
    }
}

/// What is signed.
fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), timestamp.as_bytes(), body].join(&b'.')
}

/// The keys that a message is signed with, the current one first.
#[derive(Debug, Clone)]
pub struct Keys(Vec<SigningKey>);

impl Keys {
    /// These keys.
    #[must_use]
    pub fn new(keys: Vec<SigningKey>) -> Self {
        Self(keys)
    }

    /// The header `webhook-signature`: one signature for each key, separated by spaces.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let signed = signed(id, &timestamp.to_string(), body.as_bytes());
        let sign =
            |key: &SigningKey| format!("{SIGNATURE_PREFIX}{}", BASE64_STANDARD.encode(hmac::sign(&key.0, &signed)));
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// A message as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The header `webhook-id`.
    pub id: &'a str,
    /// The header `webhook-timestamp`.
    pub timestamp: &'a str,
    /// The header `webhook-signature`.
    pub signature: &'a str,
    /// The body, byte by byte.
    pub body: &'a [u8],
}

/// Whether a message is from whoever has this key, and was sent within [`TOLERANCE`] of `now`. Signatures are compared in
/// constant time. Whether its id was seen before is for the receiver to know.
///
/// # Errors
/// [`VerifyError`]: do not take it.
pub fn verify(key: &SigningKey, received: Received<'_>, now: jiff::Timestamp) -> Result<(), VerifyError> {
    let sent: i64 = received.timestamp.parse().map_err(|_| VerifyError::NoTimestamp)?;
    if now.as_second().abs_diff(sent) > TOLERANCE.as_secs() {
        return Err(VerifyError::OutOfTime);
    }
    let signed = signed(received.id, received.timestamp, received.body);
    let fits = |signature: &str| {
        let tag = signature.strip_prefix(SIGNATURE_PREFIX).and_then(|tag| BASE64_STANDARD.decode(tag).ok());
        tag.is_some_and(|tag| hmac::verify(&key.0, &signed, &tag).is_ok())
    };
    if received.signature.split(' ').any(fits) { Ok(()) } else { Err(VerifyError::NoSignature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the specification's libraries are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT: i64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn key(secret: &str) -> SigningKey {
        SigningKey::parse(secret).unwrap()
    }

    fn check(change: impl FnOnce(&mut Received<'static>), now: i64, expected: Result<(), VerifyError>) {
        let mut received = Received { id: ID, timestamp: "1614265330", signature: SIGNATURE, body: BODY.as_bytes() };
        change(&mut received);
        let now = jiff::Timestamp::from_second(now).unwrap();
        assert_eq!(verify(&key(SECRET), received, now), expected, "{received:?}");
    }

    #[test]
    fn a_message_is_signed_as_in_the_published_example() {
        assert_eq!(Keys::new(vec![key(SECRET)]).sign(ID, SENT, BODY), SIGNATURE);
        check(|_| {}, SENT, Ok(()));
    }

    #[test]
    fn whatever_is_changed_no_signature_fits() {
        let refused = Err(VerifyError::NoSignature);
        check(|received| received.id = "msg_p5jXN8AQM9LWM0D4loKWxJeK", SENT, refused);
        check(|received| received.timestamp = "1614265331", SENT, refused);
        check(|received| received.body = br#"{"test":2432232314}"#, SENT, refused);
        for other in [
            "",
            "v1,",
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=",
            "v1,g0hM",
            "v1,no base64",
        ] {
            check(|received| received.signature = other, SENT, refused);
        }
    }

    #[test]
    fn a_message_counts_for_five_minutes_before_and_after() {
        for (off, expected) in
            [(-300, Ok(())), (300, Ok(())), (-301, Err(VerifyError::OutOfTime)), (301, Err(VerifyError::OutOfTime))]
        {
            check(|_| {}, SENT + off, expected);
        }
        for timestamp in ["", "now", "1614265330.5", "-9223372036854775809"] {
            check(|received| received.timestamp = timestamp, SENT, Err(VerifyError::NoTimestamp));
        }
        check(|received| received.timestamp = "-9223372036854775808", SENT, Err(VerifyError::OutOfTime));
    }

    #[test]
    fn while_a_key_is_rotated_both_the_old_and_the_new_one_verify() {
        let (old, new) = (key(SECRET), key(OTHER_SECRET));
        let signature = Keys::new(vec![new.clone(), old.clone()]).sign(ID, SENT, BODY);
        assert_eq!(signature.split(' ').count(), 2, "{signature}");
        let now = jiff::Timestamp::from_second(SENT).unwrap();
        let timestamp = SENT.to_string();
        let received = Received { id: ID, timestamp: &timestamp, signature: &signature, body: BODY.as_bytes() };
        assert_eq!((verify(&old, received, now), verify(&new, received, now)), (Ok(()), Ok(())));
        let signature = Keys::new(vec![new]).sign(ID, SENT, BODY);
        let received = Received { signature: &signature, ..received };
        assert_eq!(verify(&old, received, now), Err(VerifyError::NoSignature));
    }

    #[test]
    fn a_secret_has_its_prefix_and_enough_bytes_and_is_never_shown() {
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!", "whpk_AAAA"] {
            let error = SigningKey::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("c2hvcnQ") && error.contains("24 to 64"), "{bad}: {error}");
        }
        let long = format!("whsec_{}", BASE64_STANDARD.encode([7; 65]));
        assert!(SigningKey::parse(&long).is_err());
        assert!(SigningKey::parse(&format!("{SECRET}\n")).is_ok());
        assert!(!format!("{:?}", Keys::new(vec![key(SECRET)])).contains("MfKQ"));
    }
}
