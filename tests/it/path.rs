//! The governed path through its real activities, on a real store and a real MCP server, without a Temporal server:
//! the tests schedule activities by hand, as the workflow would, and as it never would.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects and fails on everything else")]

mod approvals;
mod bad_servers;
mod close;
mod commits;
mod decisions;
mod histories;
mod http_tools;
mod large_results;
mod lost_answers;
mod messages;
mod model;
mod notices;
mod outages;
mod pointers;
mod quarantine;
mod races;
mod reconciled;
mod repeats;
mod reveal;
mod run;
mod server_questions;
mod unknown_outcomes;
mod world;
