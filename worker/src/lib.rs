//! The `mandate` program: configuration, commands, registration, shutdown. It decides nothing.

pub mod config;
