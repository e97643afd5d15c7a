//! The host's time stamp counter rate, which guests under TCG must be told.
//!
//! A guest on a busy host can't calibrate its TSC against an emulated PIT and hangs for ever; with `tsc_early_khz=` on
//! its command line it does not try (kernel: `arch/x86/kernel/tsc.c`). QEMU's TCG counts the guest's TSC at the host's
//! rate, so the host's is the right figure.

use std::sync::OnceLock;

/// The rate in kHz, measured once in about 10 ms. `None` on hosts other than x86-64, or when two samples disagree by
/// more than one percent: a wrong figure boots, but with a wrong clock.
pub fn tsc_khz() -> Option<u32> {
    static RATE: OnceLock<Option<u32>> = OnceLock::new();
    *RATE.get_or_init(measure)
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u32> {
    const INTERVAL: std::time::Duration = std::time::Duration::from_millis(5);
    const ATTEMPTS: u32 = 4;
    for _ in 0..ATTEMPTS {
        let first = read_both();
        std::thread::sleep(INTERVAL);
        let second = read_both();
        std::thread::sleep(INTERVAL);
        let third = read_both();
        if let (Some(early), Some(late), Some(whole)) =
            (rate(first, second), rate(second, third), rate(first, third))
            && early.abs_diff(late) <= whole / 100
        {
            return Some(whole);
        }
    }
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u32> {
    None
}

/// Nanoseconds and counts of one moment.
#[cfg(any(target_arch = "x86_64", test))]
#[derive(Clone, Copy)]
struct Sample {
    ns: u64,
    counts: u64,
}

#[cfg(any(target_arch = "x86_64", test))]
fn rate(from: Sample, to: Sample) -> Option<u32> {
    let (ns, counts) = (to.ns.checked_sub(from.ns)?, to.counts.checked_sub(from.counts)?);
    let khz = u128::from(counts) * 1_000_000 / u128::from(std::num::NonZero::new(ns)?.get());
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// Both clocks as close together as can be had: of several tries the one that took the fewest counts, since in any
/// other the thread may have been interrupted between the two readings.
#[cfg(target_arch = "x86_64")]
fn read_both() -> Sample {
    let sample = || {
        let before = counter();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
        let took = counter().wrapping_sub(before);
        let ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        (took, Sample { ns, counts: before.wrapping_add(took / 2) })
    };
    let mut best = sample();
    for _ in 0..8 {
        let next = sample();
        if next.0 < best.0 {
            best = next;
        }
    }
    best.1
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: rdtsc has no preconditions; user space may be forbidden it by prctl(PR_SET_TSC), which creel never does.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_counts_by_time() {
        let from = Sample { ns: 1_000, counts: 5 };
        assert_eq!(rate(from, Sample { ns: 1_001_000, counts: 2_500_005 }), Some(2_500_000));
        assert_eq!(rate(from, from), None, "no time has passed");
        assert_eq!(rate(Sample { ns: 2_000, counts: 9 }, from), None, "a counter went backwards");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_measured_rate_is_stable_and_plausible() {
        let cached = tsc_khz().expect("this machine has a TSC");
        assert!((100_000..10_000_000).contains(&cached), "{cached} kHz");
        let again = measure().expect("measured again");
        assert!(again.abs_diff(cached) <= cached / 100, "{again} and {cached} kHz");
    }
}
