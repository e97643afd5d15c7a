//! Which process a number means: numbers are used again, and a boot begins them anew.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// A process by its number and the time that it began, which no other of the same boot shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// As this process's pid namespace numbers it.
    pub pid: u32,
    /// In clock ticks since the boot (field 22 of proc_pid_stat(5)).
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// # Errors
    /// When there is no such process, or /proc says nothing of it.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: look(pid)?.start_ticks })
    }

    /// Whether it runs. One that has ended and waits for its parent does not.
    pub fn lives(self) -> bool {
        look(self.pid).is_ok_and(|found| found == Found { start_ticks: self.start_ticks, ended: false })
    }
}

/// What proc_pid_stat(5) says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    start_ticks: u64,
    ended: bool,
}

fn look(pid: u32) -> io::Result<Found> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    Ok(Found::parse(&stat).ok_or(io::ErrorKind::InvalidData)?)
}

impl Found {
    /// The name before it may hold anything, parentheses among it.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        // Field 3, the state, is the first of these; 22 the start.
        let mut fields = fields.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        Some(Self { start_ticks: fields.nth(22 - 4)?.parse().ok()?, ended })
    }
}

/// The id of this boot (`random/boot_id` of proc_sys_kernel(5)): no process outlives it.
///
/// # Errors
/// When /proc does not tell.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let ours = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(ours.lives());
        assert!(
            !ProcessIdentity { start_ticks: ours.start_ticks + 1, ..ours }.lives(),
            "another of that number"
        );
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = ProcessIdentity::of(child.id()).unwrap();
        assert!(ended.start_ticks >= ours.start_ticks);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while ended.lives() {
            assert!(std::time::Instant::now() < deadline, "it has ended, though nobody has waited for it");
        }
        child.wait().unwrap();
        assert!(!ended.lives());
    }

    #[test]
    fn a_name_may_hold_anything() {
        let after = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 23 24";
        for name in ["plain", "a) Z 1 2 3", "(", ")", "\u{fffd} \n"] {
            let found = Found::parse(format!("7 ({name}) {after}").as_bytes()).unwrap();
            assert_eq!(found, Found { start_ticks: 4242, ended: false }, "{name}");
        }
        assert!(Found::parse(format!("7 (x) {}", after.replace('S', "Z")).as_bytes()).unwrap().ended);
        assert_eq!(Found::parse(b"7 (cut) S 1 2"), None);
        assert_eq!(Found::parse(b""), None);
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
