//! `notify`: the webhook is told of a request or a question, along the path like every other effect.
//!
//! What is told comes from the store, never from the input. Each attempt carries the same `webhook-id`, so one whose answer
//! was lost is sent again, under a new epoch: a receiver that has taken it knows it. A run never waits for it, so
//! nothing that keeps the webhook from being told is more than the outcome of a notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mandate_domain::{
    Address, EffectId, KnownBy, RecordBody,
    audit::{NoticeId, NoticeKind, Noticed},
    policy::{PolicyAction, PolicyOutcome},
};
use mandate_workflows::contract::{NotifyInput, NotifyOutput};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admitted, Governed, RUN_ENDED, RecordedPermit, claim::Subject, failpoint};
use crate::{
    caller::Caller,
    failure::ActivityFailure,
    guards::{self, Guard, on},
    heartbeat::Heartbeat,
    metrics::EffectResult,
    store::{EffectState, QuestionRow, RequestRow, Settled, StoreError, Tx},
    webhook::{Answer, Message, MessageTooLarge, SendWebhookError},
};

mod message;
mod standing;

use standing::{Standing, of_question, of_request};

/// What decisions and intents name: the resource that policies see.
const TARGET: &str = "notifications";

/// What became of a notice, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Told {
    delivered: bool,
    /// The status of the answer, or why nothing is sent.
    detail: String,
}

impl Told {
    fn not(detail: impl Into<String>) -> Self {
        Self { delivered: false, detail: detail.into() }
    }

    fn answered(answer: Answer) -> Self {
        match answer {
            Answer::Taken { status } => Self { delivered: true, detail: status.to_string() },
            Answer::Refused { status } => Self::not(format!("refused for good with status {status}")),
        }
    }

    fn stored(&self) -> Value {
        json!({ "delivered": self.delivered, "detail": self.detail })
    }

    fn read(outcome: Value) -> Result<Self, ActivityFailure> {
        let what = |error| StoreError::Corrupt { what: format!("outcome of a notice: {error}") };
        Ok(serde_json::from_value(outcome).map_err(what)?)
    }
}

/// What is to be told now.
struct Due {
    message: Message,
    /// Address of the arguments that people are asked about.
    input: Address,
}

/// What the store says of a notice.
enum Looked {
    Due(Box<Due>),
    /// It was told or refused before, or is not needed any more.
    Ended(Told),
    RunEnded,
    /// The run has nothing of the kind.
    Unknown,
}

impl Governed {
    /// Walks the path for one notice.
    pub(crate) async fn notify(&self, caller: &Caller, input: &NotifyInput) -> Result<NotifyOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let run = self.admit(caller, &input.run).await?;
        let Told { delivered, detail } = self.tell(caller, &run, input.notice).await?;
        let audit = self.head(&run).await?;
        Ok(NotifyOutput { delivered, detail: Some(detail), audit })
    }

    async fn tell(&self, caller: &Caller, run: &Admitted, notice: NoticeId) -> Result<Told, ActivityFailure> {
        match self.look(caller, run, notice).await? {
            Ok(due) => drop(due),
            Err(told) => return Ok(told),
        }
        let Some(webhook) = &self.webhook else { return Ok(Told::not("no webhook is configured on this worker")) };
        // A program that supplies a secret takes its time: neither a claim nor the store's lock waits for it.
        let keys = webhook.keys().await?;
        let (tx, due) = match self.look(caller, run, notice).await? {
            Ok(due) => due,
            Err(told) => return Ok(told),
        };
        let permit = match self.decide_notice(tx, caller, run, notice, &due.input).await? {
            Ok(permit) => permit,
            Err(told) => return Ok(told),
        };
        let began = Instant::now();
        let answer = webhook.send(&permit, &keys, &due.message).await;
        failpoint!("notice.after_effect");
        match answer {
            Ok(answer) => self.record_told(run, &permit, Told::answered(answer), began.elapsed()).await,
            Err(error @ SendWebhookError::NotSent { .. }) => {
                self.give_back(run, &permit, &error.to_string()).await?;
                Err(error.into())
            }
            // The next attempt takes over, when the claim has run out.
            Err(
                error @ (SendWebhookError::Unanswered { .. }
                | SendWebhookError::Unavailable { .. }
                | SendWebhookError::NoSecret(_)
                | SendWebhookError::BadSecret { .. }),
            ) => Err(error.into()),
        }
    }

    /// What there is to tell, in the transaction that found it; or what became of it.
    async fn look(
        &self,
        caller: &Caller,
        run: &Admitted,
        notice: NoticeId,
    ) -> Result<Result<(Tx, Due), Told>, ActivityFailure> {
        let mut tx = self.begin(run).await?;
        match self.looked_up(&mut tx, run, notice).await? {
            Looked::Due(due) => Ok(Ok((tx, *due))),
            Looked::Ended(told) => {
                tx.commit().await?;
                Ok(Err(told))
            }
            Looked::RunEnded => {
                // A reset workflow execution, or an attempt that outlived its run.
                drop(tx);
                let what = format!("notice `{notice}` of run `{}`", run.chain);
                self.store.record_intrusion(&run.origin, &what, RUN_ENDED).await?;
                Ok(Err(Told::not(RUN_ENDED)))
            }
            Looked::Unknown => {
                drop(tx);
                let reason = format!("notice `{notice}` is about nothing that happened in this run");
                Err(self.intrusion(caller, reason).await?)
            }
        }
    }

    async fn looked_up(&self, tx: &mut Tx, run: &Admitted, notice: NoticeId) -> Result<Looked, ActivityFailure> {
        let effect = EffectId::Notice(notice);
        let mut begun = None;
        if let Some(row) = tx.effect(effect).await? {
            match row.state {
                EffectState::Settled { outcome, .. } => return Ok(Looked::Ended(Told::read(outcome)?)),
                EffectState::Unknown { reason } => return Ok(Looked::Ended(Told::not(reason))),
                EffectState::Open => {
                    let wait = row.send_by.time_left(&tx.now().await?);
                    if !wait.is_zero() && on(Guard::LiveClaim) {
                        return Err(ActivityFailure::Claimed { effect, holder: row.holder, wait });
                    }
                    begun = Some(row.epoch);
                }
                EffectState::Released => {}
            }
        }
        if tx.is_closed() && on(Guard::ClosedRun) {
            return Ok(Looked::RunEnded);
        }
        let (standing, due) = match notice.about {
            Noticed::Request(ordinal) => match tx.request_by_ordinal(ordinal).await? {
                Some(row) => (of_request(&row, notice.kind), self.about_request(tx, run, notice.kind, row).await?),
                None => return Ok(Looked::Unknown),
            },
            Noticed::Question(ordinal) => match tx.question_by_ordinal(ordinal).await? {
                Some(row) => (of_question(&row, notice.kind), self.about_question(tx, run, notice.kind, row).await?),
                None => return Ok(Looked::Unknown),
            },
        };
        match (standing, due) {
            (Standing::Never, _) => Ok(Looked::Unknown),
            (Standing::NotNeeded, _) => {
                let told = Told::not("not needed any more: it is decided, or its time is over");
                if let Some(epoch) = begun {
                    // No attempt will ask again what became of the last one.
                    self.settle_notice(tx, run, effect, epoch, &told, Duration::ZERO).await?;
                }
                Ok(Looked::Ended(told))
            }
            (Standing::ToTell, Ok(due)) => Ok(Looked::Due(Box::new(due))),
            (Standing::ToTell, Err(too_large)) => Ok(Looked::Ended(Told::not(too_large.to_string()))),
        }
    }

    async fn about_request(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        kind: NoticeKind,
        row: RequestRow,
    ) -> Result<Result<Due, MessageTooLarge>, ActivityFailure> {
        let tool = self.tool_of(run, row.call).await?;
        let since = since(tx, row.id.as_str(), kind, row.gate.remind_secs).await?;
        let message = message::of_request(&message::Run::of(run, tool), &row, kind, since);
        Ok(message.map(|message| Due { message, input: row.arguments }))
    }

    async fn about_question(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        kind: NoticeKind,
        row: QuestionRow,
    ) -> Result<Result<Due, MessageTooLarge>, ActivityFailure> {
        let tool = self.tool_of(run, row.call).await?;
        let since = since(tx, row.id.as_str(), kind, None).await?;
        // Its record is written with the row.
        let Some(RecordBody::QuestionAsked { input, .. }) = tx.recorded(&format!("{}/asked", row.id)).await? else {
            return Err(StoreError::Corrupt { what: format!("question `{}` has no record", row.id) }.into());
        };
        let message = message::of_question(&message::Run::of(run, tool), &row, &input, kind, since);
        Ok(message.map(|message| Due { message, input }))
    }

    /// The first durable write.
    async fn decide_notice(
        &self,
        mut tx: Tx,
        caller: &Caller,
        run: &Admitted,
        notice: NoticeId,
        input: &Address,
    ) -> Result<Result<RecordedPermit, Told>, ActivityFailure> {
        let facts = tx.facts().await?;
        let subject = Subject {
            effect: EffectId::Notice(notice),
            target: TARGET,
            input,
            amounts: BTreeMap::new(),
            cost_micros: 0,
            approved: BTreeSet::new(),
        };
        let action = PolicyAction::Notify { kind: notice.kind };
        let decision = self.judge(&mut tx, run, action, &facts, &subject.approved).await?;
        self.record_decision(&mut tx, run, &subject, &decision).await?;
        let denied = match guards::enforced(&decision.outcome) {
            PolicyOutcome::Allow => return Ok(Ok(self.claim(tx, caller, run, &subject, Vec::new()).await?)),
            PolicyOutcome::Deny => format!("policy denies it: {}", decision.reason),
            PolicyOutcome::RequireApproval(_) => {
                format!("policy asks for approval of a notice, which only tools can wait for: {}", decision.reason)
            }
        };
        tx.commit().await?;
        Ok(Err(Told::not(denied)))
    }

    /// The second durable write.
    async fn record_told(
        &self,
        run: &Admitted,
        permit: &RecordedPermit,
        told: Told,
        took: Duration,
    ) -> Result<Told, ActivityFailure> {
        let effect = permit.effect();
        let mut tx = self.begin(run).await?;
        let whether = self.settle_notice(&mut tx, run, effect, permit.epoch(), &told, took).await?;
        let counts = tx.effect(effect).await?.map(|row| row.state);
        tx.commit().await?;
        failpoint!("notice.after_outcome");
        match (whether, counts) {
            (Settled::Late, Some(EffectState::Settled { outcome, .. })) => Told::read(outcome),
            (Settled::Late, Some(EffectState::Open | EffectState::Released | EffectState::Unknown { .. }) | None) => {
                Ok(told)
            }
            (Settled::First, _) => {
                self.metrics.effect_ended(effect, EffectResult::of_answer(!told.delivered));
                Ok(told)
            }
        }
    }

    async fn settle_notice(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        effect: EffectId,
        epoch: u32,
        told: &Told,
        took: Duration,
    ) -> Result<Settled, ActivityFailure> {
        let result = tx.put_content(run.tenant(), &told.detail).await?;
        let whether = tx.settle(effect, epoch, &told.stored(), KnownBy::Answer).await?;
        let (key, body) = match whether {
            Settled::First => {
                let body = RecordBody::Outcome {
                    effect,
                    epoch,
                    known_by: KnownBy::Answer,
                    result,
                    is_error: !told.delivered,
                    usage: None,
                    classes: Vec::new(),
                    withheld: Vec::new(),
                    duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                };
                ("outcome", body)
            }
            Settled::Late => ("late", RecordBody::LateOutcome { effect, epoch, result, may_have_doubled: false }),
        };
        self.append(tx, run, format!("{effect}/{key}/{epoch}"), body).await?;
        Ok(whether)
    }
}

/// When what is told happened, by the record of it; now, for one that a program without such records wrote.
async fn since(
    tx: &mut Tx,
    id: &str,
    kind: NoticeKind,
    remind_secs: Option<u64>,
) -> Result<jiff::Timestamp, ActivityFailure> {
    let (event, later_secs) = match kind {
        NoticeKind::Reminder => (NoticeKind::Asked, remind_secs.unwrap_or_default()),
        NoticeKind::Asked | NoticeKind::Escalated | NoticeKind::Expired => (kind, 0),
    };
    let micros = tx.recorded_at(&format!("{id}/{}", event.as_str())).await?;
    let micros = micros.map(|micros| micros.saturating_add(later_secs.saturating_mul(1_000_000)));
    let at = micros.and_then(|micros| jiff::Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok());
    Ok(at.unwrap_or_else(jiff::Timestamp::now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_notice_is_read_as_it_was_stored() {
        let told = Told::answered(Answer::Taken { status: 204 });
        assert_eq!(told.stored(), json!({ "delivered": true, "detail": "204" }));
        assert_eq!(Told::read(told.stored()).unwrap(), told);
        let refused = Told::answered(Answer::Refused { status: 410 });
        assert!(!refused.delivered && refused.detail.contains("410"), "{refused:?}");
        assert!(Told::read(json!({ "refused": "no" })).is_err());
    }
}
