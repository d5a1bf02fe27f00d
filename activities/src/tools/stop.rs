//! The word that nobody waits for a call any more: its run was stopped, its attempt is over, or the worker ends.

use std::{fmt, future::pending, pin::pin, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

/// How long a call that is to stop may still be answered: a known end is worth more than an early one. Also an attempt
/// that another one took the place of hears that it is to stop, and its late answer is worth a record.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long an answer is looked for after the time of its call ran out.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Whether a call is to stop. The default never says so.
#[derive(Clone, Default)]
pub struct Stop(Option<Shared<BoxFuture<'static, ()>>>);

impl Stop {
    /// To stop when this comes.
    #[must_use]
    pub fn when(asked: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(asked.boxed().shared()))
    }

    /// Whether it has come.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.clone().is_some_and(|asked| asked.now_or_never().is_some())
    }

    /// Waits until it comes.
    pub(super) async fn asked(&self) {
        match self.0.clone() {
            Some(asked) => asked.await,
            None => pending().await,
        }
    }
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    /// Longest time.
    pub(super) limit: Duration,
    /// Soon after it is asked.
    pub(super) stop: &'a Stop,
}

impl<'a> Patience<'a> {
    /// Waits until it is over, and says why. It may be waited for again when it is: an answer comes in parts.
    pub(super) fn over(&self) -> Shared<BoxFuture<'a, String>> {
        let Self { limit, stop } = *self;
        let over = async move {
            let stopped = async {
                stop.asked().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            match tokio::time::timeout(limit, stopped).await {
                Ok(()) => format!("it was to stop, and did not answer within {} s more", STOP_GRACE.as_secs()),
                Err(_) => format!("no answer within {} s", limit.as_secs()),
            }
        };
        over.boxed().shared()
    }
}

/// What comes before the patience with it is over, or why that is. A process that was frozen sees its timer before the
/// answer that has arrived, so it looks once more.
pub(super) async fn answered<F: Future>(over: impl Future<Output = String>, asked: F) -> Result<F::Output, String> {
    let mut asked = pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => Ok(answer),
        why = over => tokio::time::timeout(LAST_LOOK, asked).await.map_err(|_| why),
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_asked()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_in_parts_is_waited_for_behind_the_limit_for_each_of_them() {
        let stop = Stop::default();
        let over = Patience { limit: Duration::from_millis(50), stop: &stop }.over();
        let after = |ms| tokio::time::sleep(Duration::from_millis(ms));
        assert_eq!(answered(over.clone(), after(200)).await, Ok(()), "within the last look");
        assert_eq!(answered(over.clone(), after(100)).await, Ok(()), "the rest of it");
        assert_eq!(answered(over, after(2_000)).await, Err("no answer within 0 s".to_owned()));
    }

    #[tokio::test]
    async fn it_is_asked_when_its_future_is_ready_and_never_by_default() {
        assert!(!Stop::default().is_asked());
        assert!(!Stop::when(pending()).is_asked());
        let stop = Stop::when(ready(()));
        assert!(stop.is_asked() && stop.clone().is_asked());
        stop.asked().await;
    }
}
