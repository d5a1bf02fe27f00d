//! Until when a call may go out, looked at where its bytes do: it may wait in a queue behind others, and another worker may
//! hold the effect when it gets there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Stop;

/// Nothing was sent, and nothing will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NothingSent {
    /// The time is over, or its caller has left.
    #[error("the claim ran out before anything was sent")]
    Late,
    /// Nobody waits for it.
    #[error("it was to stop before it was sent")]
    Stopped,
}

/// The calls that may go out on a connection, by the key of their effect.
#[derive(Debug, Clone, Default)]
pub(super) struct SendBy(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    by_key: BTreeMap<String, BTreeMap<u64, (Instant, Stop)>>,
}

impl SendBy {
    /// Lets a call go out until then, as long as what is given back lives.
    pub(super) fn let_out(&self, key: &str, until: Instant, stop: &Stop) -> Until {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.next += 1;
        let number = calls.next;
        calls.by_key.entry(key.to_owned()).or_default().insert(number, (until, stop.clone()));
        Until { calls: self.clone(), key: key.to_owned(), number }
    }

    /// How long a call with this key may still be sent.
    pub(super) fn time_left(&self, key: &str) -> Result<Duration, NothingSent> {
        let (until, _) = self.bounds(key)?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(NothingSent::Late)
    }

    /// Until when a call with this key may be sent, and what may stop it. Of two attempts with one key nobody knows which
    /// one this is, so the shorter time holds.
    pub(super) fn bounds(&self, key: &str) -> Result<(Instant, Stop), NothingSent> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = calls.by_key.get(key).ok_or(NothingSent::Late)?;
        if attempts.values().any(|(_, stop)| stop.is_asked()) {
            return Err(NothingSent::Stopped);
        }
        attempts.values().min_by_key(|(until, _)| *until).cloned().ok_or(NothingSent::Late)
    }
}

/// A call that may go out while this lives.
#[derive(Debug)]
pub(super) struct Until {
    calls: SendBy,
    key: String,
    number: u64,
}

impl Drop for Until {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempts) = calls.by_key.get_mut(&self.key) {
            attempts.remove(&self.number);
            if attempts.is_empty() {
                calls.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[test]
    fn a_call_goes_out_in_its_time_and_while_somebody_waits_for_it() {
        let calls = SendBy::default();
        assert_eq!(calls.time_left("a"), Err(NothingSent::Late), "nobody let it out");
        let until = calls.let_out("a", soon(), &Stop::default());
        assert!(calls.time_left("a").unwrap() > Duration::from_secs(50));
        drop(until);
        assert_eq!(calls.time_left("a"), Err(NothingSent::Late), "its caller has left");
        let _late = calls.let_out("b", Instant::now(), &Stop::default());
        assert_eq!(calls.time_left("b"), Err(NothingSent::Late));
        let _stopped = calls.let_out("c", soon(), &Stop::when(ready(())));
        assert_eq!(calls.time_left("c"), Err(NothingSent::Stopped));
        let _waiting = calls.let_out("d", soon(), &Stop::when(pending()));
        assert!(calls.time_left("d").is_ok());
    }

    #[test]
    fn of_two_attempts_with_one_key_the_shorter_time_holds() {
        let calls = SendBy::default();
        let late = calls.let_out("a", Instant::now(), &Stop::default());
        let _other = calls.let_out("a", soon(), &Stop::default());
        assert_eq!(calls.time_left("a"), Err(NothingSent::Late));
        drop(late);
        assert!(calls.time_left("a").is_ok(), "the other attempt's time is its own");
    }
}
