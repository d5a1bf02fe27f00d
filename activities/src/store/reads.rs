//! Reading what is committed, without taking the write lock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mandate_domain::{
    Address, AgentDefinition, AgentName, ChainHead, ModelReply, OpenedRun, PersonId, RunChain, RunState,
    ToolDefinition, audit::verify::StoredRecord,
};

use super::{
    NewRun, Store, StoreError,
    engine::{either, query_as},
    rows::{column, from_json, locked, number, parse, plain},
};

/// Runs whose unchanging part is kept in memory.
const CACHED_RUNS_MAX: usize = 256;
/// Most runs that a list answers.
const RUNS_LISTED_MAX: i64 = 1000;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// The agent.
    pub agent: AgentName,
    /// The person it acts for.
    pub on_behalf_of: PersonId,
    /// What it holds on to.
    pub opened: OpenedRun,
    /// The whole definition behind the pins.
    pub definition: AgentDefinition,
    /// The definitions of all offered tools.
    pub tools: Vec<ToolDefinition>,
    /// Where its chain stands.
    pub head: ChainHead,
    /// Whether it was closed.
    pub closed: bool,
    /// Approval requests made so far.
    pub requests_made: u32,
}

/// A recorded reply of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyRow {
    /// The transcript that the turn began with.
    pub before: Address,
    /// The results that were appended to it.
    pub append: Vec<Address>,
    /// The transcript that ends with the reply.
    pub after: Address,
    /// The reply.
    pub reply: ModelReply,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run: RunChain,
    /// The agent.
    pub agent: AgentName,
    /// The person it acts for.
    pub on_behalf_of: PersonId,
    /// When it was opened: microseconds since 1970-01-01 UTC.
    pub opened_micros: u64,
    /// Where its chain stands.
    pub head: ChainHead,
    /// Its terminal state, from its closing record.
    pub state: Option<RunState>,
}

/// The unchanging part of runs.
#[derive(Default)]
pub(super) struct RunCache(Mutex<HashMap<RunChain, Arc<NewRun>>>);

impl Store {
    /// The run that an execution belongs to.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn execution(&self, run_id: &str) -> Result<Option<RunChain>, StoreError> {
        let row: Option<(String, String)> = query_as(
            "SELECT chains.workflow_id, chains.first_run_id
             FROM executions JOIN chains ON chains.id = executions.chain WHERE executions.run_id = $1",
        )
        .bind(run_id)
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        Ok(row.map(|(workflow_id, first_run_id)| RunChain { workflow_id, first_run_id }))
    }

    /// A run that was opened.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn run(&self, run: &RunChain) -> Result<Option<RunRow>, StoreError> {
        let row: Option<(i64, i64, String, bool, i64)> = query_as(
            "SELECT chains.id, chains.records, chains.head, runs.closed, runs.requests_made
             FROM chains JOIN runs ON runs.chain = chains.id
             WHERE chains.workflow_id = $1 AND chains.first_run_id = $2",
        )
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        let Some((chain, records, head, closed, requests_made)) = row else { return Ok(None) };
        let unchanging = self.unchanging(run, chain).await?;
        let NewRun { agent, on_behalf_of, opened, definition, tools } = (*unchanging).clone();
        Ok(Some(RunRow {
            agent,
            on_behalf_of,
            opened,
            definition,
            tools,
            head: chain_head(records, &head)?,
            closed,
            requests_made: number("requests of a run", requests_made)?,
        }))
    }

    async fn unchanging(&self, run: &RunChain, chain: i64) -> Result<Arc<NewRun>, StoreError> {
        if let Some(known) = locked(&self.inner.runs.0).get(run) {
            return Ok(Arc::clone(known));
        }
        let (agent, on_behalf_of, encoding, opened, definition, tools): (
            String,
            String,
            String,
            String,
            String,
            String,
        ) = query_as("SELECT agent, on_behalf_of, encoding, opened, definition, tools FROM runs WHERE chain = $1")
            .bind(chain)
            .fetch_one(&mut *self.reader().await?)
            .await?;
        plain("run", &encoding)?;
        let read = Arc::new(NewRun {
            agent: parse("agent of a run", &agent)?,
            on_behalf_of: parse("person of a run", &on_behalf_of)?,
            opened: from_json("pins of a run", &opened)?,
            definition: from_json("agent of a run", &definition)?,
            tools: from_json("tools of a run", &tools)?,
        });
        let mut cache = locked(&self.inner.runs.0);
        if cache.len() >= CACHED_RUNS_MAX {
            cache.clear();
        }
        cache.insert(run.clone(), Arc::clone(&read));
        Ok(read)
    }

    /// The recorded reply of a turn.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn reply(&self, run: &RunChain, turn: u32) -> Result<Option<ReplyRow>, StoreError> {
        let row: Option<(String, String, String, String, String)> = query_as(
            "SELECT r.transcript_before, r.appended, r.transcript_after, r.encoding, r.reply
             FROM replies r JOIN chains ON chains.id = r.chain
             WHERE chains.workflow_id = $1 AND chains.first_run_id = $2 AND r.turn = $3",
        )
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .bind(i64::from(turn))
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        let Some((before, append, after, encoding, reply)) = row else { return Ok(None) };
        plain("reply", &encoding)?;
        Ok(Some(ReplyRow {
            before: parse("transcript of a reply", &before)?,
            append: from_json("results before a reply", &append)?,
            after: parse("transcript of a reply", &after)?,
            reply: from_json("reply", &reply)?,
        }))
    }

    /// A stored text, checked against its address.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not what its address says.
    pub async fn content(&self, tenant: &str, address: &Address) -> Result<Option<String>, StoreError> {
        let row: Option<(String, String)> =
            query_as("SELECT encoding, body FROM content WHERE tenant = $1 AND address = $2")
                .bind(tenant)
                .bind(address.as_str())
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        let Some((encoding, body)) = row else { return Ok(None) };
        plain("content", &encoding)?;
        if self.address_key(tenant).await?.address(body.as_bytes()) != *address {
            return Err(StoreError::corrupt(format_args!("content {address} is not what its address says")));
        }
        Ok(Some(body))
    }

    /// The audit records of a chain as they stand, in order. Nothing in them is checked here.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn records(&self, run: &RunChain) -> Result<Vec<StoredRecord>, StoreError> {
        let rows: Vec<(String, String)> = query_as(
            "SELECT r.canonical, r.hash FROM records r JOIN chains ON chains.id = r.chain
             WHERE chains.workflow_id = $1 AND chains.first_run_id = $2 ORDER BY r.sequence",
        )
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter()
            .map(|(canonical, hash)| {
                Ok(StoredRecord { canonical: canonical.into_bytes(), hash: parse("hash of a record", &hash)? })
            })
            .collect()
    }

    /// The newest runs first, of one workflow id or of all, at most a thousand.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn runs(&self, workflow_id: Option<&str>) -> Result<Vec<RunSummary>, StoreError> {
        type Columns = (String, String, i64, String, String, String, i64, Option<String>);
        let rows: Vec<Columns> = query_as(either(
            "SELECT c.workflow_id, c.first_run_id, c.records, c.head, runs.agent, runs.on_behalf_of, runs.opened_micros,
                    (SELECT json_extract(r.canonical, '$.body.state') FROM records r
                     WHERE r.chain = c.id AND json_extract(r.canonical, '$.body.kind') = 'run_closed' LIMIT 1)
             FROM runs JOIN chains c ON c.id = runs.chain
             WHERE $1 IS NULL OR c.workflow_id = $1
             ORDER BY runs.opened_micros DESC, c.id DESC LIMIT $2",
            "SELECT c.workflow_id, c.first_run_id, c.records, c.head, runs.agent, runs.on_behalf_of, runs.opened_micros,
                    (SELECT CAST(replace(r.canonical, '\\u0000', '\\ufffd') AS JSON) #>> '{body,state}' FROM records r
                     WHERE r.chain = c.id AND CAST(replace(r.canonical, '\\u0000', '\\ufffd') AS JSON) #>> '{body,kind}' = 'run_closed'
                     LIMIT 1)
             FROM runs JOIN chains c ON c.id = runs.chain
             WHERE $1 IS NULL OR c.workflow_id = $1
             ORDER BY runs.opened_micros DESC, c.id DESC LIMIT $2",
        ))
        .bind(workflow_id)
        .bind(RUNS_LISTED_MAX)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(summary).collect()
    }

    /// The runs with a record of that time or later, the newest first, at most so many.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn runs_active_since(&self, since_micros: u64, runs_max: u32) -> Result<Vec<RunChain>, StoreError> {
        let rows: Vec<(String, String)> = query_as(either(
            "SELECT c.workflow_id, c.first_run_id FROM runs JOIN chains c ON c.id = runs.chain
             WHERE EXISTS (SELECT 1 FROM records r
                           WHERE r.chain = c.id AND json_extract(r.canonical, '$.time_micros') >= $1)
             ORDER BY runs.opened_micros DESC, c.id DESC LIMIT $2",
            "SELECT c.workflow_id, c.first_run_id FROM runs JOIN chains c ON c.id = runs.chain
             WHERE EXISTS (SELECT 1 FROM records r
                           WHERE r.chain = c.id
                               AND CAST(CAST(replace(r.canonical, '\\u0000', '\\ufffd') AS JSON) ->> 'time_micros' AS BIGINT) >= $1)
             ORDER BY runs.opened_micros DESC, c.id DESC LIMIT $2",
        ))
        .bind(column(since_micros))
        .bind(i64::from(runs_max))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(|(workflow_id, first_run_id)| RunChain { workflow_id, first_run_id }).collect())
    }
}

fn summary(
    (workflow_id, first_run_id, records, head, agent, person, opened, state): (
        String,
        String,
        i64,
        String,
        String,
        String,
        i64,
        Option<String>,
    ),
) -> Result<RunSummary, StoreError> {
    let state = state.map(|state| {
        serde_json::from_value(serde_json::Value::String(state))
            .map_err(|error| StoreError::corrupt(format_args!("state of a run: {error}")))
    });
    Ok(RunSummary {
        run: RunChain { workflow_id, first_run_id },
        agent: parse("agent of a run", &agent)?,
        on_behalf_of: parse("person of a run", &person)?,
        opened_micros: number("opening time of a run", opened)?,
        head: chain_head(records, &head)?,
        state: state.transpose()?,
    })
}

fn chain_head(records: i64, head: &str) -> Result<ChainHead, StoreError> {
    Ok(ChainHead { records: number("chain length", records)?, head: parse("chain head", head)? })
}
