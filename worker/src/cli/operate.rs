//! Options of operator acts: what becomes the active bundle, and what is in quarantine.

use clap::{Args, Subcommand};
use mandate_domain::{PersonId, QuarantineTarget};

use super::Listing;
use crate::output::OutputFormat;

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate apply --folder examples/refunds --by kim@acme.example --note 'ticket 7: refunds above 50 EUR are approved'
  mandate apply --folder examples/refunds --by kim@acme.example --dry-run    only show what would change
  mandate apply --folder examples/refunds --by kim@acme.example --yes --output json    for programs

The difference to the active policies is shown first. The active policies say who may apply others; the very first have
to permit it to whoever applies them. Exit code 3: they may not, 4: the folder cannot be used, and all of it is listed.")]
pub struct Apply {
    /// Only show what would change, and whether it may be applied
    #[arg(long)]
    pub dry_run: bool,
    /// How, and by whom
    #[command(flatten)]
    pub change: Change,
}

/// Options of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate rollback 3f9c2a71 --by kim@acme.example --note 'ticket 8: too strict'
  mandate rollback 3f9c2a71 --by kim@acme.example --yes --output json    for programs

`mandate bundles` lists the digests. The difference to the active policies is shown first. The folder stays as it is:
change it too, or the next `mandate apply` brings the same policies back. Exit code 3: the active policies do not permit
it, 4: this program cannot use the bundle.")]
pub struct Rollback {
    /// Digest of the bundle, or at least the first eight digits of it
    #[arg(value_parser = digest_start)]
    pub digest: String,
    /// How, and by whom
    #[command(flatten)]
    pub change: Change,
}

/// Options of whatever makes another bundle the active one.
#[derive(Debug, Args)]
pub struct Change {
    /// Who does it: you
    #[arg(long, value_name = "PERSON")]
    pub by: PersonId,
    /// A remark for the list of bundles
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Do not ask for confirmation; needed where there is no terminal
    #[arg(long)]
    pub yes: bool,
    /// How difference and result are written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

fn digest_start(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits && (8..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("it is 8 to 64 of the digits 0-9 and a-f".to_owned())
}

/// Commands on the quarantine list.
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List what is in quarantine
    #[command(after_help = "\
Examples:
  mandate quarantine list
  mandate quarantine list --output json    for programs")]
    List(Listing),
    /// Put something into quarantine
    Add(QuarantineAdd),
    /// Take something out of quarantine
    Lift(QuarantineLift),
}

/// Options of `quarantine add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate quarantine add tool:payments.refund --by bo@acme.example --reason 'pays twice'
  mandate quarantine add agent:acme/support/refunds --by bo@acme.example --reason 'refunds what nobody returned'

It is effective with the next step of every run. Exit code 2: nothing has this name, 3: the active policies do not permit
it.")]
pub struct QuarantineAdd {
    /// What: `agent:`, `tool:`, `server:`, `model:` or `person:` and the name
    #[arg(value_name = "KIND:NAME")]
    pub target: QuarantineTarget,
    /// Who does it: you
    #[arg(long, value_name = "PERSON")]
    pub by: PersonId,
    /// Why. Whoever is refused reads it, and so does the model
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Lock up a name that the active policies do not know
    #[arg(long)]
    pub unknown: bool,
}

/// Options of `quarantine lift`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  mandate quarantine lift tool:payments.refund --by kim@acme.example

Exit code 3: the active policies do not permit it.")]
pub struct QuarantineLift {
    /// What: `agent:`, `tool:`, `server:`, `model:` or `person:` and the name
    #[arg(value_name = "KIND:NAME")]
    pub target: QuarantineTarget,
    /// Who does it: you
    #[arg(long, value_name = "PERSON")]
    pub by: PersonId,
}
