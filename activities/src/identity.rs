//! Who it was, and how that is proved.
//!
//! A message says what a person decided, instructed or started. Which person counts is what the *proof* says, never
//! what the message says: a key is that person's by configuration, a token names the person in a claim that the
//! identity provider signed, a principal is what the Temporal server stamped on the event. A message that names
//! somebody else is refused. Only the way `claimed`, for development, takes the message's own word.
//!
//! Evidence is good once: [`Proved::once`] is what the caller records as used, in the transaction that uses it.
//! Nothing here decides what a proved person may do.

use std::fmt;

use mandate_domain::{
    Digest, Evidence, PersonId, Proof, PublicKey, Statement, canonical::CanonicalError, proof::Signature,
};

use crate::executions::{MessageEvent, Principal};

mod jwks;
mod jwt;
mod provider;
mod settings;
#[cfg(test)]
mod tests;
mod unproved;

pub use jwks::IdentityUnavailable;
pub use settings::{
    IdentitySettings, JWKS_BYTES_MAX, JwksSource, JwksUrl, JwtAlgorithm, JwtSettings, LEEWAY_SECS_MAX,
    ParseJwksUrlError, UnknownAlgorithm,
};
pub use unproved::Unproved;

use jwt::TokenVerifier;

/// Longest foreign text that a reason or a record repeats, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Identities cannot be proved with these settings. Fix the configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetUpIdentitiesError {
    /// Usually because no TLS provider is installed.
    #[error("cannot build an HTTP client for the keys of the identity provider: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

/// Everything that a worker needs to prove who sent a message.
#[derive(Debug)]
pub struct Identities {
    settings: IdentitySettings,
    tokens: Option<TokenVerifier>,
}

/// A message, and what is to be proved of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who the message says it is from.
    pub claimed_by: Option<&'a PersonId>,
    /// What was sent beside it.
    pub evidence: &'a Evidence,
    /// What the message says, whole.
    pub statement: &'a Statement,
    /// The event that brought it, if the server was asked. A token is judged at its time, since a decision counts by
    /// the moment at which it was accepted; without an event, at the time of this machine.
    pub event: Option<&'a MessageEvent>,
}

/// Who it was, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The person.
    pub by: PersonId,
    /// How.
    pub proof: Proof,
    /// By what, in one line for the audit record: never a token.
    pub evidence: Option<String>,
    /// What must not be used a second time. To be recorded with what it was used for.
    pub once: Option<Digest>,
}

impl Identities {
    /// Makes ready. Nothing is read or sent yet.
    ///
    /// # Errors
    /// [`SetUpIdentitiesError`].
    pub fn new(settings: IdentitySettings) -> Result<Self, SetUpIdentitiesError> {
        let tokens = settings.jwt.clone().map(TokenVerifier::new).transpose()?;
        Ok(Self { settings, tokens })
    }

    /// What is accepted.
    #[must_use]
    pub fn settings(&self) -> &IdentitySettings {
        &self.settings
    }

    /// Whether the event that brought a message has to be looked up for [`Self::prove`].
    #[must_use]
    pub fn asks_for_events(&self) -> bool {
        self.settings.accepts(Proof::Principal) || self.settings.accepts(Proof::Jwt)
    }

    /// Finds out who sent a message.
    ///
    /// # Errors
    /// [`IdentityUnavailable`] when the keys of the identity provider cannot be had now: try again. That nobody is
    /// proved is an answer, [`Unproved`], and no error.
    pub async fn prove(&self, asked: Asked<'_>) -> Result<Result<Proved, Unproved>, IdentityUnavailable> {
        if let Err(refused) = asked.evidence.check() {
            return Ok(Err(refused.into()));
        }
        match (&asked.evidence.signature, &asked.evidence.token) {
            (Some(signature), _) => Ok(self.accepted(Proof::Key).and_then(|()| self.by_key(asked, signature))),
            (None, Some(token)) => match self.accepted(Proof::Jwt) {
                Ok(()) => self.by_token(asked, token).await,
                Err(refused) => Ok(Err(refused)),
            },
            (None, None) if self.settings.accepts(Proof::Principal) => Ok(self.by_principal(asked)),
            (None, None) if self.settings.accepts(Proof::Claimed) => Ok(by_claim(asked)),
            (None, None) => Ok(Err(Unproved::NoProof { accepted: self.settings.accepted_words() })),
        }
    }

    fn accepted(&self, way: Proof) -> Result<(), Unproved> {
        if self.settings.accepts(way) {
            return Ok(());
        }
        Err(Unproved::NotAccepted { way, accepted: self.settings.accepted_words() })
    }

    fn by_key(&self, asked: Asked<'_>, signature: &str) -> Result<Proved, Unproved> {
        let by = asked.claimed_by.ok_or(Unproved::NoPerson)?;
        let keys = self.settings.keys.get(by).filter(|keys| !keys.is_empty());
        let keys = keys.ok_or_else(|| Unproved::NoKey { by: by.clone() })?;
        let bad = || Unproved::BadSignature { by: by.clone() };
        let signature: Signature = signature.parse().map_err(|_| bad())?;
        let signed = asked.statement.bytes(by)?;
        let made_it = |key: &&PublicKey| key.verify(&signed, &signature).is_ok();
        let key = keys.iter().find(made_it).ok_or_else(bad)?;
        Ok(Proved {
            by: by.clone(),
            proof: Proof::Key,
            evidence: Some(format!("key {} signature {signature}", key.fingerprint())),
            once: asked.evidence.once(),
        })
    }

    async fn by_token(&self, asked: Asked<'_>, token: &str) -> Result<Result<Proved, Unproved>, IdentityUnavailable> {
        // Settings that accept tokens and do not say whose are refused when they are read.
        let Some(tokens) = &self.tokens else {
            let accepted = self.settings.accepted_words();
            return Ok(Err(Unproved::NotAccepted { way: Proof::Jwt, accepted }));
        };
        let now_ms = asked.event.map_or_else(this_machine_ms, |event| event.time_ms);
        let proved = tokens.verify(token, asked.statement.nonce(), now_ms / 1000).await?;
        let proved = proved.map(|proved| Proved { once: asked.evidence.once(), ..proved });
        Ok(proved.and_then(|proved| not_somebody_else(asked, proved, "the token")))
    }

    fn by_principal(&self, asked: Asked<'_>) -> Result<Proved, Unproved> {
        let event = asked.event.ok_or(Unproved::NoPrincipal)?;
        if !event.carries_principal {
            return Err(Unproved::UpdateWithoutPrincipal);
        }
        let principal = event.principal.as_ref().ok_or(Unproved::NoPrincipal)?;
        self.is_a_person(principal, event)?;
        let by = PersonId::parse(principal.name.clone())
            .map_err(|_| Unproved::NamelessPrincipal { principal: shown(principal) })?;
        let evidence = Some(format!("principal {}", shown(principal)));
        let proved = Proved { by, proof: Proof::Principal, evidence, once: None };
        not_somebody_else(asked, proved, "the principal")
    }

    /// A worker may write, so its credentials could send a signal; the server cannot refuse that, so it is done here.
    fn is_a_person(&self, principal: &Principal, event: &MessageEvent) -> Result<(), Unproved> {
        if principal.is_internal() {
            return Err(Unproved::InternalPrincipal { principal: shown(principal) });
        }
        let works =
            self.settings.workers.contains(&principal.name) || event.worker_principals.contains(&principal.name);
        if works { Err(Unproved::WorkerPrincipal { principal: shown(principal) }) } else { Ok(()) }
    }
}

fn by_claim(asked: Asked<'_>) -> Result<Proved, Unproved> {
    let by = asked.claimed_by.ok_or(Unproved::NoPerson)?.clone();
    Ok(Proved { by, proof: Proof::Claimed, evidence: None, once: None })
}

fn not_somebody_else(asked: Asked<'_>, proved: Proved, what: &'static str) -> Result<Proved, Unproved> {
    match asked.claimed_by {
        Some(claimed) if *claimed != proved.by => {
            Err(Unproved::SomebodyElse { what, proved: proved.by, claimed: claimed.clone() })
        }
        Some(_) | None => Ok(proved),
    }
}

fn this_machine_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Foreign text, bounded and harmless in a line.
fn shown(text: impl fmt::Display) -> String {
    text.to_string().chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

impl From<CanonicalError> for Unproved {
    fn from(source: CanonicalError) -> Self {
        Self::NotCanonical { source }
    }
}
