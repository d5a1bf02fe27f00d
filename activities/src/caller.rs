//! Who asks: what the server says of the activity task, never what its input says.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mandate_domain::{ChainHead, Origin};
use temporalio_sdk::activities::ActivityContext;

use crate::failure::ActivityFailure;

/// The execution that an activity task belongs to, and the way to hear of its cancellation.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) workflow_id: String,
    pub(crate) run_id: String,
    pub(crate) workflow_type: String,
    origin: Origin,
    started_ms: u64,
    /// Where the audit chain stood when this attempt, or the one before it, last said so.
    seen: Arc<Mutex<Option<ChainHead>>>,
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
        // A server that takes activities without a workflow hands them out with the ids of none.
        let named = |id: Option<&String>| id.filter(|id| !id.is_empty()).cloned();
        let ids = (named(info.workflow_id.as_ref()), named(info.workflow_run_id.as_ref()));
        let (Some(workflow_id), Some(run_id)) = ids else {
            let (activity, origin) = (info.activity_type.clone(), origin(info.activity_run_id.as_ref()));
            return Err(Orphan { activity, origin });
        };
        let origin = origin(Some(&run_id));
        let workflow_type = info.workflow_type.clone().unwrap_or_default();
        let started = info.started_time.unwrap_or_else(SystemTime::now);
        let started_ms = started.duration_since(UNIX_EPOCH).map(|since| since.as_millis()).unwrap_or_default();
        let started_ms = u64::try_from(started_ms).unwrap_or(u64::MAX);
        // Details of another form are those of another program, and say nothing here.
        let seen = context.heartbeat_details().deserialize::<Option<ChainHead>>().ok().flatten().flatten();
        let seen = Arc::new(Mutex::new(seen));
        Ok(Self { workflow_id, run_id, workflow_type, origin, started_ms, seen, context })
    }

    /// The activity's type.
    pub(crate) fn activity(&self) -> &str {
        &self.context.info().activity_type
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Refuses to go on with a task that was cancelled, where nothing of its effect was sent.
    pub(crate) fn not_cancelled(&self) -> Result<(), ActivityFailure> {
        if self.context.is_cancelled() { Err(ActivityFailure::Cancelled) } else { Ok(()) }
    }

    /// Waits until the server says that nobody waits for this attempt any more, or the worker is to end.
    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let context = self.context.clone();
        async move { context.cancelled().await }
    }

    /// When this attempt was started, by the Temporal server's clock: milliseconds since 1970-01-01 UTC. What people may
    /// still decide is told by one clock, whichever machine asks.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms
    }

    /// Waits for a moment, by the Temporal server's clock: fails so that the activity is tried again then.
    pub(crate) fn not_before(&self, at_ms: u64, what: &impl ToString) -> Result<(), ActivityFailure> {
        let wait = Duration::from_millis(at_ms.saturating_sub(self.started_ms));
        if wait.is_zero() { Ok(()) } else { Err(ActivityFailure::TooEarly { what: what.to_string(), wait }) }
    }

    /// Where the audit chain stood when this attempt, or the one before it, last said so.
    pub(crate) fn seen(&self) -> Option<ChainHead> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the server where the audit chain stands now: an attempt after this one hears of it.
    pub(crate) async fn saw(&self, head: ChainHead) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        self.beat().await;
    }

    /// Sends a heartbeat. Whether it could be encoded.
    pub(crate) async fn beat(&self) -> bool {
        self.context.record_heartbeat(self.seen()).await.is_ok()
    }
}
