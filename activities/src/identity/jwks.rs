//! The public keys of the identity provider, from a file or a URL, kept for a while.
//!
//! A key that is not known is looked for again, at most once a minute: providers rotate their keys, and strangers send
//! key ids that never were. Old keys are not used on when new ones cannot be had: a withdrawn key would live as long
//! as somebody keeps the provider away.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use tokio::{io::AsyncReadExt as _, sync::Mutex};

use super::{
    SetUpIdentitiesError,
    settings::{JWKS_BYTES_MAX, JwksSource, JwksUrl},
};
use crate::egress::Unanswered;

/// Longest time for a whole answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The keys of the identity provider cannot be had now. Try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the identity provider at `{source_name}` cannot be read: {reason}")]
pub struct IdentityUnavailable {
    /// Where they stand.
    pub source_name: String,
    /// In a few words.
    pub reason: String,
}

/// How often keys are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long a set of keys is used.
    pub(super) fresh: Duration,
    /// How long after a look an unknown key is not looked for again.
    pub(super) again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { fresh: Duration::from_mins(5), again: Duration::from_mins(1) }
    }
}

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    pace: Pace,
    /// Held while looking, so that many who ask at once look once.
    last: Mutex<Last>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url { url: JwksUrl, http: reqwest::Client },
}

#[derive(Debug, Default)]
struct Last {
    /// The last keys that were had, and when.
    keys: Option<(Instant, JwkSet)>,
    /// When they were looked for last, and what went wrong then.
    look: Option<(Instant, Option<IdentityUnavailable>)>,
}

impl Keys {
    /// Nothing is read yet.
    pub(super) fn new(source: JwksSource) -> Result<Self, SetUpIdentitiesError> {
        let source = match source {
            JwksSource::File(path) => Source::File(path),
            JwksSource::Url(url) => Source::Url { url, http: client()? },
        };
        Ok(Self { source, pace: Pace::default(), last: Mutex::default() })
    }

    #[cfg(test)]
    pub(super) fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The key of this id, if the provider has it.
    pub(super) async fn find(&self, kid: &str) -> Result<Option<Jwk>, IdentityUnavailable> {
        let mut last = self.last.lock().await;
        if let Some((_, keys)) = last.keys.as_ref().filter(|(at, _)| at.elapsed() < self.pace.fresh) {
            if let Some(key) = keys.find(kid) {
                return Ok(Some(key.clone()));
            }
            if let Some((_, trouble)) = last.look.as_ref().filter(|(at, _)| at.elapsed() < self.pace.again) {
                return trouble.clone().map_or(Ok(None), Err);
            }
        }
        let found = self.look().await;
        last.look = Some((Instant::now(), found.as_ref().err().cloned()));
        let keys = found?;
        let key = keys.find(kid).cloned();
        last.keys = Some((Instant::now(), keys));
        Ok(key)
    }

    async fn look(&self) -> Result<JwkSet, IdentityUnavailable> {
        let (name, read) = match &self.source {
            Source::File(path) => (path.display().to_string(), from_file(path).await),
            Source::Url { url, http } => (url.to_string(), from_url(http, url).await),
        };
        let unavailable = |reason: String| IdentityUnavailable { source_name: name.clone(), reason };
        let bytes = read.map_err(unavailable)?;
        serde_json::from_slice(&bytes).map_err(|_| unavailable("it is no JSON Web Key Set".to_owned()))
    }
}

fn client() -> Result<reqwest::Client, SetUpIdentitiesError> {
    reqwest::Client::builder()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(ANSWER_LIMIT)
        .timeout(ANSWER_LIMIT)
        .build()
        .map_err(|error| SetUpIdentitiesError::Client { reason: error.to_string() })
}

fn too_large() -> String {
    format!("it is over {JWKS_BYTES_MAX} bytes")
}

async fn from_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let (mut bytes, bound) = (Vec::new(), u64::try_from(JWKS_BYTES_MAX).unwrap_or(u64::MAX));
    // One byte more than allowed, so that a file at the bound and one beyond it differ.
    file.take(bound.saturating_add(1)).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.len() > JWKS_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

async fn from_url(http: &reqwest::Client, url: &JwksUrl) -> Result<Vec<u8>, String> {
    let sending = http.get(url.as_url().clone()).header(reqwest::header::ACCEPT, "application/json");
    let mut answer = sending.send().await.map_err(|error| broken(&error))?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

fn broken(error: &reqwest::Error) -> String {
    Unanswered::from(error).reason
}
