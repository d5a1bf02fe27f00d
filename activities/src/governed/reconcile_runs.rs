//! `reconcile_runs`: runs that are open in the store and not in Temporal, and runs that Temporal knows better than the
//! store.
//!
//! A run is closed here only when Temporal says how its execution ended, and the store has all that the execution's
//! history has seen. One that Temporal does not know is closed only if it was opened in this very namespace: in another
//! one nobody knows of it. Whatever cannot be looked at is counted and left alone; the schedule comes again.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mandate_domain::{
    ChainHead, EffectId, Origin, RecordBody, RunChain, ToolCallId, Usage, audit::AuditRecord, audit::FoundEnd,
};
use mandate_workflows::{
    RECONCILE_WORKFLOW_TYPE,
    contract::RunPointer,
    reconcile::{Cursor, NOTES_MAX, ReconcileRunsInput, ReconcileRunsOutput, Reconciled},
};

use super::{Admitted, Governed};
use crate::{
    caller::Caller,
    executions::Standing,
    failure::ActivityFailure,
    heartbeat::Heartbeat,
    store::{Appended, EffectState, QuestionState, RunRow, StoreError, Tx},
};

/// Open runs of one page.
const RUNS_AT_ONCE: u32 = 50;
/// Pages of Temporal's list that are read: the newest few thousand executions.
const LISTED_PAGES_MAX: u32 = 20;
/// What a call is told that waited for people.
const NOBODY_WAITS: &str = "its run was found ended before people had decided or answered";
/// What is known of a call that was begun and that nothing was found out about.
const NOT_ANSWERED: &str = "the call was begun, and its run was found ended before it was answered";

/// What became of one run.
enum Looked {
    Alive,
    Reset,
    Closed,
    Behind { seen: u64, found: u64 },
    Later,
    Unknown,
}

impl Governed {
    /// Compares one page.
    pub(crate) async fn reconcile_runs(
        &self,
        caller: &Caller,
        input: &ReconcileRunsInput,
    ) -> Result<ReconcileRunsOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        if caller.workflow_type != RECONCILE_WORKFLOW_TYPE {
            let reason = format!("workflow type `{}` may not reconcile runs", caller.workflow_type);
            return Err(self.intrusion(caller, reason).await?);
        }
        match &input.cursor {
            Cursor::Open { after } => self.reconcile_open(caller, *after).await,
            Cursor::Listed { pages, token } => self.reconcile_listed(caller, *pages, token).await,
        }
    }

    async fn reconcile_open(&self, caller: &Caller, after: u64) -> Result<ReconcileRunsOutput, ActivityFailure> {
        let rows = self.store.open_runs(after, RUNS_AT_ONCE).await?;
        let mut found = Reconciled { checked: u64::try_from(rows.len()).unwrap_or(u64::MAX), ..Default::default() };
        for row in &rows {
            caller.not_cancelled()?;
            let looked = self.look_at(caller, &row.run).await;
            take_note(&mut found, &row.run, looked);
        }
        let full = rows.len() == usize::try_from(RUNS_AT_ONCE).unwrap_or(usize::MAX);
        let next = match rows.last() {
            Some(last) if full => Cursor::Open { after: last.position },
            Some(_) | None => Cursor::Listed { pages: 0, token: String::new() },
        };
        Ok(ReconcileRunsOutput { found, next: Some(next) })
    }

    /// Looks at one run that is open in the store.
    async fn look_at(&self, caller: &Caller, chain: &RunChain) -> Result<Looked, ActivityFailure> {
        let Some(row) = self.store.run(chain).await?.filter(|row| !row.closed) else { return Ok(Looked::Alive) };
        let Some((standing, end)) = self.standing_of(chain, &row).await? else { return Ok(Looked::Unknown) };
        if end != Some(FoundEnd::Gone) {
            let seen = self.executions.witness(&chain.workflow_id, &standing.run_id).await?;
            if let Some(behind) = self.behind(caller.origin(), chain, seen.as_ref()).await? {
                return Ok(behind);
            }
        }
        match end {
            None => self.mark_reset(caller, chain, &standing).await,
            Some(end) => self.close_ended(caller, chain, row, &standing, end).await,
        }
    }

    /// The run's newest execution and how it ended; none where nobody knows. Whoever is not sure of an end finds none.
    async fn standing_of(
        &self,
        chain: &RunChain,
        row: &RunRow,
    ) -> Result<Option<(Standing, Option<FoundEnd>)>, ActivityFailure> {
        let workflow_id = chain.workflow_id.as_str();
        let newest = self.executions.standing(workflow_id, None).await?;
        if let Some(standing) = newest {
            if self.carries_on(chain, &standing).await? {
                let end = standing.end;
                return Ok(Some((standing, end)));
            }
            // Another run has the workflow id, and one at a time is open under it: this one has ended.
            let own = self.executions.standing(workflow_id, Some(&chain.first_run_id)).await?;
            let end = own.as_ref().and_then(|own| own.end);
            let own = own.unwrap_or_else(|| gone(chain));
            return Ok(Some((own, Some(end.unwrap_or(FoundEnd::Gone)))));
        }
        let here = self.executions.namespace_id().await?;
        let opened_here = here.is_some() && here == row.opened.namespace_id;
        Ok(opened_here.then(|| (gone(chain), Some(FoundEnd::Gone))))
    }

    /// Whether an execution belongs to the run.
    async fn carries_on(&self, chain: &RunChain, standing: &Standing) -> Result<bool, ActivityFailure> {
        if let Some(first) = &standing.first_run_id {
            return Ok(*first == chain.first_run_id);
        }
        let started = self.executions.started(&chain.workflow_id, &standing.run_id).await?;
        Ok(started.is_none_or(|started| started.first_run_id == chain.first_run_id))
    }

    /// Records a run of which its history has seen more than the store has.
    async fn behind(
        &self,
        origin: &Origin,
        chain: &RunChain,
        seen: Option<&ChainHead>,
    ) -> Result<Option<Looked>, ActivityFailure> {
        let Some(seen) = seen else { return Ok(None) };
        let mut tx = self.store.begin(chain).await?;
        let checked = tx.check_seen(seen).await;
        drop(tx);
        match checked {
            Ok(()) => Ok(None),
            Err(StoreError::BehindRun { found, .. }) => {
                if self.store.record_behind(origin, chain, seen, found.records).await? == Appended::New {
                    let (run, seen, found) = (chain.to_string(), seen.records, found.records);
                    tracing::error!(run, seen, found, "store_behind_run: this store is an older copy");
                }
                Ok(Some(Looked::Behind { seen: seen.records, found: found.records }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A living run is left alone; that it was reset is written down, if no activity of it has come by since.
    async fn mark_reset(
        &self,
        caller: &Caller,
        chain: &RunChain,
        standing: &Standing,
    ) -> Result<Looked, ActivityFailure> {
        let run_id = standing.run_id.as_str();
        if run_id == chain.first_run_id || self.store.execution(run_id).await?.is_some() {
            return Ok(Looked::Alive);
        }
        let started = self.executions.started(&chain.workflow_id, run_id).await?;
        let Some(original) = started.map(|started| started.original_run_id).filter(|id| id != run_id) else {
            return Ok(Looked::Alive);
        };
        let mut tx = self.store.begin(chain).await?;
        if original.is_empty() || tx.recorded(&format!("reset/{run_id}")).await?.is_some() {
            return Ok(Looked::Alive);
        }
        self.record_reset(&mut tx, chain, caller, (run_id, &original)).await?;
        tx.commit().await?;
        Ok(Looked::Reset)
    }

    /// Closes a run whose execution has ended: what it holds is settled or released first.
    async fn close_ended(
        &self,
        caller: &Caller,
        chain: &RunChain,
        row: RunRow,
        standing: &Standing,
        end: FoundEnd,
    ) -> Result<Looked, ActivityFailure> {
        let pointer = RunPointer { store: self.store.id().clone(), audit: ChainHead::empty(), refused_messages: None };
        let run = self.admitted(chain.clone(), row, caller.origin().clone(), pointer).await?;
        if !self.settle_begun(caller, &run).await? {
            return Ok(Looked::Later);
        }
        let (turns, usage) = self.spent(&run).await?;
        let mut tx = self.begin(&run).await?;
        if tx.is_closed() {
            return Ok(Looked::Alive);
        }
        self.release_waiting(&mut tx, &run).await?;
        if !tx.calls_begun().await?.is_empty() {
            // An attempt that was on its way claimed something just now.
            return Ok(Looked::Later);
        }
        let reason = end.reason();
        let (run_id, detail) = (standing.run_id.clone(), found_in_words(end).to_owned());
        let reconciled = RecordBody::RunReconciled { found: end, run_id, detail };
        self.append(&mut tx, &run, "reconciled".to_owned(), reconciled).await?;
        let (state, reason, unknown_outcomes) = (reason.state(), Some(reason), tx.calls_unknown().await?);
        let closed = RecordBody::RunClosed { state, reason, turns, usage, unknown_outcomes };
        self.append(&mut tx, &run, "close".to_owned(), closed).await?;
        tx.close_run().await?;
        tx.commit().await?;
        tracing::warn!(run = %chain, found = end.as_str(), "closed a run whose execution had ended");
        Ok(Looked::Closed)
    }

    /// Finds out about calls that were begun, each as its tool's kind says. False: one of them has to be waited for.
    async fn settle_begun(&self, caller: &Caller, run: &Admitted) -> Result<bool, ActivityFailure> {
        for call in self.calls_to_settle(run).await? {
            match self.settle_one(caller, run, call).await {
                Ok(()) => {}
                Err(ActivityFailure::Claimed { .. } | ActivityFailure::NotSettled { .. }) => return Ok(false),
                Err(ActivityFailure::Prepare(error)) => {
                    self.park(run, call, format!("{NOT_ANSWERED}, and its check tool does not answer: {error}"))
                        .await?;
                }
                Err(ActivityFailure::Tool(error)) => {
                    self.park(run, call, format!("{NOT_ANSWERED}, and its check tool does not answer: {error}"))
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Calls that were begun and have no outcome. A question of the agent is not among them: it is taken back with the others.
    async fn calls_to_settle(&self, run: &Admitted) -> Result<Vec<ToolCallId>, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        let mut calls = Vec::new();
        for call in tx.calls_begun().await? {
            match tx.question_of_call(call).await?.filter(|row| row.state == QuestionState::Open) {
                None => calls.push(call),
                Some(row) if row.server.is_none() => {}
                Some(_) => {
                    // What its server asked for nobody answers any more, and the call may have an outcome with that.
                    self.withdraw_question(&mut tx, run, call).await?;
                    if tx.effect(EffectId::Tool(call)).await?.is_some_and(|row| matches!(row.state, EffectState::Open))
                    {
                        calls.push(call);
                    }
                }
            }
        }
        tx.commit().await?;
        Ok(calls)
    }

    async fn settle_one(&self, caller: &Caller, run: &Admitted, id: ToolCallId) -> Result<(), ActivityFailure> {
        let Some(effect) = self.begin(run).await?.effect(EffectId::Tool(id)).await? else { return Ok(()) };
        let call = self.recorded_call(caller, run, id).await?;
        let checked = match self.check_call(run, &call)? {
            Ok(checked) => checked,
            Err(refusal) => {
                self.park(run, id, format!("{NOT_ANSWERED}: {}", refusal.reason)).await?;
                return Ok(());
            }
        };
        Box::pin(self.reconcile(run, &checked, effect)).await?;
        let effect = self.begin(run).await?.effect(EffectId::Tool(id)).await?;
        if effect.is_some_and(|row| matches!(row.state, EffectState::Open)) {
            // It may be called again by its kind, and nobody will.
            self.park(run, id, NOT_ANSWERED.to_owned()).await?;
        }
        Ok(())
    }

    /// Takes back what people were asked.
    async fn release_waiting(&self, tx: &mut Tx, run: &Admitted) -> Result<(), ActivityFailure> {
        for call in tx.calls_waiting().await? {
            tx.withdraw_requests(call).await?;
            self.withdraw_question(tx, run, call).await?;
            let effect = EffectId::Tool(call);
            let begun = tx.effect(effect).await?.is_some_and(|row| !matches!(row.state, EffectState::Released));
            if !begun {
                let body = RecordBody::CallAbandoned { effect, reason: NOBODY_WAITS.to_owned() };
                self.append(tx, run, format!("{call}/abandoned"), body).await?;
            }
        }
        Ok(())
    }

    /// Turns and tokens of a run, as its records have them.
    async fn spent(&self, run: &Admitted) -> Result<(u32, Usage), ActivityFailure> {
        let (mut turns, mut spent) = (0, Usage::default());
        for stored in self.store.records(&run.chain).await? {
            let Ok(record) = serde_json::from_slice::<AuditRecord>(&stored.canonical) else { continue };
            if let RecordBody::Outcome { effect: EffectId::Model(turn), usage, .. } = record.body {
                turns = turns.max(turn);
                spent = spent.plus(usage.unwrap_or_default());
            }
        }
        Ok((turns, spent))
    }

    /// A page of the runs that Temporal lists: those that the store does not know although their histories say so.
    async fn reconcile_listed(
        &self,
        caller: &Caller,
        pages: u32,
        token: &str,
    ) -> Result<ReconcileRunsOutput, ActivityFailure> {
        // Whoever writes another token than the server gave finds nothing.
        let token = BASE64_STANDARD.decode(token).unwrap_or_default();
        let listed = self.executions.listed(&self.task_queue, token).await?;
        let mut found = Reconciled::default();
        for (workflow_id, run_id) in &listed.executions {
            caller.not_cancelled()?;
            let run = RunChain { workflow_id: workflow_id.clone(), first_run_id: run_id.clone() };
            let looked = self.look_at_listed(caller, workflow_id, run_id).await;
            take_note(&mut found, &run, looked);
        }
        let pages = pages.saturating_add(1);
        let more = !listed.token.is_empty() && pages < LISTED_PAGES_MAX;
        let next = more.then(|| Cursor::Listed { pages, token: BASE64_STANDARD.encode(&listed.token) });
        Ok(ReconcileRunsOutput { found, next })
    }

    async fn look_at_listed(
        &self,
        caller: &Caller,
        workflow_id: &str,
        run_id: &str,
    ) -> Result<Looked, ActivityFailure> {
        if self.store.execution(run_id).await?.is_some() {
            return Ok(Looked::Alive);
        }
        let Some(started) = self.executions.started(workflow_id, run_id).await? else { return Ok(Looked::Alive) };
        let chain = RunChain { workflow_id: workflow_id.to_owned(), first_run_id: started.first_run_id };
        if self.store.run(&chain).await?.is_some() {
            return Ok(Looked::Alive);
        }
        // A run that was never opened has no activity with a chain in its answer.
        let seen = self.executions.witness(workflow_id, run_id).await?;
        Ok(self.behind(caller.origin(), &chain, seen.as_ref()).await?.unwrap_or(Looked::Alive))
    }
}

fn gone(chain: &RunChain) -> Standing {
    let run_id = chain.first_run_id.clone();
    Standing { first_run_id: Some(run_id.clone()), run_id, end: Some(FoundEnd::Gone), is_continued: false }
}

fn found_in_words(end: FoundEnd) -> &'static str {
    match end {
        FoundEnd::Terminated => "somebody terminated the workflow execution",
        FoundEnd::TimedOut => "the workflow execution ran out of its time",
        FoundEnd::Failed => "the workflow execution failed before the run was closed",
        FoundEnd::Cancelled => "the workflow execution was cancelled before the run was closed",
        FoundEnd::Completed => "the workflow execution completed before the run was closed",
        FoundEnd::Gone => "Temporal knows no open workflow execution of this run",
    }
}

fn take_note(found: &mut Reconciled, run: &RunChain, looked: Result<Looked, ActivityFailure>) {
    let note = match looked {
        Ok(Looked::Alive) => return,
        Ok(Looked::Reset) => {
            found.reset += 1;
            return;
        }
        Ok(Looked::Closed) => {
            found.closed += 1;
            return;
        }
        Ok(Looked::Behind { seen, found: here }) => {
            found.store_behind_run += 1;
            format!("store_behind_run: `{run}`: its history has seen {seen} records, the store has {here}")
        }
        Ok(Looked::Later) => {
            found.later += 1;
            return;
        }
        Ok(Looked::Unknown) => {
            found.unknown += 1;
            format!("`{run}` is open in the store, and this namespace does not know it")
        }
        Err(error) => {
            found.failed += 1;
            tracing::warn!(%run, %error, "a run could not be reconciled");
            format!("`{run}` could not be looked at: {error}")
        }
    };
    if found.notes.len() < NOTES_MAX {
        found.notes.push(note);
    }
}
