//! The `mandate` program: configuration, commands, registration, shutdown. It decides nothing.

pub mod config;
pub mod dev_server;
pub mod search_attributes;
