//! The word that nobody waits for a call any more: its run was stopped, its attempt is over, or the worker ends.

use std::{fmt, future::pending};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

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
    pub(super) fn is_asked(&self) -> bool {
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
    async fn it_is_asked_when_its_future_is_ready_and_never_by_default() {
        assert!(!Stop::default().is_asked());
        assert!(!Stop::when(pending()).is_asked());
        let stop = Stop::when(ready(()));
        assert!(stop.is_asked() && stop.clone().is_asked());
        stop.asked().await;
    }
}
