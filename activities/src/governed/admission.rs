//! Who asks: only an execution whose chain `open_run` opened in this store.

use mandate_domain::{Origin, RecordBody, RunChain, Who};
use mandate_workflows::{WORKFLOW_TYPE, contract::RunPointer};

use super::{Admitted, Governed};
use crate::{
    caller::{Caller, Orphan},
    executions::StartedExecution,
    failure::ActivityFailure,
    guards::{Guard, on},
    store::{RunRow, StoreError, Tx},
};

impl Governed {
    /// Admits the execution that the task belongs to.
    pub(super) async fn admit(&self, caller: &Caller, pointer: &RunPointer) -> Result<Admitted, ActivityFailure> {
        if let Err(other) = self.store.check_pinned(&pointer.store)
            && on(Guard::StorePinned)
        {
            return Err(self.wrong_store(caller.origin(), &caller.workflow_id, other).await?);
        }
        self.record_trouble(caller.origin()).await?;
        let chain = self.chain_of(caller).await?;
        let Some(row) = self.store.run(&chain).await? else {
            let reason = format!("run `{chain}` was not opened by `open_run`");
            return Err(self.intrusion(caller, reason).await?);
        };
        let mut pointer = pointer.clone();
        if let Some(seen) = caller.seen().filter(|seen| seen.records > pointer.audit.records) {
            // What an attempt before this one has told: an older copy of the store is found by it.
            pointer.audit = seen;
        }
        self.admitted(chain, row, caller.origin().clone(), pointer).await
    }

    /// Records a policy bundle that is active and cannot be used: somebody may have forged it. The deciding transaction
    /// that found it holds another chain, so the next activity does.
    async fn record_trouble(&self, origin: &Origin) -> Result<(), ActivityFailure> {
        let Some(trouble) = self.policy.unrecorded() else { return Ok(()) };
        let what = format!("policy bundle version {}", trouble.active);
        self.store.record_intrusion(origin, &what, &trouble.reason).await?;
        self.policy.recorded(trouble.active);
        Ok(())
    }

    pub(super) async fn admitted(
        &self,
        chain: RunChain,
        row: RunRow,
        origin: Origin,
        pointer: RunPointer,
    ) -> Result<Admitted, ActivityFailure> {
        let who = who(&row);
        let key = self.store.address_key(row.agent.tenant()).await?;
        Ok(Admitted { chain, row, who, origin, key, pointer })
    }

    /// The run chain of an execution: as recorded, or from the server's first event, never from the input.
    async fn chain_of(&self, caller: &Caller) -> Result<RunChain, ActivityFailure> {
        if caller.workflow_type != WORKFLOW_TYPE && on(Guard::WorkflowType) {
            let reason = format!("workflow type `{}` may not ask for effects", caller.workflow_type);
            return Err(self.intrusion(caller, reason).await?);
        }
        if let Some(chain) = self.store.execution(&caller.run_id).await? {
            return Ok(chain);
        }
        let started = self.first_event(caller).await?;
        let original = started.original_run_id;
        let chain = RunChain { workflow_id: caller.workflow_id.clone(), first_run_id: started.first_run_id };
        let mut tx = self.store.begin(&chain).await?;
        if !tx.is_open() {
            drop(tx);
            let reason = format!("run `{chain}` was not opened by `open_run`");
            return Err(self.intrusion(caller, reason).await?);
        }
        tx.accept_execution(&caller.run_id).await?;
        if !original.is_empty() && original != caller.run_id {
            self.record_reset(&mut tx, &chain, caller, (&caller.run_id, &original)).await?;
        }
        tx.commit().await?;
        Ok(chain)
    }

    /// Records that an execution came to be by a reset of another one of the run.
    pub(super) async fn record_reset(
        &self,
        tx: &mut Tx,
        chain: &RunChain,
        caller: &Caller,
        (run_id, original): (&str, &str),
    ) -> Result<(), ActivityFailure> {
        let Some(row) = self.store.run(chain).await? else { return Ok(()) };
        let (run_id, original_run_id) = (run_id.to_owned(), original.to_owned());
        let body = RecordBody::RunReset { run_id: run_id.clone(), original_run_id };
        tx.append(&who(&row), caller.origin(), format!("reset/{run_id}"), body).await?;
        Ok(())
    }

    /// The first event of the caller's execution, if it is an agent run of this task queue.
    pub(super) async fn first_event(&self, caller: &Caller) -> Result<StartedExecution, ActivityFailure> {
        let reason = match self.executions.started(&caller.workflow_id, &caller.run_id).await? {
            None => "the server knows no such execution".to_owned(),
            Some(started) if started.workflow_type != WORKFLOW_TYPE && on(Guard::WorkflowType) => {
                format!("workflow type `{}` may not ask for effects", started.workflow_type)
            }
            Some(started) if started.task_queue != self.task_queue && on(Guard::TaskQueue) => {
                format!(
                    "agent runs of this worker are started on task queue `{}`, not `{}`",
                    self.task_queue, started.task_queue
                )
            }
            Some(started) => return Ok(started),
        };
        Err(self.intrusion(caller, reason).await?)
    }

    /// Records that something asked for what it may not ask for, and gives back the failure to end with.
    pub(super) async fn intrusion(&self, caller: &Caller, reason: String) -> Result<ActivityFailure, ActivityFailure> {
        let activity = caller.activity();
        let what = format!("activity `{activity}` for workflow `{}`", caller.workflow_id);
        self.store.record_intrusion(caller.origin(), &what, &reason).await?;
        tracing::warn!(activity, workflow_id = caller.workflow_id, run_id = caller.run_id, reason, "refused");
        Ok(ActivityFailure::Intrusion { reason })
    }

    /// Records a task that belongs to no workflow execution, and gives back the failure to end with.
    pub(crate) async fn refuse_orphan(&self, orphan: Orphan) -> ActivityFailure {
        let Orphan { activity, origin } = orphan;
        let what = format!("activity `{activity}` without a workflow execution");
        let reason = "only an agent run may ask for effects";
        match self.store.record_intrusion(&origin, &what, reason).await {
            Ok(_) => ActivityFailure::NoWorkflow { activity },
            Err(error) => error.into(),
        }
    }

    /// A further attempt of a call of which this store knows nothing: the one before it may have known a newer store. What
    /// Temporal's history has seen of the run is compared with it before anything is begun.
    pub(super) async fn not_behind_history(&self, caller: &Caller, run: &Admitted) -> Result<(), ActivityFailure> {
        if let Some(seen) = self.executions.witness(&caller.workflow_id, &caller.run_id).await? {
            self.begin_behind(run, &seen).await?;
        }
        Ok(())
    }

    /// Records that a run was brought to a store that is not its own or is an old copy of it, and gives back the
    /// failure to end with. Its own chain cannot say so: it is elsewhere, or behind.
    pub(super) async fn wrong_store(
        &self,
        origin: &Origin,
        workflow_id: &str,
        error: StoreError,
    ) -> Result<ActivityFailure, ActivityFailure> {
        if matches!(error, StoreError::OtherStore { .. } | StoreError::BehindRun { .. }) {
            let what = format!("an activity of workflow `{workflow_id}`");
            self.store.record_intrusion(origin, &what, &error.to_string()).await?;
        }
        Ok(error.into())
    }
}

fn who(row: &RunRow) -> Who {
    Who {
        agent: row.agent.clone(),
        agent_version: row.opened.pins.agent_version.clone(),
        on_behalf_of: row.on_behalf_of.clone(),
        proof: row.opened.proof,
    }
}
