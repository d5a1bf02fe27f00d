//! What configuration accepts as proof.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr,
};

use mandate_domain::{PersonId, Proof, PublicKey};
use reqwest::Url;

/// Most seconds by which a clock may be wrong.
pub const LEEWAY_SECS_MAX: u64 = 60;
/// Largest set of keys of an identity provider, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// What is accepted as proof of who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The ways that are accepted.
    pub accepted: BTreeSet<Proof>,
    /// Whose keys are whose.
    pub keys: BTreeMap<PersonId, Vec<PublicKey>>,
    /// Whose tokens are believed.
    pub jwt: Option<JwtSettings>,
    /// Names of the principals that workers use: none of them is a person.
    pub workers: BTreeSet<String>,
    /// Others rely on it: a claim proves nobody, whatever else is set.
    pub strict: bool,
}

impl Default for IdentitySettings {
    /// Claims alone, as in development.
    fn default() -> Self {
        Self {
            accepted: BTreeSet::from([Proof::Claimed]),
            keys: BTreeMap::new(),
            jwt: None,
            workers: BTreeSet::new(),
            strict: false,
        }
    }
}

impl IdentitySettings {
    /// Whether a way of proof is accepted.
    #[must_use]
    pub fn accepts(&self, way: Proof) -> bool {
        self.accepted.contains(&way) && !(self.strict && way == Proof::Claimed)
    }

    /// The accepted ways, as a sentence names them: `key, jwt`.
    #[must_use]
    pub fn accepted_words(&self) -> String {
        let ways: Vec<_> = self.accepted.iter().filter(|way| self.accepts(**way)).map(|way| way.as_str()).collect();
        if ways.is_empty() { "none".to_owned() } else { ways.join(", ") }
    }
}

/// The organisation's identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of tokens that are made to decide here, and for nothing else.
    pub audience: String,
    /// Its public keys.
    pub jwks: JwksSource,
    /// The claim that names the person.
    pub person_claim: String,
    /// Seconds by which its clock and the server's may differ, at most [`LEEWAY_SECS_MAX`].
    pub leeway_secs: u64,
    /// Algorithms that its tokens may be signed with.
    pub algorithms: BTreeSet<JwtAlgorithm>,
}

/// Where the public keys of an identity provider stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// In a file, which is read again from time to time.
    File(PathBuf),
    /// At a URL.
    Url(JwksUrl),
}

/// A URL that keys may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
// INVARIANT (safe way): https, or http to this machine; no user name or password.
pub struct JwksUrl(Url);

/// A URL that keys may not be fetched from. It is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseJwksUrlError {
    /// It does not parse.
    #[error("this is no URL")]
    NoUrl,
    /// Whoever is on the way could put their own keys there.
    #[error("the URL must begin with `https://`; `http://` is for this machine alone")]
    NotHttps,
    /// Secrets do not stand in files.
    #[error("the URL must not hold a user name or a password")]
    Credentials,
}

impl JwksUrl {
    /// The URL itself.
    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for JwksUrl {
    type Err = ParseJwksUrlError;

    fn from_str(text: &str) -> Result<Self, ParseJwksUrlError> {
        let url = Url::parse(text).map_err(|_| ParseJwksUrlError::NoUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ParseJwksUrlError::Credentials);
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_this_machine(&url) => Ok(Self(url)),
            _ => Err(ParseJwksUrlError::NotHttps),
        }
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An algorithm that tokens are signed with. Those with a shared secret are not among them: whoever could verify could
/// sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JwtAlgorithm {
    /// RSA with SHA-256.
    Rs256,
    /// RSA with SHA-384.
    Rs384,
    /// RSA with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// No algorithm that tokens can be verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no algorithm that tokens are verified with")]
pub struct UnknownAlgorithm;

impl JwtAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 7] =
        [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    /// The algorithms that tokens may use unless configuration says otherwise.
    #[must_use]
    pub fn usual() -> BTreeSet<Self> {
        BTreeSet::from([Self::Rs256, Self::Es256, Self::EdDsa])
    }

    /// Its name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl FromStr for JwtAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_alone_are_the_default_and_prove_nobody_where_others_rely_on_it() {
        let settings = IdentitySettings::default();
        assert!(settings.accepts(Proof::Claimed) && !settings.accepts(Proof::Key));
        assert_eq!(settings.accepted_words(), "claimed");
        let strict = IdentitySettings { strict: true, ..settings };
        assert!(!strict.accepts(Proof::Claimed));
        assert_eq!(strict.accepted_words(), "none");
    }

    #[test]
    fn keys_are_fetched_by_https_or_from_this_machine() {
        let refused = |text: &str| text.parse::<JwksUrl>().unwrap_err();
        for text in
            ["https://idp.acme.example/keys", "http://127.0.0.1:80/keys", "http://[::1]/keys", "http://localhost/k"]
        {
            assert!(text.parse::<JwksUrl>().is_ok(), "{text}");
        }
        for text in [
            "http://idp.acme.example/keys",
            "http://127.0.0.1.acme.example/",
            "http://localhost.acme.example/",
            "ftp://127.0.0.1/",
        ] {
            assert_eq!(refused(text), ParseJwksUrlError::NotHttps, "{text}");
        }
        assert_eq!(refused("https://user:pass@idp.acme.example/"), ParseJwksUrlError::Credentials);
        assert_eq!(refused("keys/jwks.json"), ParseJwksUrlError::NoUrl);
    }

    #[test]
    fn an_algorithm_is_written_as_in_a_header_and_none_shares_a_secret() {
        for algorithm in JwtAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        for text in ["none", "HS256", "rs256", ""] {
            assert_eq!(text.parse::<JwtAlgorithm>(), Err(UnknownAlgorithm), "{text}");
        }
    }
}
