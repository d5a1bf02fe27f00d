//! The recording transaction's last part, and what a holder may do with its claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mandate_domain::{
    Address, DecisionOutcome, EffectId, PolicyId, RecordBody, RequestId, canonical,
    policy::{PolicyDecision, PolicyOutcome},
};

use super::{Admitted, Governed, RecordedPermit, SEND_WITHIN, failpoint};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    metrics::{DecidedAction, EffectResult},
    store::Tx,
};

/// An effect and what it is about.
pub(super) struct Subject<'a> {
    pub(super) effect: EffectId,
    /// Tool or model.
    pub(super) target: &'a str,
    /// Address of the arguments or of the transcript.
    pub(super) input: &'a Address,
    /// What sums over the run are made of.
    pub(super) amounts: BTreeMap<String, i64>,
    pub(super) cost_micros: u64,
    /// The gates that are open.
    pub(super) approved: BTreeSet<PolicyId>,
}

impl Governed {
    /// Writes the decision.
    pub(super) async fn record_decision(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        subject: &Subject<'_>,
        decision: &PolicyDecision,
    ) -> Result<(), ActivityFailure> {
        let (word, outcome) = match &decision.outcome {
            PolicyOutcome::Allow => ("allow", DecisionOutcome::Allow),
            PolicyOutcome::Deny => ("deny", DecisionOutcome::Deny),
            PolicyOutcome::RequireApproval(_) => ("ask", DecisionOutcome::RequireApproval),
        };
        let next_epoch = tx.effect(subject.effect).await?.map_or(1, |row| row.epoch + 1);
        let bundle: String = decision.bundle.as_str().chars().take(8).collect();
        // The same bundle answers otherwise when one of two gates is open: the key names what determined the answer.
        let why = canonical::digest(&(&decision.policies, &decision.reason))?;
        let why: String = why.as_str().chars().take(8).collect();
        let key = format!("{}/decision/{word}/{next_epoch}/{bundle}-{why}", subject.effect);
        let body = RecordBody::Decision {
            effect: subject.effect,
            target: subject.target.to_owned(),
            input: subject.input.clone(),
            outcome,
            policies: decision.policies.clone(),
            approved: subject.approved.iter().cloned().collect(),
            bundle: decision.bundle.clone(),
            reason: decision.reason.clone(),
        };
        self.append(tx, run, key, body).await?;
        self.metrics.decided(DecidedAction::from(subject.effect), outcome);
        Ok(())
    }

    /// Writes intent and claim and commits: from here on the effect may be performed, once, by this holder.
    pub(super) async fn claim(
        &self,
        mut tx: Tx,
        caller: &Caller,
        run: &Admitted,
        subject: &Subject<'_>,
        approvals: Vec<RequestId>,
    ) -> Result<RecordedPermit, ActivityFailure> {
        caller.not_cancelled()?;
        // Counted from before the commit: a slow commit shortens the time to send, it never lengthens it.
        let send_by = Instant::now() + SEND_WITHIN;
        let stored_send_by = tx.now().await?.plus(SEND_WITHIN);
        let claimed = tx.claim(subject.effect, subject.target, subject.input, &self.holder, &stored_send_by).await?;
        let intent = RecordBody::Intent {
            effect: subject.effect,
            target: subject.target.to_owned(),
            input: subject.input.clone(),
            epoch: claimed.epoch,
            approvals,
            amounts: subject.amounts.clone(),
            cost_micros: subject.cost_micros,
        };
        self.append(&mut tx, run, format!("{}/intent/{}", subject.effect, claimed.epoch), intent).await?;
        match subject.effect {
            EffectId::Model(_) => {
                failpoint!("model.before_intent");
            }
            EffectId::Tool(_) => {
                failpoint!("tool.before_intent");
            }
            EffectId::Notice(_) => {
                failpoint!("notice.before_intent");
            }
        }
        let head = tx.commit().await?;
        caller.saw(head).await;
        match subject.effect {
            EffectId::Model(_) => {
                failpoint!("model.after_intent");
            }
            EffectId::Tool(_) => {
                failpoint!("tool.after_intent");
            }
            EffectId::Notice(_) => {
                failpoint!("notice.after_intent");
            }
        }
        Ok(RecordedPermit::new(run.chain.clone(), subject.effect, claimed.epoch, send_by))
    }

    /// Gives a claim back: nothing was sent. Where an earlier attempt was left open, the effect stays so: that one may have
    /// happened, and "not performed" would be a guess.
    pub(super) async fn give_back(
        &self,
        run: &Admitted,
        permit: &RecordedPermit,
        reason: &str,
    ) -> Result<(), ActivityFailure> {
        let mut tx = self.begin(run).await?;
        if left_open(&mut tx, permit.effect(), permit.epoch().saturating_sub(1)).await? {
            return Ok(());
        }
        if tx.release(permit.effect(), permit.epoch()).await? {
            self.record_not_sent(&mut tx, run, permit.effect(), permit.epoch(), reason).await?;
            tx.commit().await?;
            self.metrics.effect_ended(permit.effect(), EffectResult::NotSent);
        }
        Ok(())
    }

    pub(super) async fn record_not_sent(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        effect: EffectId,
        epoch: u32,
        reason: &str,
    ) -> Result<(), ActivityFailure> {
        let body = RecordBody::NotSent { effect, epoch, reason: reason.to_owned() };
        self.append(tx, run, format!("{effect}/not_sent/{epoch}"), body).await
    }
}

/// Whether an attempt up to an epoch was sent, or may have been, and was never found not to have happened. A model call
/// changes nothing, and a notice is recognised by its id.
pub(super) async fn left_open(tx: &mut Tx, effect: EffectId, last_epoch: u32) -> Result<bool, ActivityFailure> {
    match effect {
        EffectId::Tool(_) => {}
        EffectId::Model(_) | EffectId::Notice(_) => return Ok(false),
    }
    for epoch in 1..=last_epoch {
        if tx.recorded(&format!("{effect}/not_sent/{epoch}")).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}
