//! Deterministic orchestration: `AgentWorkflow` and the activity contract.

pub mod contract;
