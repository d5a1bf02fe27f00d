//! `mandate rollback` and `mandate bundles`: older policies become the active ones again, and which there were.
//!
//! Neither reads policies or tools of the folder: rolling back has to work while those are in disorder.

use mandate_activities::{
    operator::BundleToApply,
    policy::{OpenPolicyError, load_row},
    store::{BundleSummary, Store},
};
use mandate_domain::{Digest, render};
use serde::Serialize;

use super::{
    change::{Before, Proposal, carry_out},
    open_operators_store,
};
use crate::{
    cli::{Global, Listing, Rollback},
    output::{self, Exit, OutputFormat, UsageError},
};

/// Microseconds in a millisecond.
const MICROS: u64 = 1000;

/// A bundle in the list.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    version: u64,
    digest: &'a Digest,
    applied: String,
    applied_by: &'a str,
    note: Option<&'a str>,
    active: bool,
}

/// Finds the bundle, shows what would change, and makes it the active one.
///
/// # Errors
/// [`OpenPolicyError::Unusable`] when this program cannot load it; [`crate::output::Refused`] when policy does not
/// permit it; when no bundle has this digest, or several.
pub async fn rollback(global: &Global, options: Rollback) -> anyhow::Result<Exit> {
    let store = open_operators_store(global).await?;
    let exit = roll_back(&store, &options).await;
    store.close().await;
    exit
}

async fn roll_back(store: &Store, options: &Rollback) -> anyhow::Result<Exit> {
    let before = Before::of(store).await?;
    let bundles = store.bundles().await?;
    let version = newest_of(&bundles, &options.digest)?;
    let row = store.bundle_version(version).await?.ok_or(OpenPolicyError::Nothing)?;
    let policy = load_row(&row).map_err(|reason| OpenPolicyError::Unusable { version, reason })?;
    let note = options.change.note.clone();
    let bundle = BundleToApply { files: row.files, digest: row.digest, note, rollback: true, expected_version: None };
    let proposal = Proposal { policy: &policy, bundle, dry_run: false };
    carry_out(Some(store), before, proposal, &options.change).await
}

/// The newest version of the one bundle whose digest begins so.
fn newest_of(bundles: &[BundleSummary], start: &str) -> anyhow::Result<u64> {
    let mut found = bundles.iter().filter(|bundle| bundle.digest.as_str().starts_with(start));
    let Some(first) = found.next() else {
        anyhow::bail!("no bundle of this store has a digest that begins with `{start}`; `mandate bundles` lists them");
    };
    if found.any(|other| other.digest != first.digest) {
        return Err(UsageError(format!("several bundles have a digest that begins with `{start}`; write more")).into());
    }
    Ok(first.version)
}

/// Lists the bundles, the active one first.
///
/// # Errors
/// When the store cannot be read.
pub async fn bundles(global: &Global, options: &Listing) -> anyhow::Result<Exit> {
    let store = open_operators_store(global).await?;
    let bundles = store.bundles().await?;
    store.close().await;
    let listed: Vec<_> = bundles.iter().enumerate().map(|(index, bundle)| listed(bundle, index == 0)).collect();
    match options.output {
        OutputFormat::Json => output::json(&listed)?,
        OutputFormat::Text if listed.is_empty() => output::note("nothing was applied yet"),
        OutputFormat::Text => output::data(text(&listed))?,
    }
    Ok(Exit::Done)
}

fn listed(bundle: &BundleSummary, active: bool) -> Listed<'_> {
    Listed {
        version: bundle.version,
        digest: &bundle.digest,
        applied: render::utc(bundle.applied_micros / MICROS),
        applied_by: bundle.applied_by.as_str(),
        note: bundle.note.as_deref(),
        active,
    }
}

fn text(listed: &[Listed<'_>]) -> String {
    let row = |bundle: &Listed<'_>| {
        [
            bundle.version.to_string(),
            if bundle.active { "active" } else { "" }.to_owned(),
            bundle.digest.to_string(),
            bundle.applied.clone(),
            render::escape_line(bundle.applied_by),
            render::escape_line(bundle.note.unwrap_or_default()),
        ]
    };
    output::table(["VERSION", "", "DIGEST", "APPLIED (UTC)", "BY", "NOTE"], listed.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(version: u64, digest: &str) -> BundleSummary {
        BundleSummary {
            version,
            digest: digest.parse().unwrap(),
            applied_micros: 1_795_254_720_123_456,
            applied_by: "kim@acme.example".parse().unwrap(),
            note: Some("tidy\u{1b}[2J".into()),
        }
    }

    fn bundles() -> [BundleSummary; 3] {
        let (a, b) = (format!("{}0", "abcdef12".repeat(8).get(1..).unwrap()), "abcdef12".repeat(8));
        [bundle(3, &b), bundle(2, &a), bundle(1, &b)]
    }

    #[test]
    fn a_bundle_is_named_by_the_beginning_of_its_digest() {
        let mut bundles = bundles();
        assert_eq!(newest_of(&bundles, "abcdef12").unwrap(), 3, "the newest of equal ones");
        assert_eq!(newest_of(&bundles, "bcdef12a").unwrap(), 2);
        let error = newest_of(&bundles, "00000000").unwrap_err();
        assert!(error.to_string().contains("`mandate bundles`"), "{error}");
        bundles[1].digest = format!("abcdef12{}", "0".repeat(56)).parse().unwrap();
        assert!(newest_of(&bundles, "abcdef12").unwrap_err().is::<UsageError>());
        assert_eq!(newest_of(&bundles, "abcdef120").unwrap(), 2);
    }

    #[test]
    fn the_list_marks_the_active_one_and_cannot_move_the_cursor() {
        let bundles = bundles();
        let shown = text(&[listed(&bundles[0], true), listed(&bundles[1], false)]);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].contains('3') && lines[1].contains("active") && !lines[2].contains("active"), "{shown}");
        assert!(lines[1].contains("2026-11-21 09:52:00") && lines[1].contains("kim@acme.example"), "{shown}");
    }
}
