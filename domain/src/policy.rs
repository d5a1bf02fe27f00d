//! Policy as code: Cedar, with a third answer, "people decide first".
//!
//! The rules (default deny; `forbid` wins; an evaluation error denies; a gate is a `forbid` that opens when its own id
//! is among the approved) stand in `policy/engine.rs`. This file holds what is asked and what is answered.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{AgentName, Digest, ModelName, PersonId, PolicyId, ToolDefinition, approval::Gate};

pub mod bundle;
mod engine;
mod error;
mod gate;
pub mod schema;

pub use bundle::{LoadPolicyError, Location, PolicyBundle, PolicyProblem, PolicySource};
pub use schema::Unmapped;

/// What policy is asked about one effect.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRequest<'a> {
    /// The agent that acts: the principal.
    pub agent: &'a AgentName,
    /// The owner of the agent.
    pub agent_owner: &'a PersonId,
    /// The person it acts for.
    pub on_behalf_of: &'a PersonId,
    /// Where the request comes from.
    pub workflow_id: &'a str,
    /// What it wants to do.
    pub action: PolicyAction<'a>,
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
    /// Call a model.
    InvokeModel {
        /// The configured model.
        model: &'a ModelName,
    },
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

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyOutcome {
    /// It may be performed.
    Allow,
    /// It may not.
    Deny,
    /// It may be performed once all these gates are open.
    RequireApproval(Vec<Gate>),
}

#[cfg(test)]
mod tests;
