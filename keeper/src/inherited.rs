//! The descriptors that the keeper was born with: those of the plan become owned values, all others are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The plan's descriptors by number.
#[derive(Debug)]
pub(crate) struct Inherited(BTreeMap<RawFd, OwnedFd>);

impl Inherited {
    /// Takes `named`, and closes everything else but the standard streams and `keep`. To be called once, before any
    /// other descriptor is opened.
    pub(crate) fn take(named: &BTreeSet<RawFd>, keep: BorrowedFd<'_>) -> Result<Self, String> {
        for fd in named {
            // SAFETY: F_GETFD and F_SETFD touch no memory, and any number may be asked about.
            let failed = unsafe {
                libc::fcntl(*fd, libc::F_GETFD) < 0 || libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0
            };
            if failed || *fd == keep.as_raw_fd() {
                return Err(format!("the plan names descriptor {fd}, which was not handed down"));
            }
        }
        let mut next = 3;
        for fd in named.iter().copied().chain([keep.as_raw_fd()]).collect::<BTreeSet<_>>() {
            close_from_to(next, fd - 1);
            next = fd + 1;
        }
        close_from_to(next, RawFd::MAX);
        // SAFETY: each number was just seen open, is named once (a set), and nothing else in this process owns it.
        Ok(Self(named.iter().map(|fd| (*fd, unsafe { OwnedFd::from_raw_fd(*fd) })).collect()))
    }

    pub(crate) fn remove(&mut self, fd: RawFd) -> Result<OwnedFd, String> {
        self.0.remove(&fd).ok_or_else(|| format!("the plan uses descriptor {fd} for two purposes"))
    }

    pub(crate) fn number(&self, fd: RawFd) -> Option<RawFd> {
        self.0.get(&fd).map(AsRawFd::as_raw_fd)
    }

    /// Closes all but `needed`.
    pub(crate) fn keep_only(&mut self, needed: &BTreeSet<RawFd>) {
        self.0.retain(|fd, _| needed.contains(fd));
    }
}

/// Reads the plan from its start and closes it.
pub(crate) fn read_plan(fd: RawFd, max_bytes: u64) -> io::Result<Vec<u8>> {
    // SAFETY: F_GETFD touches no memory.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, no standard stream, and this process's by the contract of `--plan-fd`.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.seek(SeekFrom::Start(0))?;
    let mut json = Vec::new();
    file.take(max_bytes).read_to_end(&mut json)?;
    Ok(json)
}

fn close_from_to(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: closes descriptors that nothing in this process owns. close_range(2) is Linux 5.9; should it be missing,
    // the children still get nothing, since `child` marks everything close-on-exec by other means.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
