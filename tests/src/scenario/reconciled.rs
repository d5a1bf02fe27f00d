//! The reconciler of a scenario, asked for at once.

use mandate_workflows::reconcile::Reconciled;
use serde_json::Value;
use temporalio_client::RpcOptions;

use crate::{Scenario, until};

impl Scenario {
    /// Lets workers make the schedule of the reconciler. It comes by itself once a day: tests ask for it.
    pub fn with_reconciler(&self) {
        self.edit("mandate.toml", "[reconciler]\nenabled = false", "[reconciler]\nevery_secs = 86400");
    }

    /// Id of the schedule.
    #[must_use]
    pub fn reconciler(&self) -> String {
        format!("{}-reconciler", self.world.task_queue)
    }

    /// Triggers the schedule as an operator does, and waits until the comparison that it starts has ended.
    pub async fn reconcile(&self) -> Reconciled {
        let id = self.reconciler();
        let schedule = self.server.client.get_schedule_handle(&id);
        let last = async || {
            let described = schedule.describe(RpcOptions::default()).await.ok()?;
            let last = described.recent_actions().into_iter().last();
            Some(last.map(|action| (action.workflow_id, action.run_id)))
        };
        let before = until("the schedule is there", last).await;
        let trigger = ["schedule", "trigger", "--schedule-id", &id];
        let (workflow_id, run_id) = until("the schedule starts the comparison", async || {
            // What is asked for within the second of the one before is the same to the schedule.
            self.temporal(&trigger).await.ok();
            crate::until_within(std::time::Duration::from_secs(3), async || {
                last().await.flatten().filter(|now| before.as_ref() != Some(now))
            })
            .await
        })
        .await;
        let result = ["workflow", "result", "--workflow-id", &workflow_id, "--run-id", &run_id, "-o", "json"];
        let said: Value = serde_json::from_str(&self.temporal(&result).await.ok()).expect("JSON");
        serde_json::from_value(said["result"].clone()).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Triggers the schedule until a comparison closes a run.
    pub async fn reconcile_until_closed(&self) -> Reconciled {
        until("the run is closed", async || {
            let found = self.reconcile().await;
            (found.closed > 0).then_some(found)
        })
        .await
    }
}
