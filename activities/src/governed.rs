//! The governed path.

pub mod permit;

pub use permit::{ClaimRanOut, RecordedPermit};
