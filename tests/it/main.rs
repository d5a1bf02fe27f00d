//! The one integration binary: what a run does, seen from outside, on a real Temporal server with real workers and real
//! MCP servers. In reading order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "this crate is test code: a panic is how a test fails"
)]

mod approval;
mod attributes;
mod backup;
mod bad_input;
mod bad_servers;
mod cancel_halt;
mod clock;
mod commands;
mod compensation;
mod compile_fail;
mod completes;
mod compose;
mod continue_as_new;
mod control;
mod decisions;
mod denial;
mod docs;
mod doctor;
mod edits;
mod filesystem_server;
mod frozen;
mod full_disk;
mod gate_times;
mod history_size;
#[cfg(test)]
mod hostile;
mod identity;
mod intrusion;
mod junk;
mod kill;
mod large_results;
mod many_waiting;
mod many_workers;
mod mcp;
mod metrics;
mod notifications;
mod operating;
mod operations;
mod outages;
#[cfg(test)]
mod partition;
mod path;
mod policies;
mod postgres;
mod principal;
mod questions;
mod races;
mod reconciler;
mod remote_tools;
mod replay;
mod resets;
mod resolved;
mod revocation;
mod sandbox;
mod server_questions;
mod stopping;
mod store_chain;
mod tidy;
mod tools_page;
mod web_ui;
