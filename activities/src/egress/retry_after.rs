//! How long a server asks to wait.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Longest wait that a server may ask for.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Seconds or a date (RFC 9110, section 10.2.3), at most [`RETRY_AFTER_MAX`].
pub(crate) fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let date = || Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().duration_since(now).as_secs());
    let secs = text.parse::<i64>().ok().or_else(date)?;
    Some(Duration::from_secs(u64::try_from(secs).unwrap_or(0)).min(RETRY_AFTER_MAX))
}
