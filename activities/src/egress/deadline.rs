//! The last questions before bytes go out, asked once more when a connection has been made: connecting takes time, and a
//! claim may run out meanwhile, or the call be stopped.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
use tower::{Layer, Service};

use crate::tools::Stop;

tokio::task_local! {
    static SEND_BY: (Instant, Stop);
}

/// Why a connection is not used that was made. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PastDeadline {
    /// The claim ran out.
    #[error("the claim ran out while a connection was made, and nothing was sent")]
    Late,
    /// Nobody waits for the call any more.
    #[error("it was to stop while a connection was made, and nothing was sent")]
    Stopped,
}

/// Sends within this time, and not once it is to stop: a connection that is made later is not used.
pub(crate) async fn sent_by<F: Future>(send_by: Instant, stop: &Stop, sending: F) -> F::Output {
    SEND_BY.scope((send_by, stop.clone()), sending).await
}

#[derive(Debug, Clone, Copy)]
pub(super) struct DeadlineLayer;

#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    connector: S,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, connector: S) -> Self::Service {
        Deadline { connector }
    }
}

impl<S, R> Service<R> for Deadline<S>
where
    S: Service<R, Error = Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        // Read now: the client may go on connecting in a task of its own.
        let bounds = SEND_BY.try_with(Clone::clone).ok();
        let connecting = self.connector.call(to);
        Box::pin(async move {
            let connection = connecting.await?;
            match bounds {
                Some((send_by, _)) if Instant::now() >= send_by => Err(PastDeadline::Late.into()),
                Some((_, stop)) if stop.is_asked() => Err(PastDeadline::Stopped.into()),
                Some(_) | None => Ok(connection),
            }
        })
    }
}
