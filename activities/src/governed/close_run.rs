//! `close_run`: the closing record. What the run left undone or unknown is named in it.

use mandate_domain::{EffectId, Proof, RecordBody};
use mandate_workflows::contract::{CloseRunInput, CloseRunOutput};

use super::{Admitted, Governed, failpoint};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    heartbeat::Heartbeat,
    store::{EffectState, Tx},
};

impl Governed {
    /// Closes the run. Closed before, only the head is given back.
    pub(crate) async fn close_run(
        &self,
        caller: &Caller,
        input: &CloseRunInput,
    ) -> Result<CloseRunOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller.context());
        let run = self.admit(caller, &input.run).await?;
        if run.row.closed {
            return Ok(CloseRunOutput { audit: run.row.head });
        }
        let mut tx = self.begin(&run).await?;
        self.record_leftovers(&mut tx, &run, input).await?;
        let body = RecordBody::RunClosed {
            state: input.state,
            reason: input.reason,
            turns: input.turns,
            usage: input.usage,
            unknown_outcomes: input.unknown_outcomes.clone(),
        };
        self.append(&mut tx, &run, "close".to_owned(), body).await?;
        tx.close_run().await?;
        failpoint!("close.before_commit");
        let audit = tx.commit().await?;
        failpoint!("close.after_commit");
        Ok(CloseRunOutput { audit })
    }

    async fn record_leftovers(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        input: &CloseRunInput,
    ) -> Result<(), ActivityFailure> {
        if let Some(halted) = &input.halted_by {
            let (by, comment) = (halted.by.clone(), halted.comment.clone());
            self.append(tx, run, "halted".to_owned(), RecordBody::Halted { by, proof: Proof::Claimed, comment })
                .await?;
        }
        for call in &input.abandoned {
            // The input is a claim: a call that was begun has records of its own, and they are not contradicted.
            let effect = tx.effect(EffectId::Tool(*call)).await?;
            if effect.is_some_and(|row| !matches!(row.state, EffectState::Released)) {
                continue;
            }
            let reason = "the run ended before the call was performed".to_owned();
            let body = RecordBody::CallAbandoned { effect: EffectId::Tool(*call), reason };
            self.append(tx, run, format!("{call}/abandoned"), body).await?;
        }
        Ok(())
    }
}
