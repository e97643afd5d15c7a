//! What a machine's processes take of the host, as proc(5) tells it: for machines that have no cgroup, and to name
//! them.
//!
//! A process may end between two looks at it; it is then left out.

use std::fs;
use std::time::Duration;

use crate::runtime::{HostProcess, MachineLoad};

/// Of one machine, as far as they are listed.
const MOST_PROCESSES: usize = 64;

/// The keeper and all that descends from it, the keeper first; nothing where it is gone.
pub(super) fn of_keeper(keeper_pid: u32) -> Vec<HostProcess> {
    let mut pids = vec![keeper_pid];
    let mut next = 0;
    // What QEMU has forked is a process of the machine too, though an honest one forks none.
    while let Some(pid) = pids.get(next).copied().filter(|_| pids.len() < MOST_PROCESSES) {
        pids.extend(children(pid));
        next += 1;
    }
    pids.into_iter().filter_map(process).collect()
}

/// What the keeper's children take together; `None` when it has none any more.
pub(super) fn load(keeper_pid: u32) -> Option<MachineLoad> {
    let pids = children(keeper_pid);
    let processes: Vec<HostProcess> = pids.iter().copied().filter_map(process).collect();
    if processes.is_empty() {
        return None;
    }
    let io: Option<Vec<(u64, u64)>> = pids.iter().map(|pid| io_bytes(*pid)).collect();
    let io = io.map(|counts| {
        counts.into_iter().fold((0, 0), |sum, (read, written)| (sum.0 + read, sum.1 + written))
    });
    Some(MachineLoad {
        memory_bytes: Some(processes.iter().map(|process| process.resident_bytes).sum()),
        cpu: Some(pids.iter().filter_map(|pid| cpu(*pid)).sum()),
        pids: Some(processes.iter().map(|process| u64::from(process.threads)).sum()),
        read_bytes: io.map(|(read, _)| read),
        written_bytes: io.map(|(_, written)| written),
        ..MachineLoad::default()
    })
}

/// proc_tid_children(5) of all threads, as this process numbers them.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A process gives itself a name of any bytes (PR_SET_NAME of prctl(2)).
fn stat(pid: u32) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned())
}

fn process(pid: u32) -> Option<HostProcess> {
    let stat = stat(pid)?;
    let stat = Stat::parse(&stat)?;
    Some(HostProcess {
        pid,
        name: crate::text::one_line(stat.name, 32),
        threads: stat.threads,
        resident_bytes: stat.resident_pages.saturating_mul(rustix::param::page_size() as u64),
    })
}

fn cpu(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    let ticks = Stat::parse(&stat)?.cpu_ticks;
    Some(Duration::from_micros(ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second()))
}

/// proc_pid_io(5): what went to and from disks.
fn io_bytes(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let count = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Some((count("read_bytes:")?, count("write_bytes:")?))
}

/// The fields of proc_pid_stat(5) that are of use here.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a str,
    cpu_ticks: u64,
    threads: u32,
    resident_pages: u64,
}

impl<'a> Stat<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // The name may have parentheses and spaces of its own; what follows has neither.
        let (name, rest) = text.split_once('(')?.1.rsplit_once(") ")?;
        // Field 3, the state, is the first of these.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        let number = |index: usize| field(index)?.parse::<u64>().ok();
        Some(Self {
            name,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            threads: field(20)?.parse().ok()?,
            resident_pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_of_a_real_kernel_with_an_odd_name() {
        let text = "12 (qemu) (x 1) S 7 12 12 0 -1 4194304 30 0 0 0 250 50 0 0 20 0 5 0 11 9000000 4096 1844 1 1 0\n";
        let expected = Stat { name: "qemu) (x 1", cpu_ticks: 300, threads: 5, resident_pages: 4096 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("12 (qemu) S 7"), None);
    }

    #[test]
    fn a_process_can_t_hide_by_a_name_that_is_no_text() {
        use std::os::unix::ffi::OsStrExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join(std::ffi::OsStr::from_bytes(b"\xff) \xfe"));
        std::fs::copy("/bin/cat", &program).unwrap();
        let mut child =
            std::process::Command::new(&program).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let own = of_keeper(std::process::id());
        let found = own.iter().find(|process| process.pid == child.id()).unwrap();
        assert_eq!(found.name, "\u{fffd}) \u{fffd}");
        let confinement = crate::host::confinement::Confinement::of(child.id()).unwrap().unwrap();
        assert_eq!(confinement.name, "\u{fffd}) \u{fffd}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_seen_while_it_lives() {
        let own = process(std::process::id()).unwrap();
        assert!(own.resident_bytes > 1 << 20 && own.threads > 0, "{own:?}");
        // Ends with its standard input, also where this test fails.
        let mut cat = std::process::Command::new("cat");
        let mut child = cat.stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert_eq!(process(child.id()).map(|process| process.pid), Some(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(process(child.id()), None);
        assert_eq!(load(child.id()), None);
    }
}
