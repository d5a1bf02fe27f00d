//! Bounds of a run: the organisation's in `mandate.toml`, an agent's own in `agent.toml`. An agent may only narrow.

use mandate_domain::RunLimits;
use serde_json::{Map, Value};

use super::{
    problems::Problems,
    reader::{At, Table},
};

/// Longest time a bound may state: ten years. Beyond it, timers and clocks overflow.
const SECS_MAX: u64 = 10 * 365 * 24 * 3600;

/// Largest inline size, in bytes: one result may not fill the event history.
const INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Smallest part of a result that a model is given, in bytes: it has to hold what is said of the rest.
const RESULT_BYTES_MIN: u64 = 1024;

/// Shortest heartbeat timeout, in seconds: workers beat once in a second.
const HEARTBEAT_SECS_MIN: u64 = 2;

/// Bounds at which zero is a choice; elsewhere it would stop every run.
const ZERO_ALLOWED: [&str; 3] = ["tool_calls_max", "inline_max_bytes", "outage_max_secs"];

/// The bounds that apply where nothing is said, and the largest that may be said.
pub(super) enum Base {
    /// `mandate.toml`: any value replaces the built-in default.
    Defaults,
    /// `agent.toml`: a value may not be above this.
    NoMoreThan(RunLimits),
}

/// Reads a `[limits]` table.
pub(super) fn read(table: Option<Table<'_>>, base: &Base) -> RunLimits {
    let start = match base {
        Base::Defaults => RunLimits::default(),
        Base::NoMoreThan(limits) => *limits,
    };
    let Some(mut table) = table else { return start };
    let mut limits = start;
    for (key, upper) in fields(start) {
        let Some(number) = table.number(&key) else { continue };
        let upper = match base {
            Base::Defaults => None,
            Base::NoMoreThan(_) => Some(upper),
        };
        if is_within(table.problems, &key, &number, upper) {
            limits = with_field(limits, &key, number.value);
        }
    }
    table.finish();
    limits
}

/// Each bound by name. By way of serde, so that a new bound needs no line here.
fn fields(limits: RunLimits) -> Vec<(String, u64)> {
    as_map(limits).into_iter().map(|(key, value)| (key, value.as_u64().unwrap_or_default())).collect()
}

fn as_map(limits: RunLimits) -> Map<String, Value> {
    match serde_json::to_value(limits) {
        Ok(Value::Object(map)) => map,
        Ok(_) | Err(_) => Map::new(),
    }
}

fn with_field(limits: RunLimits, key: &str, value: u64) -> RunLimits {
    let mut map = as_map(limits);
    map.insert(key.to_owned(), value.into());
    serde_json::from_value(Value::Object(map)).unwrap_or(limits)
}

fn is_within(problems: &Problems, key: &str, number: &At<u64>, upper: Option<u64>) -> bool {
    if let Some(upper) = upper.filter(|upper| number.value > *upper) {
        let help = "an agent may only narrow the limits of `mandate.toml`".to_owned();
        let message = format!("`{key}` is {}, above the limit of {upper}", number.value);
        problems.at(&number.place, message, format!("at most {upper}"), Some(help));
        return false;
    }
    let lowest = match key {
        "heartbeat_timeout_secs" => HEARTBEAT_SECS_MIN,
        "result_max_bytes" => RESULT_BYTES_MIN,
        _ => u64::from(!ZERO_ALLOWED.contains(&key)),
    };
    let highest = match key {
        _ if key.ends_with("_secs") => SECS_MAX,
        "inline_max_bytes" => INLINE_BYTES_MAX,
        "tokens_max" => i64::MAX.unsigned_abs(),
        _ => u64::from(u32::MAX),
    };
    let valid = (lowest..=highest).contains(&number.value);
    if !valid {
        let bounds = format!("from {lowest} to {highest}");
        problems.at(&number.place, format!("`{key}` must be {bounds}"), bounds, None);
    }
    valid
}
