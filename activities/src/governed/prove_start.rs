//! Who starts a run and whom it acts for, and how each is proved: by what stands in the start input, or by what the server
//! stamped on the execution's first event.

use mandate_domain::{AgentTask, Digest, Evidence, PersonId, Proof, RecordBody, RunChain, Statement, proof::StartSaid};

use super::Governed;
use crate::{
    executions::{MessageEvent, StartedExecution},
    failure::ActivityFailure,
    guards::{Guard, on},
    identity::{Asked, Proved, Unproved},
    store::Tx,
};

/// The people of a start, as far as they are proved.
#[derive(Debug, Clone)]
pub(super) struct Starters {
    /// Whoever started it.
    pub(super) starter: Someone,
    /// The person that it acts for.
    pub(super) person: Someone,
}

/// What is said at a start, and the event that brought it.
struct Start<'a> {
    statement: &'a Statement,
    event: &'a MessageEvent,
}

/// A person, and how they are proved.
#[derive(Debug, Clone)]
pub(super) struct Someone {
    pub(super) by: PersonId,
    pub(super) proof: Proof,
    /// What proved it, in a line.
    pub(super) evidence: Option<String>,
    /// What may be used once.
    pub(super) once: Option<Digest>,
}

impl From<Proved> for Someone {
    fn from(proved: Proved) -> Self {
        let Proved { by, proof, evidence, once } = proved;
        Self { by, proof, evidence, once }
    }
}

impl Someone {
    fn claimed(by: &PersonId) -> Self {
        Self { by: by.clone(), proof: Proof::Claimed, evidence: None, once: None }
    }
}

impl Starters {
    /// Whoever started it, if it was somebody else than the person it acts for.
    pub(super) fn other(&self) -> Option<&Someone> {
        (self.starter.by != self.person.by).then_some(&self.starter)
    }
}

impl Governed {
    /// Finds out who starts a run. A start whose people are not proved is recorded and refused where that is needed, and
    /// one with a proof that does not hold always.
    pub(super) async fn prove_start(
        &self,
        chain: &RunChain,
        started: &StartedExecution,
        task: &AgentTask,
    ) -> Result<Starters, ActivityFailure> {
        let said = StartSaid {
            agent: &task.agent,
            prompt: &task.prompt,
            on_behalf_of: &task.on_behalf_of,
            workflow_id: &chain.workflow_id,
        };
        let statement = Statement::start(&said)?;
        let start = Start { statement: &statement, event: &started.message() };
        let named = task.started_by.as_ref().unwrap_or(&task.on_behalf_of);
        // What a server without principals is told counts as everywhere else.
        let by_principal = self.identities.settings().accepts(Proof::Principal)
            && task.started_by_proof.is_none()
            && started.principal.is_some();
        let proved = if by_principal {
            // The server says who it is: a start input that names nobody else may leave it to that.
            match self.prove_at_start(&start, task.started_by.as_ref(), &Evidence::none()).await? {
                Ok(proved) => Ok(proved.into()),
                Err(_) if !on(Guard::StarterProved) => Ok(Someone::claimed(named)),
                Err(unproved) => Err(unproved.to_string()),
            }
        } else if task.started_by.as_ref().is_some_and(|starter| *starter != task.on_behalf_of) {
            self.given(&start, named, &task.started_by_proof).await?
        } else {
            self.given(&start, named, &task.proof).await?
        };
        let whoever = match proved {
            Ok(someone) => someone,
            Err(reason) => return Err(self.refuse_unproved(task, named, reason).await?),
        };
        let person = if whoever.by == task.on_behalf_of {
            Ok(whoever.clone())
        } else {
            self.given(&start, &task.on_behalf_of, &task.proof).await?
        };
        let person = match person {
            Ok(person) => person,
            Err(reason) => return Err(self.refuse_unproved(task, &whoever.by, reason).await?),
        };
        let starters = Starters { starter: whoever, person };
        match self.unproved(&starters) {
            Some(reason) => Err(self.refuse_unproved(task, &starters.starter.by, reason).await?),
            None => Ok(starters),
        }
    }

    async fn prove_at_start(
        &self,
        start: &Start<'_>,
        claimed_by: Option<&PersonId>,
        evidence: &Evidence,
    ) -> Result<Result<Proved, Unproved>, ActivityFailure> {
        let asked = Asked { claimed_by, evidence, statement: start.statement, event: Some(start.event) };
        Ok(self.identities.prove(asked).await?)
    }

    /// A person with what the start input brings for them: nothing is a claim, and what does not hold is refused.
    async fn given(
        &self,
        start: &Start<'_>,
        by: &PersonId,
        evidence: &Evidence,
    ) -> Result<Result<Someone, String>, ActivityFailure> {
        if evidence.is_none() {
            return Ok(Ok(Someone::claimed(by)));
        }
        Ok(match self.prove_at_start(start, Some(by), evidence).await? {
            Ok(proved) => Ok(proved.into()),
            Err(_) if !on(Guard::StarterProved) => Ok(Someone::claimed(by)),
            Err(unproved) => Err(unproved.to_string()),
        })
    }

    /// Who is not proved although the folder asks for it.
    fn unproved(&self, starters: &Starters) -> Option<String> {
        if !self.identities.settings().strict || !on(Guard::StarterProved) {
            return None;
        }
        let claimed = |someone: &Someone| someone.proof == Proof::Claimed;
        if claimed(&starters.starter) {
            Some(format!("it is not proved that `{}` starts it", starters.starter.by))
        } else if claimed(&starters.person) {
            Some(format!("it is not proved that `{}` wants it done on their behalf", starters.person.by))
        } else {
            None
        }
    }

    /// Whether a proof of the start was used for another one. A start is good once: the workflow id can be used again.
    pub(super) async fn used_before(
        &self,
        tx: &mut Tx,
        starters: &Starters,
    ) -> Result<Option<String>, ActivityFailure> {
        let used = [(&starters.person, "open/person"), (&starters.starter, "open/starter")];
        for (someone, key) in used {
            let own = someone
                .once
                .as_ref()
                .filter(|once| key == "open/person" || Some(*once) != starters.person.once.as_ref());
            if let Some(once) = own
                && !tx.use_proof(once, key).await?
                && on(Guard::ProofOnce)
            {
                return Ok(Some("the proof was used for another start, and it is good once".to_owned()));
            }
        }
        Ok(None)
    }

    /// Records a start by whoever is not proved in the store's own chain: the run was never opened and has none.
    pub(super) async fn refuse_unproved(
        &self,
        task: &AgentTask,
        by: &PersonId,
        reason: String,
    ) -> Result<ActivityFailure, ActivityFailure> {
        let body = RecordBody::OperatorRefused {
            action: "start_run".to_owned(),
            target: format!("agent:{} for {}", task.agent, task.on_behalf_of),
            by: by.clone(),
            proof: Proof::Claimed,
            policies: Vec::new(),
            bundle: None,
            reason: reason.clone(),
        };
        self.store.begin_own().await?.commit(by, Proof::Claimed, &self.holder, body).await?;
        Ok(ActivityFailure::StarterUnproved { agent: task.agent.clone(), reason })
    }
}
