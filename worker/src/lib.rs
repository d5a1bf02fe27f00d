//! mandate worker

pub mod dev_server;
pub mod search_attributes;
