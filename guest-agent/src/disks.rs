//! Finds a disk by the serial that the host gave it.
//!
//! Device names depend on the order in which a kernel happens to find disks; serials don't
//! (`/sys/block/<disk>/serial`, virtio 1.2 section 5.2.6: VIRTIO_BLK_T_GET_ID).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

const SYS_BLOCK: &str = "/sys/block";

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("no disk has the serial `{0}`: the host did not attach one, or its driver is not loaded")]
    NotFound(String),
    #[error("failed to look through {SYS_BLOCK} for disk `{serial}`: {source}")]
    List { serial: String, source: io::Error },
    #[error("failed to wait for disk `{serial}`: {source}")]
    Wait { serial: String, source: io::Error },
}

/// The device of the disk `serial`, if it is there now.
pub fn find(serial: &str) -> Result<PathBuf, DiskError> {
    find_in(Path::new(SYS_BLOCK), serial)
        .map_err(|source| DiskError::List { serial: serial.to_owned(), source })?
        .ok_or_else(|| DiskError::NotFound(serial.to_owned()))
}

/// Like [`find`], but gives the kernel up to `limit` to come up with the disk. Drivers of virtio disks
/// look for them while they are loaded, so as a rule nothing is left to wait for.
pub fn wait_for(serial: &str, limit: Duration) -> Result<PathBuf, DiskError> {
    let deadline = Instant::now() + limit;
    if let Ok(device) = find(serial) {
        return Ok(device);
    }
    let failed = |errno: Errno| DiskError::Wait { serial: serial.to_owned(), source: errno.into() };
    // Opened before the next look, so that no disk comes unseen between the two.
    let events = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::KOBJECT_UEVENT),
    )
    .map_err(failed)?;
    rustix::net::bind(&events, &SocketAddrNetlink::new(0, 1)).map_err(failed)?;
    loop {
        let found = find(serial);
        let left = deadline.saturating_duration_since(Instant::now());
        if !matches!(found, Err(DiskError::NotFound(_))) || left.is_zero() {
            return found;
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // What the events say does not matter; that they came does.
        let mut event = [0u8; 4096];
        while rustix::net::recv(&events, &mut event[..], RecvFlags::empty()).is_ok() {}
    }
}

fn find_in(sys_block: &Path, serial: &str) -> io::Result<Option<PathBuf>> {
    for disk in fs::read_dir(sys_block)? {
        let disk = disk?;
        // Most kinds of disk have no such file.
        let Ok(found) = fs::read_to_string(disk.path().join("serial")) else { continue };
        if found.trim_end_matches(['\n', '\0']) == serial {
            return Ok(Some(Path::new("/dev").join(disk.file_name())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_all_of_its_serial() {
        let sys_block = tempfile::tempdir().unwrap();
        let disk = |name: &str| sys_block.path().join(name);
        for (name, serial) in
            [("vda", Some("creel-volume-10\n")), ("vdb", Some("creel-volume-1")), ("ram0", None)]
        {
            fs::create_dir(disk(name)).unwrap();
            if let Some(serial) = serial {
                fs::write(disk(name).join("serial"), serial).unwrap();
            }
        }
        let find = |serial| find_in(sys_block.path(), serial).unwrap();
        assert_eq!(find("creel-volume-1"), Some("/dev/vdb".into()));
        assert_eq!(find("creel-volume-10"), Some("/dev/vda".into()));
        assert_eq!(find("creel-volume"), None);
    }
}
