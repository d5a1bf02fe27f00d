//! Effects, behind one governed path (`governed.rs` has the picture). Policy and audit run inside the activities, so
//! nothing can go around them: whoever schedules an activity can at most ask.

pub mod agent_activities;
pub mod catalog;
pub mod clock;
pub mod egress;
pub mod executions;
#[cfg(feature = "fault-injection")]
pub mod failpoints;
pub mod governed;
pub mod guards;
pub mod identity;
pub mod metrics;
pub mod models;
pub mod operator;
pub mod policy;
pub mod secrets;
pub mod store;
#[cfg(any(test, feature = "fault-injection"))]
pub mod test_postgres;
pub mod tools;
pub mod webhook;

mod caller;
mod failure;
mod heartbeat;
#[cfg(test)]
mod test_stores;

pub use agent_activities::{AgentActivities, Setup, SetupError};
pub use executions::{Executions, ServerExecutions};
pub use identity::{Identities, IdentitySettings};
pub use metrics::Metrics;
