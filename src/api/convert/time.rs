//! Times and durations are microseconds on the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole microseconds; what does not fit (584,000 years) is the most that does.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Times before 1970 are 1970.
pub fn since_epoch_us(time: SystemTime) -> u64 {
    microseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// What the host's clock can't express is 1970.
pub fn from_epoch_us(microseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(microseconds)).unwrap_or(UNIX_EPOCH)
}
