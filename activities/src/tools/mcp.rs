//! tools/mcp
