//! Approval requests, and who voted for them.

use std::collections::BTreeSet;

use mandate_domain::{Address, Gate, PersonId, PolicyId, RequestId, ToolCallId};
use serde::Serialize;

use super::{
    StoreError, Tx,
    engine::{query, query_as},
    rows::{column, from_json, number, parse, to_json},
};
use crate::guards::{Guard, on};

/// How long after it was given an approval can be used at least, in milliseconds.
const USED_WITHIN_MS: u64 = 5_000;

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
    /// The keyed digest that a proof has to name.
    pub digest: Address,
    /// Until when it can be decided, in milliseconds since 1970-01-01 UTC; none for one of an older program.
    pub expires_ms: Option<u64>,
    /// Whether further people may decide.
    pub escalated: bool,
}

/// A request as it was made, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeRequest {
    /// Its id.
    pub id: RequestId,
    /// The keyed digest that a proof has to name.
    pub digest: Address,
    /// Until when it can be decided.
    pub expires_ms: Option<u64>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

/// Ordinal, call, arguments, gate, state, time of expiry, and whether further people may decide.
type RequestColumns = (i64, String, String, String, String, Option<i64>, bool);

impl Tx {
    /// One request for each gate, in order, that can be decided until `now_ms` and the gate's time, or `wait_max_secs` if
    /// that is less. One that is open or approved for the same call, gate and arguments is returned instead of asking
    /// again.
    ///
    /// # Errors
    /// [`StoreError`] of the database or the tenant's key; [`StoreError::NotFound`] for a run that is not open.
    pub async fn make_requests(
        &mut self,
        call: ToolCallId,
        gates: &[Gate],
        arguments: &Address,
        now_ms: u64,
        wait_max_secs: u64,
    ) -> Result<Vec<MadeRequest>, StoreError> {
        let mut made = Vec::with_capacity(gates.len());
        for gate in gates {
            let live = self.live_request(call, &gate.id, arguments).await?;
            let id = if let Some(id) = live {
                id
            } else {
                let wait_ms = gate.expires_secs.min(wait_max_secs).saturating_mul(1000);
                self.make_request(call, gate, arguments, now_ms.saturating_add(wait_ms)).await?
            };
            let row = self.request(&id).await?;
            let row = row.ok_or_else(|| StoreError::not_found(format_args!("request `{id}`")))?;
            made.push(MadeRequest { id, digest: row.digest, expires_ms: row.expires_ms });
        }
        Ok(made)
    }

    /// Lets requests of a call lapse whose time is over, and answers which. An approval is not used after it either.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn lapse_requests(&mut self, call: ToolCallId, now_ms: u64) -> Result<Vec<RequestId>, StoreError> {
        let rows: Vec<(String,)> = query_as(
            "UPDATE requests SET state = 'expired'
             WHERE chain = $1 AND call = $2
                 AND ((state = 'open' AND expires_ms <= $3) OR (state = 'approved' AND usable_until_ms <= $3))
             RETURNING request",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(column(now_ms))
        .fetch_all(&mut *self.db)
        .await?;
        rows.iter().map(|(id,)| parse("request id", id)).collect()
    }

    /// Approves a request that enough people approved: from `now_ms` until its time is over, and for [`USED_WITHIN_MS`] at
    /// least, since a decision that was accepted in time may be taken in late.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown request.
    pub async fn approve_request(&mut self, id: &RequestId, now_ms: u64) -> Result<(), StoreError> {
        self.set_request_state(id, RequestState::Approved).await?;
        query(
            "UPDATE requests SET usable_until_ms = CASE WHEN expires_ms > $3 THEN expires_ms ELSE $3 END
             WHERE chain = $1 AND request = $2 AND expires_ms IS NOT NULL",
        )
        .bind(self.chain()?)
        .bind(id.as_str())
        .bind(column(now_ms.saturating_add(USED_WITHIN_MS)))
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    /// Lets further people decide about a request.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn escalate_request(&mut self, id: &RequestId) -> Result<(), StoreError> {
        query("UPDATE requests SET escalated = TRUE WHERE chain = $1 AND request = $2")
            .bind(self.chain()?)
            .bind(id.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    async fn live_request(
        &mut self,
        call: ToolCallId,
        gate: &PolicyId,
        arguments: &Address,
    ) -> Result<Option<RequestId>, StoreError> {
        let row: Option<(String,)> = query_as(
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

    /// What the digest of a request is: run chain, call, gate, arguments and expiry, under the tenant's key.
    async fn request_digest(
        &mut self,
        call: ToolCallId,
        gate: &PolicyId,
        arguments: &Address,
        expires_ms: Option<u64>,
    ) -> Result<Address, StoreError> {
        let tenant = self.tenant()?.to_owned();
        let asked = Asked { run: self.run().to_string(), call, gate, arguments, expires_ms };
        Ok(self.tenant_key(&tenant).await?.address_of(&asked)?)
    }

    async fn make_request(
        &mut self,
        call: ToolCallId,
        gate: &Gate,
        arguments: &Address,
        expires_ms: u64,
    ) -> Result<RequestId, StoreError> {
        let chain = self.chain()?;
        let digest = self.request_digest(call, &gate.id, arguments, Some(expires_ms)).await?;
        let (ordinal,): (i64,) =
            query_as("UPDATE runs SET requests_made = requests_made + 1 WHERE chain = $1 RETURNING requests_made")
                .bind(chain)
                .fetch_one(&mut *self.db)
                .await?;
        let id = RequestId::new(number("ordinal of a request", ordinal)?, &digest);
        query(
            "INSERT INTO requests (chain, request, ordinal, call, gate_id, arguments, gate, state, expires_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8)",
        )
        .bind(chain)
        .bind(id.as_str())
        .bind(ordinal)
        .bind(call.to_string())
        .bind(gate.id.as_str())
        .bind(arguments.as_str())
        .bind(to_json(gate)?)
        .bind(column(expires_ms))
        .execute(&mut *self.db)
        .await?;
        Ok(id)
    }

    /// A request of this run.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn request(&mut self, id: &RequestId) -> Result<Option<RequestRow>, StoreError> {
        let row: Option<RequestColumns> = query_as(
            "SELECT ordinal, call, arguments, gate, state, expires_ms, escalated FROM requests
             WHERE chain = $1 AND request = $2",
        )
        .bind(self.chain()?)
        .bind(id.as_str())
        .fetch_optional(&mut *self.db)
        .await?;
        let Some((ordinal, call, arguments, gate, state, expires_ms, escalated)) = row else { return Ok(None) };
        let known = RequestState::ALL.into_iter().find(|known| known.as_str() == state);
        let (call, arguments) = (parse("call of a request", &call)?, parse("arguments of a request", &arguments)?);
        let gate: Gate = from_json("gate of a request", &gate)?;
        let expires_ms = expires_ms.map(|at| number("time of a request", at)).transpose()?;
        let digest = self.request_digest(call, &gate.id, &arguments, expires_ms).await?;
        Ok(Some(RequestRow {
            id: id.clone(),
            ordinal: number("ordinal of a request", ordinal)?,
            call,
            arguments,
            gate,
            state: known.ok_or_else(|| StoreError::corrupt(format_args!("state of a request: {state}")))?,
            digest,
            expires_ms,
            escalated,
        }))
    }

    /// Who approved a request so far, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn votes(&mut self, id: &RequestId) -> Result<Vec<PersonId>, StoreError> {
        let rows: Vec<(String,)> =
            query_as("SELECT person FROM votes WHERE chain = $1 AND request = $2 ORDER BY person")
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
        let done = query("INSERT INTO votes (chain, request, person) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(person.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(done > 0)
    }

    /// Moves a request.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown request.
    pub async fn set_request_state(&mut self, id: &RequestId, state: RequestState) -> Result<(), StoreError> {
        let done = query("UPDATE requests SET state = $3 WHERE chain = $1 AND request = $2")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(state.as_str())
            .execute(&mut *self.db)
            .await?;
        if done > 0 { Ok(()) } else { Err(StoreError::not_found(format_args!("request `{id}`"))) }
    }

    /// Withdraws the requests of a call that were not used: the call has ended without being performed.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn withdraw_requests(&mut self, call: ToolCallId) -> Result<(), StoreError> {
        query(
            "UPDATE requests SET state = 'withdrawn'
             WHERE chain = $1 AND call = $2 AND state IN ('open', 'approved')",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    /// The gates that people approved for this call with exactly these arguments, and whose time is not over. An approval
    /// that an earlier claim of the same call used up is among them whenever that was: a call is one effect, whichever
    /// attempt performs it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn approved_gates(
        &mut self,
        call: ToolCallId,
        arguments: &Address,
        now_ms: u64,
    ) -> Result<BTreeSet<PolicyId>, StoreError> {
        let rows: Vec<(String,)> = query_as(
            "SELECT gate_id FROM requests
             WHERE chain = $1 AND ((call = $2 AND arguments = $3) OR NOT $4)
                 AND (state = 'consumed' OR (state = 'approved' AND (usable_until_ms IS NULL OR usable_until_ms > $5 OR NOT $6)))",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(arguments.as_str())
        .bind(on(Guard::ApprovalBound))
        .bind(column(now_ms))
        .bind(on(Guard::ApprovalInTime))
        .fetch_all(&mut *self.db)
        .await?;
        rows.iter().map(|(gate,)| parse("gate of a request", gate)).collect()
    }

    /// Uses up the approvals of a call, and answers which, by ordinal.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn consume_approvals(&mut self, call: ToolCallId) -> Result<Vec<RequestId>, StoreError> {
        let mut rows: Vec<(i64, String)> = query_as(
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
