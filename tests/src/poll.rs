//! Waiting for a condition: the only place that sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take: far more than it needs, as other tests share the machine.
pub const LONG: Duration = Duration::from_secs(90);

/// The same for one of many runs that all start or are asked at once.
pub const LONG_FOR_MANY: Duration = Duration::from_mins(5);

/// How long a condition may take that needs no server.
const IN_PROCESS: Duration = Duration::from_secs(20);

/// How often it is looked at: a look at a server costs it something.
const EVERY: Duration = Duration::from_millis(100);
const EVERY_AMONG_MANY: Duration = Duration::from_millis(700);
const EVERY_IN_PROCESS: Duration = Duration::from_millis(10);

/// Lets a time pass: when something happens in a race is what a seed says, and no condition.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it found nothing within [`LONG`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(LONG, look).await.unwrap_or_else(|| panic!("waited {LONG:?} in vain: {what}"))
}

/// The same where many wait at once, and looking costs more than what is waited for.
///
/// # Panics
/// When it found nothing within [`LONG_FOR_MANY`].
pub async fn until_among_many<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(EVERY_AMONG_MANY).await;
        }
    };
    tokio::time::timeout(LONG_FOR_MANY, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited {LONG_FOR_MANY:?} in vain: {what}"))
}

/// Waits until something holds in this process or in a child of it.
///
/// # Panics
/// When it did not within 20 seconds.
pub async fn until_it_holds(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(EVERY_IN_PROCESS).await;
        }
    };
    tokio::time::timeout(IN_PROCESS, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until `look` finds something, or the time is over.
pub async fn until_within<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(EVERY).await;
    }
}
