//! What the guest's kernel said before its end, for a person to read beside the verdict. It explains and never decides:
//! any program in the guest can write such a line.

use crate::text::one_line;

/// Longer lines are cut.
const MAX_CHARS: usize = 160;

/// What panics begin with (`panic` in the kernel's kernel/panic.c).
const PANIC: &str = "Kernel panic - not syncing: ";

/// What the OOM killer begins with (`oom_kill_process` in mm/oom_kill.c).
const OOM: [&str; 2] = ["Out of memory: ", "Memory cgroup out of memory: "];

/// The last panic on a console, or else the last victim of the OOM killer.
pub(super) fn explanation(console: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(console);
    let last = |beginnings: &[&str]| {
        text.lines().rev().find_map(|line| {
            let at = beginnings.iter().filter_map(|beginning| line.find(beginning)).min()?;
            // At the line's start, or behind the kernel's time stamp.
            let before = line[..at].trim();
            (before.is_empty() || before.starts_with('[') && before.ends_with(']'))
                .then(|| line[at..].to_owned())
        })
    };
    let said = last(&[PANIC]).or_else(|| last(&OOM))?;
    Some(format!("the guest's console says: {}", one_line(said.trim(), MAX_CHARS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_panic_wins_over_victims_before_and_after_it() {
        let console = b"[    2.1] Out of memory: Killed process 70 (sh)\r\n\
            [    2.2] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled\r\n\
            [    2.3] Memory cgroup out of memory: Killed process 71\r\n";
        let said = explanation(console).unwrap();
        assert_eq!(
            said,
            "the guest's console says: Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled"
        );
    }

    #[test]
    fn a_victim_explains_where_there_is_no_panic_and_other_text_does_not() {
        assert!(
            explanation(b"[ 1.0] Out of memory: Killed process 70 (sh)\n").unwrap().contains("process 70")
        );
        assert_eq!(explanation(b"a log that quotes Kernel panic - not syncing: x\n\xff\n"), None);
    }
}
