//! Who sent a message, and when it was accepted: asked of the Temporal server where that is needed, and proved before
//! the transaction that counts it.

use mandate_domain::{
    Address, Digest, Evidence, PersonId, Proof, RunChain, Statement, Verdict,
    approval::Arrival,
    canonical::CanonicalError,
    proof::{InstructionKind, InstructionSaid},
};
use mandate_workflows::{
    contract::{ANSWER_QUESTION, DECIDE},
    lenient::Lenient,
};

use super::{Admitted, Governed};
use crate::{
    caller::Caller,
    executions::MessageEvent,
    failure::ActivityFailure,
    guards::{Guard, on},
    identity::{Asked, Proved},
    store::Tx,
};

/// How often the keys of the identity provider are asked for, one attempt of the activity after the other, before a token
/// is refused that they are needed for. What waits behind it would wait as long.
const PROVIDER_ATTEMPTS_MAX: u32 = 5;

/// Why a proof does not count that was used.
const USED_BEFORE: &str = "the proof was used before, and it is good once";

/// Who a record names where nobody was.
const NOBODY: &str = "unnamed";

/// What a message says, by its kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said {
    Decision(Verdict),
    Instruction(InstructionKind),
}

impl Said {
    /// Whether messages of this name say it. Payloads of several kinds look the same, and where one came in is a claim.
    fn comes_as(self, name: &str) -> bool {
        match self {
            Self::Decision(verdict) => name == verdict.as_str() || name == DECIDE,
            Self::Instruction(InstructionKind::Answer) => name == "answer" || name == ANSWER_QUESTION,
            Self::Instruction(kind @ InstructionKind::Resolve) => name == kind.as_str() || name == DECIDE,
            Self::Instruction(kind) => name == kind.as_str(),
        }
    }

    /// Whether this evidence counts in the first message alone that carries it, also when that message was refused before
    /// anybody looked at its proof. Whoever reads it in the history could send it again, later or with other words. A
    /// signature over a decision is good for that verdict about that request and no other, so it may come again.
    fn needs_first(self, evidence: &Evidence) -> bool {
        match self {
            Self::Decision(_) => evidence.token.is_some(),
            Self::Instruction(_) => !evidence.is_none(),
        }
    }
}

/// A message that is to be looked into.
pub(super) struct SentMessage<'a> {
    /// Its kind.
    pub(super) said: Said,
    /// Who it says it is from.
    pub(super) claimed_by: Option<&'a PersonId>,
    /// What came beside it.
    pub(super) evidence: &'a Evidence,
    /// What it says, whole.
    pub(super) statement: Result<Statement, CanonicalError>,
    /// Where it came in.
    pub(super) arrival: Option<&'a Arrival>,
    /// The end of the time in which it counts, if there is one.
    pub(super) expires_ms: Option<u64>,
    /// Whether a payload in history is this message.
    pub(super) is_same: &'a (dyn Fn(Lenient) -> bool + Sync),
}

/// Whoever sent a message, as far as that is proved.
pub(super) struct Signed {
    pub(super) by: PersonId,
    pub(super) proof: Proof,
    /// What proved it, in a line.
    pub(super) evidence: Option<String>,
    /// What may be used once.
    once: Option<Digest>,
    /// Whether an earlier message carried it.
    came_before: bool,
    /// Why it does not count, whatever the person may do.
    refused: Option<String>,
}

impl Signed {
    /// A message that does not count, from whom it says it is.
    fn refused(claimed_by: Option<&PersonId>, reason: String) -> Result<Self, ActivityFailure> {
        let by = match claimed_by {
            Some(by) => by.clone(),
            None => {
                PersonId::parse(NOBODY).map_err(|error| ActivityFailure::Intrusion { reason: error.to_string() })?
            }
        };
        let refused = Some(reason);
        Ok(Self { by, proof: Proof::Claimed, evidence: None, once: None, came_before: false, refused })
    }

    fn proved(proved: Proved) -> Self {
        let Proved { by, proof, evidence, once } = proved;
        Self { by, proof, evidence, once, came_before: false, refused: None }
    }

    /// Why the message is not proved, if it is not.
    pub(super) fn why_not(&self) -> Option<String> {
        self.refused.clone()
    }

    /// Why the message does not count, if it does not: nobody is proved, it came too late, or its proof was used
    /// before. Within the transaction that would count it.
    pub(super) async fn keeps_from_counting(
        &self,
        tx: &mut Tx,
        record_key: &str,
    ) -> Result<Option<String>, ActivityFailure> {
        if self.refused.is_some() {
            return Ok(self.refused.clone());
        }
        let Some(once) = &self.once else { return Ok(None) };
        let first = tx.use_proof(once, record_key).await? && !self.came_before;
        Ok((!first && on(Guard::ProofOnce)).then(|| USED_BEFORE.to_owned()))
    }
}

/// The event of a message, or why the history does not have it as the workflow says it arrived.
type Found = Result<MessageEvent, String>;

/// Keeps what a person wrote, if they did.
pub(super) async fn put_words(
    tx: &mut Tx,
    run: &Admitted,
    words: Option<&str>,
) -> Result<Option<Address>, ActivityFailure> {
    let Some(words) = words else { return Ok(None) };
    Ok(Some(tx.put_content(run.tenant(), words).await?))
}

impl Governed {
    /// Finds out who sent a message and whether it was accepted in time.
    pub(super) async fn identify(
        &self,
        caller: &Caller,
        run: &Admitted,
        sent: SentMessage<'_>,
    ) -> Result<Signed, ActivityFailure> {
        let event = if self.asks_for_event(caller, &sent) {
            match self.find_event(caller, run, &sent).await? {
                Ok(event) => Some(event),
                Err(reason) => return Signed::refused(sent.claimed_by, reason),
            }
        } else {
            None
        };
        let accepted_ms = event.as_ref().map(|event| event.time_ms);
        if let (Some(accepted_ms), Some(expires_ms)) = (accepted_ms, sent.expires_ms)
            && accepted_ms >= expires_ms
            && on(Guard::Deadline)
        {
            return Signed::refused(sent.claimed_by, "it came after the time for it was over".to_owned());
        }
        let statement = match &sent.statement {
            Ok(statement) => statement,
            Err(error) => return Signed::refused(sent.claimed_by, error.to_string()),
        };
        let asked = Asked { claimed_by: sent.claimed_by, evidence: sent.evidence, statement, event: event.as_ref() };
        let answer = match self.identities.prove(asked).await {
            Err(unavailable) if caller.origin().attempt >= PROVIDER_ATTEMPTS_MAX => {
                return Signed::refused(sent.claimed_by, format!("{unavailable}; send this one again later"));
            }
            answer => answer?,
        };
        match answer {
            Ok(proved) => self.first_to_bring(caller, run, &sent, event, Signed::proved(proved)).await,
            Err(unproved) if on(Guard::Proved) => Signed::refused(sent.claimed_by, unproved.to_string()),
            Err(_) => Ok(Signed { refused: None, ..Signed::refused(sent.claimed_by, String::new())? }),
        }
    }

    /// Whether an earlier message of this run carried the same evidence, where that matters: looked up for what is proved
    /// alone, since anybody can send what is not.
    async fn first_to_bring(
        &self,
        caller: &Caller,
        run: &Admitted,
        sent: &SentMessage<'_>,
        event: Option<MessageEvent>,
        signed: Signed,
    ) -> Result<Signed, ActivityFailure> {
        let (Some(once), true) = (&signed.once, sent.said.needs_first(sent.evidence)) else { return Ok(signed) };
        let event = match event {
            Some(event) => event,
            None => match self.find_event(caller, run, sent).await? {
                Ok(event) => event,
                Err(reason) => return Signed::refused(sent.claimed_by, reason),
            },
        };
        let run_id = sent.arrival.map_or(caller.run_id.as_str(), |arrival| arrival.run_id.as_str());
        let came_before = event.earlier.contains(once) || self.came_in_before(run, run_id, once).await?;
        Ok(Signed { came_before, ..signed })
    }

    /// Whether evidence came in to an execution before this one, as far as the server still has them.
    async fn came_in_before(&self, run: &Admitted, run_id: &str, once: &Digest) -> Result<bool, ActivityFailure> {
        let RunChain { workflow_id, first_run_id } = &run.chain;
        let mut run_id = run_id.to_owned();
        // Nothing came before the first execution, and most runs have no other.
        while run_id != *first_run_id
            && let Some(started) = self.executions.started(workflow_id, &run_id).await?
            && let Some(before) = started.continued_run_id
        {
            let carried = self.executions.evidence(workflow_id, &before).await?;
            if carried.is_some_and(|carried| carried.contains(once)) {
                return Ok(true);
            }
            run_id = before;
        }
        Ok(false)
    }

    /// Whether something in the event of a message is needed to prove it: who sent it, or when it was accepted.
    fn asks_for_event(&self, caller: &Caller, sent: &SentMessage<'_>) -> bool {
        let late = sent.expires_ms.is_some_and(|expires_ms| caller.now_ms() >= expires_ms);
        late || self.identities.asks_for_events()
    }

    /// Finds the event of a message in the history of the execution that it is said to have come in to.
    async fn find_event(
        &self,
        caller: &Caller,
        run: &Admitted,
        sent: &SentMessage<'_>,
    ) -> Result<Found, ActivityFailure> {
        let Some(arrival) = sent.arrival else {
            return Ok(Err("the run does not say where the message came in".to_owned()));
        };
        if !sent.said.comes_as(&arrival.name) {
            return Ok(Err("it is no message of the kind that it came in as".to_owned()));
        }
        if !self.is_own(caller, run, &arrival.run_id).await? {
            return Ok(Err(format!("execution `{}` is none of this run", arrival.run_id)));
        }
        let workflow_id = &run.chain.workflow_id;
        let found = self.executions.message(workflow_id, &arrival.run_id, &arrival.name, arrival.ordinal).await?;
        Ok(match found {
            Some(event) if (sent.is_same)(Lenient::json(event.payload.clone())) => Ok(event),
            Some(_) => Err("its event in history says something else".to_owned()),
            None => Err("history has no event of it".to_owned()),
        })
    }

    /// Whether a message came in to an execution of this run: the input is a claim. One that waited and passed on all it
    /// heard had no activity, so that the store does not know it, and the server is asked.
    async fn is_own(&self, caller: &Caller, run: &Admitted, run_id: &str) -> Result<bool, ActivityFailure> {
        if run_id == caller.run_id {
            return Ok(true);
        }
        if let Some(chain) = self.store.execution(run_id).await? {
            return Ok(chain == run.chain);
        }
        let started = self.executions.started(&run.chain.workflow_id, run_id).await?;
        Ok(started.is_some_and(|started| started.first_run_id == run.chain.first_run_id))
    }

    /// What a person says who tells a run something.
    pub(super) fn instruction_statement(
        run: &Admitted,
        kind: InstructionKind,
        about: Option<&str>,
        text: Option<&str>,
        message_id: Option<&str>,
    ) -> Result<Statement, CanonicalError> {
        let message_id = message_id.unwrap_or_default();
        Statement::instruction(&InstructionSaid { run: &run.chain, message_id, kind, about, text })
    }
}
