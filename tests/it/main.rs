//! The one integration binary.

mod mcp;
