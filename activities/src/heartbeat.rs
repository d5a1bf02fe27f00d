//! Heartbeats from a task beside the effect, so that a slow tool does not look like a dead worker.

use std::time::Duration;

use temporalio_sdk::activities::ActivityContext;
use tokio::task::JoinHandle;

/// How often. Well below the heartbeat timeout of 5 s, which the SDK's throttling also looks at.
const EVERY: Duration = Duration::from_secs(1);

/// Beats until it is dropped.
pub(crate) struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    pub(crate) fn start(context: &ActivityContext) -> Self {
        let context = context.clone();
        Self(tokio::spawn(async move {
            // A heartbeat that cannot be encoded cannot be sent later either; the timeout then speaks.
            while context.record_heartbeat(()).await.is_ok() {
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
