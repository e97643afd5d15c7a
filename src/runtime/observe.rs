//! What can be seen of a machine from outside, while it lives: numbers, processes, its console.
//!
//! Nothing here changes a machine or decides anything about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

/// What a machine takes of its host at one moment. A part that nothing counts is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineLoad {
    /// Of all its processes; page cache included where a cgroup counts it, else their resident sets.
    pub memory_bytes: Option<u64>,
    /// Since its start.
    pub cpu: Option<Duration>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Since its start.
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
    /// How long some process of the machine waited, since its start (pressure stall information, line `some`).
    pub cpu_pressure: Option<Duration>,
    pub memory_pressure: Option<Duration>,
    pub io_pressure: Option<Duration>,
}

/// The limits of a machine's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineLimits {
    pub memory_bytes: u64,
    pub pids: u32,
    /// CPU time that it may take in each period; `None`: no limit.
    pub cpu_quota: Option<Duration>,
    pub cpu_period: Duration,
    /// Shares where there is contention, 1 to 10000.
    pub cpu_weight: u16,
    pub io_weight: u16,
}

/// A process of a machine, as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProcess {
    pub pid: u32,
    /// Of its program file, cut at 15 bytes (proc_pid_comm(5)).
    pub name: String,
    pub threads: u32,
    pub resident_bytes: u64,
}

/// What else is known of how a machine runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineDetails {
    /// Its directory on the host, with its sockets and records.
    pub directory: Option<PathBuf>,
    /// The image's files, as they are for this machine.
    pub image_directory: Option<PathBuf>,
    /// Of creel's own images: what their content hashes to.
    pub image_digest: Option<String>,
    /// The program that runs it, and its version.
    pub qemu: Option<(PathBuf, String)>,
    /// Namespaces of its processes: `none`, `pid` or `user and pid`.
    pub namespaces: Option<String>,
    /// `None`: it has no limits but QEMU's own.
    pub limits: Option<MachineLimits>,
    /// Its keeper first.
    pub processes: Vec<HostProcess>,
}

/// What is known of a runtime at this moment. Absent: not known yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// `kvm` or `tcg`.
    pub accel: Option<String>,
    /// `kernel` or `hybrid`.
    pub transport: Option<String>,
    /// Why it can't make machines.
    pub problem: Option<String>,
}

/// What is kept of a console: its first bytes and its last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleHistory {
    /// From the console's first byte on.
    pub head: Vec<u8>,
    /// Up to its last byte. Where it does not follow `head`, the bytes between were not kept.
    pub tail: Vec<u8>,
    /// Bytes that the guest has written.
    pub total: u64,
}

impl ConsoleHistory {
    /// What is kept from `offset` on: pieces that each begin at their offset, in order. More than one, or one that
    /// begins later, where bytes are missing.
    pub fn from(&self, offset: u64) -> Vec<(u64, &[u8])> {
        let tail_at = self.total.saturating_sub(self.tail.len() as u64);
        [(0, self.head.as_slice()), (tail_at, self.tail.as_slice())]
            .into_iter()
            .filter_map(|(at, bytes)| {
                let skipped = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
                let rest = bytes.get(skipped..).filter(|rest| !rest.is_empty())?;
                Some((at + skipped as u64, rest))
            })
            .collect()
    }

    /// The last bytes, at most `max_bytes`, without a gap in them.
    pub fn last(&self, max_bytes: usize) -> Vec<u8> {
        let mut last: Vec<u8> = Vec::new();
        let mut end = 0;
        for (at, bytes) in self.from(self.total.saturating_sub(max_bytes as u64)) {
            if at != end {
                last.clear();
            }
            last.extend_from_slice(bytes);
            end = at + bytes.len() as u64;
        }
        last
    }
}

/// A guest's console, open for reading. The guest writes it: any bytes, at any rate.
#[async_trait]
pub trait Console: Send + Sync + fmt::Debug {
    /// What there is of it now. Reads a file.
    ///
    /// # Errors
    /// Those of reading it.
    fn read(&self) -> io::Result<ConsoleHistory>;

    /// Returns when there may be more than the last read has seen. Safe to cancel.
    async fn changed(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_read_on_from_any_offset_and_gaps_show() {
        let console = ConsoleHistory { head: b"abc".to_vec(), tail: b"xyz".to_vec(), total: 10 };
        assert_eq!(console.from(0), [(0, &b"abc"[..]), (7, &b"xyz"[..])]);
        assert_eq!(console.from(2), [(2, &b"c"[..]), (7, &b"xyz"[..])]);
        assert_eq!(console.from(5), [(7, &b"xyz"[..])]);
        assert_eq!(console.from(9), [(9, &b"z"[..])]);
        assert_eq!(console.from(10), []);
        assert_eq!(ConsoleHistory::default().from(0), []);
        assert_eq!((console.last(2), console.last(5)), (b"yz".to_vec(), b"xyz".to_vec()));
        let whole = ConsoleHistory { head: b"abc".to_vec(), tail: b"de".to_vec(), total: 5 };
        assert_eq!((whole.last(4), whole.last(9)), (b"bcde".to_vec(), b"abcde".to_vec()));
    }
}
