//! Reading what operators put into the store: the policy bundles and the quarantine list.
//!
//! Deliberately absent: whether a bundle is any good. Whoever takes one from here loads it, compares its digest with the
//! one in the row, and keeps the one it has if they differ.

use mandate_domain::{Address, Digest, PersonId, QuarantineTarget, Quarantined, ToolCallId, quarantine::first_hit};
use serde_json::Value;

use super::{
    Store, StoreError, Tx,
    engine::{Connection, either, query_as},
    rows::{column, from_json, number, parse, plain, to_json},
};

/// Most bundles and most quarantined things that a list answers.
const LISTED_MAX: i64 = 1000;

/// A policy bundle that was applied.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleRow {
    /// Its version: 1 for the first, one more for each that was applied.
    pub version: u64,
    /// The digest that it had when it was applied.
    pub digest: Digest,
    /// Its files, as whoever applied it wrote them down.
    pub files: Value,
    /// When it was applied: microseconds since 1970-01-01 UTC.
    pub applied_micros: u64,
    /// Who applied it.
    pub applied_by: PersonId,
    /// Their words.
    pub note: Option<String>,
}

/// A policy bundle in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSummary {
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub digest: Digest,
    /// When it was applied: microseconds since 1970-01-01 UTC.
    pub applied_micros: u64,
    /// Who applied it.
    pub applied_by: PersonId,
    /// Their words.
    pub note: Option<String>,
}

/// Version, digest, time, person, note, encoding, files.
type BundleColumns = (i64, String, i64, String, Option<String>, String, String);
/// The same without the last two.
type SummaryColumns = (i64, String, i64, String, Option<String>);
/// Kind, name, reason, person, time.
type QuarantineColumns = (String, String, String, String, i64);

impl Store {
    /// The active bundle; none before the first was applied.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn active_bundle(&self) -> Result<Option<BundleRow>, StoreError> {
        let row: Option<BundleColumns> = query_as(
            "SELECT version, digest, applied_micros, applied_by, note, encoding, files
             FROM bundles ORDER BY version DESC LIMIT 1",
        )
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(bundle).transpose()
    }

    /// The version of the active bundle: what tells cheaply whether another was applied.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn active_bundle_version(&self) -> Result<Option<u64>, StoreError> {
        active_version(&mut *self.reader().await?).await
    }

    /// The bundle of this version, active or not.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn bundle_version(&self, version: u64) -> Result<Option<BundleRow>, StoreError> {
        let row: Option<BundleColumns> = query_as(
            "SELECT version, digest, applied_micros, applied_by, note, encoding, files FROM bundles WHERE version = $1",
        )
        .bind(column(version))
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(bundle).transpose()
    }

    /// The bundle of this digest, active or not; the newest, where it was applied more than once.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn bundle(&self, digest: &Digest) -> Result<Option<BundleRow>, StoreError> {
        let row: Option<BundleColumns> = query_as(
            "SELECT version, digest, applied_micros, applied_by, note, encoding, files
             FROM bundles WHERE digest = $1 ORDER BY version DESC LIMIT 1",
        )
        .bind(digest.as_str())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(bundle).transpose()
    }

    /// The newest bundles first, at most a thousand. The first is the active one.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn bundles(&self) -> Result<Vec<BundleSummary>, StoreError> {
        let rows: Vec<SummaryColumns> = query_as(
            "SELECT version, digest, applied_micros, applied_by, note FROM bundles ORDER BY version DESC LIMIT $1",
        )
        .bind(LISTED_MAX)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(summary).collect()
    }

    /// What is in quarantine, the oldest first, at most a thousand.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn quarantine_list(&self) -> Result<Vec<Quarantined>, StoreError> {
        let rows: Vec<QuarantineColumns> = query_as(
            "SELECT kind, name, reason, quarantined_by, since_micros FROM quarantine
             ORDER BY since_micros, kind, name LIMIT $1",
        )
        .bind(LISTED_MAX)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(quarantined).collect()
    }
}

impl Tx {
    /// The version of the active bundle, which stays the active one until this transaction ends.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn active_bundle_version(&mut self) -> Result<Option<u64>, StoreError> {
        active_version(&mut *self.db).await
    }

    /// The first of the touched things that is in quarantine. The list stays as it is until this transaction ends.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn quarantined(&mut self, touched: &[QuarantineTarget]) -> Result<Option<Quarantined>, StoreError> {
        // One look-up by primary key for each touched thing, however long the list is.
        let rows: Vec<QuarantineColumns> = query_as(either(
            "SELECT q.kind, q.name, q.reason, q.quarantined_by, q.since_micros
             FROM json_each($1) AS touched CROSS JOIN quarantine AS q
             ON q.kind = json_extract(touched.value, '$.kind') AND q.name = json_extract(touched.value, '$.name')",
            "SELECT q.kind, q.name, q.reason, q.quarantined_by, q.since_micros
             FROM json_array_elements(CAST($1 AS JSON)) AS touched (value)
             JOIN quarantine AS q ON q.kind = touched.value ->> 'kind' AND q.name = touched.value ->> 'name'",
        ))
        .bind(to_json(touched)?)
        .fetch_all(&mut *self.db)
        .await?;
        let hits: Vec<_> = rows.into_iter().map(quarantined).collect::<Result<_, _>>()?;
        Ok(first_hit(&hits, touched).cloned())
    }

    /// Somebody in quarantine who approved a request that was to release this call.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn approver_in_quarantine(
        &mut self,
        call: ToolCallId,
        arguments: &Address,
    ) -> Result<Option<Quarantined>, StoreError> {
        let row: Option<QuarantineColumns> = query_as(
            "SELECT q.kind, q.name, q.reason, q.quarantined_by, q.since_micros
             FROM requests AS r
             JOIN votes AS v ON v.chain = r.chain AND v.request = r.request
             JOIN quarantine AS q ON q.kind = 'person' AND q.name = v.person
             WHERE r.chain = $1 AND r.call = $2 AND r.arguments = $3 AND r.state IN ('approved', 'consumed')
             ORDER BY q.name LIMIT 1",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(arguments.as_str())
        .fetch_optional(&mut *self.db)
        .await?;
        row.map(quarantined).transpose()
    }
}

async fn active_version(db: &mut dyn Connection) -> Result<Option<u64>, StoreError> {
    let (version,): (Option<i64>,) = query_as("SELECT max(version) FROM bundles").fetch_one(db).await?;
    version.map(|version| number("version of a bundle", version)).transpose()
}

fn bundle(
    (version, digest, applied_micros, applied_by, note, encoding, files): BundleColumns,
) -> Result<BundleRow, StoreError> {
    plain("bundle", &encoding)?;
    let files = from_json("files of a bundle", &files)?;
    let summary = summary((version, digest, applied_micros, applied_by, note))?;
    let BundleSummary { version, digest, applied_micros, applied_by, note } = summary;
    Ok(BundleRow { version, digest, files, applied_micros, applied_by, note })
}

fn summary((version, digest, micros, by, note): SummaryColumns) -> Result<BundleSummary, StoreError> {
    Ok(BundleSummary {
        version: number("version of a bundle", version)?,
        digest: parse("digest of a bundle", &digest)?,
        applied_micros: number("time of a bundle", micros)?,
        applied_by: parse("person of a bundle", &by)?,
        note,
    })
}

fn quarantined((kind, name, reason, by, since): QuarantineColumns) -> Result<Quarantined, StoreError> {
    let target = QuarantineTarget::from_parts(&kind, &name)
        .map_err(|error| StoreError::corrupt(format_args!("quarantine: {error}")))?;
    Ok(Quarantined {
        target,
        reason,
        by: parse("person of a quarantine", &by)?,
        since_micros: number("time of a quarantine", since)?,
    })
}
