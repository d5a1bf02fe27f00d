//! Servers that are reached over HTTP, as configuration states them.

use std::collections::BTreeMap;

use super::SecretRef;
use crate::egress::InternalHost;

/// How a server is reached over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// What it speaks.
    pub speaks: Speaks,
    /// The base URL of HTTP tools, or the endpoint of an MCP server.
    pub url: String,
    /// What every request carries beside what the runtime itself states.
    pub headers: BTreeMap<String, HeaderSetting>,
    /// Hosts with internal addresses that may be reached. The URL's own host has to be one of them, or be public.
    pub allow_internal: Vec<InternalHost>,
    /// Longest time to connect, in seconds.
    pub connect_timeout_secs: u64,
    /// Most calls at a time. Others wait, before they are decided about.
    pub calls_max: u32,
}

/// What a server speaks over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Whatever its tools describe.
    Http,
    /// MCP, streamable HTTP.
    Mcp,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSetting {
    /// The text itself.
    Plain(String),
    /// A secret, with what stands before it, such as `Bearer `. Resolved before each decision about a call.
    Secret {
        /// What stands before it.
        prefix: String,
        /// The secret.
        reference: SecretRef,
    },
}
