//! Cuts a machine's connection to its agent on the host's side, from outside of creel, as a helper that fails would.
//!
//! An accepted unix socket bears its listener's path in /proc/net/unix (proc(5)); pidfd_getfd(2) makes a descriptor of it
//! here, and shutdown(2) on that ends it for all that have it. It takes the rights of ptrace(2) over creel, which root and
//! the parent have.

use std::io;
use std::path::Path;

use rustix::net::Shutdown;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `/proc/net/unix`: SS_CONNECTED.
const CONNECTED: &str = "03";

/// Ends the connections that process `pid` has accepted at `socket`. Returns how many they were.
pub fn cut(pid: u32, socket: &Path) -> io::Result<usize> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    // An accepted socket belongs to the network namespace of who connected (`unix_stream_connect`): the helper's.
    let mut namespaces = std::collections::BTreeMap::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        if let Ok(namespace) = std::fs::read_link(process.path().join("ns/net")) {
            namespaces.entry(namespace).or_insert_with(|| process.path().join("net/unix"));
        }
    }
    let tables = namespaces.values().filter_map(|table| std::fs::read_to_string(table).ok());
    let inodes: Vec<String> = tables.flat_map(|table| connected(&table, socket)).collect();
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // It may have been closed since it was listed.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        let fd = entry.file_name().to_string_lossy().parse();
        if let (Some(inode), Ok(fd)) = (inode, fd)
            && inodes.iter().any(|one| one == inode)
        {
            let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?;
            rustix::net::shutdown(&socket, Shutdown::Both)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Columns: Num RefCount Protocol Flags Type St Inode Path.
fn connected(table: &str, socket: &Path) -> Vec<String> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 8 && row[5] == CONNECTED && Path::new(row[7]) == socket)
        .map(|row| row[6].to_owned())
        .collect()
}
