//! Whose turn it is on a chain, among the transactions of this process.
//!
//! The head's row decides between processes. Within one, those who wait for the same head wait here and not each with a
//! connection, so a run that is held up takes one connection and leaves the others to other runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use mandate_domain::RunChain;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

use crate::store::{StoreError, rows::locked};

/// Chains that are kept in mind before those that nobody waits for are dropped.
const KEPT_MAX: usize = 256;

/// A queue for each chain.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<RunChain, Weak<Queue<()>>>>);

/// The right to ask for a chain's head. It ends when it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits for the turn, in the order of those who ask.
    pub(super) async fn wait(&self, chain: &RunChain, wait_max: Duration) -> Result<Turn, StoreError> {
        let queue = self.queue(chain);
        tokio::time::timeout(wait_max, queue.lock_owned()).await.map_err(|_| StoreError::Busy)
    }

    fn queue(&self, chain: &RunChain) -> Arc<Queue<()>> {
        let mut queues = locked(&self.0);
        if let Some(queue) = queues.get(chain).and_then(Weak::upgrade) {
            return queue;
        }
        if queues.len() >= KEPT_MAX {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(Queue::new(()));
        queues.insert(chain.clone(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_has_the_turn_of_a_chain_and_nobody_waits_for_ever() {
        let turns = Turns::default();
        let chain = |id: usize| RunChain { workflow_id: id.to_string(), first_run_id: "r".to_owned() };
        let soon = Duration::from_millis(5);
        let held = turns.wait(&chain(0), soon).await.unwrap();
        assert!(matches!(turns.wait(&chain(0), soon).await, Err(StoreError::Busy)));
        for other in 1..=2 * KEPT_MAX {
            drop(turns.wait(&chain(other), soon).await.unwrap());
        }
        assert!(locked(&turns.0).len() <= KEPT_MAX + 1, "what nobody waits for is dropped");
        assert!(matches!(turns.wait(&chain(0), soon).await, Err(StoreError::Busy)), "what is held is not");
        drop(held);
        turns.wait(&chain(0), soon).await.unwrap();
    }
}
