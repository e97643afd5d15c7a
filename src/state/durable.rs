//! Files that are replaced as a whole: a reader meets the old one or the new one at any time.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, fsync, openat, renameat};
use rustix::io::Errno;

/// What could not be done.
#[derive(Debug)]
pub(super) enum Failed {
    Write(io::Error),
    Replace(io::Error),
    Sync(io::Error),
}

/// Replaces the file `name` of a directory, by way of `new`, which is there afterwards if it failed. Once this has returned,
/// the new content survives a power cut too: the bytes are on the disk before the name leads to them, and so is the name.
/// Should it fail, the old one stands.
pub(super) fn replace(
    directory: BorrowedFd<'_>,
    name: &str,
    new: &str,
    content: &[u8],
) -> Result<(), Failed> {
    let written = open_new(directory, new).and_then(|mut file| {
        // Not truncated first: that would give back what was reserved for it.
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    });
    written.map_err(Failed::Write)?;
    renameat(directory, new, directory, name).map_err(|error| Failed::Replace(error.into()))?;
    sync_directory(directory).map_err(|error| Failed::Sync(error.into()))
}

/// The file that is to replace another; made where it is missing, as it is where it is not.
pub(super) fn open_new(directory: BorrowedFd<'_>, new: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, new, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Some file systems know no fsync of directories, and say so.
pub(super) fn sync_directory(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match fsync(directory) {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}
