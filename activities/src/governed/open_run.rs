//! `open_run`: takes the task from the execution's first event, resolves the agent, pins what the run holds on to.

use std::collections::BTreeMap;

use mandate_domain::{
    AgentDefinition, AgentTask, ChainHead, Digest, Message, OpenedRun, Proof, RecordBody, RunChain, RunPins,
    ToolDefinition, ToolName, Who, canonical,
    policy::{PersonAction, PolicyDecision, RunOf},
    quarantine::first_hit,
};
use mandate_workflows::{
    contract::{OpenRunInput, OpenRunOutput},
    lenient::{Lenient, Start},
};

use super::{Governed, failpoint, judge::targets_of, prove_start::Starters};
use crate::{
    caller::Caller,
    executions::StartedExecution,
    failure::ActivityFailure,
    guards::{Guard, on},
    heartbeat::Heartbeat,
    store::{NewRun, Tx},
    tools::PrepareToolError,
};

/// What a run is opened with.
struct Opening<'a> {
    task: &'a AgentTask,
    agent: &'a AgentDefinition,
    tools: Vec<ToolDefinition>,
    starters: &'a Starters,
}

impl Governed {
    /// Opens the run of the caller's execution. Opened before, it is given back as it is.
    pub(crate) async fn open_run(
        &self,
        caller: &Caller,
        _input: &OpenRunInput,
    ) -> Result<OpenRunOutput, ActivityFailure> {
        let _heartbeat = Heartbeat::start(caller);
        let started = self.first_event(caller).await?;
        let chain = RunChain { workflow_id: caller.workflow_id.clone(), first_run_id: started.first_run_id.clone() };
        if let Some(row) = self.store.run(&chain).await? {
            return Ok(OpenRunOutput { opened: row.opened, audit: row.head });
        }
        if started.first_run_id != caller.run_id && on(Guard::FirstExecution) {
            let reason = format!("run `{chain}` is continued and was never opened in this store");
            return Err(self.intrusion(caller, reason).await?);
        }
        let task = task_of(&started)?;
        let agent = self.resolve_agent(&task)?;
        let starters = self.prove_start(&chain, &started, &task).await?;
        let tools = self.resolve_tools(agent).await?;
        let opening = Opening { task: &task, agent, tools, starters: &starters };
        self.record_opening(caller, chain, opening).await
    }

    fn resolve_agent(&self, task: &AgentTask) -> Result<&AgentDefinition, ActivityFailure> {
        self.catalog.agents.get(&task.agent).ok_or_else(|| {
            let known: Vec<_> = self.catalog.agents.keys().map(ToString::to_string).collect();
            ActivityFailure::UnknownAgent { agent: task.agent.clone(), known: known.join(", ") }
        })
    }

    /// The offered tools, each compared with what its server offers now. Those in quarantine are left alone: nobody calls
    /// them, and whoever does after that is over compares them first.
    async fn resolve_tools(&self, agent: &AgentDefinition) -> Result<Vec<ToolDefinition>, ActivityFailure> {
        let list = self.store.quarantine_list().await?;
        let mut tools = Vec::with_capacity(agent.tools.len());
        for name in &self.pinned_names(agent) {
            let Some(tool) = self.catalog.tools.get(name) else {
                let reason = format!("tool `{name}` is not registered");
                return Err(ActivityFailure::BrokenAgent { agent: agent.name.clone(), reason });
            };
            if on(Guard::Quarantine) && first_hit(&list, &targets_of(tool)).is_some() {
                tools.push(tool.clone());
                continue;
            }
            match self.tools.prepare(tool).await {
                Ok(_) => tools.push(tool.clone()),
                Err(error @ PrepareToolError::Unreachable { .. }) => return Err(error.into()),
                Err(error @ (PrepareToolError::Unknown { .. } | PrepareToolError::Changed { .. })) => {
                    let reason = error.to_string();
                    return Err(ActivityFailure::BrokenAgent { agent: agent.name.clone(), reason });
                }
            }
        }
        Ok(tools)
    }

    /// The tools that are offered, and those that undo calls of them where the agent wants that.
    fn pinned_names(&self, agent: &AgentDefinition) -> Vec<ToolName> {
        let mut names = agent.tools.clone();
        if !agent.compensate.is_empty() {
            let undo = |name: &ToolName| Some(self.catalog.tools.get(name)?.undo.as_ref()?.tool.clone());
            for name in agent.tools.iter().filter_map(undo) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    fn pins(
        &self,
        agent: &AgentDefinition,
        tools: &[ToolDefinition],
        bundle: Digest,
    ) -> Result<RunPins, ActivityFailure> {
        let mut digests = BTreeMap::new();
        for tool in tools {
            digests.insert(tool.name.clone(), tool.digest()?);
        }
        Ok(RunPins {
            store: self.store.id().clone(),
            agent_version: canonical::digest(agent)?,
            instructions: canonical::sha256(agent.instructions.as_bytes()),
            model: agent.model.clone(),
            tools: digests,
            bundle,
        })
    }

    /// Whether whoever starts the run may.
    async fn judge_start(
        &self,
        tx: &mut Tx,
        chain: &RunChain,
        opening: &Opening<'_>,
    ) -> Result<PolicyDecision, ActivityFailure> {
        let agent = opening.agent;
        let run = RunOf {
            agent: &agent.name,
            agent_owner: &agent.owner,
            on_behalf_of: &opening.task.on_behalf_of,
            workflow_id: &chain.workflow_id,
        };
        self.judge_person(tx, &opening.starters.starter.by, PersonAction::StartRun { run }).await
    }

    /// Records a refused start in the store's own chain: the run was never opened and has none.
    async fn refuse_start(
        &self,
        opening: &Opening<'_>,
        decision: PolicyDecision,
    ) -> Result<ActivityFailure, ActivityFailure> {
        let (task, starter) = (opening.task, &opening.starters.starter);
        let (by, proof, reason) = (starter.by.clone(), starter.proof, decision.reason);
        let body = RecordBody::OperatorRefused {
            action: "start_run".to_owned(),
            target: format!("agent:{} for {}", task.agent, task.on_behalf_of),
            by: by.clone(),
            proof,
            policies: decision.policies,
            bundle: Some(decision.bundle),
            reason: reason.clone(),
        };
        self.store.begin_own().await?.commit(&by, proof, &self.holder, body).await?;
        Ok(ActivityFailure::StartDenied { by, agent: task.agent.clone(), reason })
    }

    async fn record_opening(
        &self,
        caller: &Caller,
        chain: RunChain,
        opening: Opening<'_>,
    ) -> Result<OpenRunOutput, ActivityFailure> {
        let (task, agent, starters) = (opening.task, opening.agent, opening.starters);
        let tenant = agent.name.tenant();
        let mut tx = self.store.begin(&chain).await?;
        let started = self.judge_start(&mut tx, &chain, &opening).await?;
        if !started.is_allowed() && on(Guard::Starter) {
            drop(tx);
            return Err(self.refuse_start(&opening, started).await?);
        }
        if let Some(reason) = self.used_before(&mut tx, starters).await? {
            drop(tx);
            return Err(self.refuse_unproved(task, &starters.starter.by, reason).await?);
        }
        let tools = opening.tools;
        let pins = self.pins(agent, &tools, started.bundle)?;
        let tool_digests = canonical::digest(&pins.tools)?;
        let prompt = tx.put_content(tenant, &task.prompt).await?;
        let system = Message::System { text: agent.instructions.clone() };
        let system = tx.append_message(tenant, None, &system).await?;
        let user = Message::User { text: task.prompt.clone() };
        let transcript = tx.append_message(tenant, Some(&system), &user).await?;
        let other = starters.other();
        let opened = OpenedRun {
            run: chain.clone(),
            pins: pins.clone(),
            limits: agent.limits,
            transcript,
            starter: other.map(|other| other.by.clone()),
            starter_proof: other.map_or(Proof::Claimed, |other| other.proof),
            proof: starters.person.proof,
            accepts: self.identities.settings().accepted.iter().copied().collect(),
            notifies: self.catalog.notify.is_some(),
            namespace_id: self.executions.namespace_id().await?,
            compensate: agent.compensate.clone(),
        };
        let on_behalf_of = task.on_behalf_of.clone();
        let new = NewRun {
            agent: agent.name.clone(),
            on_behalf_of,
            opened: opened.clone(),
            definition: agent.clone(),
            tools,
        };
        tx.open_run(&new).await?;
        tx.accept_execution(&caller.run_id).await?;
        let who = Who {
            agent: agent.name.clone(),
            agent_version: pins.agent_version,
            on_behalf_of: task.on_behalf_of.clone(),
            proof: starters.person.proof,
        };
        let (model, instructions, bundle, store) = (pins.model, pins.instructions, pins.bundle, pins.store);
        let body = RecordBody::RunOpened {
            prompt,
            model,
            instructions,
            tools: tool_digests,
            bundle,
            started_by: other.map(|other| other.by.clone()),
            started_by_proof: other.map(|other| other.proof).filter(|proof| *proof != Proof::Claimed),
            evidence: starters.person.evidence.clone(),
            started_by_evidence: other.and_then(|other| other.evidence.clone()),
            policies: started.policies,
            store,
        };
        tx.append(&who, caller.origin(), "open".to_owned(), body).await?;
        failpoint!("open.before_commit");
        let audit: ChainHead = tx.commit().await?;
        failpoint!("open.after_commit");
        Ok(OpenRunOutput { opened, audit })
    }
}

/// The task in the execution's start input, read by the same rules as the workflow reads it.
fn task_of(started: &StartedExecution) -> Result<AgentTask, ActivityFailure> {
    let invalid = |reason: String| ActivityFailure::InvalidInput { reason };
    let [input] = &started.input[..] else {
        return Err(invalid(format!("expected one JSON input, got {}", started.input.len())));
    };
    match Lenient::json(input.clone()).start().map_err(invalid)? {
        Start::Task(task) => Ok(*task),
        Start::Continued(_) => Err(invalid("a first execution cannot continue another".to_owned())),
    }
}
