//! The formats of cgroup files, of Documentation/admin-guide/cgroup-v2.rst and Documentation/accounting/psi.rst.
//!
//! Kernels add keys, so unknown ones are passed over and missing ones have a place in the result. What does not have the
//! format at all is an error: a number that was not read must not look like zero.

use std::time::Duration;

use thiserror::Error;

/// A line that does not have its file's format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{line}` is not {expected}")]
pub struct Malformed {
    pub line: String,
    pub expected: &'static str,
}

fn malformed(line: &str, expected: &'static str) -> Malformed {
    Malformed { line: line.into(), expected }
}

/// The lines `KEY VALUE` of a flat keyed file, in order.
///
/// # Errors
/// When a line is anything else.
pub fn flat_keyed(text: &str) -> Result<Vec<(&str, u64)>, Malformed> {
    let entry = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        // `parse` alone would take a sign.
        let plain = !key.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        value.parse().ok().filter(|_| plain)
    };
    text.lines()
        .map(|line| {
            let value = entry(line).ok_or_else(|| malformed(line, "a key, a space and a number"))?;
            Ok((line.split(' ').next().unwrap_or_default(), value))
        })
        .collect()
}

/// The value of one key of a flat keyed file, such as `usage_usec` of `cpu.stat`.
///
/// # Errors
/// When a line does not have the format.
pub fn flat_value(text: &str, key: &str) -> Result<Option<u64>, Malformed> {
    Ok(flat_keyed(text)?.into_iter().find_map(|(found, value)| (found == key).then_some(value)))
}

/// A file that holds one number, such as `memory.peak`.
///
/// # Errors
/// When it holds anything else, `max` included.
pub fn number(text: &str) -> Result<u64, Malformed> {
    let digits = text.trim_ascii_end();
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or_else(|| malformed(digits, "a number"))
}

/// `cgroup.events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupEvents {
    /// Whether some process lives in the cgroup or below it.
    pub populated: bool,
    pub frozen: bool,
}

impl CgroupEvents {
    /// # Errors
    /// When it does not have the format, or says nothing of `populated`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let populated =
            flat_value(text, "populated")?.ok_or_else(|| malformed(text, "a file that says `populated`"))?;
        Ok(Self { populated: populated != 0, frozen: flat_value(text, "frozen")?.unwrap_or(0) != 0 })
    }
}

/// `memory.events`: how often each thing has happened in the cgroup and below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// The usage was about to go over `memory.max`, and memory was reclaimed instead.
    pub max: u64,
    /// A limit at or below this cgroup was reached and reclaim did not help.
    pub oom: u64,
    /// Kills by any OOM killer, also when the limit of an ancestor or the host's memory was the reason. A process may be
    /// killed, and counted, twice.
    pub oom_kill: u64,
    /// Whole cgroups killed at once (`memory.oom.group`); `None` before Linux 5.17.
    pub oom_group_kill: Option<u64>,
}

impl MemoryEvents {
    /// # Errors
    /// When it does not have the format.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut events = Self::default();
        for (key, value) in flat_keyed(text)? {
            match key {
                "max" => events.max = value,
                "oom" => events.oom = value,
                "oom_kill" => events.oom_kill = value,
                "oom_group_kill" => events.oom_group_kill = Some(value),
                _ => {}
            }
        }
        Ok(events)
    }
}

/// `io.stat`, the sum over all devices. A stacked device (device mapper, md) and the one below it are both listed, so what
/// goes through both counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoTotals {
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl IoTotals {
    /// # Errors
    /// When a line does not begin with a device's numbers, or a count is no number.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const EXPECTED: &str = "the numbers of a device, and pairs of key and number";
        let mut totals = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let device = words.next().and_then(|word| word.split_once(':'));
            let is_number = |text: &str| text.parse::<u32>().is_ok();
            // Without a device of that number any more, the kernel may say `(unknown)`.
            if !device.is_some_and(|(major, minor)| is_number(major) && is_number(minor))
                && !line.starts_with("(unknown)")
            {
                return Err(malformed(line, EXPECTED));
            }
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let total = match key {
                    "rbytes" => &mut totals.read_bytes,
                    "wbytes" => &mut totals.written_bytes,
                    // Some are no integers: `cost.vrate=100.00`.
                    _ => continue,
                };
                let bytes: u64 = value.parse().map_err(|_| malformed(line, EXPECTED))?;
                *total = total.saturating_add(bytes);
            }
        }
        Ok(totals)
    }
}

/// A pressure file: how long processes have waited, since the cgroup was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// While at least one of them waited.
    pub some_total: Duration,
    /// While all of them did; `None` for `cpu.pressure` before Linux 5.13.
    pub full_total: Option<Duration>,
}

impl Pressure {
    /// # Errors
    /// When it does not have the format, or no line `some`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const EXPECTED: &str = "a line of pressure with its total in microseconds";
        let (mut some, mut full) = (None, None);
        for line in text.lines() {
            let (kind, averages) = line.split_once(' ').ok_or_else(|| malformed(line, EXPECTED))?;
            let total = averages
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix("total=")?.parse().ok())
                .map(Duration::from_micros)
                .ok_or_else(|| malformed(line, EXPECTED))?;
            match kind {
                "some" => some = Some(total),
                "full" => full = Some(total),
                _ => {}
            }
        }
        let some_total = some.ok_or_else(|| malformed(text, "a file with a line `some`"))?;
        Ok(Self { some_total, full_total: full })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_of_a_real_kernel() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\nsock_throttled 0\n";
        let expected = MemoryEvents { max: 12, oom: 3, oom_kill: 2, oom_group_kill: Some(1) };
        assert_eq!(MemoryEvents::parse(text), Ok(expected));
        let old = MemoryEvents::parse("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n").expect("Linux 5.10's");
        assert_eq!(old.oom_group_kill, None, "not counted is not none");
        let events = CgroupEvents { populated: true, frozen: false };
        assert_eq!(CgroupEvents::parse("populated 1\nfrozen 0\n"), Ok(events));
        assert_eq!(flat_value("max 7\n", "max"), Ok(Some(7)));
        let cpu = "usage_usec 2718281\nuser_usec 1\nsystem_usec 2\ncore_sched.force_idle_usec 0\n";
        assert_eq!(flat_value(cpu, "usage_usec"), Ok(Some(2_718_281)));
        assert_eq!((number("8192\n"), flat_value(cpu, "nr_throttled")), (Ok(8192), Ok(None)));
    }

    #[test]
    fn io_of_a_real_kernel_with_an_idle_device_and_iocost() {
        let text = "253:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n\
                    8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=5 dios=1 cost.vrate=100.00 cost.usage=7\n";
        assert_eq!(IoTotals::parse(text), Ok(IoTotals { read_bytes: 4097, written_bytes: 8194 }));
        assert_eq!(IoTotals::parse(""), Ok(IoTotals::default()));
    }

    #[test]
    fn pressure_of_a_real_kernel() {
        let text = "some avg10=0.13 avg60=1.52 avg300=3.85 total=2671714929\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let expected = Pressure {
            some_total: Duration::from_micros(2_671_714_929),
            full_total: Some(Duration::from_micros(9)),
        };
        assert_eq!(Pressure::parse(text), Ok(expected));
        let old = Pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n").expect("Linux 5.10's");
        assert_eq!(old.full_total, None);
    }

    #[test]
    fn what_is_not_the_format_is_an_error_that_shows_it() {
        let error = flat_keyed("oom 1\noom_kill many\n").expect_err("no number");
        assert_eq!(error.to_string(), "`oom_kill many` is not a key, a space and a number");
        for text in ["populated", "populated ", " 1", "populated -1", "populated +1", "populated 1 2", "\n"] {
            assert!(CgroupEvents::parse(text).is_err(), "{text:?}");
        }
        assert!(CgroupEvents::parse("frozen 0\n").is_err(), "an unsaid `populated` is not 0");
        for text in ["max\n", "", "-1\n", "1 2\n"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        for text in ["rbytes=1\n", "8:0 rbytes=x\n", "8: rbytes=1\n"] {
            assert!(IoTotals::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "some avg10=0.00\n", "full avg10=0 total=1\n", "some total=x\n"] {
            assert!(Pressure::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_flat_keyed_file_comes_back(entries in prop::collection::vec(("[a-z_.]{1,20}", any::<u64>()), 0..20)) {
            let mut text = String::new();
            for (key, value) in &entries {
                writeln!(text, "{key} {value}").expect("a string takes it");
            }
            let expected: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            prop_assert_eq!(flat_keyed(&text), Ok(expected));
        }

        #[test]
        fn io_is_the_sum_over_devices(devices in prop::collection::vec((0u32..4096, 0u32..99, 0u64..1 << 50, 0u64..1 << 50), 0..20)) {
            let mut text = String::new();
            for (major, minor, read, written) in &devices {
                writeln!(text, "{major}:{minor} rbytes={read} wbytes={written} rios=1 wios=1").expect("a string takes it");
            }
            let expected = IoTotals {
                read_bytes: devices.iter().map(|device| device.2).sum(),
                written_bytes: devices.iter().map(|device| device.3).sum(),
            };
            prop_assert_eq!(IoTotals::parse(&text), Ok(expected));
        }

        #[test]
        fn pressure_comes_back(some in 0..1u64 << 53, full in prop::option::of(0..1u64 << 53)) {
            let mut text = format!("some avg10=1.00 avg60=2.00 avg300=3.00 total={some}\n");
            if let Some(full) = full {
                writeln!(text, "full avg10=0.00 avg60=0.00 avg300=0.00 total={full}").expect("a string takes it");
            }
            let expected =
                Pressure { some_total: Duration::from_micros(some), full_total: full.map(Duration::from_micros) };
            prop_assert_eq!(Pressure::parse(&text), Ok(expected));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,20}|([a-z0-9:=. ]{0,30}\n){0,4}") {
            let _ = (flat_keyed(&text), number(&text), CgroupEvents::parse(&text));
            let _ = (MemoryEvents::parse(&text), IoTotals::parse(&text), Pressure::parse(&text));
        }
    }
}
