//! Durations and sizes as people write them: `1h30m`, `64MiB`. In configuration, in flags, in messages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MAX_PERIOD: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The unit's name and milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The unit's name and bytes, largest first.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("`{text}` is no duration; write it as in `90s`, `5m`, `1h30m`")]
    NoPeriod { text: String },
    #[error("`{text}` has no unit; write `{text}s` or `{text}m`")]
    PeriodWithoutUnit { text: String },
    #[error("`{text}` is out of range; a duration is longer than nothing and at most 365d")]
    PeriodOutOfRange { text: String },
    #[error("`{text}` is no size; write it as in `512KiB`, `64MiB`, `2GiB`")]
    NoSize { text: String },
    #[error("`{text}` has no unit; write `{text}B` or `{text}MiB`")]
    SizeWithoutUnit { text: String },
    #[error("`{text}` is out of range; a size is at least 1B and fits 64 bits")]
    SizeOutOfRange { text: String },
}

/// A length of time, longer than nothing and at most 365 days, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

impl Period {
    /// For defaults. `seconds` is within 1 and a year.
    pub(super) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<Duration> for Period {
    type Error = UnitError;

    /// To be shown as people write it; what is less than a millisecond is dropped.
    fn try_from(duration: Duration) -> Result<Self, UnitError> {
        let whole = u64::try_from(duration.as_millis()).map(Duration::from_millis).unwrap_or(Duration::MAX);
        if whole.is_zero() || whole > MAX_PERIOD {
            return Err(UnitError::PeriodOutOfRange { text: format!("{duration:?}") });
        }
        Ok(Self(whole))
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl FromStr for Period {
    type Err = UnitError;

    /// Numbers with `d`, `h`, `m`, `s`, `ms`, in that order, each at most once: `1h30m`.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let owned = || text.to_owned();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UnitError::PeriodWithoutUnit { text: owned() });
        }
        let (mut rest, mut units, mut total) = (text, TIME_UNITS.iter(), 0_u64);
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(leading(rest, |byte| byte.is_ascii_digit()));
            let (name, tail) = tail.split_at(leading(tail, |byte| byte.is_ascii_alphabetic()));
            let unit = units.find(|(unit, _)| *unit == name).filter(|_| !number.is_empty());
            let Some((_, milliseconds)) = unit else { return Err(UnitError::NoPeriod { text: owned() }) };
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*milliseconds));
            let sum = part.and_then(|part| total.checked_add(part));
            total = sum.ok_or_else(|| UnitError::PeriodOutOfRange { text: owned() })?;
            rest = tail;
        }
        let period = Duration::from_millis(total);
        match () {
            () if text.is_empty() => Err(UnitError::NoPeriod { text: owned() }),
            () if period.is_zero() || period > MAX_PERIOD => {
                Err(UnitError::PeriodOutOfRange { text: owned() })
            }
            () => Ok(Self(period)),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        for (name, milliseconds) in TIME_UNITS {
            if rest >= milliseconds {
                write!(f, "{}{name}", rest / milliseconds)?;
                rest %= milliseconds;
            }
        }
        Ok(())
    }
}

/// A number of bytes, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// For defaults. `mebibytes` is at least 1.
    pub(super) const fn from_mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    /// A whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`. Decimal units are refused: `MB` is read both ways.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let owned = || text.to_owned();
        let (number, name) = text.split_at(leading(text, |byte| byte.is_ascii_digit()));
        if !number.is_empty() && name.is_empty() {
            return Err(UnitError::SizeWithoutUnit { text: owned() });
        }
        let unit = SIZE_UNITS.iter().find(|(unit, _)| *unit == name).filter(|_| !number.is_empty());
        let Some((_, bytes)) = unit else { return Err(UnitError::NoSize { text: owned() }) };
        let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*bytes));
        size.filter(|size| *size > 0).map(Self).ok_or_else(|| UnitError::SizeOutOfRange { text: owned() })
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that it is a whole number of, so that it reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZE_UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes));
        let (name, bytes) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

fn leading(text: &str, of: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|byte| !of(byte)).unwrap_or(text.len())
}
