//! OpenAI Chat Completions, and whatever speaks it: one request, no retry, no redirect, no streaming.
//!
//! Errors name the status and the provider's error code, never its message: providers repeat prompts and keys there.

use std::time::Duration;

use futures::future::BoxFuture;
use mandate_domain::{ModelReply, ModelRequest};
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{ModelError, ModelProvider, may_send};
use crate::{
    catalog::{Price, SecretRef},
    egress::Unanswered,
    governed::RecordedPermit,
};

mod reply;
mod request;

/// Longest time to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for a whole answer, whatever a run's limits say; those are applied by the caller and usually shorter.
const ANSWER_LIMIT: Duration = Duration::from_hours(1);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Longest wait that a provider may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// "Overloaded", as some providers and gateways answer.
const OVERLOADED: u16 = 529;

/// No HTTP client can be built: usually because no TLS provider is installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an HTTP client: {reason}")]
pub struct BuildClientError {
    reason: String,
}

/// How the provider is reached.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) base_url: String,
    pub(super) model: String,
    pub(super) api_key: Option<SecretRef>,
    pub(super) max_output_tokens: u64,
    pub(super) price: Option<Price>,
}

/// The provider.
#[derive(Debug)]
pub(super) struct OpenAi {
    http: reqwest::Client,
    url: String,
    settings: Settings,
}

impl OpenAi {
    /// Builds the client. Nothing is sent.
    pub(super) fn new(settings: Settings) -> Result<Self, BuildClientError> {
        let http = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .build()
            .map_err(|error| BuildClientError { reason: error.to_string() })?;
        let url = format!("{}/chat/completions", settings.base_url.trim_end_matches('/'));
        Ok(Self { http, url, settings })
    }

    async fn ask(&self, permit: &RecordedPermit, request: &ModelRequest) -> Result<ModelReply, ModelError> {
        let names = request::WireNames::of(&request.tools);
        let body = request::body(request, &names, &self.settings.model, self.settings.max_output_tokens);
        let mut sending = self.http.post(&self.url).json(&body).header("idempotency-key", permit.idempotency_key());
        if let Some(key) = &self.settings.api_key {
            sending = sending.header(AUTHORIZATION, authorization(key).await?);
        }
        // Last thing before the bytes go out: after this moment another worker may hold the effect.
        may_send(permit)?;
        let answer = sending.send().await.map_err(|error| unreachable(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = read(answer).await;
        if !status.is_success() {
            // The status decides, whether or not the body arrived.
            return Err(refusal(status, &headers, &bytes.unwrap_or_default()));
        }
        reply::read(&bytes?, &names, self.settings.price)
    }
}

impl ModelProvider for OpenAi {
    fn complete<'a>(
        &'a self,
        permit: &'a RecordedPermit,
        request: &'a ModelRequest,
    ) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(self.ask(permit, request))
    }
}

async fn authorization(key: &SecretRef) -> Result<HeaderValue, ModelError> {
    let refused = |reason: String| ModelError::Refused { reason };
    // Nothing was sent, and a key that is being rotated comes back: tried again, as an outage is.
    let secret = key.resolve().await.map_err(|error| ModelError::NotSent { reason: format!("no key: {error}") })?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()))
        .map_err(|_| refused("the key holds characters that no header can carry".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(ModelError::Protocol { reason: format!("the answer is over {ANSWER_BYTES_MAX} bytes") });
        }
    }
    Ok(bytes)
}

fn unreachable(error: &reqwest::Error) -> ModelError {
    if error.is_builder() {
        return ModelError::Refused { reason: "the base URL is not valid".to_owned() };
    }
    ModelError::Unreachable { reason: Unanswered::from(error).reason }
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = ["/error/code", "/error/type"].iter().find_map(|at| body.pointer(at)?.as_str()).map(plain_code);
    let reason = match &code {
        Some(code) => format!("status {} (`{code}`)", status.as_u16()),
        None => format!("status {}", status.as_u16()),
    };
    let retry_after = || retry_after(headers, jiff::Timestamp::now());
    match status.as_u16() {
        // An empty account answers like a rate limit, and waiting does not fill it.
        429 if code.as_deref() == Some("insufficient_quota") => ModelError::Refused { reason },
        429 => ModelError::RateLimited { retry_after: retry_after() },
        503 | OVERLOADED => ModelError::Overloaded { retry_after: retry_after() },
        408 | 409 | 425 | 500..=599 => ModelError::Unreachable { reason },
        _ => ModelError::Refused { reason },
    }
}

fn plain_code(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect()
}

fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = || text("retry-after-ms")?.parse().ok().map(|millis: f64| millis / 1000.0);
    let seconds = || text("retry-after")?.parse::<f64>().ok();
    let date = || {
        let at = jiff::fmt::rfc2822::parse(text("retry-after")?).ok()?.timestamp();
        Some(at.duration_since(now).as_secs_f64())
    };
    let secs = millis().or_else(seconds).or_else(date)?;
    // A negative or absurd number must not panic.
    Some(Duration::try_from_secs_f64(secs.clamp(0.0, RETRY_AFTER_MAX.as_secs_f64())).unwrap_or(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;
