//! The webhook that is told of requests and questions: one request in the format of
//! [Standard Webhooks](https://www.standardwebhooks.com), no retry, no redirect, no proxy.
//!
//! Promises: nothing is sent without a [`RecordedPermit`]; every attempt of one notice carries the same `webhook-id`, by
//! which a receiver knows what it has taken before; errors never hold the URL, which may itself be a secret, or a key.
//! What the receiver answers is its status: the body is bounded and dropped.

use std::{net::IpAddr, time::Duration};

use futures::future::try_join_all;
use mandate_domain::canonical;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::Value;

use crate::{
    catalog::{NotifySettings, SecretRef},
    egress::{self, InternalHost},
    governed::RecordedPermit,
    secrets::ResolveSecretError,
};

mod answer;
mod signature;

pub use answer::Answer;
pub use signature::{Keys, ParseKeyError, Received, SigningKey, TOLERANCE, VerifyError, verify};

/// Largest body, in bytes. The specification recommends less than 20 kB.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// Longest time to connect. The time of the whole request may be shorter.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// As much of an answer as is read before the connection is dropped.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The URL cannot be used for a webhook. Correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckUrlError {
    /// It is no URL of a web server.
    #[error("it must be a URL that starts with `https://`")]
    NotWeb,
    /// They would stand in configuration, and signatures say who sent a message.
    #[error("it carries credentials, and a webhook is signed instead")]
    Credentials,
    /// Whoever is on the way could read it.
    #[error("it must start with `https://`: `http://` is for this machine alone")]
    Plain,
    /// Its host is an internal address that is not named.
    #[error("its host is {0}, and `allow_internal` does not name it")]
    Internal(&'static str),
}

/// The webhook cannot be used. Correct its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildWebhookError {
    /// Its URL.
    #[error("the URL of the webhook cannot be used: {0}")]
    Url(#[from] CheckUrlError),
    /// No HTTP client can be built: usually because no TLS provider is installed.
    #[error("cannot build an HTTP client: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

/// Why a webhook was not told, so far.
#[derive(Debug, thiserror::Error)]
pub enum SendWebhookError {
    /// Nothing was sent: a secret cannot be had. One that is being rotated comes back; try again.
    #[error("the webhook was not told: no secret to sign with")]
    NoSecret(#[from] ResolveSecretError),
    /// Nothing was sent: a secret is no key. Mend what the reference names; a later attempt reads it again.
    #[error("the webhook was not told: the secret `{reference}` cannot be signed with")]
    BadSecret {
        /// Where it stands.
        reference: SecretRef,
        /// What is wrong with it.
        #[source]
        source: ParseKeyError,
    },
    /// Nothing was sent: no connection, or the claim ran out. Give the claim back and try again.
    #[error("the webhook was not told: {reason}")]
    NotSent {
        /// Why.
        reason: String,
    },
    /// No answer arrived: it may have been told. Try again, with the same `webhook-id`.
    #[error("the webhook did not answer: {reason}")]
    Unanswered {
        /// Why.
        reason: String,
    },
    /// It answered that it cannot take the message now. Try again, not before `retry_after`.
    #[error("the webhook answered with status {status}")]
    Unavailable {
        /// Its answer.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
}

/// The message would be over [`BODY_BYTES_MAX`]. Tell less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has {bytes} bytes, and {BODY_BYTES_MAX} is the most that is sent")]
pub struct MessageTooLarge {
    bytes: usize,
}

/// What is told: an event type, when it happened, and what about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    // INVARIANT (bounded body): at most BODY_BYTES_MAX; made by `new` alone.
    body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: jiff::Timestamp,
    data: &'a Value,
}

impl Message {
    /// A message of this type about something that happened at `timestamp`.
    ///
    /// # Errors
    /// [`MessageTooLarge`].
    pub fn new(r#type: &str, timestamp: jiff::Timestamp, data: &Value) -> Result<Self, MessageTooLarge> {
        // Texts, a time and a JSON value can always be written.
        let body = serde_json::to_string(&Body { r#type, timestamp, data }).unwrap_or_default();
        // INVARIANT (bounded body).
        if body.len() <= BODY_BYTES_MAX { Ok(Self { body }) } else { Err(MessageTooLarge { bytes: body.len() }) }
    }

    /// The JSON text that is sent and signed.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// The configured webhook. It is not shown: its URL may hold a key.
pub struct Webhook {
    http: reqwest::Client,
    url: Url,
    secrets: Vec<SecretRef>,
}

impl Webhook {
    /// Builds the client. Nothing is sent and no secret is resolved.
    ///
    /// # Errors
    /// [`BuildWebhookError`].
    pub fn new(settings: &NotifySettings) -> Result<Self, BuildWebhookError> {
        let url = checked_url(&settings.url, &settings.allow_internal)?;
        let guard =
            egress::guard(&url, may_be_internal(&url, &settings.allow_internal)).map_err(CheckUrlError::Internal)?;
        let timeout = Duration::from_secs(settings.timeout_secs);
        let http = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(guard)
            .connect_timeout(CONNECT_LIMIT.min(timeout))
            .timeout(timeout)
            .build()
            .map_err(|error| BuildWebhookError::Client { reason: error.to_string() })?;
        Ok(Self { http, url, secrets: settings.secrets.clone() })
    }

    /// The keys to sign with: every configured secret, so that one can be rotated without a message that a receiver
    /// cannot verify. For before the claim: a program that supplies a secret may take longer than a claim lasts.
    ///
    /// # Errors
    /// [`SendWebhookError::NoSecret`] or [`SendWebhookError::BadSecret`], which name the reference.
    pub async fn keys(&self) -> Result<Keys, SendWebhookError> {
        try_join_all(self.secrets.iter().map(key_of)).await.map(Keys::new)
    }

    /// Sends a message once, and reads whether it was taken.
    ///
    /// # Errors
    /// [`SendWebhookError`]: it was not taken, and trying again may help.
    pub async fn send(
        &self,
        permit: &RecordedPermit,
        keys: &Keys,
        message: &Message,
    ) -> Result<Answer, SendWebhookError> {
        let id = message_id(permit);
        let timestamp = jiff::Timestamp::now().as_second();
        let signature = keys.sign(&id, timestamp, message.body());
        let sending = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(message.body().to_owned());
        // Last thing before the bytes go out: after this moment another worker may hold the effect.
        permit.may_send().map_err(|error| SendWebhookError::NotSent { reason: error.to_string() })?;
        let answer = sending.send().await.map_err(|error| not_answered(&error))?;
        let judged = answer::judge(answer.status().as_u16(), answer.headers(), jiff::Timestamp::now());
        drop_body(answer).await;
        judged
    }
}

async fn key_of(reference: &SecretRef) -> Result<SigningKey, SendWebhookError> {
    let secret = reference.resolve().await?;
    SigningKey::parse(secret.expose_secret())
        .map_err(|source| SendWebhookError::BadSecret { reference: reference.clone(), source })
}

/// The `webhook-id`: the permit's idempotency key, hashed. The key begins with a workflow id, which its caller chose, and
/// the specification forbids ids that a user controls: one with a full stop could be moved into the signed body.
fn message_id(permit: &RecordedPermit) -> String {
    canonical::sha256(permit.idempotency_key().as_bytes()).to_string()
}

/// Checks the URL of a webhook.
///
/// # Errors
/// [`CheckUrlError`], without the URL.
pub fn check_url(url: &str, allow_internal: &[InternalHost]) -> Result<(), CheckUrlError> {
    checked_url(url, allow_internal).map(drop)
}

fn checked_url(url: &str, allow_internal: &[InternalHost]) -> Result<Url, CheckUrlError> {
    let url = Url::parse(url).map_err(|_| CheckUrlError::NotWeb)?;
    let host = url.host_str().ok_or(CheckUrlError::NotWeb)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CheckUrlError::Credentials);
    }
    match url.scheme() {
        "https" => match egress::guard(&url, may_be_internal(&url, allow_internal)) {
            Ok(_) => Ok(url),
            Err(what) => Err(CheckUrlError::Internal(what)),
        },
        "http" if is_this_machine(host) => Ok(url),
        "http" => Err(CheckUrlError::Plain),
        _ => Err(CheckUrlError::NotWeb),
    }
}

/// This machine needs no further word: whoever writes its name means it.
fn may_be_internal(url: &Url, allow_internal: &[InternalHost]) -> bool {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    is_this_machine(host) || allow_internal.iter().any(|named| named.names(host, port))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn not_answered(error: &reqwest::Error) -> SendWebhookError {
    let egress::Unanswered { reason, may_have_arrived } = egress::Unanswered::from(error);
    if may_have_arrived { SendWebhookError::Unanswered { reason } } else { SendWebhookError::NotSent { reason } }
}

/// Reads so much of an answer as a well-meaning receiver writes, so that it is not cut off while it does.
async fn drop_body(mut answer: reqwest::Response) {
    let mut read = 0;
    // The status says everything, so a body that does not arrive changes nothing.
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
