//! The command line of `mandate key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mandate_domain::PersonId;

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and print its line for `[identity.keys]`
    New(NewKey),
    /// Print the public key and the fingerprint of a key file
    Show(ShowKey),
}

/// Options of `key new`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate key new ~/.config/mandate/bo.pem --person bo@acme.example
  mandate key new bo.pem

The file is PKCS#8 in PEM form, readable by you alone, and is never overwritten. Whoever has it can decide in your name.
The printed line goes below `[identity.keys]` of mandate.toml.")]
pub struct NewKey {
    /// The file to make
    pub file: PathBuf,
    /// Whose key it is: you
    #[arg(long, value_name = "PERSON")]
    pub person: Option<PersonId>,
}

/// Options of `key show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  mandate key show ~/.config/mandate/bo.pem

The file holds a private key (PKCS#8) or a public one, in PEM form. Nothing secret is printed.")]
pub struct ShowKey {
    /// The key file
    pub file: PathBuf,
}
