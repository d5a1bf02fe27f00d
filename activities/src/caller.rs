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

/// An activity task that belongs to no workflow execution.
pub(crate) struct Orphan {
    pub(crate) activity: String,
    pub(crate) origin: Origin,
}

impl Caller {
    /// Reads it from the task.
    pub(crate) fn of(context: ActivityContext, worker: &str) -> Result<Self, Orphan> {
        let info = context.info();
        let origin = |run_id: Option<&String>| Origin {
            run_id: run_id.cloned().unwrap_or_default(),
            activity_id: info.activity_id.clone(),
            attempt: info.attempt,
            worker: worker.to_owned(),
        };
        let (Some(workflow_id), Some(run_id)) = (info.workflow_id.clone(), info.workflow_run_id.clone()) else {
            let (activity, origin) = (info.activity_type.clone(), origin(info.activity_run_id.as_ref()));
            return Err(Orphan { activity, origin });
        };
        let origin = origin(Some(&run_id));
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
