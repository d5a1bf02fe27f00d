//! The command line of `mandate policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::OutputFormat;

/// Longest time that `--since` takes, in days.
const DAYS_MAX: u64 = 36_500;

/// Commands on policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Ask the folder's policies the cases in `policies/tests`
    Test(TestPolicy),
    /// Show what an agent may do, under which conditions, and what it sees
    Explain(ExplainPolicy),
    /// Ask the folder's policies what past runs asked, and list what would end differently
    Backtest(Backtest),
}

/// Options of `policy test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate policy test --folder examples/refunds
  mandate policy test examples/refunds                                  the same
  mandate policy test policies/tests/refunds.toml --output json         one file of the folder you are in

Exit code 1: a case fails. Exit code 4: the folder or a case cannot be used, and all problems are listed.")]
pub struct TestPolicy {
    /// Files or folders of cases, or one operating folder [default: `policies/tests` of the folder]
    pub paths: Vec<PathBuf>,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Options of `policy explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate policy explain acme/support/refunds --folder examples/refunds
  mandate policy explain acme/support/refunds --folder examples/refunds --output json")]
pub struct ExplainPolicy {
    /// Full name of the agent, `tenant/unit/agent`
    pub agent: String,
    /// How the table is written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Options of `policy backtest`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mandate policy backtest --since 30d --folder examples/refunds
  mandate policy backtest --since 12h --deny-changes --output json      in a pipeline
  mandate policy backtest --since 30d --bundle 4f2a9c01d7e3             a bundle that was applied once

Exit code 0: it ran. With --deny-changes, exit code 1: something would end differently.")]
pub struct Backtest {
    /// How far back: a number and `m`, `h`, `d` or `w`
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "30d")]
    pub since: u64,
    /// A bundle of the store, by its digest or the first 8 or more digits, in place of the folder's policies
    #[arg(long, value_name = "DIGEST")]
    pub bundle: Option<String>,
    /// End with exit code 1 if something would end differently or cannot be asked again
    #[arg(long)]
    pub deny_changes: bool,
    /// How the differences are written
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and `m`, `h`, `d` or `w`, such as `30d`".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let unit_secs = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let secs = number.and_then(|number| number.checked_mul(unit_secs)).ok_or_else(wrong)?;
    if secs > DAYS_MAX * 86_400 { Err(format!("it is at most {DAYS_MAX} days")) } else { Ok(secs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, secs) in [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("0d", 0)] {
            assert_eq!(seconds(text), Ok(secs), "{text}");
        }
        for text in ["", "d", "30", "-1d", "+1d", "1.5d", "30D", "36501d", "99999999999999999999d", "3ö"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
