//! Did the guest kernel's OOM killer strike while something ran?
//!
//! A program killed by the OOM killer looks like any other that got SIGKILL; the kernel counts its
//! victims in `oom_kill` of /proc/vmstat (Documentation/admin-guide/mm/concepts.rst).

use std::fs;

/// The count of victims at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomKills(Option<u64>);

impl OomKills {
    pub fn now() -> Self {
        Self(fs::read_to_string("/proc/vmstat").ok().as_deref().and_then(parse))
    }

    /// Whether there were victims since. False where the kernel does not count them.
    pub fn grew(self) -> bool {
        matches!((self.0, Self::now().0), (Some(before), Some(after)) if after > before)
    }
}

fn parse(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_its_neighbours() {
        assert_eq!(parse("pgfault 9\noom_kill 3\noom_kill_x 8\n"), Some(3));
        assert_eq!(parse("pgfault 9\n"), None);
        assert_eq!(parse("oom_kill many\n"), None);
    }
}
