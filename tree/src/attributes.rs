//! What is kept of a file beside its content.

use rustix::fs::{Mode, Stat, Timespec, Timestamps};

/// No set-uid, no set-gid, no sticky bit, in either direction: whoever unpacks as another user than the one who packed would
/// lend out their own rights with them.
const PERMISSION_BITS: u32 = 0o777;

const NANOS_IN_SECOND: u32 = 1_000_000_000;

/// A moment, in seconds since 1970 (which may be negative) and nanoseconds after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    pub seconds: i64,
    /// Less than a second.
    pub nanos: u32,
}

/// What an archive says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Only the permission bits count.
    pub mode: u32,
    pub modified: Time,
}

impl Time {
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self { seconds: stat.st_mtime, nanos }
    }

    /// As a pax record has it: seconds, with a fraction where there is one (POSIX.1-2024 pax, "mtime").
    pub(crate) fn to_pax(self) -> String {
        let Self { seconds, nanos } = self;
        if nanos == 0 {
            return seconds.to_string();
        }
        // -0.25 s is second -1 and three quarters.
        let (sign, whole, nanos) = match seconds {
            0.. => ("", seconds.unsigned_abs(), nanos),
            _ => ("-", (seconds + 1).unsigned_abs(), NANOS_IN_SECOND - nanos),
        };
        let fraction = format!("{nanos:09}");
        format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }

    pub(crate) fn from_pax(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        // What is finer than a nanosecond is cut off.
        let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
        Some(match (negative, nanos) {
            (false, _) => Self { seconds, nanos },
            (true, 0) => Self { seconds: -seconds, nanos },
            (true, _) => Self { seconds: -seconds - 1, nanos: NANOS_IN_SECOND - nanos },
        })
    }
}

impl Attributes {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { mode: stat.st_mode & PERMISSION_BITS, modified: Time::of(stat) }
    }

    pub(crate) fn permissions(self) -> u32 {
        self.mode & PERMISSION_BITS
    }

    pub(crate) fn mode(self) -> Mode {
        Mode::from_bits_truncate(self.permissions())
    }

    pub(crate) fn times(self) -> Timestamps {
        let time = Timespec { tv_sec: self.modified.seconds, tv_nsec: self.modified.nanos.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_read_as_posix_writes_them() {
        let time = |seconds, nanos| Some(Time { seconds, nanos });
        let table: [(&[u8], Option<Time>); 10] = [
            (b"1600000000", time(1_600_000_000, 0)),
            (b"1.5", time(1, 500_000_000)),
            (b"1.0000000019", time(1, 1)),
            (b"-1.25", time(-2, 750_000_000)),
            (b"-0.25", time(-1, 750_000_000)),
            (b"-3", time(-3, 0)),
            (b"", None),
            (b".5", None),
            (b"1e9", None),
            (b"99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(Time::from_pax(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn a_time_survives_its_text(seconds in -(1i64 << 40)..(1i64 << 40), nanos in 0..NANOS_IN_SECOND) {
            let time = Time { seconds, nanos };
            prop_assert_eq!(Time::from_pax(time.to_pax().as_bytes()), Some(time));
        }
    }
}
