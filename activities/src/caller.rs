//! Who asks: what the server says of the activity task, never what its input says.

use mandate_domain::Origin;
use temporalio_sdk::activities::ActivityContext;

use crate::failure::ActivityFailure;

/// The execution that an activity task belongs to, and the way to hear of its cancellation.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) workflow_id: String,
    pub(crate) run_id: String,
    pub(crate) workflow_type: String,
    origin: Origin,
    context: ActivityContext,
}

impl Caller {
    /// Reads it from the task.
    pub(crate) fn of(context: ActivityContext, worker: &str) -> Result<Self, ActivityFailure> {
        let info = context.info();
        let (Some(workflow_id), Some(run_id)) = (info.workflow_id.clone(), info.workflow_run_id.clone()) else {
            let activity = info.activity_type.clone();
            return Err(ActivityFailure::NoWorkflow { activity });
        };
        let origin = Origin {
            run_id: run_id.clone(),
            activity_id: info.activity_id.clone(),
            attempt: info.attempt,
            worker: worker.to_owned(),
        };
        let workflow_type = info.workflow_type.clone().unwrap_or_default();
        Ok(Self { workflow_id, run_id, workflow_type, origin, context })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Refuses to begin an effect of a task that was cancelled. After the intent nobody asks any more.
    pub(crate) fn not_cancelled(&self) -> Result<(), ActivityFailure> {
        if self.context.is_cancelled() { Err(ActivityFailure::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn context(&self) -> &ActivityContext {
        &self.context
    }
}
