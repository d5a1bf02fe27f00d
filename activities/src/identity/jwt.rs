//! Tokens of the organisation's identity provider: signature, issuer, audience, time, nonce, person. All of them hold,
//! or the token proves nobody.
//!
//! A token is judged at the time at which the server accepted the message, not when a worker reads it: a decision
//! that arrived in time stays one when workers were away. The nonce ties it to one statement, so a token that is read
//! in a history is of no use for anything else.

use std::collections::HashSet;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use mandate_domain::{PersonId, Proof};
use serde_json::{Map, Value};

use super::{
    Proved, SetUpIdentitiesError, Unproved,
    jwks::{IdentityUnavailable, Keys},
    provider,
    settings::{JwtAlgorithm, JwtSettings, LEEWAY_SECS_MAX},
    shown,
};

/// Verifies tokens of one identity provider.
#[derive(Debug)]
pub(super) struct TokenVerifier {
    settings: JwtSettings,
    keys: Keys,
}

/// What a token's header says.
struct Header {
    algorithm: JwtAlgorithm,
    kid: String,
}

/// The claims of a token whose signature verified.
struct Claims(Map<String, Value>);

impl TokenVerifier {
    pub(super) fn new(settings: JwtSettings) -> Result<Self, SetUpIdentitiesError> {
        provider::install();
        let keys = Keys::new(settings.jwks.clone())?;
        Ok(Self { settings, keys })
    }

    #[cfg(test)]
    pub(super) fn with_pace(mut self, pace: super::jwks::Pace) -> Self {
        self.keys = self.keys.with_pace(pace);
        self
    }

    /// Whom the token proves, at this time in seconds.
    pub(super) async fn verify(
        &self,
        token: &str,
        nonce: &str,
        now_secs: u64,
    ) -> Result<Result<Proved, Unproved>, IdentityUnavailable> {
        let header = match self.header(token) {
            Ok(header) => header,
            Err(refused) => return Ok(Err(refused)),
        };
        let key = self.keys.find(&header.kid).await?;
        Ok(key.map_or_else(
            || Err(Unproved::UnknownKey { kid: shown(&header.kid) }),
            |key| self.judge(token, &header, &key, nonce, now_secs),
        ))
    }

    fn header(&self, token: &str) -> Result<Header, Unproved> {
        let malformed = |reason| Unproved::MalformedToken { reason };
        let header = decode_header(token).map_err(|_| malformed("its header is none of a signed token"))?;
        // None is understood, so none may be there (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(malformed("its header asks for extensions"));
        }
        let algorithm = named(header.alg).filter(|algorithm| self.settings.algorithms.contains(algorithm));
        let not_accepted = || Unproved::AlgorithmNotAccepted { algorithm: format!("{:?}", header.alg) };
        let algorithm = algorithm.ok_or_else(not_accepted)?;
        let kid = header.kid.ok_or(malformed("its header names no key"))?;
        Ok(Header { algorithm, kid })
    }

    fn judge(&self, token: &str, header: &Header, key: &Jwk, nonce: &str, now: u64) -> Result<Proved, Unproved> {
        let unfit = || Unproved::UnfitKey { kid: shown(&header.kid), algorithm: header.algorithm.as_str() };
        if !fits(key, header.algorithm) {
            return Err(unfit());
        }
        let key = DecodingKey::from_jwk(key).map_err(|_| unfit())?;
        let decoded = decode::<Map<String, Value>>(token, &key, &self.validation(header.algorithm));
        let claims = Claims(decoded.map_err(|error| self.refusal(error.kind()))?.claims);
        claims.check_audience(&self.settings.audience)?;
        claims.check_time(now, self.settings.leeway_secs.min(LEEWAY_SECS_MAX))?;
        if claims.text("nonce") != Some(nonce) {
            return Err(Unproved::WrongNonce { wanted: nonce.to_owned() });
        }
        let by = claims.person(&self.settings.person_claim)?;
        let jti = claims.text("jti").map_or_else(|| "none".to_owned(), shown);
        let evidence = format!("jwt iss={} kid={} jti={jti}", shown(&self.settings.issuer), shown(&header.kid));
        Ok(Proved { by, proof: Proof::Jwt, evidence: Some(evidence), once: None })
    }

    fn validation(&self, algorithm: JwtAlgorithm) -> Validation {
        let mut validation = Validation::new(known(algorithm));
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.required_spec_claims = HashSet::from(["iss".to_owned(), "aud".to_owned(), "exp".to_owned()]);
        // The library would judge by the clock of this machine, now.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum may grow; what is new is malformed")]
    fn refusal(&self, error: &ErrorKind) -> Unproved {
        match error {
            ErrorKind::InvalidSignature => Unproved::BadTokenSignature,
            ErrorKind::InvalidIssuer => Unproved::WrongIssuer { wanted: self.settings.issuer.clone() },
            ErrorKind::InvalidAudience => Unproved::WrongAudience { wanted: self.settings.audience.clone() },
            ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Unproved::MissingClaim { claim: "iss" },
            ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Unproved::MissingClaim { claim: "aud" },
            ErrorKind::MissingRequiredClaim(_) => Unproved::MissingClaim { claim: "exp" },
            _ => Unproved::MalformedToken { reason: "its claims are no JSON object" },
        }
    }
}

impl Claims {
    fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim).and_then(Value::as_str)
    }

    /// Seconds since 1970. A fraction is allowed and cut off (RFC 7519, section 2).
    fn seconds(&self, claim: &'static str) -> Result<Option<u64>, Unproved> {
        let Some(value) = self.0.get(claim) else { return Ok(None) };
        let whole =
            value.as_u64().or_else(|| value.as_number().and_then(|n| n.to_string().split('.').next()?.parse().ok()));
        whole.map(Some).ok_or(Unproved::MissingClaim { claim })
    }

    /// A token for several services is not a dedicated one: each of them could pass it on.
    fn check_audience(&self, audience: &str) -> Result<(), Unproved> {
        let alone = match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => !several.is_empty() && several.iter().all(|one| one == audience),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
        };
        if alone { Ok(()) } else { Err(Unproved::WrongAudience { wanted: audience.to_owned() }) }
    }

    fn check_time(&self, now: u64, leeway: u64) -> Result<(), Unproved> {
        let expires = self.seconds("exp")?.ok_or(Unproved::MissingClaim { claim: "exp" })?;
        if expires.saturating_add(leeway) <= now {
            return Err(Unproved::Expired);
        }
        let begins = [self.seconds("nbf")?, self.seconds("iat")?].into_iter().flatten().max();
        if begins.is_some_and(|begins| begins > now.saturating_add(leeway)) {
            return Err(Unproved::NotYetValid);
        }
        Ok(())
    }

    fn person(&self, claim: &str) -> Result<PersonId, Unproved> {
        let named = self.text(claim).and_then(|name| PersonId::parse(name).ok());
        let person = named.ok_or_else(|| Unproved::NoPersonClaim { claim: shown(claim) })?;
        // Some providers write the boolean as text, and some leave it out for addresses that anybody may state.
        let verified = |said: &Value| *said == Value::Bool(true) || said == "true";
        if claim == "email" && !self.0.get("email_verified").is_some_and(verified) {
            return Err(Unproved::UnverifiedEmail);
        }
        Ok(person)
    }
}

/// Whether a published key is one for signatures of this algorithm.
fn fits(key: &Jwk, algorithm: JwtAlgorithm) -> bool {
    let use_fits = match &key.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => false,
    };
    let wanted = KeyAlgorithm::from(known(algorithm));
    use_fits && key.common.key_algorithm.is_none_or(|stated| stated == wanted) && is_kind(&key.algorithm, algorithm)
}

fn is_kind(key: &AlgorithmParameters, algorithm: JwtAlgorithm) -> bool {
    let elliptic = |curve: &EllipticCurve| matches!(key, AlgorithmParameters::EllipticCurve(parameters) if parameters.curve == *curve);
    match algorithm {
        JwtAlgorithm::Rs256 | JwtAlgorithm::Rs384 | JwtAlgorithm::Rs512 | JwtAlgorithm::Ps256 => {
            matches!(key, AlgorithmParameters::RSA(_))
        }
        JwtAlgorithm::Es256 => elliptic(&EllipticCurve::P256),
        JwtAlgorithm::Es384 => elliptic(&EllipticCurve::P384),
        JwtAlgorithm::EdDsa => {
            matches!(key, AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519)
        }
    }
}

fn known(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

fn named(algorithm: Algorithm) -> Option<JwtAlgorithm> {
    JwtAlgorithm::ALL.into_iter().find(|ours| known(*ours) == algorithm)
}
