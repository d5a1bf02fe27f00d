//! Policy as code: Cedar, with a third answer, "people decide first", and a fourth, "but not these fields".
//!
//! The rules (default deny; `forbid` wins; an evaluation error denies; a gate is a `forbid` that opens when its own id
//! is among the approved) stand in `policy/engine.rs`. This file holds what is asked and what is answered.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    AgentName, DataClass, DecisionOutcome, Digest, GroupName, ModelName, PersonId, PolicyId, QuarantineTarget,
    RunFacts, ToolDefinition, Verdict, approval::Gate, audit::NoticeKind,
};

pub mod applying;
pub mod backtest;
pub mod bundle;
pub mod case;
mod engine;
mod error;
mod gate;
mod lint;
mod question;
mod reads;
mod registry;
mod schema;
pub(crate) mod shape;

pub use bundle::{
    BundleFiles, LoadPolicyError, Location, PolicyBundle, PolicyProblem, PolicyScope, PolicySource, WrittenGate,
};
pub use registry::Registry;
pub use shape::Unmapped;

/// What policy is asked about an effect of a run. The principal is the agent.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRequest<'a> {
    /// The agent that acts.
    pub agent: &'a AgentName,
    /// The owner of the agent.
    pub agent_owner: &'a PersonId,
    /// The person it acts for.
    pub on_behalf_of: &'a PersonId,
    /// Where the request comes from.
    pub workflow_id: &'a str,
    /// What it wants to do.
    pub action: PolicyAction<'a>,
    /// What happened in the run, as it would stand if this were done. From the audit chain only.
    pub facts: &'a RunFacts,
    /// Gates whose approvals are complete. Filled by the runtime only.
    pub approved: &'a BTreeSet<PolicyId>,
}

/// What an agent wants to do.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyAction<'a> {
    /// Call a tool.
    CallTool {
        /// The tool, as registered.
        tool: &'a ToolDefinition,
        /// Arguments that satisfy the tool's schema.
        arguments: &'a Map<String, Value>,
    },
    /// Call a model, which reads the transcript.
    InvokeModel {
        /// The configured model.
        model: &'a ModelName,
    },
    /// Tell the configured webhook of a request or a question.
    Notify {
        /// What there is to tell.
        kind: NoticeKind,
    },
}

/// What policy is asked about an act of a person. The principal is that person.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonRequest<'a> {
    /// Who acts.
    pub person: &'a PersonId,
    /// What they want to do.
    pub action: PersonAction<'a>,
}

/// What a person wants to do.
#[derive(Debug, Clone, PartialEq)]
pub enum PersonAction<'a> {
    /// Start a run of an agent.
    StartRun {
        /// The run to be.
        run: RunOf<'a>,
    },
    /// Decide about a request for approval.
    Decide {
        /// The run.
        run: RunOf<'a>,
        /// The call's tool.
        tool: &'a ToolDefinition,
        /// The gate.
        gate: &'a PolicyId,
        /// What they say.
        verdict: Verdict,
    },
    /// Say what became of a call.
    Resolve {
        /// The run.
        run: RunOf<'a>,
        /// The call's tool.
        tool: &'a ToolDefinition,
    },
    /// Answer a question of the agent.
    Answer {
        /// The run.
        run: RunOf<'a>,
        /// The tool that asks.
        tool: &'a ToolDefinition,
    },
    /// Give the agent a further instruction.
    Steer {
        /// The run.
        run: RunOf<'a>,
    },
    /// Keep the run from beginning anything new.
    Pause {
        /// The run.
        run: RunOf<'a>,
    },
    /// Let a paused run go on.
    Resume {
        /// The run.
        run: RunOf<'a>,
    },
    /// Put something into quarantine.
    Quarantine(&'a QuarantineTarget),
    /// Take something out of quarantine.
    LiftQuarantine(&'a QuarantineTarget),
    /// Make a bundle the active one.
    Apply {
        /// Whether it was active before.
        rollback: bool,
    },
}

/// The run that a person's act is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOf<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// The owner of the agent.
    pub agent_owner: &'a PersonId,
    /// The person it acts for.
    pub on_behalf_of: &'a PersonId,
    /// Its workflow id.
    pub workflow_id: &'a str,
}

/// Who would see data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer<'a> {
    /// The agent, through a model.
    Agent {
        /// The agent.
        agent: &'a AgentName,
        /// Its owner.
        agent_owner: &'a PersonId,
        /// The model that is told.
        model: &'a ModelName,
    },
    /// The people of a group, on a request card.
    Group(&'a GroupName),
    /// Whoever may read the event history of the run: the Web UI, queries, the Temporal CLI.
    History,
    /// Whoever reads the final answer of the run.
    Answer,
}

/// What policy answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDecision {
    /// The answer.
    pub outcome: PolicyOutcome,
    /// The policies that determined it; empty when nothing permits.
    pub policies: Vec<PolicyId>,
    /// The bundle that was asked.
    pub bundle: Digest,
    /// In a sentence: the `@reason` of the determining policies, or what is missing.
    pub reason: String,
}

/// The answers about an effect. The answers about data are the classes that may be seen: [`PolicyBundle::revealed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyOutcome {
    /// It may be performed.
    Allow,
    /// It may not.
    Deny,
    /// It may be performed once all these gates are open.
    RequireApproval(Vec<Gate>),
}

impl PolicyDecision {
    /// Whether it may be performed now.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self.outcome, PolicyOutcome::Allow)
    }
}

impl PolicyOutcome {
    /// As an audit record has it.
    #[must_use]
    pub fn recorded(&self) -> DecisionOutcome {
        match self {
            Self::Allow => DecisionOutcome::Allow,
            Self::Deny => DecisionOutcome::Deny,
            Self::RequireApproval(_) => DecisionOutcome::RequireApproval,
        }
    }
}

impl PolicyBundle {
    /// Decides about an effect. Pure, and never an error: what cannot be judged is denied, with the reason.
    #[must_use]
    pub fn decide(&self, request: &PolicyRequest<'_>) -> PolicyDecision {
        engine::decide(self, question::of_agent(self, request), request.approved)
    }

    /// Decides about an act of a person. Never [`PolicyOutcome::RequireApproval`]: only a tool call can wait for people.
    #[must_use]
    pub fn decide_person(&self, request: &PersonRequest<'_>) -> PolicyDecision {
        engine::decide_at_once(self, question::of_person(self, request))
    }

    /// Which of the classes the viewer may see. Default deny: what cannot be judged is not seen.
    #[must_use]
    pub fn revealed(
        &self,
        viewer: &Viewer<'_>,
        on_behalf_of: &PersonId,
        classes: &BTreeSet<DataClass>,
    ) -> BTreeSet<DataClass> {
        let sees = |class: &&DataClass| self.decide_reveal(viewer, on_behalf_of, class).is_allowed();
        classes.iter().filter(sees).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
