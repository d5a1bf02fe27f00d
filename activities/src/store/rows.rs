//! Between columns and types: encodings, JSON, numbers.

use std::{
    fmt::Display,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// The one encoding so far: the text itself.
pub(super) const PLAIN: &str = "plain";

/// Refuses an encoding that this program does not know.
pub(super) fn plain(what: &'static str, encoding: &str) -> Result<(), StoreError> {
    if encoding == PLAIN { Ok(()) } else { Err(StoreError::UnknownEncoding { what, encoding: encoding.to_owned() }) }
}

pub(super) fn to_json(value: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| {
        StoreError::NotCanonical(mandate_domain::canonical::CanonicalError::NotJson(error.to_string()))
    })
}

pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(format_args!("{what}: {error}")))
}

pub(super) fn parse<T: FromStr<Err: Display>>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::corrupt(format_args!("{what}: {error}")))
}

/// A number column as the type it was written from.
pub(super) fn number<T: TryFrom<i64>>(what: &'static str, value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::corrupt(format_args!("{what}: {value}")))
}

/// A number as a column takes it. Nothing that is counted here comes near the bound.
pub(super) fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Microseconds since 1970; zero before.
pub(super) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A cache that a panicking thread left behind is still a cache of immutable rows.
pub(super) fn locked<T>(cache: &Mutex<T>) -> MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
