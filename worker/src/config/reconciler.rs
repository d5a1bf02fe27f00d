//! `[reconciler]`: how often runs are compared with what Temporal reports.

use super::reader::Table;

/// How often unless it is stated, in seconds.
const EVERY_SECS: u64 = 300;

/// The schedule that a worker makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconcilerSettings {
    /// Whether a worker makes it. One that is there stays as it is.
    pub enabled: bool,
    /// How often, in seconds.
    pub every_secs: u64,
}

impl Default for ReconcilerSettings {
    fn default() -> Self {
        Self { enabled: true, every_secs: EVERY_SECS }
    }
}

/// Reads `[reconciler]`.
pub(super) fn read(table: Option<Table<'_>>) -> ReconcilerSettings {
    let Some(mut table) = table else { return ReconcilerSettings::default() };
    let enabled = table.flag("enabled").is_none_or(|flag| flag.value);
    let every_secs = table.number_within("every_secs", 10..=86_400, EVERY_SECS);
    table.finish();
    ReconcilerSettings { enabled, every_secs }
}
