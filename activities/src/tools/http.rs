//! HTTP tools: one request, one answer, and what the answer means. Nothing is repeated here, and no redirect followed.

use std::{sync::Arc, time::Duration};

use mandate_domain::{
    ToolDefinition, ToolName,
    tool::http::{HttpMethod, HttpRequest, key_as_sent},
};
use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Map, Value};

use super::{
    CallToolError, PrepareToolError, ToolAnswer,
    remote::{Ready, Remote},
    stop::{Patience, answered},
};
use crate::{
    egress::{Egress, Unanswered, sent_by},
    governed::RecordedPermit,
};

mod answer;

use answer::{Arrived, Asked, Body};

/// What is read of an answer that reports an error.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// A tool ready to be called.
#[derive(Debug)]
pub(super) struct Prepared {
    server: Arc<Remote>,
    request: HttpRequest,
    idempotent: bool,
    /// It changes nothing.
    reads: bool,
    ready: Ready,
}

/// Waits for a place and a server that takes connections. Nothing is sent.
pub(super) async fn prepare(
    server: &Arc<Remote>,
    tool: &ToolDefinition,
    request: &HttpRequest,
) -> Result<Prepared, PrepareToolError> {
    let ready = server.ready(Duration::from_secs(tool.timeout_secs)).await?;
    Ok(Prepared {
        server: Arc::clone(server),
        request: request.clone(),
        idempotent: tool.idempotent,
        reads: tool.read_only,
        ready,
    })
}

impl Prepared {
    /// Sends the request and reads its answer.
    pub(super) async fn call(
        self,
        permit: &RecordedPermit,
        tool: &ToolName,
        arguments: &Map<String, Value>,
        key: Option<String>,
        patience: Patience<'_>,
    ) -> Result<ToolAnswer, CallToolError> {
        let not_sent = |reason: String| CallToolError::NotSent { tool: tool.to_string(), reason };
        let unknown = |reason: String| CallToolError::unknown(tool, reason);
        let egress = self.server.egress().map_err(|error| not_sent(error.to_string()))?;
        let sending = self.sending(egress, arguments, key).map_err(not_sent)?;
        // Last thing before the bytes go out: after this moment another worker may hold the effect.
        permit.may_send().map_err(|error| not_sent(error.to_string()))?;
        let send_by = std::time::Instant::now() + permit.time_left();
        let over = patience.over();
        let response =
            match answered(over.clone(), sent_by(send_by, patience.stop, sending.send())).await.map_err(unknown)? {
                Ok(response) => response,
                Err(error) => {
                    let Unanswered { reason, may_have_arrived } = Unanswered::from(&error);
                    return Err(if may_have_arrived { unknown(reason) } else { not_sent(reason) });
                }
            };
        let arrived = self.read(response, over).await;
        let again = self.idempotent && permit.epoch() > 1;
        answer::judge(tool, &arrived, Asked { reads: self.reads, again, repeats: permit.repeats() })
    }

    fn sending(
        &self,
        egress: &Egress,
        arguments: &Map<String, Value>,
        key: Option<String>,
    ) -> Result<reqwest::RequestBuilder, String> {
        let target = self.request.target(arguments).map_err(|error| error.to_string())?;
        let url = joined(&egress.url, &target.path_and_query)?;
        let mut sending = egress.http.request(method(self.request.method), url).headers(self.ready.headers.clone());
        if !self.ready.headers.contains_key(ACCEPT) {
            sending = sending.header(ACCEPT, HeaderValue::from_static("application/json, text/*;q=0.5"));
        }
        if let Some(key) = key {
            // INVARIANT (plain key): printable ASCII without quotes, backslashes and line ends.
            let value =
                HeaderValue::from_str(&format!("\"{}\"", key_as_sent(&key))).map_err(|error| error.to_string())?;
            sending = sending.header("idempotency-key", value);
        }
        if let Some(body) = target.body {
            sending = sending.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.to_string());
        }
        Ok(sending)
    }

    async fn read(&self, mut response: reqwest::Response, over: impl Future<Output = String>) -> Arrived {
        let (status, headers) = (response.status(), response.headers().clone());
        let most = usize::try_from(self.request.answer_bytes_max).unwrap_or(usize::MAX);
        let most = if status.is_success() { most } else { ERROR_BYTES_MAX };
        let mut bytes = Vec::new();
        let reading = answered(over, async {
            while let Some(chunk) = response.chunk().await.map_err(|_| "the connection broke")? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > most {
                    return Ok(false);
                }
            }
            Ok::<_, &str>(true)
        });
        let body = match reading.await {
            Ok(Ok(true)) => Body::Whole(bytes),
            Ok(Ok(false)) => Body::Cut { bytes, most },
            Ok(Err(reason)) => Body::Broken { bytes, reason: reason.to_owned() },
            Err(reason) => Body::Broken { bytes, reason },
        };
        Arrived::new(status, headers, body, &self.ready.headers)
    }
}

/// The base URL with a path below it. Whatever the parser makes of it, it is the same server and below the same path.
fn joined(base: &Url, path_and_query: &str) -> Result<Url, String> {
    let prefix = base.path().trim_end_matches('/').to_owned();
    let text = format!("{}{prefix}{path_and_query}", base.origin().ascii_serialization());
    let url = Url::parse(&text).map_err(|error| format!("the arguments make no URL: {error}"))?;
    let path = path_and_query.split('?').next().unwrap_or_default();
    let is_below = url.origin() == base.origin() && url.path() == format!("{prefix}{path}") && url.fragment().is_none();
    if is_below { Ok(url) } else { Err("the arguments make a URL of another place".to_owned()) }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

#[cfg(test)]
mod tests;
