//! Tools: how a call reaches an MCP server or a built-in, and the three ends it can have.


pub mod builtin;
pub mod mcp;

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// What the model reads: the text content, or the structured content as JSON.
    pub text: String,
    /// The structured content, if there is one.
    pub structured: Option<serde_json::Value>,
    /// MCP `isError == true`.
    pub is_error: bool,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallToolError {
    /// Nothing was sent: the claim ran out, or the connection was gone before. The claim can be given back.
    #[error("tool `{tool}` was not called: {reason}")]
    NotSent {
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
    /// It was sent, or may have been, and no answer came. Whether it happened is unknown.
    #[error("tool `{tool}` did not answer: {reason}")]
    OutcomeUnknown {
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
}

