//! The store's own chain: what belongs to no run. Operator acts, and attempts of what may not ask for an effect.
//!
//! What an act changes and the record of it are one transaction, begun here; [`crate::operator`] writes nothing without
//! the other.

use mandate_domain::{
    ChainHead, Digest, Origin, PersonId, Proof, QuarantineTarget, Quarantined, RecordBody, RunChain, Who, canonical,
};
use serde_json::Value;

use super::{
    Store, StoreError, Tx,
    engine::{Standing, query, query_as},
    rows::{PLAIN, column, now_micros, number, parse, to_json},
    tx::Appended,
};

/// What the chain has in place of a workflow id. No run has the store's id as its first run id.
const OWN: &str = "mandate-store";
/// Longest foreign text that a record of this chain keeps, in characters.
const FOREIGN_CHARS_MAX: usize = 500;

/// A writing transaction on the store's own chain.
pub(crate) struct OwnTx {
    pub(super) tx: Tx,
}

/// A bundle to become the active one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewBundle<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) files: &'a Value,
    pub(crate) applied_by: &'a PersonId,
    pub(crate) note: Option<&'a str>,
}

impl Store {
    /// The store's own chain: it belongs to no run.
    #[must_use]
    pub fn own_chain(&self) -> RunChain {
        RunChain { workflow_id: OWN.to_owned(), first_run_id: self.id().as_str().to_owned() }
    }

    /// Where the store's own chain stands.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn own_head(&self) -> Result<ChainHead, StoreError> {
        let chain = self.own_chain();
        let row: Option<(i64, String)> =
            query_as("SELECT records, head FROM chains WHERE workflow_id = $1 AND first_run_id = $2")
                .bind(&chain.workflow_id)
                .bind(&chain.first_run_id)
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        let Some((records, head)) = row else { return Ok(ChainHead::empty()) };
        Ok(ChainHead { records: number("chain length", records)?, head: parse("chain head", &head)? })
    }

    /// Begins an operator act: nothing is decided until it ends.
    pub(crate) async fn begin_own(&self) -> Result<OwnTx, StoreError> {
        self.begin_own_with(Standing::Changes).await
    }

    async fn begin_own_with(&self, standing: Standing) -> Result<OwnTx, StoreError> {
        let mut tx = self.begin_with(&self.own_chain(), standing).await?;
        tx.make_chain().await?;
        Ok(OwnTx { tx })
    }

    /// Records an attempt to have an effect by something that may not ask for it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn record_intrusion(&self, origin: &Origin, what: &str, reason: &str) -> Result<ChainHead, StoreError> {
        let who = nobody_of_a_run("mandate/store/intrusions", parse("person", "unknown")?, Proof::Claimed)?;
        let mut own = self.begin_own_with(Standing::Reads).await?;
        // Whoever is refused twice under one activity id is recorded twice.
        let said = canonical::digest(&(what, reason))?;
        let said: String = said.as_str().chars().take(8).collect();
        let key = format!("intrusion/{}/{}/{}/{said}", origin.run_id, origin.activity_id, origin.attempt);
        let body = RecordBody::Intrusion { what: bounded(what), reason: bounded(reason) };
        own.tx.append(&who, origin, key, body).await?;
        own.tx.commit().await
    }
}

impl OwnTx {
    /// Version and digest of the active bundle.
    pub(crate) async fn active_bundle(&mut self) -> Result<Option<(u64, Digest)>, StoreError> {
        let row: Option<(i64, String)> = query_as("SELECT version, digest FROM bundles ORDER BY version DESC LIMIT 1")
            .fetch_optional(&mut *self.tx.db)
            .await?;
        row.map(|(version, digest)| {
            Ok((number("version of a bundle", version)?, parse("digest of a bundle", &digest)?))
        })
        .transpose()
    }

    /// The quarantine of a person, if there is one.
    pub(crate) async fn quarantined(&mut self, person: &PersonId) -> Result<Option<Quarantined>, StoreError> {
        self.tx.quarantined(&[QuarantineTarget::Person(person.clone())]).await
    }

    /// Makes a bundle the active one and answers its version.
    pub(crate) async fn put_bundle(&mut self, bundle: NewBundle<'_>) -> Result<u64, StoreError> {
        let (version,): (i64,) = query_as(
            "INSERT INTO bundles (version, digest, applied_micros, applied_by, note, encoding, files)
             VALUES ((SELECT coalesce(max(version), 0) + 1 FROM bundles), $1, $2, $3, $4, $5, $6) RETURNING version",
        )
        .bind(bundle.digest.as_str())
        .bind(column(now_micros()))
        .bind(bundle.applied_by.as_str())
        .bind(bundle.note)
        .bind(PLAIN)
        .bind(to_json(bundle.files)?)
        .fetch_one(&mut *self.tx.db)
        .await?;
        number("version of a bundle", version)
    }

    /// Puts something into quarantine. What is there already stays as it is.
    pub(crate) async fn quarantine(
        &mut self,
        target: &QuarantineTarget,
        by: &PersonId,
        reason: &str,
    ) -> Result<Appended, StoreError> {
        let done = query(
            "INSERT INTO quarantine (kind, name, reason, quarantined_by, since_micros) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
        )
        .bind(target.kind())
        .bind(target.name())
        .bind(reason)
        .bind(by.as_str())
        .bind(column(now_micros()))
        .execute(&mut *self.tx.db)
        .await?;
        Ok(if done == 0 { Appended::AlreadyThere } else { Appended::New })
    }

    /// Takes something out of quarantine; whether it was there.
    pub(crate) async fn lift(&mut self, target: &QuarantineTarget) -> Result<bool, StoreError> {
        let done = query("DELETE FROM quarantine WHERE kind = $1 AND name = $2")
            .bind(target.kind())
            .bind(target.name())
            .execute(&mut *self.tx.db)
            .await?;
        Ok(done > 0)
    }

    /// Appends the record of an operator act and makes both durable.
    ///
    /// Its key is its position: an act that is repeated because nobody saw it succeed finds its own work done, and what
    /// happens twice, such as two refusals, is recorded twice.
    pub(crate) async fn commit(
        mut self,
        by: &PersonId,
        proof: Proof,
        identity: &str,
        body: RecordBody,
    ) -> Result<ChainHead, StoreError> {
        let who = nobody_of_a_run("mandate/store/operators", by.clone(), proof)?;
        let position = self.tx.head().records.saturating_add(1);
        let origin = Origin {
            run_id: self.tx.run().first_run_id.clone(),
            activity_id: "operator".to_owned(),
            attempt: 1,
            worker: identity.to_owned(),
        };
        self.tx.append(&who, &origin, format!("operator/{position}"), body).await?;
        self.tx.commit().await
    }
}

/// The text as records of this chain keep it.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(FOREIGN_CHARS_MAX).collect()
}

/// Records name an agent, and here there is none: the name tells what kind of record it is.
pub(super) fn nobody_of_a_run(agent: &str, on_behalf_of: PersonId, proof: Proof) -> Result<Who, StoreError> {
    let agent_version = Digest::from_bytes([0; 32]);
    Ok(Who { agent: parse("agent name", agent)?, agent_version, on_behalf_of, proof })
}
