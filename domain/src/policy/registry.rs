//! What policies are checked against and judged by: the tools, models, groups, agents and data classes that configuration
//! names. A bundle carries its registry, so that every worker judges by the same one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{AgentName, DataClass, GroupName, ModelName, PersonId, ProviderName, ServerName, ToolDefinition, ToolName};

/// Everything that a policy may name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// The registered tools.
    pub tools: BTreeMap<ToolName, ToolDefinition>,
    /// The configured models, each with the provider that receives what it is told.
    pub models: BTreeMap<ModelName, ProviderName>,
    /// Members of each group of people.
    pub groups: BTreeMap<GroupName, Vec<PersonId>>,
    /// The configured agents.
    pub agents: BTreeSet<AgentName>,
    /// The data classes, each with what it holds; `unclassified` is always there.
    pub data_classes: BTreeMap<DataClass, String>,
}

impl Registry {
    /// The groups that a person is a member of.
    #[must_use]
    pub fn groups_of(&self, person: &PersonId) -> Vec<GroupName> {
        self.groups.iter().filter(|(_, members)| members.contains(person)).map(|(name, _)| name.clone()).collect()
    }

    /// The servers that tools are reached by.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<&ServerName> {
        self.tools.values().filter_map(server_of).collect()
    }

    /// All data classes.
    #[must_use]
    pub fn classes(&self) -> BTreeSet<DataClass> {
        self.data_classes.keys().cloned().chain([DataClass::unclassified()]).collect()
    }
}

/// The server that a tool is reached by; none for a built-in tool.
pub(super) fn server_of(tool: &ToolDefinition) -> Option<&ServerName> {
    tool.reach.server()
}
