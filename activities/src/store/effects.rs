//! Effects, their claims and outcomes, and the one end of each call.

use mandate_domain::{Address, EffectId, KnownBy, ToolCallId, ToolCallOutcome};
use serde_json::Value;

use super::{
    StoreError, Tx,
    engine::{FromColumns, Row, query, query_as},
    rows::{PLAIN, column, from_json, number, parse, plain, to_json},
};
use crate::{
    clock::BootTime,
    guards::{Guard, on},
};

/// What stands about an effect.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectRow {
    /// The effect.
    pub effect: EffectId,
    /// Tool or model.
    pub target: String,
    /// Address of the input.
    pub input: Address,
    /// The last epoch that was claimed.
    pub epoch: u32,
    /// Who claimed it.
    pub holder: String,
    /// When the holder of that epoch may send last. It may have sent at any time before.
    pub send_by: BootTime,
    /// Where it stands.
    pub state: EffectState,
}

/// Where an effect stands.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectState {
    /// Claimed, with no outcome: performing, or lost.
    Open,
    /// The last claim was given back before anything was sent.
    Released,
    /// A person has to say what became of it.
    Unknown {
        /// What is known.
        reason: String,
    },
    /// It has its outcome.
    Settled {
        /// The outcome, as it was given to [`Tx::settle`].
        outcome: Value,
        /// The epoch that performed it.
        epoch: u32,
        /// How it is known.
        known_by: KnownBy,
    },
}

impl EffectState {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Released => "released",
            Self::Unknown { .. } => "unknown",
            Self::Settled { .. } => "settled",
        }
    }
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// 1 for the first claim, one more for each that took over.
    pub epoch: u32,
}

/// Whether an outcome counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is the effect's outcome, now or since the same was written before.
    First,
    /// Another outcome counts already.
    Late,
}

/// Whether a call's end counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedCall {
    /// It is the call's end.
    First,
    /// The call had ended so before.
    AlreadyEnded(CallEndRow),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEndRow {
    /// Address of the one result that the model reads.
    pub message: Address,
    /// What the call came to.
    pub outcome: ToolCallOutcome,
}

struct Columns {
    target: String,
    input: String,
    state: String,
    epoch: i64,
    holder: String,
    boot_id: String,
    send_by_millis: i64,
    reason: Option<String>,
    encoding: Option<String>,
    outcome: Option<String>,
    settled_epoch: Option<i64>,
    known_by: Option<String>,
}

impl FromColumns for Columns {
    fn read(row: Row) -> Result<Self, StoreError> {
        let (
            target,
            input,
            state,
            epoch,
            holder,
            boot_id,
            send_by_millis,
            reason,
            encoding,
            outcome,
            settled_epoch,
            known_by,
        ) = FromColumns::read(row)?;
        Ok(Self {
            target,
            input,
            state,
            epoch,
            holder,
            boot_id,
            send_by_millis,
            reason,
            encoding,
            outcome,
            settled_epoch,
            known_by,
        })
    }
}

impl Columns {
    fn row(self, effect: EffectId) -> Result<EffectRow, StoreError> {
        Ok(EffectRow {
            effect,
            state: self.state()?,
            input: parse("input of an effect", &self.input)?,
            epoch: number("epoch of an effect", self.epoch)?,
            send_by: BootTime { millis: number("claim of an effect", self.send_by_millis)?, boot_id: self.boot_id },
            target: self.target,
            holder: self.holder,
        })
    }

    fn state(&self) -> Result<EffectState, StoreError> {
        match self.state.as_str() {
            "open" => Ok(EffectState::Open),
            "released" => Ok(EffectState::Released),
            "unknown" => Ok(EffectState::Unknown { reason: self.reason.clone().unwrap_or_default() }),
            "settled" => self.settled(),
            other => Err(StoreError::corrupt(format_args!("state of an effect: {other}"))),
        }
    }

    fn settled(&self) -> Result<EffectState, StoreError> {
        let (Some(encoding), Some(outcome), Some(epoch), Some(known_by)) =
            (&self.encoding, &self.outcome, self.settled_epoch, &self.known_by)
        else {
            return Err(StoreError::corrupt("a settled effect without outcome"));
        };
        plain("outcome of an effect", encoding)?;
        Ok(EffectState::Settled {
            outcome: from_json("outcome of an effect", outcome)?,
            epoch: number("epoch of an outcome", epoch)?,
            known_by: from_json("source of an outcome", known_by)?,
        })
    }
}

impl Tx {
    /// What stands about an effect of this run.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn effect(&mut self, effect: EffectId) -> Result<Option<EffectRow>, StoreError> {
        let columns: Option<Columns> = query_as(
            "SELECT target, input, state, epoch, holder, boot_id, send_by_millis, reason, encoding, outcome,
                    settled_epoch, known_by
             FROM effects WHERE chain = $1 AND effect = $2",
        )
        .bind(self.chain()?)
        .bind(effect.to_string())
        .fetch_optional(&mut *self.db)
        .await?;
        columns.map(|columns| columns.row(effect)).transpose()
    }

    async fn known_effect(&mut self, effect: EffectId) -> Result<EffectRow, StoreError> {
        let row = self.effect(effect).await?;
        row.ok_or_else(|| StoreError::not_found(format_args!("effect `{effect}` of run `{}`", self.run())))
    }

    /// Claims an effect. An open claim is taken over: whether it has run out is for the caller to check first.
    ///
    /// # Errors
    /// [`StoreError::EffectConflict`] for another target or input, [`StoreError::EffectNotOpen`] when it has its
    /// outcome or waits for a person.
    pub async fn claim(
        &mut self,
        effect: EffectId,
        target: &str,
        input: &Address,
        holder: &str,
        send_by: &BootTime,
    ) -> Result<Claimed, StoreError> {
        let epoch = match self.effect(effect).await? {
            None => 1,
            Some(row) if (row.target != target || row.input != *input) && on(Guard::EffectBound) => {
                return Err(StoreError::EffectConflict { effect });
            }
            Some(row) => match row.state {
                EffectState::Open | EffectState::Released => row.epoch.saturating_add(1),
                state @ (EffectState::Unknown { .. } | EffectState::Settled { .. }) => {
                    return Err(StoreError::EffectNotOpen { effect, state: state.as_str() });
                }
            },
        };
        query(
            "INSERT INTO effects (chain, effect, target, input, state, epoch, holder, boot_id, send_by_millis)
             VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $8)
             ON CONFLICT (chain, effect) DO UPDATE SET state = 'open', epoch = excluded.epoch,
                 holder = excluded.holder, boot_id = excluded.boot_id, send_by_millis = excluded.send_by_millis",
        )
        .bind(self.chain()?)
        .bind(effect.to_string())
        .bind(target)
        .bind(input.as_str())
        .bind(i64::from(epoch))
        .bind(holder)
        .bind(&send_by.boot_id)
        .bind(column(send_by.millis))
        .execute(&mut *self.db)
        .await?;
        Ok(Claimed { epoch })
    }

    /// Gives a claim back: nothing was sent. Answers whether it was still the effect's open claim; if another took
    /// over or the effect is settled, nothing changes.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn release(&mut self, effect: EffectId, epoch: u32) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE effects SET state = 'released' WHERE chain = $1 AND effect = $2 AND epoch = $3 AND state = 'open'",
        )
        .bind(self.chain()?)
        .bind(effect.to_string())
        .bind(i64::from(epoch))
        .execute(&mut *self.db)
        .await?;
        Ok(done > 0)
    }

    /// Writes an outcome. The first one counts, of whichever epoch, also for an effect that was parked as unknown.
    /// The same epoch with the same outcome again is no second outcome: a commit whose answer was lost is repeated.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an effect or epoch that was never claimed.
    pub async fn settle(
        &mut self,
        effect: EffectId,
        epoch: u32,
        outcome: &Value,
        known_by: KnownBy,
    ) -> Result<Settled, StoreError> {
        let row = self.known_effect(effect).await?;
        if epoch == 0 || epoch > row.epoch {
            return Err(StoreError::not_found(format_args!("epoch {epoch} of effect `{effect}`")));
        }
        if let EffectState::Settled { .. } = row.state {
            let same = EffectState::Settled { outcome: outcome.clone(), epoch, known_by };
            return Ok(if row.state == same { Settled::First } else { Settled::Late });
        }
        query(
            "UPDATE effects SET state = 'settled', encoding = $3, outcome = $4, settled_epoch = $5, known_by = $6
             WHERE chain = $1 AND effect = $2",
        )
        .bind(self.chain()?)
        .bind(effect.to_string())
        .bind(PLAIN)
        .bind(to_json(outcome)?)
        .bind(i64::from(epoch))
        .bind(to_json(&known_by)?)
        .execute(&mut *self.db)
        .await?;
        Ok(Settled::First)
    }

    /// Parks an effect until a person says what became of it. Parked already, it keeps its first reason.
    ///
    /// # Errors
    /// [`StoreError::EffectNotOpen`] when it has its outcome; [`StoreError::NotFound`] when it was never claimed.
    pub async fn mark_unknown(&mut self, effect: EffectId, reason: &str) -> Result<(), StoreError> {
        match self.known_effect(effect).await?.state {
            EffectState::Open | EffectState::Released => {}
            EffectState::Unknown { .. } => return Ok(()),
            state @ EffectState::Settled { .. } => {
                return Err(StoreError::EffectNotOpen { effect, state: state.as_str() });
            }
        }
        query("UPDATE effects SET state = 'unknown', reason = $3 WHERE chain = $1 AND effect = $2")
            .bind(self.chain()?)
            .bind(effect.to_string())
            .bind(reason)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// Whether something that the run did was begun to be undone.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn is_undoing(&mut self) -> Result<bool, StoreError> {
        let undo: Option<(i64,)> = query_as("SELECT epoch FROM effects WHERE chain = $1 AND effect LIKE 't%u' LIMIT 1")
            .bind(self.chain()?)
            .fetch_optional(&mut *self.db)
            .await?;
        Ok(undo.is_some())
    }

    /// Tool calls with an outcome, in the order in which they were claimed, with their tools. Those that did not happen by
    /// a person's word are left out.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn performed_calls(&mut self) -> Result<Vec<(ToolCallId, String)>, StoreError> {
        let rows: Vec<(String, String, Option<String>)> = query_as(
            "SELECT effect, target, outcome FROM effects
             WHERE chain = $1 AND state = 'settled' AND effect LIKE 't%' ORDER BY rowid",
        )
        .bind(self.chain()?)
        .fetch_all(&mut *self.db)
        .await?;
        let mut calls = Vec::with_capacity(rows.len());
        for (effect, target, outcome) in rows {
            let outcome: Value = from_json("outcome of an effect", outcome.as_deref().unwrap_or("null"))?;
            if outcome.get("person").is_none_or(|word| word == "happened") {
                calls.push((parse("effect of a call", &effect)?, target));
            }
        }
        Ok(calls)
    }

    /// Ends a call with the one result that the model will read. The first end counts.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn end_call(
        &mut self,
        call: ToolCallId,
        message: &Address,
        outcome: &ToolCallOutcome,
    ) -> Result<EndedCall, StoreError> {
        if let Some(row) = self.call_end(call).await? {
            return Ok(EndedCall::AlreadyEnded(row));
        }
        query("INSERT INTO call_ends (chain, call, message, encoding, outcome) VALUES ($1, $2, $3, $4, $5)")
            .bind(self.chain()?)
            .bind(call.to_string())
            .bind(message.as_str())
            .bind(PLAIN)
            .bind(to_json(outcome)?)
            .execute(&mut *self.db)
            .await?;
        Ok(EndedCall::First)
    }

    /// How a call ended, if it has.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn call_end(&mut self, call: ToolCallId) -> Result<Option<CallEndRow>, StoreError> {
        let row: Option<(String, String, String)> =
            query_as("SELECT message, encoding, outcome FROM call_ends WHERE chain = $1 AND call = $2")
                .bind(self.chain()?)
                .bind(call.to_string())
                .fetch_optional(&mut *self.db)
                .await?;
        let Some((message, encoding, outcome)) = row else { return Ok(None) };
        plain("end of a call", &encoding)?;
        let outcome = from_json("end of a call", &outcome)?;
        Ok(Some(CallEndRow { message: parse("end of a call", &message)?, outcome }))
    }
}
