//! Results as they complete, in an order that a replay repeats.
//!
//! `FuturesUnordered` and channels wake tasks from outside the SDK and fail its determinism check. This polls its
//! futures in order with the caller's own waker.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Futures of one workflow that complete in any order.
pub(crate) struct TaskSet<'a, T> {
    tasks: Vec<Pin<Box<dyn Future<Output = T> + 'a>>>,
}

impl<'a, T> TaskSet<'a, T> {
    pub(crate) fn new() -> Self {
        Self { tasks: Vec::new() }
    }

    pub(crate) fn push(&mut self, task: impl Future<Output = T> + 'a) {
        self.tasks.push(Box::pin(task));
    }

    /// The first result of the oldest task that has one.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let ready = self.tasks.iter_mut().enumerate().find_map(|(position, task)| match task.as_mut().poll(cx) {
            Poll::Ready(value) => Some((position, value)),
            Poll::Pending => None,
        });
        match ready {
            Some((position, value)) => {
                drop(self.tasks.remove(position));
                Poll::Ready(value)
            }
            None => Poll::Pending,
        }
    }
}
