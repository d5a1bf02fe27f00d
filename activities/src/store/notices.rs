//! What notices are about: requests by their number in the run, and when what is told happened.

use mandate_domain::RequestId;

use super::{
    RequestRow, StoreError, Tx,
    engine::{either, query_as},
    rows::{number, parse},
};

impl Tx {
    /// The request of this number.
    ///
    /// # Errors
    /// As [`Tx::request`].
    pub async fn request_by_ordinal(&mut self, ordinal: u32) -> Result<Option<RequestRow>, StoreError> {
        let row: Option<(String,)> = query_as("SELECT request FROM requests WHERE chain = $1 AND ordinal = $2")
            .bind(self.chain()?)
            .bind(i64::from(ordinal))
            .fetch_optional(&mut *self.db)
            .await?;
        let Some((id,)) = row else { return Ok(None) };
        let id: RequestId = parse("request id", &id)?;
        self.request(&id).await
    }

    /// When the record of this key was written, in microseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a record that cannot be read.
    pub async fn recorded_at(&mut self, key: &str) -> Result<Option<u64>, StoreError> {
        let row: Option<(i64,)> = query_as(either(
            "SELECT json_extract(canonical, '$.time_micros') FROM records WHERE chain = $1 AND record_key = $2",
            "SELECT CAST(CAST(replace(canonical, '\\u0000', '\\ufffd') AS JSON) ->> 'time_micros' AS BIGINT)
             FROM records
             WHERE chain = $1 AND record_key = $2",
        ))
        .bind(self.chain()?)
        .bind(key)
        .fetch_optional(&mut *self.db)
        .await?;
        row.map(|(micros,)| number("time of a record", micros)).transpose()
    }
}
