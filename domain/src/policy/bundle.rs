//! A validated policy bundle.
/// placeholder
#[derive(Debug)]
pub struct PolicyBundle;
/// placeholder
#[derive(Debug)]
pub struct PolicySource;
/// placeholder
#[derive(Debug)]
pub struct LoadPolicyError;
