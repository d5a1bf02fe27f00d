//! The program `mandate`: configuration, commands, wiring. It decides nothing.

pub mod config;
pub mod dev_server;
pub mod search_attributes;
