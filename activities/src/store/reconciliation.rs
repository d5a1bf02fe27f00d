//! What the reconciler asks of the store: runs that were not closed, what they still hold, and the record that the store
//! is behind a run.

use std::collections::BTreeSet;

use mandate_domain::{ChainHead, Origin, Proof, RecordBody, RunChain, ToolCallId};

use super::{
    Store, StoreError, Tx,
    engine::query_as,
    own::nobody_of_a_run,
    rows::{number, parse},
    tx::Appended,
};

/// A run that was opened and not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRunRow {
    /// Its position among all runs, which never changes.
    pub position: u64,
    /// The run.
    pub run: RunChain,
}

impl Store {
    /// Runs that were not closed, behind a position, oldest first, at most so many.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn open_runs(&self, after: u64, runs_max: u32) -> Result<Vec<OpenRunRow>, StoreError> {
        let rows: Vec<(i64, String, String)> = query_as(
            "SELECT c.id, c.workflow_id, c.first_run_id FROM runs JOIN chains c ON c.id = runs.chain
             WHERE runs.closed = FALSE AND c.id > $1 ORDER BY c.id LIMIT $2",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(runs_max))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let read = |(position, workflow_id, first_run_id)| {
            let run = RunChain { workflow_id, first_run_id };
            Ok(OpenRunRow { position: number("position of a run", position)?, run })
        };
        rows.into_iter().map(read).collect()
    }

    /// Records, once, that Temporal's history of a run has seen records that are not here.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn record_behind(
        &self,
        origin: &Origin,
        run: &RunChain,
        seen: &ChainHead,
        found: u64,
    ) -> Result<Appended, StoreError> {
        let who = nobody_of_a_run("mandate/store/reconciler", parse("person", "unknown")?, Proof::Claimed)?;
        let mut own = self.begin_own().await?;
        let key = format!("behind/{}/{found}/{}", run.first_run_id, seen.records);
        let body = RecordBody::StoreBehindRun { run: run.clone(), seen: seen.clone(), found };
        let appended = own.tx.append(&who, origin, key, body).await?;
        own.tx.commit().await?;
        Ok(appended)
    }
}

impl Tx {
    /// Tool calls that were begun and have no outcome.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn calls_begun(&mut self) -> Result<Vec<ToolCallId>, StoreError> {
        self.calls_in("open").await
    }

    /// Tool calls of which nobody knows whether they happened.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn calls_unknown(&mut self) -> Result<Vec<ToolCallId>, StoreError> {
        self.calls_in("unknown").await
    }

    async fn calls_in(&mut self, state: &str) -> Result<Vec<ToolCallId>, StoreError> {
        let rows: Vec<(String,)> =
            query_as("SELECT effect FROM effects WHERE chain = $1 AND state = $2 AND effect LIKE 't%'")
                .bind(self.chain()?)
                .bind(state)
                .fetch_all(&mut *self.db)
                .await?;
        let calls: Result<BTreeSet<ToolCallId>, StoreError> =
            rows.into_iter().map(|(effect,)| parse("effect of a call", &effect)).collect();
        Ok(calls?.into_iter().collect())
    }

    /// Calls that wait for people: a request that was not used, or a question that was not answered.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn calls_waiting(&mut self) -> Result<Vec<ToolCallId>, StoreError> {
        let rows: Vec<(String,)> = query_as(
            "SELECT call FROM requests WHERE chain = $1 AND state IN ('open', 'approved')
             UNION SELECT call FROM questions WHERE chain = $1 AND state = 'open'",
        )
        .bind(self.chain()?)
        .fetch_all(&mut *self.db)
        .await?;
        let calls: Result<BTreeSet<ToolCallId>, StoreError> =
            rows.into_iter().map(|(call,)| parse("call that waits", &call)).collect();
        Ok(calls?.into_iter().collect())
    }
}
