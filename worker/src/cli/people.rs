//! Options of what people say: decisions, answers, words on lost calls, further instructions, pause, resume and halt.

use std::{ffi::OsStr, path::PathBuf};

use clap::{Args, builder::TypedValueParser, error::ErrorKind};
use mandate_activities::catalog::SecretRef;
use mandate_domain::{PersonId, QuestionId, RequestId, Resolution, ToolCallId};

use crate::output::OutputFormat;

/// Longest time that `halt --wait` takes, in seconds.
const WAIT_SECS_MAX: u64 = 24 * 3600;

/// Who sends it, and what shows that it was them. Which way counts is the run's to say.
#[derive(Debug, Clone, Default, Args)]
pub struct SenderOptions {
    /// Who you are; may be left out where Temporal or a token says so
    #[arg(long, value_name = "PERSON", help_heading = "Who sends it")]
    pub by: Option<PersonId>,
    /// What shows it
    #[command(flatten)]
    pub proof: ProofOptions,
    /// A remark for the record
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

/// What shows that it was somebody: one of them, or nothing.
#[derive(Debug, Clone, Default, Args)]
pub struct ProofOptions {
    /// Sign with the private key in this file (Ed25519, PKCS#8, PEM; `mandate key new` makes one)
    #[arg(long, value_name = "FILE", conflicts_with = "token", help_heading = "Who sends it")]
    pub key: Option<PathBuf>,
    /// Send a token of your identity provider: `env:NAME`, `file:PATH`, or `exec:PROGRAM ARG…`, which reads the nonce
    /// that the token has to carry from the environment variable `MANDATE_NONCE`
    #[arg(long, value_name = "REF", value_parser = ReferenceParser, help_heading = "Who sends it")]
    pub token: Option<SecretRef>,
}

/// Reads a secret reference. What is none is not repeated, as clap does of itself: it may be the token.
#[derive(Debug, Clone, Copy)]
struct ReferenceParser;

impl TypedValueParser for ReferenceParser {
    type Value = SecretRef;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<SecretRef, clap::Error> {
        let refused = |why: String| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value for --token: {why}\n"))
                .with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| refused("it is not text".to_owned()))?;
        SecretRef::parse(text).map_err(|error| refused(error.to_string()))
    }
}

/// What whoever says something to one run types: all of `pause` and `resume`, and a part of the others.
#[derive(Debug, Args)]
pub struct ToRun {
    /// The run's workflow id
    pub workflow_id: String,
    /// Who says so
    #[command(flatten)]
    pub sender: SenderOptions,
    /// Do not ask for confirmation; needed where there is no terminal
    #[arg(long)]
    pub yes: bool,
}

/// Options of `reject`, and of `approve` beside its own.
#[derive(Debug, Args)]
pub struct Decide {
    /// The run, and who decides
    #[command(flatten)]
    pub run: ToRun,
    /// The request; may be left out while only one is pending
    #[arg(long, value_name = "REQUEST-ID")]
    pub request: Option<RequestId>,
}

/// Options of `approve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate approve refund-o1 --request r1-7f3a9c --by bo@acme.example --comment 'checked the invoice'
  mandate approve refund-o1 --by bo@acme.example --key bo.pem       signed
  mandate approve refund-o1 --token 'exec:company-login --token'    with a token
  mandate approve refund-o1 --by bo@acme.example --edit             with other arguments, in your editor
  mandate approve refund-o1 --by bo@acme.example --arguments changed.json --yes

The card with the exact arguments is shown first. Changed arguments are judged afresh: the call may need an approval by
somebody else. Exit code 2: the run does not accept this way of saying who you are, 3: the decision does not count, with
the reason.")]
pub struct Approve {
    /// The decision
    #[command(flatten)]
    pub decide: Decide,
    /// Change the arguments first, in the editor of `$VISUAL` or `$EDITOR`
    #[arg(long, conflicts_with = "arguments")]
    pub edit: bool,
    /// Approve with these arguments in place of the agent's: a JSON object, or a file that holds one
    #[arg(long, value_name = "FILE|JSON")]
    pub arguments: Option<String>,
}

/// Options of `answer`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate answer refund-o1 --by bo@acme.example                     shows the question and asks
  mandate answer refund-o1 2 --by bo@acme.example                   the second of its options
  mandate answer refund-o1 'Refund 20 EUR' --question q1-7f3a9c --by bo@acme.example --yes

The question is shown first. Exit code 2: the run does not accept this way of saying who you are, 3: the answer does not
count, with the reason.")]
pub struct Answer {
    /// The run, and who answers
    #[command(flatten)]
    pub run: ToRun,
    /// The answer, or the number of an option; asked for on a terminal if it is left out
    pub text: Option<String>,
    /// The question; may be left out while only one waits
    #[arg(long, value_name = "QUESTION-ID")]
    pub question: Option<QuestionId>,
}

/// Options of `resolve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate resolve refund-o1 t2.0 happened --by bo@acme.example
  mandate resolve refund-o1 t2.0 did-not-happen --by bo@acme.example --comment 'not in the ledger' --yes

What is known of the call is shown first. Exit code 3: the word does not count, with the reason.")]
pub struct Resolve {
    /// The run, and who says so
    #[command(flatten)]
    pub run: ToRun,
    /// The call, as the card names it: `t2.0`
    pub call: ToolCallId,
    /// What became of it: happened, did-not-happen or skip
    #[arg(value_parser = resolution)]
    pub resolution: Resolution,
}

fn resolution(text: &str) -> Result<Resolution, String> {
    match text {
        "happened" => Ok(Resolution::Happened),
        "did-not-happen" | "did_not_happen" => Ok(Resolution::DidNotHappen),
        "skip" => Ok(Resolution::Skip),
        _ => Err("it is `happened`, `did-not-happen` or `skip`".to_owned()),
    }
}

/// Options of `steer`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  mandate steer refund-o1 'Use order o2; o1 was a mistake' --by ana@acme.example

The agent reads it at its next turn, as a further instruction. Exit code 3: it does not count, with the reason.")]
pub struct Steer {
    /// The run, and who says so
    #[command(flatten)]
    pub run: ToRun,
    /// What the agent is to do
    pub text: String,
}

/// Options of `halt`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate halt refund-o1 --by olga@acme.example --comment 'wrong customer'
  mandate halt refund-o1 refund-o2 --by olga@acme.example --output json    for programs
  mandate halt --query 'MandateAgent = \"acme/support/refunds\"' --by olga@acme.example

Nothing new begins in a halted run; what is under way comes to its end, and then the run ends. What was stopped, what had
already happened and what nobody knows is listed for each. A halt counts at once, proved or not, and is recorded with who
sent it. Exit code 1: a run has not ended in time, or cannot be reached.")]
pub struct Halt {
    /// Workflow ids of the runs
    #[arg(value_name = "WORKFLOW", required_unless_present = "query")]
    pub workflow_ids: Vec<String>,
    /// Halt the open runs that this list filter of Temporal finds; they are listed and you are asked first
    #[arg(long, value_name = "QUERY")]
    pub query: Option<String>,
    /// Who says so
    #[command(flatten)]
    pub sender: SenderOptions,
    /// How long to wait for the runs to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=WAIT_SECS_MAX))]
    pub wait: u64,
    /// Do not ask for confirmation of what the query found; needed where there is no terminal
    #[arg(long)]
    pub yes: bool,
    /// How the report is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}
