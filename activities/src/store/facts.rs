//! The facts of a run, folded from its audit chain inside the deciding transaction.
//!
//! A decision reads only what was appended since the last one: this process keeps the sums of recent runs together with
//! the hash of the last record they contain. A record that is not there, or is another, starts the fold anew.

use std::{collections::HashMap, sync::Mutex};

use mandate_domain::{AuditRecord, Digest, RunFacts};

use super::{
    StoreError, Tx,
    engine::query_as,
    rows::{column, from_json, locked, number, parse},
};

/// Most runs whose facts are kept in memory.
const CACHED_MAX: usize = 256;

/// Facts by chain.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<i64, Folded>>);

/// Facts up to a record.
#[derive(Clone)]
struct Folded {
    facts: RunFacts,
    records: u64,
    head: Option<Digest>,
}

impl Tx {
    /// What happened in this run so far, with what this transaction appended.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a record that cannot be read.
    pub async fn facts(&mut self) -> Result<RunFacts, StoreError> {
        let chain = self.chain()?;
        let mut folded = self.cached(chain).await?;
        let rows: Vec<(i64, String, String)> = query_as(
            "SELECT sequence, hash, canonical FROM records WHERE chain = $1 AND sequence > $2 ORDER BY sequence",
        )
        .bind(chain)
        .bind(column(folded.records))
        .fetch_all(&mut *self.db)
        .await?;
        for (sequence, hash, canonical) in rows {
            let record: AuditRecord = from_json("audit record", &canonical)?;
            folded.facts.add(&record.body);
            folded.records = number("sequence of a record", sequence)?;
            folded.head = Some(parse("hash of a record", &hash)?);
        }
        let facts = folded.facts.clone();
        let mut cache = locked(&self.store.inner.facts.0);
        if cache.len() >= CACHED_MAX && !cache.contains_key(&chain) {
            cache.clear();
        }
        cache.insert(chain, folded);
        Ok(facts)
    }

    /// The kept facts, if the record they end with stands. A transaction that was dropped may have left others.
    async fn cached(&mut self, chain: i64) -> Result<Folded, StoreError> {
        let kept = locked(&self.store.inner.facts.0).get(&chain).cloned();
        if let Some(kept) = kept {
            let hash: Option<(String,)> = query_as("SELECT hash FROM records WHERE chain = $1 AND sequence = $2")
                .bind(chain)
                .bind(column(kept.records))
                .fetch_optional(&mut *self.db)
                .await?;
            if hash.is_some_and(|(hash,)| Some(hash.as_str()) == kept.head.as_ref().map(Digest::as_str)) {
                return Ok(kept);
            }
        }
        Ok(Folded { facts: RunFacts::default(), records: 0, head: None })
    }
}
