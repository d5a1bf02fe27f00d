//! What a worker knows from its configuration: agents, tools, tool servers, models, groups, policies. Built by the
//! program's configuration loader; read by the activities.

use std::{collections::BTreeMap, path::PathBuf};

use mandate_domain::{AgentDefinition, AgentName, ModelName, ProviderName, ServerName, ToolDefinition, ToolName};

use crate::{egress::InternalHost, identity::IdentitySettings};

mod remote;

pub use remote::{HeaderSetting, RemoteSettings, Speaks};

/// Everything that configuration defines.
#[derive(Debug)]
pub struct Catalog {
    /// Agents by full name.
    pub agents: BTreeMap<AgentName, AgentDefinition>,
    /// Tools by name.
    pub tools: BTreeMap<ToolName, ToolDefinition>,
    /// MCP servers that the worker starts, by name.
    pub servers: BTreeMap<ServerName, ServerSettings>,
    /// Servers that are reached over HTTP, by name. No name is in both.
    pub remotes: BTreeMap<ServerName, RemoteSettings>,
    /// Models by name.
    pub models: BTreeMap<ModelName, ModelSettings>,
    /// What is accepted as proof of who sent a message.
    pub identity: IdentitySettings,
    /// The webhook that is told of requests and questions, if there is one.
    pub notify: Option<NotifySettings>,
}

/// The webhook that is told of requests and questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Where it is.
    pub url: String,
    /// What messages are signed with, the current secret first. A second one is for while a secret is rotated.
    pub secrets: Vec<SecretRef>,
    /// Hosts with internal addresses that may be told, beside this machine.
    pub allow_internal: Vec<InternalHost>,
    /// Longest time that a receiver may take, in seconds.
    pub timeout_secs: u64,
}

/// How an MCP server is started (stdio).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// The program: an absolute path, found by the configuration loader.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment beside `PATH` and `HOME`. Values may be secret references.
    pub env: BTreeMap<String, EnvValue>,
    /// The folder it runs in: the operating folder.
    pub directory: PathBuf,
    /// Longest time to connect, in seconds.
    pub connect_timeout_secs: u64,
    /// Largest message of the server, and so largest result, in bytes as it arrives. A larger one is left out.
    pub answer_max_bytes: u64,
    /// The program `mandate`, under whose `sandbox-exec` it runs.
    pub supervisor: PathBuf,
    /// What each of its processes may use.
    pub limits: ProcessLimits,
}

/// What each process of an MCP server may use. None leaves the worker's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Memory that it may write to, in bytes.
    pub memory_max_bytes: Option<u64>,
    /// Processor time, in seconds.
    pub cpu_max_secs: Option<u64>,
    /// Open files, sockets and pipes.
    pub open_files_max: Option<u64>,
    /// Size of a file that it writes, in bytes.
    pub file_max_bytes: Option<u64>,
}

impl Default for ProcessLimits {
    /// No bound on processor time: a server may live as long as its worker.
    fn default() -> Self {
        Self {
            memory_max_bytes: Some(4 << 30),
            cpu_max_secs: None,
            open_files_max: Some(4096),
            file_max_bytes: Some(1 << 30),
        }
    }
}

/// The value of an environment variable of a tool server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// The text itself.
    Plain(String),
    /// A secret, resolved when the server is started.
    Secret(SecretRef),
}

/// Where a secret stands. Configuration holds references, never secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable of the worker.
    Env(String),
    /// `file:PATH`: the content of a file, without the newline at its end.
    File(PathBuf),
    /// `exec:PROGRAM ARG…`: what a program prints, without the newline at its end.
    Exec(Vec<String>),
}

/// A configured model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSettings {
    /// Replies read from a file.
    Scripted {
        /// The file.
        script: PathBuf,
    },
    /// OpenAI Chat Completions, and whatever speaks it.
    OpenAi {
        /// Base URL, up to and without `/chat/completions`.
        base_url: String,
        /// The provider's name of the model, sent as it is.
        model: String,
        /// The key; none for servers that want none.
        api_key: Option<SecretRef>,
        /// Longest answer, in tokens.
        max_output_tokens: u64,
        /// What tokens cost, if known.
        price: Option<Price>,
    },
}

impl ModelSettings {
    /// Who receives what the model is told; none if the base URL names no host.
    #[must_use]
    pub fn provider(&self) -> Option<ProviderName> {
        match self {
            Self::Scripted { .. } => ProviderName::parse("scripted").ok(),
            Self::OpenAi { base_url, .. } => {
                let (_, rest) = base_url.split_once("://")?;
                ProviderName::parse(rest.split(['/', '?', '#']).next()?.to_ascii_lowercase()).ok()
            }
        }
    }
}

/// Price of tokens, in millionths of the organisation's currency for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// For a million input tokens.
    pub input_micros_per_million: u64,
    /// For a million output tokens.
    pub output_micros_per_million: u64,
}
