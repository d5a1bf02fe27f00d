//! The clock that all processes of one machine share: time since boot, suspension included, beside the id of the boot.
//!
//! It never jumps when somebody sets the time, so a claim cannot run out early or live again. A time of another boot
//! has certainly passed: whoever held it died with that boot.

use std::{io, sync::OnceLock, time::Duration};

use nix::time::{ClockId, clock_gettime};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A moment on this machine's boot clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootTime {
    /// The boot.
    pub boot_id: String,
    /// Milliseconds since that boot.
    pub millis: u64,
}

/// The boot clock.
#[derive(Debug, Clone, Copy)]
pub struct BootClock;

/// The machine has no boot clock. Nothing can be claimed on it.
#[derive(Debug, thiserror::Error)]
pub enum ReadClockError {
    /// The id of the boot could not be read.
    #[error("`{BOOT_ID}` cannot be read")]
    BootId(#[source] io::Error),
    /// The time since boot could not be read.
    #[error("the time since boot cannot be read")]
    Time(#[source] nix::Error),
    /// The time since boot makes no sense.
    #[error("the time since boot is negative")]
    Negative,
}

impl BootClock {
    /// The present moment.
    ///
    /// # Errors
    /// [`ReadClockError`] when the machine has no such clock.
    pub fn now() -> Result<BootTime, ReadClockError> {
        let boot_id = boot_id()?.to_owned();
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(ReadClockError::Time)?;
        let seconds = u64::try_from(now.tv_sec()).map_err(|_| ReadClockError::Negative)?;
        let nanos = u64::try_from(now.tv_nsec()).map_err(|_| ReadClockError::Negative)?;
        Ok(BootTime { boot_id, millis: seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000) })
    }
}

/// The boot cannot change under a living process, so the file is read once.
fn boot_id() -> Result<&'static str, ReadClockError> {
    static CACHED: OnceLock<String> = OnceLock::new();
    if let Some(id) = CACHED.get() {
        return Ok(id);
    }
    let id = std::fs::read_to_string(BOOT_ID).map_err(ReadClockError::BootId)?.trim().to_owned();
    Ok(CACHED.get_or_init(|| id))
}

impl BootTime {
    /// This moment and `wait` more.
    #[must_use]
    pub fn plus(&self, wait: Duration) -> Self {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { boot_id: self.boot_id.clone(), millis: self.millis.saturating_add(wait) }
    }

    /// Whether this moment lies at or before `now`. One of another boot does.
    #[must_use]
    pub fn has_passed(&self, now: &Self) -> bool {
        self.boot_id != now.boot_id || self.millis <= now.millis
    }

    /// How long until this moment; nothing if it has passed.
    #[must_use]
    pub fn time_left(&self, now: &Self) -> Duration {
        if self.has_passed(now) {
            Duration::ZERO
        } else {
            Duration::from_millis(self.millis.saturating_sub(now.millis))
        }
    }

    /// How long until `wait` has passed since this moment. One of another boot lies before the present boot, and nothing
    /// more is known of it: the time since boot is the least that has passed since.
    #[must_use]
    pub fn time_left_after(&self, wait: Duration, now: &Self) -> Duration {
        if self.boot_id == now.boot_id {
            self.plus(wait).time_left(now)
        } else {
            wait.saturating_sub(Duration::from_millis(now.millis))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_another_boot_is_past() {
        let now = BootClock::now().unwrap();
        assert!(!now.boot_id.is_empty() && now.millis > 0);
        assert!(now.has_passed(&BootClock::now().unwrap()));
        let later = now.plus(Duration::from_mins(1));
        assert!(!later.has_passed(&now));
        assert_eq!(later.time_left(&now), Duration::from_mins(1));
        let after_reboot = BootTime { boot_id: "other".to_owned(), millis: 0 };
        assert!(later.has_passed(&after_reboot));
        assert_eq!(later.time_left(&after_reboot), Duration::ZERO);
    }

    #[test]
    fn a_wait_that_another_boot_began_is_counted_from_this_boot() {
        let at = |boot_id: &str, millis| BootTime { boot_id: boot_id.to_owned(), millis };
        let left = |since: &BootTime, now: &BootTime| since.time_left_after(Duration::from_secs(10), now).as_millis();
        let since = at("a", 50_000);
        assert_eq!(left(&since, &at("a", 53_000)), 7_000);
        assert_eq!(left(&since, &at("a", 60_000)), 0);
        assert_eq!(left(&since, &at("b", 3_000)), 7_000);
        assert_eq!(left(&since, &at("b", 90_000)), 0);
    }
}
