//! Deterministic orchestration: [`AgentWorkflow`] and the activity contract.
//!
//! What replay asks of this crate: the same history gives the same commands. So there is no clock but the workflow's,
//! no randomness, no unordered iteration, no I/O and no tokio here (`clippy.toml` bans them), and no policy either:
//! policy runs inside the activities, and its answer is in history.

pub mod agent;
pub mod contract;
pub mod lenient;
pub mod reconcile;
pub mod search_attributes;
pub mod snapshot;

mod options;
mod task_set;

pub use agent::{AgentWorkflow, WORKFLOW_TYPE};
pub use reconcile::{RECONCILE_WORKFLOW_TYPE, ReconcileWorkflow};
