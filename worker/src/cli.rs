//! The command line. Help teaches with examples; what a command does stands in `commands/`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use mandate_domain::{AgentName, PersonId};

use crate::{output::OutputFormat, telemetry::LogFormat};

mod key;
mod operate;
mod people;
mod policy;

pub use key::{Key, NewKey, ShowKey};
pub use operate::{Apply, Change, Quarantine, QuarantineAdd, QuarantineLift, Rollback};
pub use people::{Answer, Approve, Decide, Halt, ProofOptions, Resolve, SenderOptions, Steer, ToRun};
pub use policy::{Backtest, ExplainPolicy, Policy, TestPolicy};

const EXAMPLES: &str = "\
Examples:
  mandate demo                                    see it work, nothing needed but this program
  mandate check --folder examples/refunds         is the operating folder usable?
  mandate policy test examples/refunds            do its policies decide as their cases say?
  mandate doctor --folder examples/refunds        is everything there that a worker needs?
  mandate worker --folder examples/refunds        carry out runs until Ctrl-C
  mandate run --agent acme/support/refunds --on-behalf-of ana@acme.example 'Refund order o1'
  mandate approvals                               what waits for people
  mandate approve refund-o1 --by bo@acme.example
  mandate answer refund-o1 'yes' --by bo@acme.example
  mandate halt refund-o1 --by olga@acme.example
  mandate explain refund-o1 --folder examples/refunds
  mandate apply --by kim@acme.example             make the folder's policies the active ones
  mandate quarantine add tool:payments.refund --by bo@acme.example --reason 'pays twice'

Exit codes: 0 done or allowed, 1 failure, 2 wrong usage, 3 denied or rejected, 4 invalid configuration or policy.
Data goes to stdout, everything else to stderr.";

/// Durable, governed AI agents on your own Temporal cluster.
#[derive(Debug, Parser)]
#[command(name = "mandate", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The operating folder: the one that holds `mandate.toml`
    #[arg(long, global = true, env = "MANDATE_FOLDER", default_value = ".", value_name = "PATH")]
    pub folder: PathBuf,
    /// Temporal's frontend as `host:port`, in place of `TEMPORAL_ADDRESS` or the profile
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Temporal")]
    pub address: Option<String>,
    /// Temporal namespace, in place of `TEMPORAL_NAMESPACE` or the profile
    #[arg(long, global = true, help_heading = "Temporal")]
    pub namespace: Option<String>,
    /// Profile in `temporal.toml`, in place of `TEMPORAL_PROFILE`
    #[arg(long, global = true, help_heading = "Temporal")]
    pub profile: Option<String>,
    /// How log lines are written to stderr
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show an agent run from start to audit, with an approval in between
    Demo(Demo),
    /// Carry out runs until SIGTERM or Ctrl-C
    Worker(Worker),
    /// Start a run and follow it
    Run(Run),
    /// Show where a run stands
    Status(Status),
    /// List what waits for people, over all runs: requests, questions, calls whose outcome nobody knows
    #[command(after_help = "\
Examples:
  mandate approvals
  mandate approvals --output json    for programs

What ends first comes first. Each run is asked itself; those whose worker gives no answer are named at the end.")]
    Approvals(Listing),
    /// Approve a request, as it is or with other arguments
    Approve(Approve),
    /// Reject a request
    #[command(after_help = "\
Example:
  mandate reject refund-o1 --request r1-7f3a9c --by bo@acme.example --comment 'the order was never returned'

The card with the exact arguments is shown first; one rejection is enough. Exit code 3: the decision does not count,
with the reason.")]
    Reject(Decide),
    /// Answer a question of an agent
    Answer(Answer),
    /// Say what became of a call whose outcome nobody knows
    Resolve(Resolve),
    /// Tell a running agent something more
    Steer(Steer),
    /// Let a run wait: what is under way ends, and nothing new begins
    #[command(after_help = "\
Example:
  mandate pause refund-o1 --by olga@acme.example --comment 'asking the customer'

`mandate resume` lets it go on. Exit code 3: it does not count, with the reason.")]
    Pause(ToRun),
    /// Let a paused run go on
    #[command(after_help = "\
Example:
  mandate resume refund-o1 --by olga@acme.example

Exit code 3: it does not count, with the reason.")]
    Resume(ToRun),
    /// End runs, and report what was stopped and what had already happened
    Halt(Halt),
    /// Tell what happened in a run, from the audit log
    Explain(Explain),
    /// Check the operating folder
    #[command(after_help = "\
Examples:
  mandate check --folder examples/refunds
  mandate check --folder examples/refunds --output json

Exit code 4: something is wrong, and all of it is listed.")]
    Check(Listing),
    /// Check everything that a worker needs: folder, Temporal, store, secrets, tools, models
    #[command(after_help = "\
Examples:
  mandate doctor --folder examples/refunds
  mandate doctor --folder examples/refunds --output json    for programs

One line for each check: ok, warn or fail, and what to do. Run it as the worker's user and in the worker's environment.
It starts the tool servers and ends them; it calls no tool, asks no model and makes no store.
Exit code 1: a check failed, 4: the operating folder cannot be used.")]
    Doctor(Listing),
    /// Make the folder's policies the active ones, for all workers at once
    Apply(Apply),
    /// Make older policies the active ones again
    Rollback(Rollback),
    /// List the policy bundles that were applied
    #[command(after_help = "\
Examples:
  mandate bundles --folder examples/refunds
  mandate bundles --folder examples/refunds --output json    for programs

The newest first; the first is the active one. `mandate rollback` takes the digest, or its beginning.")]
    Bundles(Listing),
    /// Lock up an agent, a tool, a tool server, a model or a person, whatever policy says
    #[command(
        subcommand,
        after_help = "\
Examples:
  mandate quarantine add tool:payments.refund --by bo@acme.example --reason 'pays twice'
  mandate quarantine list
  mandate quarantine lift tool:payments.refund --by kim@acme.example

It is effective with the next step of every run, also of calls that wait for approval."
    )]
    Quarantine(Quarantine),
    /// Keys that people sign decisions with
    #[command(
        subcommand,
        after_help = "\
Examples:
  mandate key new bo.pem --person bo@acme.example
  mandate key show bo.pem

Where `[identity]` of mandate.toml accepts `key`, a person decides with a signature by a key that stands there as theirs."
    )]
    Key(Key),
    /// The audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Policies: test them, read them, ask them about the past
    #[command(
        subcommand,
        after_help = "\
Examples, in the order of a change:
  mandate policy explain acme/support/refunds --folder examples/refunds    what is allowed, and when?
  mandate policy test examples/refunds                             does the changed folder decide as its cases say?
  mandate policy backtest --since 30d --folder examples/refunds    what would have ended differently?

Then `mandate apply` makes the folder's policies the active ones. docs/policies.md says what a policy sees, and has rules
to copy."
    )]
    Policy(Policy),
}

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mandate demo\n  mandate demo --approve    without a terminal")]
pub struct Demo {
    /// Approve without asking; needed where there is no terminal
    #[arg(long)]
    pub approve: bool,
    /// Where the demo keeps its files [default: `${XDG_STATE_HOME:-~/.local/state}/mandate/demo`]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// Options of `worker`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  TEMPORAL_ADDRESS=localhost:7233 mandate worker --folder examples/refunds
  mandate worker --folder examples/refunds --metrics-address 127.0.0.1:9464    metrics at /metrics")]
pub struct Worker {
    /// Task queue to poll, in place of the configured one
    #[arg(long)]
    pub task_queue: Option<String>,
    /// Serve metrics for Prometheus at this address, under `/metrics`. Anybody who reaches it may read them: keep it on
    /// a loopback address, such as 127.0.0.1:9464, or in a network that only the collector reaches
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_address: Option<SocketAddr>,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate run --agent acme/support/refunds --on-behalf-of ana@acme.example --workflow-id refund-o1 'Refund order o1'
  mandate run --agent acme/support/refunds --on-behalf-of ana@acme.example --key ana.pem 'Refund order o1'

The result is printed as JSON. Exit code 0: completed, 3: stopped or denied, 1: failed.")]
pub struct Run {
    /// Full name of the agent, `tenant/unit/agent`
    #[arg(long)]
    pub agent: AgentName,
    /// The person it acts for
    #[arg(long, value_name = "PERSON")]
    pub on_behalf_of: PersonId,
    /// Who starts it, if that is not the person it acts for: policy decides whether they may
    #[arg(long, value_name = "PERSON")]
    pub started_by: Option<PersonId>,
    /// What shows who starts it: that person
    #[command(flatten)]
    pub proof: ProofOptions,
    /// Workflow id; two runs with one id cannot be open at once [default: made up]
    #[arg(long)]
    pub workflow_id: Option<String>,
    /// Task queue of the workers
    #[arg(long, default_value = "mandate")]
    pub task_queue: String,
    /// Only start it, and print its ids
    #[arg(long)]
    pub detach: bool,
    /// What the agent is asked
    pub prompt: String,
}

/// Options of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mandate status refund-o1\n  mandate status refund-o1 --output json    for programs"
)]
pub struct Status {
    /// The run's workflow id
    pub workflow_id: String,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Options of a listing.
#[derive(Debug, Args)]
pub struct Listing {
    /// How the listing is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate explain refund-o1 --folder examples/refunds
  mandate explain refund-o1 --folder examples/refunds --output json    the records as they are stored
  mandate explain mandate-store --folder examples/refunds              what operators did, and what was refused")]
pub struct Explain {
    /// The run's workflow id; `mandate-store` for the store's own chain
    pub workflow_id: String,
    /// First run id, when the workflow id was used more than once [default: the newest]
    #[arg(long, value_name = "FIRST")]
    pub run_id: Option<String>,
    /// How the timeline is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Commands on the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify the chain of each run, against Temporal's history as a second witness, and the store's own chain
    Verify(Verify),
}

/// Options of `audit verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate audit verify --folder examples/refunds
  mandate audit verify refund-o1 --witness temporal --folder examples/refunds

Exit code 1: a chain is violated.")]
pub struct Verify {
    /// Only the runs of this workflow id
    pub workflow_id: Option<String>,
    /// The second witness [default: Temporal, if an address or profile is configured]
    #[arg(long, value_enum)]
    pub witness: Option<WitnessKind>,
    /// How the verdict is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Who else knows where a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WitnessKind {
    /// The results of the runs in Temporal's history.
    Temporal,
    /// Nobody: a cut-off tail does not show.
    None,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use mandate_domain::{Proof, render};

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    /// Help texts of a command and of everything below it.
    fn help_texts(command: &clap::Command) -> Vec<(String, String)> {
        let own =
            (command.get_name().to_owned(), command.get_after_help().map(ToString::to_string).unwrap_or_default());
        std::iter::once(own).chain(command.get_subcommands().flat_map(help_texts)).collect()
    }

    /// The words of an example as a shell gives them to the program; a remark stands behind two spaces.
    fn words(line: &str) -> Vec<String> {
        let command = line.split("  ").next().unwrap();
        let quoted = command.split('\'').enumerate();
        let words = quoted.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.skip_while(|word| word.contains('=')).collect()
    }

    #[test]
    fn every_command_has_examples_that_are_understood() {
        for (name, help) in help_texts(&Cli::command()) {
            let examples: Vec<_> =
                help.lines().filter(|line| line.starts_with("  ")).map(|line| words(line.trim())).collect();
            assert!(!examples.is_empty() || ["audit", "policy"].contains(&name.as_str()), "`{name}` has no example");
            for example in examples {
                let parsed = Cli::try_parse_from(&example).map_err(|error| error.to_string());
                assert!(parsed.is_ok(), "{example:?}: {parsed:?}");
                assert!(name == "mandate" || example.contains(&name), "an example of another command: {example:?}");
            }
        }
    }

    #[test]
    fn the_commands_on_cards_are_understood() {
        let call = "t2.0".parse().unwrap();
        for way in [Proof::Key, Proof::Jwt] {
            let mut commands = render::decide_commands("refund o1", "r1-7f3a9c", &[way]).to_vec();
            commands.push(render::answer_command("refund o1", "q1-7f3a9c", &[way]));
            commands.push(render::resolve_command("refund o1", call, &[way]));
            for command in commands {
                let parsed = Cli::try_parse_from(words(&command)).map_err(|error| error.to_string());
                assert!(parsed.is_ok(), "{command}: {parsed:?}");
            }
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_refused_and_not_repeated() {
        let error = parse("mandate approve w --token eyJhbGciOiJFZERTQSJ9").unwrap_err();
        assert!(error.contains("--token") && error.contains("env:NAME") && !error.contains("eyJ"), "{error}");
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["mandate --address a:1 check --folder x", "mandate check --folder x --address a:1"] {
            let global = parse(line).unwrap().global;
            assert_eq!((global.address.as_deref(), global.folder.to_str()), (Some("a:1"), Some("x")));
        }
    }

    #[test]
    fn wrong_arguments_name_the_rule() {
        let wrong = [
            ("mandate run --agent refunds --on-behalf-of ana x", "tenant/unit/agent"),
            ("mandate run --agent a/b/c x", "--on-behalf-of"),
            ("mandate approve w --request 7 --by bo", "r2-7f3a9c"),
            ("mandate approve w --by bo --key bo.pem --token env:T", "--token"),
            ("mandate approve w --by bo --edit --arguments {}", "--arguments"),
            ("mandate reject w --by bo --arguments {}", "--arguments"),
            ("mandate answer w yes --question r1-7f3a9c", "q1-7f3a9c"),
            ("mandate resolve w t1.0 perhaps --by bo", "did-not-happen"),
            ("mandate steer w", "<TEXT>"),
            ("mandate halt --by bo", "<WORKFLOW>"),
            ("mandate halt w --wait 90000", "86400"),
            ("mandate resolve w 1 skip --by bo", "t3.1"),
            ("mandate status w --output xml", "json"),
            ("mandate rollback 3f9c2a7 --by kim", "8 to 64"),
            ("mandate quarantine add payments.refund --by bo --reason x", "`tool:`"),
            ("mandate quarantine add tool:payments.refund --by bo", "--reason"),
            ("mandate apply", "--by"),
            ("mandate worker --metrics-address 9464", "--metrics-address"),
        ];
        for (line, expected) in wrong {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
