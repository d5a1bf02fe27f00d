//! `close_run`: the closing record. What the run left undone or unknown is named in it.

use mandate_domain::{EffectId, PerformedCall, RecordBody, agent_run::HaltRequest, proof::InstructionKind};
use mandate_workflows::{
    contract::{CloseRunInput, CloseRunOutput},
    lenient::Lenient,
};

use super::{
    Admitted, Governed, failpoint,
    identify::{Said, SentMessage},
};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    heartbeat::Heartbeat,
    store::{EffectState, Tx},
};

/// How many performed calls the result of a run names.
const PERFORMED_MAX: usize = 50;

impl Governed {
    /// Closes the run. Closed before, only the head is given back.
    pub(crate) async fn close_run(
        &self,
        caller: &Caller,
        input: &CloseRunInput,
    ) -> Result<CloseRunOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        if run.row.closed {
            let performed = self.performed(&mut self.begin(&run).await?, &run, input).await?;
            return Ok(CloseRunOutput { performed, audit: run.row.head });
        }
        let mut halted = Vec::new();
        for (key, halt) in [("halted", &input.halted_by), ("halted/undoing", &input.undoing_halted_by)] {
            if let Some(halt) = halt {
                halted.push((key, self.halted_by(caller, &run, halt).await?));
            }
        }
        let mut tx = self.begin(&run).await?;
        self.record_leftovers(&mut tx, &run, input, halted).await?;
        let performed = self.performed(&mut tx, &run, input).await?;
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
        Ok(CloseRunOutput { performed, audit })
    }

    /// Who halted the run, as far as that is proved. A halt has acted already and counts without a proof.
    async fn halted_by(
        &self,
        caller: &Caller,
        run: &Admitted,
        halt: &HaltRequest,
    ) -> Result<RecordBody, ActivityFailure> {
        let sender = &halt.sender;
        let statement =
            Self::instruction_statement(run, InstructionKind::Halt, None, None, sender.message_id.as_deref());
        let is_same = |payload: Lenient| payload.halt() == *sender;
        let message = SentMessage {
            said: Said::Instruction(InstructionKind::Halt),
            claimed_by: sender.by.as_ref(),
            evidence: &sender.evidence,
            statement,
            arrival: halt.arrival.as_ref(),
            expires_ms: None,
            is_same: &is_same,
        };
        let signed = self.identify(caller, run, message).await?;
        let evidence = signed.why_not().or_else(|| signed.evidence.clone());
        Ok(RecordBody::Halted { by: signed.by, proof: signed.proof, evidence, comment: sender.comment.clone() })
    }

    /// For a run that did not complete: its calls that changed something, oldest first, the last ones if there are many.
    async fn performed(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        input: &CloseRunInput,
    ) -> Result<Vec<PerformedCall>, ActivityFailure> {
        if input.reason.is_none() {
            return Ok(Vec::new());
        }
        let changes = |tool: &str| {
            let known = run.row.tools.iter().find(|known| known.name.as_str() == tool);
            known.is_none_or(|tool| !tool.read_only && tool.reach.builtin().is_none())
        };
        let settled = tx.performed_calls().await?.into_iter().filter(|(_, tool)| changes(tool));
        let mut performed: Vec<_> = settled.map(|(call, tool)| PerformedCall { call, tool }).collect();
        let more = performed.len().saturating_sub(PERFORMED_MAX);
        performed.drain(..more);
        Ok(performed)
    }

    async fn record_leftovers(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        input: &CloseRunInput,
        halted: Vec<(&str, RecordBody)>,
    ) -> Result<(), ActivityFailure> {
        for (key, halted) in halted {
            self.append(tx, run, key.to_owned(), halted).await?;
        }
        for call in &input.abandoned {
            self.withdraw_question(tx, run, *call).await?;
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
