//! How a message of MCP goes out, and what comes back: one request, over the guarded way.

use std::{collections::HashMap, error::Error, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use reqwest::{
    StatusCode,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use serde_json::Value;
use sse_stream::{Sse, SseStream};

use crate::{
    egress::{Unanswered, retry_after::retry_after, sent_by},
    tools::{lines::KEY_POINTER, remote::Remote, send_by::SendBy},
};

/// Largest answer: a result of four MiB, with its text copy and what surrounds it.
const ANSWER_BYTES_MAX: usize = 10 << 20;
/// What is read of an answer that reports an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// The name of a session.
const SESSION: &str = "mcp-session-id";

type Ended<T> = Result<T, StreamableHttpError<PostError>>;

/// Why a request has no answer of MCP.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum PostError {
    #[error("nothing was sent: {0}")]
    NotSent(String),
    #[error("the server does not know the session")]
    NoSession,
    #[error("{0}")]
    Broken(String),
    #[error("the server answered with status {status}")]
    Declined { status: u16, retry_after: Option<Duration> },
    #[error("the server answered with status {status}")]
    Unavailable { status: u16, retry_after: Option<Duration> },
    #[error("the server answered with status {status}")]
    Refused { status: u16 },
}

impl From<PostError> for StreamableHttpError<PostError> {
    fn from(error: PostError) -> Self {
        Self::Client(error)
    }
}

/// The reason inside an error of the transport.
pub(super) fn cause<'e>(error: &'e (dyn Error + Send + Sync + 'static)) -> Option<&'e PostError> {
    let mut cause: Option<&'e (dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(StreamableHttpError::Client(posted)) = error.downcast_ref::<StreamableHttpError<PostError>>() {
            return Some(posted);
        }
        cause = error.source();
    }
    None
}

/// The way of one connection.
#[derive(Clone)]
pub(super) struct Poster {
    remote: Arc<Remote>,
    headers: HeaderMap,
    send_by: SendBy,
}

impl Poster {
    pub(super) fn new(remote: Arc<Remote>, headers: HeaderMap, send_by: SendBy) -> Self {
        Self { remote, headers, send_by }
    }

    async fn post(
        &self,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        stated: HashMap<HeaderName, HeaderValue>,
    ) -> Ended<StreamableHttpPostResponse> {
        let value = serde_json::to_value(&message)?;
        let egress = self.remote.egress().map_err(|error| PostError::NotSent(error.to_string()))?;
        let mut sending = egress.http.post(egress.url.clone()).headers(self.headers.clone());
        sending = sending.headers(stated.into_iter().collect());
        if let Some(session) = &session {
            sending = sending.header(SESSION, session.as_ref());
        }
        let sending = sending
            .header(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(value.to_string());
        let key = value.pointer(KEY_POINTER).and_then(Value::as_str);
        let bounds = key.map(|key| self.send_by.bounds(key)).transpose();
        let answered = match bounds.map_err(|nothing| PostError::NotSent(nothing.to_string()))? {
            Some((send_by, stop)) => sent_by(send_by, &stop, sending.send()).await,
            None => sending.send().await,
        };
        let response = answered.map_err(|error| not_answered(&error))?;
        read(response, &message, session.is_some()).await
    }
}

fn not_answered(error: &reqwest::Error) -> PostError {
    let Unanswered { reason, may_have_arrived } = Unanswered::from(error);
    if may_have_arrived { PostError::Broken(reason) } else { PostError::NotSent(reason) }
}

async fn read(
    response: reqwest::Response,
    message: &ClientJsonRpcMessage,
    has_session: bool,
) -> Ended<StreamableHttpPostResponse> {
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        return refused(response, message, has_session).await;
    }
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    let session = headers.get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_request = matches!(message, ClientJsonRpcMessage::Request(_));
    match kind {
        _ if headers.contains_key(CONTENT_ENCODING) => {
            Err(PostError::Broken("the answer is encoded".to_owned()).into())
        }
        "text/event-stream" => Ok(StreamableHttpPostResponse::Sse(events(response), session)),
        "application/json" => {
            let bytes = bounded(response, ANSWER_BYTES_MAX).await?;
            match serde_json::from_slice::<ServerJsonRpcMessage>(&bytes) {
                Ok(answer) => Ok(StreamableHttpPostResponse::Json(answer, session)),
                Err(_) if is_request => Err(PostError::Broken("the answer is no JSON-RPC".to_owned()).into()),
                Err(_) => Ok(StreamableHttpPostResponse::Accepted),
            }
        }
        _ if is_request => Err(PostError::Broken("the answer is neither JSON nor an event stream".to_owned()).into()),
        _ => Ok(StreamableHttpPostResponse::Accepted),
    }
}

/// An answer whose status is no success.
async fn refused(
    response: reqwest::Response,
    message: &ClientJsonRpcMessage,
    has_session: bool,
) -> Ended<StreamableHttpPostResponse> {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), jiff::Timestamp::now());
    match status {
        425 | 429 => return Err(PostError::Declined { status, retry_after }.into()),
        408 | 500..=599 => return Err(PostError::Unavailable { status, retry_after }.into()),
        401 | 403 => return Err(PostError::Refused { status }.into()),
        300..=399 => {
            let reason = format!("the server answered with a redirect (status {status}), which is not followed");
            return Err(PostError::Broken(reason).into());
        }
        404 if has_session => return Err(PostError::NoSession.into()),
        _ => {}
    }
    // What could not be read decides nothing: the status does.
    let bytes = bounded(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    let ClientJsonRpcMessage::Request(request) = message else { return Err(PostError::Refused { status }.into()) };
    let said = serde_json::from_slice::<ServerJsonRpcMessage>(&bytes).ok();
    let error = match said {
        Some(JsonRpcMessage::Error(error)) => Some(error),
        Some(_) | None => None,
    };
    let is_discovery = matches!(request.request, ClientRequest::DiscoverRequest(_));
    match error {
        // The server could not even tell which request it refuses: with a session, it has lost that.
        Some(error) if has_session && error.id.is_none() => Err(PostError::NoSession.into()),
        Some(error) => Ok(answer_of(error.error, request.id.clone())),
        // A server of the older era answers discovery as it likes.
        None if is_discovery => {
            let text = format!("server/discover was refused with status {status}");
            Ok(answer_of(ErrorData::invalid_request(text, None), request.id.clone()))
        }
        None => Err(PostError::Refused { status }.into()),
    }
}

fn answer_of(error: ErrorData, id: rmcp::model::RequestId) -> StreamableHttpPostResponse {
    StreamableHttpPostResponse::Json(ServerJsonRpcMessage::error(error, Some(id)), None)
}

async fn bounded(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, PostError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| not_answered(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            return Err(PostError::Broken(format!("the answer is over the limit of {most} bytes")));
        }
    }
    Ok(bytes)
}

/// The events of an answer, which all together are as long as an answer may be.
fn events(response: reqwest::Response) -> BoxStream<'static, Result<Sse, SseError>> {
    let chunks = futures::stream::try_unfold((response, 0), |(mut response, read)| async move {
        let Some(chunk) = response.chunk().await.map_err(|error| not_answered(&error))? else { return Ok(None) };
        let read = read + chunk.len();
        if read > ANSWER_BYTES_MAX {
            return Err(PostError::Broken(format!("the answer is over the limit of {ANSWER_BYTES_MAX} bytes")));
        }
        Ok(Some((chunk, (response, read))))
    });
    SseStream::from_bytes_stream(chunks.boxed()).boxed()
}

impl StreamableHttpClient for Poster {
    type Error = PostError;

    fn post_message(
        &self,
        _: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> impl Future<Output = Ended<StreamableHttpPostResponse>> + Send + '_ {
        self.post(message, session_id, custom_headers)
    }

    async fn delete_session(
        &self,
        _: Arc<str>,
        session_id: Arc<str>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Ended<()> {
        let egress = self.remote.egress().map_err(|error| PostError::NotSent(error.to_string()))?;
        let ending = egress.http.delete(egress.url.clone()).headers(self.headers.clone());
        let ending = ending.headers(custom_headers.into_iter().collect()).header(SESSION, session_id.as_ref());
        // Whatever it answers: the session is not used again.
        ending.send().await.map(drop).map_err(|error| not_answered(&error).into())
    }

    /// No stream of the server's own, and none that is resumed: nothing is wanted of it.
    async fn get_stream(
        &self,
        _: Arc<str>,
        _: Option<Arc<str>>,
        _: Option<String>,
        _: Option<String>,
        _: HashMap<HeaderName, HeaderValue>,
    ) -> Ended<BoxStream<'static, Result<Sse, SseError>>> {
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}
