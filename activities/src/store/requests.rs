//! Approval requests, and who voted for them.

use std::collections::BTreeSet;

use mandate_domain::{Address, Gate, PersonId, PolicyId, RequestId, ToolCallId};
use serde::Serialize;

use super::{
    StoreError, Tx,
    rows::{from_json, number, parse, to_json},
};
use crate::guards::{Guard, on};

/// One request: one gate of one call with one set of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// Its id.
    pub id: RequestId,
    /// Its ordinal in the run, from 1.
    pub ordinal: u32,
    /// The call.
    pub call: ToolCallId,
    /// Address of the canonical arguments.
    pub arguments: Address,
    /// The gate as its policy described it when it asked.
    pub gate: Gate,
    /// Where it stands.
    pub state: RequestState,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestState {
    /// It waits.
    Open,
    /// Enough people approved.
    Approved,
    /// Somebody rejected it.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// It is not needed any more.
    Withdrawn,
    /// Its approval was used.
    Consumed,
}

impl RequestState {
    const ALL: [Self; 6] = [Self::Open, Self::Approved, Self::Rejected, Self::Expired, Self::Withdrawn, Self::Consumed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Consumed => "consumed",
        }
    }
}

/// What the digest in a request id is made over.
#[derive(Serialize)]
struct Asked<'a> {
    run: String,
    call: ToolCallId,
    gate: &'a PolicyId,
    arguments: &'a Address,
}

impl Tx {
    /// One request for each gate, in order. One that is open or approved for the same call, gate and arguments is
    /// returned instead of asking again.
    ///
    /// # Errors
    /// [`StoreError`] of the database or the tenant's key; [`StoreError::NotFound`] for a run that is not open.
    pub async fn make_requests(
        &mut self,
        call: ToolCallId,
        gates: &[Gate],
        arguments: &Address,
    ) -> Result<Vec<RequestId>, StoreError> {
        let mut ids = Vec::with_capacity(gates.len());
        for gate in gates {
            let live = self.live_request(call, &gate.id, arguments).await?;
            ids.push(match live {
                Some(id) => id,
                None => self.make_request(call, gate, arguments).await?,
            });
        }
        Ok(ids)
    }

    async fn live_request(
        &mut self,
        call: ToolCallId,
        gate: &PolicyId,
        arguments: &Address,
    ) -> Result<Option<RequestId>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT request FROM requests
             WHERE chain = $1 AND call = $2 AND gate_id = $3 AND arguments = $4 AND state IN ('open', 'approved')",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(gate.as_str())
        .bind(arguments.as_str())
        .fetch_optional(&mut *self.db)
        .await?;
        row.map(|(id,)| parse("request id", &id)).transpose()
    }

    async fn make_request(
        &mut self,
        call: ToolCallId,
        gate: &Gate,
        arguments: &Address,
    ) -> Result<RequestId, StoreError> {
        let (chain, tenant) = (self.chain()?, self.tenant()?.to_owned());
        let asked = Asked { run: self.run().to_string(), call, gate: &gate.id, arguments };
        let digest = self.store.inner.tenants.key(&tenant, &mut self.db).await?.address_of(&asked)?;
        let (ordinal,): (i64,) = sqlx::query_as(
            "UPDATE runs SET requests_made = requests_made + 1 WHERE chain = $1 RETURNING requests_made",
        )
        .bind(chain)
        .fetch_one(&mut *self.db)
        .await?;
        let id = RequestId::new(number("ordinal of a request", ordinal)?, &digest);
        sqlx::query(
            "INSERT INTO requests (chain, request, ordinal, call, gate_id, arguments, gate, state)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'open')",
        )
        .bind(chain)
        .bind(id.as_str())
        .bind(ordinal)
        .bind(call.to_string())
        .bind(gate.id.as_str())
        .bind(arguments.as_str())
        .bind(to_json(gate)?)
        .execute(&mut *self.db)
        .await?;
        Ok(id)
    }

    /// A request of this run.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn request(&mut self, id: &RequestId) -> Result<Option<RequestRow>, StoreError> {
        let row: Option<(i64, String, String, String, String)> = sqlx::query_as(
            "SELECT ordinal, call, arguments, gate, state FROM requests WHERE chain = $1 AND request = $2",
        )
        .bind(self.chain()?)
        .bind(id.as_str())
        .fetch_optional(&mut *self.db)
        .await?;
        let Some((ordinal, call, arguments, gate, state)) = row else { return Ok(None) };
        let known = RequestState::ALL.into_iter().find(|known| known.as_str() == state);
        Ok(Some(RequestRow {
            id: id.clone(),
            ordinal: number("ordinal of a request", ordinal)?,
            call: parse("call of a request", &call)?,
            arguments: parse("arguments of a request", &arguments)?,
            gate: from_json("gate of a request", &gate)?,
            state: known.ok_or_else(|| StoreError::corrupt(format_args!("state of a request: {state}")))?,
        }))
    }

    /// Who approved a request so far, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn votes(&mut self, id: &RequestId) -> Result<Vec<PersonId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT person FROM votes WHERE chain = $1 AND request = $2 ORDER BY person")
                .bind(self.chain()?)
                .bind(id.as_str())
                .fetch_all(&mut *self.db)
                .await?;
        rows.iter().map(|(person,)| parse("voter", person)).collect()
    }

    /// Counts a person's approval. Answers whether it is their first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown request.
    pub async fn vote(&mut self, id: &RequestId, person: &PersonId) -> Result<bool, StoreError> {
        if self.request(id).await?.is_none() {
            return Err(StoreError::not_found(format_args!("request `{id}`")));
        }
        let done = sqlx::query("INSERT INTO votes (chain, request, person) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(person.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Moves a request.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown request.
    pub async fn set_request_state(&mut self, id: &RequestId, state: RequestState) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE requests SET state = $3 WHERE chain = $1 AND request = $2")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(state.as_str())
            .execute(&mut *self.db)
            .await?;
        if done.rows_affected() > 0 { Ok(()) } else { Err(StoreError::not_found(format_args!("request `{id}`"))) }
    }

    /// Withdraws the requests of a call that were not used: the call has ended without being performed.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn withdraw_requests(&mut self, call: ToolCallId) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE requests SET state = 'withdrawn'
             WHERE chain = $1 AND call = $2 AND state IN ('open', 'approved')",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    /// The gates that people approved for this call with exactly these arguments. An approval that an earlier claim of
    /// the same call used up is among them: a call is one effect, whichever attempt performs it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn approved_gates(
        &mut self,
        call: ToolCallId,
        arguments: &Address,
    ) -> Result<BTreeSet<PolicyId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT gate_id FROM requests
             WHERE chain = $1 AND ((call = $2 AND arguments = $3) OR NOT $4) AND state IN ('approved', 'consumed')",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(arguments.as_str())
        .bind(on(Guard::ApprovalBound))
        .fetch_all(&mut *self.db)
        .await?;
        rows.iter().map(|(gate,)| parse("gate of a request", gate)).collect()
    }

    /// Uses up the approvals of a call, and answers which, by ordinal.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn consume_approvals(&mut self, call: ToolCallId) -> Result<Vec<RequestId>, StoreError> {
        let mut rows: Vec<(i64, String)> = sqlx::query_as(
            "UPDATE requests SET state = 'consumed' WHERE chain = $1 AND call = $2 AND state = 'approved'
             RETURNING ordinal, request",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .fetch_all(&mut *self.db)
        .await?;
        rows.sort_unstable();
        rows.iter().map(|(_, id)| parse("request id", id)).collect()
    }
}
