//! The governed path: the one way to a tool or a model.
//!
//! ```text
//! activity task ── admission ── look first ─┬─ has its outcome ───────────────────────────────► return it
//!   (a pointer)   who asks?                 ├─ intent without outcome ── reconcile ─┐
//!                                           └─ new ── prepare (connect) ────────────┤
//!                                                                                   ▼
//!            one transaction: facts, policy, approvals, decision, intent, claim ── RecordedPermit
//!                                                                                   │ perform, until send_by
//!            one transaction: outcome, content, end of the call ◄───────────────────┘
//! ```
//!
//! Everything that decides comes from the store, keyed by the workflow and run ids that the server gave. Without the
//! store nothing runs.

use std::{sync::Arc, time::Duration};

use mandate_domain::{AddressKey, ChainHead, Origin, RecordBody, RunChain, ToolDefinition, Who};
use mandate_workflows::contract::RunPointer;

use crate::{
    catalog::Catalog,
    executions::Executions,
    failure::ActivityFailure,
    guards::{Guard, on},
    identity::Identities,
    metrics::Metrics,
    models::Models,
    policy::ActivePolicy,
    store::{RunRow, Store, Tx},
    tools::ToolSet,
    webhook::Webhook,
};

mod admission;
mod builtins;
mod call_tool;
mod claim;
mod close_run;
mod compensate;
mod cut;
mod ends;
mod identify;
mod invoke_model;
mod judge;
mod known;
mod notify;
mod open_run;
pub mod permit;
mod prove_start;
mod questions;
mod reconcile;
mod reconcile_runs;
mod review_approval;
mod review_instruction;
mod revise;
mod server_questions;
mod view;

pub use permit::{ClaimRanOut, RecordedPermit};

/// How long after its claim a holder may send. Before any Temporal timeout that starts another attempt.
const SEND_WITHIN: Duration = Duration::from_secs(4);

/// What is told of whatever is asked for after the closing record.
const RUN_ENDED: &str = "the run has ended";

/// What the path works with.
pub(crate) struct Governed {
    pub(crate) store: Store,
    pub(crate) catalog: Catalog,
    pub(crate) policy: ActivePolicy,
    pub(crate) tools: ToolSet,
    pub(crate) models: Models,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) executions: Arc<dyn Executions>,
    /// How people are proved.
    pub(crate) identities: Identities,
    /// The task queue that agent runs are started on.
    pub(crate) task_queue: String,
    /// Unique for each start of a worker.
    pub(crate) holder: String,
    pub(crate) metrics: Metrics,
}

/// A run that was admitted: what the store holds of it, and who asks now.
pub(crate) struct Admitted {
    chain: RunChain,
    row: RunRow,
    who: Who,
    origin: Origin,
    key: AddressKey,
    pointer: RunPointer,
}

impl Admitted {
    fn tenant(&self) -> &str {
        self.row.agent.tenant()
    }

    /// The tools that the model is offered. Others are pinned for undoing what it did.
    fn offered(&self) -> impl Iterator<Item = &ToolDefinition> + Clone {
        self.row.tools.iter().filter(|tool| self.row.definition.tools.contains(&tool.name))
    }
}

impl Governed {
    /// Begins to write: refuses a store that is behind the run, and records what the workflow refused since the last
    /// activity.
    async fn begin(&self, run: &Admitted) -> Result<Tx, ActivityFailure> {
        let mut tx = self.begin_behind(run, &run.pointer.audit).await?;
        if let Some(refused) = &run.pointer.refused_messages {
            let body = RecordBody::MessagesRefused { count: refused.count, last_reason: refused.last_reason.clone() };
            let key = format!("messages/{}", refused.count);
            // Behind a reset they are counted anew.
            let other = tx.recorded(&key).await?.is_some_and(|recorded| recorded != body);
            let key = if other { format!("{key}/{}", run.origin.run_id) } else { key };
            self.append(&mut tx, run, key, body).await?;
        }
        Ok(tx)
    }

    /// A transaction on a chain of which so much was seen: a store that has less is an older copy.
    async fn begin_behind(&self, run: &Admitted, seen: &ChainHead) -> Result<Tx, ActivityFailure> {
        let mut tx = self.store.begin(&run.chain).await?;
        if let Err(behind) = tx.check_seen(seen).await
            && on(Guard::StoreBehind)
        {
            drop(tx);
            return Err(self.wrong_store(&run.origin, &run.chain.workflow_id, behind).await?);
        }
        Ok(tx)
    }

    /// Where the chain stands now, read without the write lock.
    async fn head(&self, run: &Admitted) -> Result<ChainHead, ActivityFailure> {
        let row = self.store.run(&run.chain).await?;
        Ok(row.map_or_else(|| run.row.head.clone(), |row| row.head))
    }

    async fn append(&self, tx: &mut Tx, run: &Admitted, key: String, body: RecordBody) -> Result<(), ActivityFailure> {
        tx.append(&run.who, &run.origin, key, body).await?;
        Ok(())
    }
}

/// Passes a point at which tests end the worker.
macro_rules! failpoint {
    ($point:literal) => {
        #[cfg(feature = "fault-injection")]
        crate::failpoints::pass($point);
    };
}
pub(crate) use failpoint;
