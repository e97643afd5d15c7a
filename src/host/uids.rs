//! Users that nobody else is: numbers out of a range, leased by a lock on one byte each of a file.
//!
//! The lock belongs to the open file (`F_OFD_SETLK`, fcntl(2)), which the machine's keeper inherits: it stands as long as
//! creel or the keeper lives, needs no record, and can't be left behind.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

/// One for all creels of a host, whatever their own directories are.
pub const LOCKS: &str = "/run/creel/uids";

/// Numbers to lease from. Nobody else must use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    pub first: u32,
    pub count: u32,
}

/// A user and a group of this number, for as long as this or a copy of its file lives.
#[derive(Debug)]
pub struct UidLease {
    uid: u32,
    file: File,
}

impl UidLease {
    /// A free number, at random, so that one is not given out again soon.
    ///
    /// # Errors
    /// `ResourceBusy` when all are in use; those of the file else.
    pub fn acquire(range: UidRange, locks: &Path) -> io::Result<Self> {
        if let Some(directory) = locks.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(locks)?;
        let mut random = [0; 4];
        // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
        getrandom(&mut random, GetRandomFlags::empty())?;
        let start = u32::from_ne_bytes(random);
        for offset in 0..range.count {
            let index = start.wrapping_add(offset) % range.count;
            if lock_byte(&file, i64::from(index))? {
                return Ok(Self { uid: range.first + index, file });
            }
        }
        let text =
            format!("all {} users from {} on are in use; raise `jail.uid_count`", range.count, range.first);
        Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whoever has a copy of it holds the lease.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether it was free.
fn lock_byte(file: &File, index: i64) -> io::Result<bool> {
    // SAFETY: all-zero is a valid `struct flock`; `l_pid` has to be zero here.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // `F_WRLCK` and `SEEK_SET`, which libc has in a larger type.
    (lock.l_type, lock.l_whence) = (1, 0);
    lock.l_start = index;
    lock.l_len = 1;
    // SAFETY: the lock is valid for reading.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_of_its_own_until_it_is_given_back() {
        let scratch = tempfile::tempdir().unwrap();
        let locks = scratch.path().join("run/uids");
        let range = UidRange { first: 2_000_000_000, count: 3 };
        let acquire = || UidLease::acquire(range, &locks);
        let leases = [acquire().unwrap(), acquire().unwrap(), acquire().unwrap()];
        let mut uids = leases.each_ref().map(UidLease::uid);
        uids.sort_unstable();
        assert_eq!(uids, [2_000_000_000, 2_000_000_001, 2_000_000_002]);
        assert_eq!(acquire().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        // As a keeper has it.
        let [first, ..] = leases;
        let copy = first.fd().try_clone_to_owned().unwrap();
        let uid = first.uid();
        drop(first);
        assert!(acquire().is_err(), "somebody holds it still");
        drop(copy);
        assert_eq!(acquire().unwrap().uid(), uid);
    }
}
