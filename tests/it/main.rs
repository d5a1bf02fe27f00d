//! The one integration binary.

mod mcp;
mod path;
