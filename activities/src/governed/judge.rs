//! Where the path asks policy: inside the recording transaction, the bundle in force, quarantine before everything.

use std::{collections::BTreeSet, time::Instant};

use mandate_domain::{
    Address, PersonId, PolicyId, ProposedCall, QuarantineTarget, Quarantined, RunFacts, ToolCallId, ToolDefinition,
    policy::{PersonAction, PersonRequest, PolicyAction, PolicyDecision, PolicyOutcome, PolicyRequest, RunOf},
};

use super::{Admitted, Governed};
use crate::{
    failure::ActivityFailure,
    guards::{Guard, on},
    store::Tx,
};

impl Admitted {
    /// The run, as policies about people's acts see it.
    pub(super) fn about(&self) -> RunOf<'_> {
        RunOf {
            agent: &self.row.agent,
            agent_owner: &self.row.definition.owner,
            on_behalf_of: &self.row.on_behalf_of,
            workflow_id: &self.chain.workflow_id,
        }
    }
}

impl Governed {
    /// Whether an effect of a run may be performed.
    pub(super) async fn judge(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        action: PolicyAction<'_>,
        facts: &RunFacts,
        approved: &BTreeSet<PolicyId>,
    ) -> Result<PolicyDecision, ActivityFailure> {
        let mut touched = vec![
            QuarantineTarget::Agent(run.row.agent.clone()),
            QuarantineTarget::Person(run.row.on_behalf_of.clone()),
        ];
        if let PolicyAction::CallTool { tool, .. } = &action {
            touched.extend(targets_of(tool));
        }
        // Its calls too: they are its words, and a model is locked up because those are not trusted any more.
        touched.push(QuarantineTarget::Model(run.row.definition.model.clone()));
        if let Some(denied) = self.quarantined(tx, &touched).await? {
            return Ok(denied);
        }
        let bundle = self.policy.in_force(tx).await?;
        let began = Instant::now();
        let decision = bundle.decide(&PolicyRequest {
            agent: &run.row.agent,
            agent_owner: &run.row.definition.owner,
            on_behalf_of: &run.row.on_behalf_of,
            workflow_id: &run.chain.workflow_id,
            action,
            facts,
            approved,
        });
        self.metrics.decision_took(began.elapsed());
        Ok(decision)
    }

    /// Whether a person may do something.
    pub(super) async fn judge_person(
        &self,
        tx: &mut Tx,
        person: &PersonId,
        action: PersonAction<'_>,
    ) -> Result<PolicyDecision, ActivityFailure> {
        let mut touched = vec![QuarantineTarget::Person(person.clone())];
        if let PersonAction::StartRun { run } = &action {
            touched.push(QuarantineTarget::Agent(run.agent.clone()));
            touched.push(QuarantineTarget::Person(run.on_behalf_of.clone()));
        }
        if let Some(denied) = self.quarantined(tx, &touched).await? {
            return Ok(denied);
        }
        Ok(self.policy.in_force(tx).await?.decide_person(&PersonRequest { person, action }))
    }

    /// The refusal for what is touched, if any of it is in quarantine.
    pub(super) async fn quarantined(
        &self,
        tx: &mut Tx,
        touched: &[QuarantineTarget],
    ) -> Result<Option<PolicyDecision>, ActivityFailure> {
        let hit = tx.quarantined(touched).await?;
        self.denied_by(tx, hit).await
    }

    /// Denies a call that somebody released who is in quarantine by now.
    pub(super) async fn denied_for_approver(
        &self,
        tx: &mut Tx,
        call: ToolCallId,
        arguments: &Address,
    ) -> Result<Option<PolicyDecision>, ActivityFailure> {
        let hit = tx.approver_in_quarantine(call, arguments).await?;
        self.denied_by(tx, hit).await
    }

    /// Whether a tool or its server is in quarantine: then it is not even connected to.
    pub(super) async fn is_locked(&self, tx: &mut Tx, tool: &ToolDefinition) -> Result<bool, ActivityFailure> {
        Ok(on(Guard::Quarantine) && tx.quarantined(&targets_of(tool)).await?.is_some())
    }

    async fn denied_by(
        &self,
        tx: &mut Tx,
        hit: Option<Quarantined>,
    ) -> Result<Option<PolicyDecision>, ActivityFailure> {
        let Some(hit) = hit.filter(|_| on(Guard::Quarantine)) else { return Ok(None) };
        let reason = format!("`{}` is in quarantine: {}", hit.target, hit.reason);
        let bundle = self.policy.in_force(tx).await?.digest().clone();
        Ok(Some(PolicyDecision { outcome: PolicyOutcome::Deny, policies: Vec::new(), bundle, reason }))
    }

    /// The tool that a recorded call names, or that undoes it, if the run was offered it.
    pub(super) async fn tool_of<'a>(
        &self,
        run: &'a Admitted,
        call: ToolCallId,
    ) -> Result<Option<&'a ToolDefinition>, ActivityFailure> {
        let named = self.proposed(run, call).await?.map(|proposed| proposed.tool);
        let find = |name: Option<&str>| run.row.tools.iter().find(|tool| Some(tool.name.as_str()) == name);
        let tool = find(named.as_deref());
        if !call.undo {
            return Ok(tool);
        }
        Ok(find(tool.and_then(|tool| tool.undo.as_ref()).map(|undo| undo.tool.as_str())))
    }

    /// A call as the model proposed it, whichever revision of it is meant; none if no recorded reply has it.
    pub(super) async fn proposed(
        &self,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<Option<ProposedCall>, ActivityFailure> {
        let reply = self.store.reply(&run.chain, call.turn).await?;
        let index = usize::try_from(call.index).unwrap_or(usize::MAX);
        Ok(reply.and_then(|row| row.reply.calls.into_iter().nth(index)))
    }
}

/// A tool and the server it is reached by.
pub(super) fn targets_of(tool: &ToolDefinition) -> Vec<QuarantineTarget> {
    let server = tool.reach.server().cloned().map(QuarantineTarget::Server);
    std::iter::once(QuarantineTarget::Tool(tool.name.clone())).chain(server).collect()
}
