//! Heartbeats from a task beside the effect, so that a slow tool does not look like a dead worker. They carry where the audit
//! chain stands: the next attempt is told, and a store that has less is an older copy.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::caller::Caller;

/// How often. The shortest heartbeat timeout that can be configured is twice as long.
const EVERY: Duration = Duration::from_secs(1);

/// Beats until it is dropped.
pub(crate) struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    pub(crate) fn start(caller: &Caller) -> Self {
        let caller = caller.clone();
        Self(tokio::spawn(async move {
            // A heartbeat that cannot be encoded cannot be sent later either; the timeout then speaks.
            while caller.beat().await {
                tokio::time::sleep(EVERY).await;
            }
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}
