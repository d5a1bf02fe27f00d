//! One writing transaction on one run: it holds the run's head from before its first look, so the head it read is the
//! head it writes behind; and bundles and quarantine stay as they are until it ends.

use super::{
    Store, StoreError,
    engine::{Connection, Locks, Standing, Transaction, query, query_as},
    rows::{PLAIN, column, from_json, now_micros, number, parse, to_json},
};
use mandate_domain::{
    Address, AgentDefinition, AgentName, AuditRecord, ChainHead, OpenedRun, Origin, PersonId, RecordBody, RunChain,
    ToolDefinition, Who,
    audit::{LinkError, LinkedRecord, link},
};

use crate::clock::BootTime;

const RECORD_FORMAT: u32 = 1;

/// A writing transaction. Dropped without [`Tx::commit`], it changes nothing.
pub struct Tx {
    pub(super) store: Store,
    pub(super) db: Box<dyn Transaction>,
    run: RunChain,
    /// The row of the chain, once it exists.
    chain: Option<i64>,
    head: ChainHead,
    opened: Option<Opened>,
}

struct Opened {
    tenant: String,
    closed: bool,
}

/// Whether a record was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was written.
    New,
    /// It stood there already, with the same content.
    AlreadyThere,
}

/// What a run is opened with. It never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
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
}

/// Id, records and head of a chain; agent and closed of its run, if it is open.
type ChainColumns = (i64, i64, String, Option<String>, Option<bool>);

impl Store {
    /// Begins to write to a run: locks its head and reads it. The run need not be open yet.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when others hold the lock for too long.
    pub async fn begin(&self, run: &RunChain) -> Result<Tx, StoreError> {
        self.begin_with(run, Standing::Reads).await
    }

    pub(super) async fn begin_with(&self, run: &RunChain, standing: Standing) -> Result<Tx, StoreError> {
        let mut db = self.inner.engine.begin(Locks { chain: Some(run), standing }).await?;
        let row: Option<ChainColumns> = query_as(
            "SELECT chains.id, chains.records, chains.head, runs.agent, runs.closed
             FROM chains LEFT JOIN runs ON runs.chain = chains.id
             WHERE chains.workflow_id = $1 AND chains.first_run_id = $2",
        )
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .fetch_optional(&mut *db)
        .await?;
        let mut tx =
            Tx { store: self.clone(), db, run: run.clone(), chain: None, head: ChainHead::empty(), opened: None };
        if let Some((chain, records, head, agent, closed)) = row {
            tx.chain = Some(chain);
            tx.head = ChainHead { records: number("chain length", records)?, head: parse("chain head", &head)? };
            tx.opened = match agent {
                Some(agent) => Some(Opened {
                    tenant: parse::<AgentName>("agent of a run", &agent)?.tenant().to_owned(),
                    closed: closed.unwrap_or_default(),
                }),
                None => None,
            };
        }
        Ok(tx)
    }
}

impl Tx {
    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunChain {
        &self.run
    }

    /// Where the chain stands, with what this transaction appended.
    #[must_use]
    pub fn head(&self) -> &ChainHead {
        &self.head
    }

    /// Whether `open_run` has opened this run.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Whether the run was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.closed)
    }

    pub(super) fn chain(&self) -> Result<i64, StoreError> {
        self.chain.ok_or_else(|| StoreError::not_found(format_args!("run `{}`", self.run)))
    }

    pub(super) fn tenant(&self) -> Result<&str, StoreError> {
        let opened = self.opened.as_ref().ok_or_else(|| StoreError::not_found(format_args!("run `{}`", self.run)))?;
        Ok(&opened.tenant)
    }

    /// The present moment on the clock by which this store's claims are made.
    ///
    /// # Errors
    /// [`StoreError`] of the clock or the database.
    pub async fn now(&mut self) -> Result<BootTime, StoreError> {
        self.db.now().await
    }

    /// Refuses to go on if the workflow has seen records that are not here.
    ///
    /// # Errors
    /// [`StoreError::BehindRun`], for an older copy of the store or one that went another way.
    pub async fn check_seen(&mut self, seen: &ChainHead) -> Result<(), StoreError> {
        if seen.records == 0 {
            return Ok(());
        }
        let hash: Option<(String,)> = query_as("SELECT hash FROM records WHERE chain = $1 AND sequence = $2")
            .bind(self.chain)
            .bind(column(seen.records))
            .fetch_optional(&mut *self.db)
            .await?;
        if hash.is_some_and(|(hash,)| hash == seen.head.as_str()) {
            return Ok(());
        }
        Err(StoreError::BehindRun { seen: seen.clone(), found: self.head.clone() })
    }

    /// Appends an audit record. The same key with the same body again changes nothing, whoever writes it.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] for the same key with another body; [`StoreError::NotFound`] for a run that is not
    /// open.
    pub async fn append(
        &mut self,
        who: &Who,
        origin: &Origin,
        key: String,
        body: RecordBody,
    ) -> Result<Appended, StoreError> {
        let chain = self.chain()?;
        if let Some(recorded) = recorded_body(&mut *self.db, chain, &key).await? {
            return if recorded == body { Ok(Appended::AlreadyThere) } else { Err(StoreError::KeyConflict { key }) };
        }
        let record = AuditRecord {
            v: RECORD_FORMAT,
            run: self.run.clone(),
            sequence: 0,
            previous: self.head.head.clone(),
            time_micros: now_micros(),
            key,
            who: who.clone(),
            origin: origin.clone(),
            body,
        };
        let linked = link(&self.head, record).map_err(|LinkError::NotCanonical { source, .. }| source)?;
        self.write(chain, &linked).await?;
        self.head = linked.chain_head();
        Ok(Appended::New)
    }

    /// What the record of this key says, if it was written.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a record that cannot be read.
    pub async fn recorded(&mut self, key: &str) -> Result<Option<RecordBody>, StoreError> {
        let chain = self.chain()?;
        recorded_body(&mut *self.db, chain, key).await
    }

    async fn write(&mut self, chain: i64, linked: &LinkedRecord) -> Result<(), StoreError> {
        let canonical = std::str::from_utf8(&linked.canonical).map_err(StoreError::corrupt)?;
        query("INSERT INTO records (chain, sequence, record_key, canonical, hash) VALUES ($1, $2, $3, $4, $5)")
            .bind(chain)
            .bind(column(linked.record.sequence))
            .bind(&linked.record.key)
            .bind(canonical)
            .bind(linked.hash.as_str())
            .execute(&mut *self.db)
            .await?;
        query("UPDATE chains SET records = $2, head = $3 WHERE id = $1")
            .bind(chain)
            .bind(column(linked.record.sequence))
            .bind(linked.hash.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// Opens the run. A run that is open already stays as it is.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn open_run(&mut self, new: &NewRun) -> Result<Appended, StoreError> {
        if self.is_open() {
            return Ok(Appended::AlreadyThere);
        }
        let chain = self.make_chain().await?;
        query(
            "INSERT INTO runs (chain, agent, on_behalf_of, opened_micros, encoding, opened, definition, tools)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(chain)
        .bind(new.agent.as_str())
        .bind(new.on_behalf_of.as_str())
        .bind(column(now_micros()))
        .bind(PLAIN)
        .bind(to_json(&new.opened)?)
        .bind(to_json(&new.definition)?)
        .bind(to_json(&new.tools)?)
        .execute(&mut *self.db)
        .await?;
        self.opened = Some(Opened { tenant: new.agent.tenant().to_owned(), closed: false });
        Ok(Appended::New)
    }

    /// The row of the chain, made if it is not there.
    pub(super) async fn make_chain(&mut self) -> Result<i64, StoreError> {
        if let Some(chain) = self.chain {
            return Ok(chain);
        }
        let (chain,): (i64,) = query_as(
            "INSERT INTO chains (workflow_id, first_run_id, records, head) VALUES ($1, $2, 0, $3) RETURNING id",
        )
        .bind(&self.run.workflow_id)
        .bind(&self.run.first_run_id)
        .bind(self.head.head.as_str())
        .fetch_one(&mut *self.db)
        .await?;
        self.chain = Some(chain);
        Ok(chain)
    }

    /// Records that an execution belongs to this run.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] when it belongs to another.
    pub async fn accept_execution(&mut self, run_id: &str) -> Result<(), StoreError> {
        let chain = self.chain()?;
        query("INSERT INTO executions (run_id, chain) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(run_id)
            .bind(chain)
            .execute(&mut *self.db)
            .await?;
        let (owner,): (i64,) =
            query_as("SELECT chain FROM executions WHERE run_id = $1").bind(run_id).fetch_one(&mut *self.db).await?;
        if owner == chain { Ok(()) } else { Err(StoreError::KeyConflict { key: format!("execution {run_id}") }) }
    }

    /// Marks the run as closed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a run that is not open.
    pub async fn close_run(&mut self) -> Result<(), StoreError> {
        let chain = self.chain()?;
        query("UPDATE runs SET closed = TRUE WHERE chain = $1").bind(chain).execute(&mut *self.db).await?;
        if let Some(opened) = &mut self.opened {
            opened.closed = true;
        }
        Ok(())
    }

    /// Stores a text under its address. The same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] of the tenant's key or the database.
    pub async fn put_content(&mut self, tenant: &str, text: &str) -> Result<Address, StoreError> {
        let address = self.tenant_key(tenant).await?.address(text.as_bytes());
        query("INSERT INTO content (tenant, address, encoding, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(tenant)
            .bind(address.as_str())
            .bind(PLAIN)
            .bind(text)
            .execute(&mut *self.db)
            .await?;
        Ok(address)
    }

    /// Makes everything durable and answers where the chain stands.
    ///
    /// # Errors
    /// [`StoreError`] of the database. Whether it was committed is then unknown: do it again, every write here may be
    /// repeated.
    pub async fn commit(self) -> Result<ChainHead, StoreError> {
        self.db.commit().await?;
        self.store.count_commit();
        Ok(self.head)
    }
}

async fn recorded_body(db: &mut dyn Connection, chain: i64, key: &str) -> Result<Option<RecordBody>, StoreError> {
    let row: Option<(String,)> = query_as("SELECT canonical FROM records WHERE chain = $1 AND record_key = $2")
        .bind(chain)
        .bind(key)
        .fetch_optional(db)
        .await?;
    row.map(|(text,)| from_json::<AuditRecord>("audit record", &text).map(|record| record.body)).transpose()
}
