//! The agent run as a pure state machine.
/// placeholder
#[derive(Debug)]
pub struct AgentRun;
