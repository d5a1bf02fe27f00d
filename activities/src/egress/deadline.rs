//! The last question before bytes go out, asked once more when a connection has been made: connecting takes time, and a
//! claim may run out meanwhile.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
use tower::{Layer, Service};

tokio::task_local! {
    static SEND_BY: Instant;
}

/// The claim ran out while a connection was made. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim ran out while a connection was made, and nothing was sent")]
pub(crate) struct PastDeadline;

/// Sends within this time: a connection that is made later is not used.
pub(crate) async fn sent_by<F: Future>(send_by: Instant, sending: F) -> F::Output {
    SEND_BY.scope(send_by, sending).await
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
        let send_by = SEND_BY.try_with(|send_by| *send_by).ok();
        let connecting = self.connector.call(to);
        Box::pin(async move {
            let connection = connecting.await?;
            match send_by {
                Some(send_by) if Instant::now() >= send_by => Err(PastDeadline.into()),
                Some(_) | None => Ok(connection),
            }
        })
    }
}
