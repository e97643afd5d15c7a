//! Walks a tree and writes it as an archive.
//!
//! The walk goes from open directory to open directory, so a tree that is moved about meanwhile leads it nowhere else. What
//! can't be read is told and left out, and the archive is whole without it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::attributes::Attributes;
use crate::holes::{self, Parts};
use crate::name::{MAX_DEPTH, MAX_PATH_BYTES, Shown};
use crate::source::Source;
use crate::writer::{ContentFault, Writer};

/// Files with more names than one that are remembered until all of their names were met. Of more, each name becomes a file.
const MAX_LINKED_FILES: usize = 1 << 18;

/// What went into an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    /// Files and links, a hard link included.
    pub files: u64,
    pub directories: u64,
    /// In files, holes included.
    pub bytes: u64,
    /// How many complaints there were.
    pub complaints: u64,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("failed to write the archive: {0}")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Complaint(#[from] PackComplaint),
}

/// What is not in the archive as it is in the tree. The paths are the archive's.
#[derive(Debug, thiserror::Error)]
pub enum PackComplaint {
    #[error("`{}` can't be read: {source}; it was left out", Shown(.path))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("directory `{}` can't be read: {source}; what is in it was left out", Shown(.path))]
    Directory { path: PathBuf, source: io::Error },
    #[error("`{}` is {kind}; it was left out", Shown(.path))]
    Kind { path: PathBuf, kind: &'static str },
    #[error("`{}` vanished before it was read", Shown(.0))]
    Vanished(PathBuf),
    #[error("`{}` changed while it was read", Shown(.0))]
    Changed(PathBuf),
    #[error("`{}` shrank to {bytes} bytes while it was read; the rest are zeroes", Shown(.path))]
    Shrank { path: PathBuf, bytes: u64 },
    #[error("`{}` can't be read from byte {bytes} on: {source}; the rest are zeroes", Shown(.path))]
    Faulty { path: PathBuf, bytes: u64, source: io::Error },
    #[error("`{}` lies too deep or its path is too long; it was left out", Shown(.0))]
    OutOfBounds(PathBuf),
}

/// What to do about a complaint: `Ok` goes on, an error (such as the complaint itself, by `Err`) ends the work.
type Complain<'a, E> = &'a mut dyn FnMut(E) -> Result<(), E>;

/// Writes `source` and all below it to `sink`. Owners are not written; see the crate's documentation for what is.
///
/// # Errors
/// When the archive can't be written, or `complain` wants it.
pub fn pack<W: Write>(
    source: &Source,
    sink: W,
    complain: Complain<'_, PackComplaint>,
) -> Result<Packed, PackError> {
    let mut walk = Walk {
        writer: Writer::new(sink),
        packed: Packed::default(),
        complain,
        linked: HashMap::new(),
        path: source.called.clone(),
    };
    let mut levels = Vec::new();
    levels.extend(walk.meet(source.parent.as_fd(), &source.name, source.stat(), source.follow, None)?);
    // Taken off while its next entry is looked at, and put back under what that leads into.
    while let Some(mut level) = levels.pop() {
        match level.entries.next() {
            None => {
                walk.path.pop();
            }
            Some(Err(error)) => {
                walk.complain(PackComplaint::Directory { path: walk.path.clone(), source: error.into() })?;
                walk.path.pop();
            }
            Some(Ok(entry)) => {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let below = match name.as_bytes() {
                    b"." | b".." => None,
                    _ => walk.child(name, &level, levels.len() + 1)?,
                };
                levels.push(level);
                levels.extend(below);
            }
        }
    }
    let Walk { writer, packed, .. } = walk;
    writer.finish().map_err(PackError::Write)?;
    Ok(packed)
}

/// A directory that is being read.
struct Level {
    entries: Dir,
    device: u64,
}

struct Walk<'a, W: Write> {
    writer: Writer<W>,
    packed: Packed,
    complain: Complain<'a, PackComplaint>,
    /// Files with several names, by device and inode: the first name, and how many are still to come.
    linked: HashMap<(u64, u64), (PathBuf, u64)>,
    /// Of the directory that is being read, or of what is in it.
    path: PathBuf,
}

impl<W: Write> Walk<'_, W> {
    fn complain(&mut self, complaint: PackComplaint) -> Result<(), PackError> {
        self.packed.complaints += 1;
        Ok((self.complain)(complaint)?)
    }

    /// The directory that it is, if it is one that is to be read next; `self.path` is then its path.
    fn child(&mut self, name: &OsStr, level: &Level, depth: usize) -> Result<Option<Level>, PackError> {
        self.path.push(name);
        // With a byte for the slash behind a directory's name.
        let below = if self.path.as_os_str().len() >= MAX_PATH_BYTES || depth >= MAX_DEPTH {
            self.complain(PackComplaint::OutOfBounds(self.path.clone()))?;
            None
        } else {
            match level.entries.fd() {
                Ok(parent) => {
                    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                    self.meet(parent, name, stat, false, Some(level.device))?
                }
                Err(error) => self.unreadable(error).map(|()| None)?,
            }
        };
        if below.is_none() {
            self.path.pop();
        }
        Ok(below)
    }

    /// Writes what is called `name` in `parent` (on file system `device`), and `self.path` in the archive.
    fn meet(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stat: rustix::io::Result<Stat>,
        follow: bool,
        device: Option<u64>,
    ) -> Result<Option<Level>, PackError> {
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) => return self.unreadable(error).map(|()| None),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.directory(parent, name, &stat, follow, device),
            FileType::RegularFile => {
                return self.linked_file(parent, name, &stat, follow).map(|()| None);
            }
            FileType::Symlink => return self.symlink(parent, name, &stat).map(|()| None),
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            FileType::CharacterDevice => "a character device",
            FileType::BlockDevice => "a block device",
            _ => "of an unknown kind",
        };
        self.complain(PackComplaint::Kind { path: self.path.clone(), kind }).map(|()| None)
    }

    fn unreadable(&mut self, error: rustix::io::Errno) -> Result<(), PackError> {
        let path = self.path.clone();
        self.complain(match error {
            rustix::io::Errno::NOENT => PackComplaint::Vanished(path),
            _ => PackComplaint::Unreadable { path, source: error.into() },
        })
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        follow: bool,
        device: Option<u64>,
    ) -> Result<Option<Level>, PackError> {
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        self.writer.directory(path, Attributes::of(stat)).map_err(PackError::Write)?;
        self.packed.directories += 1;
        match open(parent, name, OFlags::DIRECTORY, follow) {
            Ok(directory)
                if device.is_some_and(|device| device != stat.st_dev) && is_of_the_kernel(&directory) =>
            {
                Ok(None)
            }
            Ok(directory) => match Dir::new(directory) {
                Ok(entries) => Ok(Some(Level { entries, device: stat.st_dev })),
                Err(error) => self.unread_directory(error),
            },
            Err(error) => self.unread_directory(error),
        }
    }

    fn unread_directory(&mut self, error: rustix::io::Errno) -> Result<Option<Level>, PackError> {
        let complaint = PackComplaint::Directory { path: self.path.clone(), source: error.into() };
        self.complain(complaint).map(|()| None)
    }

    fn symlink(&mut self, parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<(), PackError> {
        match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(target) => {
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                self.packed.files += 1;
                self.writer.symlink(&self.path, Attributes::of(stat), target).map_err(PackError::Write)
            }
            Err(error) => self.unreadable(error),
        }
    }

    fn linked_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        follow: bool,
    ) -> Result<(), PackError> {
        if stat.st_nlink < 2 {
            return self.file(parent, name, follow).map(|_| ());
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some((first, names_left)) = self.linked.get_mut(&key) {
            *names_left -= 1;
            let is_last = *names_left == 0;
            let written = self.writer.hard_link(&self.path, Attributes::of(stat), first);
            if is_last {
                self.linked.remove(&key);
            }
            self.packed.files += 1;
            return written.map_err(PackError::Write);
        }
        if self.file(parent, name, follow)? && self.linked.len() < MAX_LINKED_FILES {
            self.linked.insert(key, (self.path.clone(), stat.st_nlink - 1));
        }
        Ok(())
    }

    /// Whether there is an entry for it.
    fn file(&mut self, parent: BorrowedFd<'_>, name: &OsStr, follow: bool) -> Result<bool, PackError> {
        // What was a file a moment ago may be a fifo now, which must not hold us up.
        let opened = open(parent, name, OFlags::NONBLOCK.union(OFlags::NOCTTY), follow)
            .and_then(|file| Ok((rustix::fs::fstat(&file)?, File::from(file))));
        let (stat, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(error).map(|()| false),
        };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return self.complain(PackComplaint::Changed(self.path.clone())).map(|()| false);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let attributes = Attributes::of(&stat);
        let fault = match holes::map(&file, size, blocks) {
            Some(map) => self.writer.sparse_file(&self.path, attributes, &map, Parts::new(&file, &map)),
            None => self.writer.file(&self.path, attributes, size, &file),
        };
        self.packed.files += 1;
        self.packed.bytes += size;
        match fault.map_err(PackError::Write)? {
            Some(ContentFault { bytes, error: Some(source) }) => {
                self.complain(PackComplaint::Faulty { path: self.path.clone(), bytes, source })?;
            }
            Some(ContentFault { bytes, error: None }) => {
                self.complain(PackComplaint::Shrank { path: self.path.clone(), bytes })?;
            }
            None => {
                let now = rustix::fs::fstat(&file);
                let same = |now: &Stat| {
                    (now.st_size, now.st_mtime, now.st_mtime_nsec)
                        == (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
                };
                if !now.is_ok_and(|now| same(&now)) {
                    self.complain(PackComplaint::Changed(self.path.clone()))?;
                }
            }
        }
        Ok(true)
    }
}

fn open(parent: BorrowedFd<'_>, name: &OsStr, flags: OFlags, follow: bool) -> rustix::io::Result<OwnedFd> {
    let no_follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    rustix::fs::openat(parent, name, flags | no_follow | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a mounted file system shows the kernel's own state, such as /proc: there is no end to that, and nothing of the
/// user's. Numbers of linux/magic.h.
fn is_of_the_kernel(directory: &OwnedFd) -> bool {
    const PROC: i64 = 0x9fa0;
    const SYSFS: i64 = 0x6265_6572;
    const CGROUP: i64 = 0x0027_e0eb;
    const CGROUP2: i64 = 0x6367_7270;
    const DEBUGFS: i64 = 0x6462_6720;
    const TRACEFS: i64 = 0x7472_6163;
    const SECURITYFS: i64 = 0x7363_6673;
    let kernels = [PROC, SYSFS, CGROUP, CGROUP2, DEBUGFS, TRACEFS, SECURITYFS];
    rustix::fs::fstatfs(directory).is_ok_and(|stat| kernels.contains(&stat.f_type))
}
