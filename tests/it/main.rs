//! The one integration binary.

mod mcp;
#[cfg(test)]
mod path;
