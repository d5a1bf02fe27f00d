//! What `mandate check` says of a usable configuration.

use std::{collections::BTreeSet, path::PathBuf};

use mandate_activities::catalog::ModelSettings;
use mandate_domain::{AgentName, DataClass, Digest, ModelName, PersonId, Proof, ServerName, ToolDefinition, ToolName};
use serde::Serialize;

use super::{Config, Profile};

/// A configuration in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// What the folder is for.
    pub profile: Profile,
    /// What is accepted as proof of who sent a message.
    pub accepted_proofs: BTreeSet<Proof>,
    /// The agents.
    pub agents: Vec<AgentSummary>,
    /// The tools.
    pub tools: Vec<ToolSummary>,
    /// The tool servers.
    pub servers: Vec<ServerSummary>,
    /// The models.
    pub models: Vec<ModelSummary>,
    /// How many policy files there are.
    pub policy_files: usize,
    /// Digest of the policy bundle.
    pub bundle: Digest,
}

/// An agent in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentSummary {
    /// Full name.
    pub name: AgentName,
    /// Who answers for it.
    pub owner: PersonId,
    /// Its model.
    pub model: ModelName,
    /// The tools it is offered.
    pub tools: Vec<ToolName>,
}

/// A tool in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolSummary {
    /// Name in the registry.
    pub name: ToolName,
    /// It changes nothing.
    pub read_only: bool,
    /// The server it is part of; absent for a built-in tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// The data classes that its results carry.
    pub result_classes: BTreeSet<DataClass>,
}

/// A tool server in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerSummary {
    /// Its name.
    pub name: ServerName,
    /// The program that was found, of one that the worker starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Where it is, of one that is reached over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A model in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelSummary {
    /// Its name.
    pub name: ModelName,
    /// Its provider.
    pub provider: &'static str,
}

impl Config {
    /// The configuration in short.
    #[must_use]
    pub fn summary(&self) -> CheckSummary {
        CheckSummary {
            profile: self.profile,
            accepted_proofs: self.catalog.identity.accepted.clone(),
            agents: self.agents_in_short(),
            tools: self.tools_in_short(),
            servers: self.servers_in_short(),
            models: self.models_in_short(),
            policy_files: self.policy.sources().len(),
            bundle: self.policy.digest().clone(),
        }
    }

    fn agents_in_short(&self) -> Vec<AgentSummary> {
        let agents = self.catalog.agents.values().cloned();
        agents
            .map(|agent| AgentSummary { name: agent.name, owner: agent.owner, model: agent.model, tools: agent.tools })
            .collect()
    }

    fn tools_in_short(&self) -> Vec<ToolSummary> {
        let tools = self.catalog.tools.values();
        let summary = |tool: &ToolDefinition| ToolSummary {
            name: tool.name.clone(),
            read_only: tool.read_only,
            server: tool.reach.server().cloned(),
            result_classes: result_classes(tool),
        };
        tools.map(summary).collect()
    }

    fn servers_in_short(&self) -> Vec<ServerSummary> {
        let started = self.catalog.servers.iter().map(|(name, server)| ServerSummary {
            name: name.clone(),
            program: Some(server.program.clone()),
            url: None,
        });
        let remotes = self.catalog.remotes.iter();
        let remotes = remotes.map(|(name, remote)| ServerSummary {
            name: name.clone(),
            program: None,
            url: Some(remote.url.clone()),
        });
        started.chain(remotes).collect()
    }

    fn models_in_short(&self) -> Vec<ModelSummary> {
        let provider = |settings: &ModelSettings| match settings {
            ModelSettings::Scripted { .. } => "scripted",
            ModelSettings::OpenAi { .. } => "openai",
        };
        let models = self.catalog.models.iter();
        models.map(|(name, settings)| ModelSummary { name: name.clone(), provider: provider(settings) }).collect()
    }
}

/// What no label covers is unclassified: everything, unless one names the whole result.
fn result_classes(tool: &ToolDefinition) -> BTreeSet<DataClass> {
    let is_covered = tool.result_classes.keys().any(|path| path.as_str().is_empty());
    let rest = (!is_covered).then(DataClass::unclassified);
    tool.result_classes.values().cloned().chain(rest).collect()
}
