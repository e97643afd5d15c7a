//! Writes files below one directory, and nowhere else.
//!
//! Every path is walked from the open directory, one component at a time, and no symbolic link is ever
//! followed: not one that the archive made, not one that lay there before. So nothing needs to be checked
//! about where a path leads, and nothing can change between a check and its use.

use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

const COPY_BYTES: usize = 128 << 10;

/// No set-uid, no set-gid, no sticky bit.
const PERMISSION_BITS: u32 = 0o777;

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug, thiserror::Error)]
#[error("failed to {action} `{path}`: {source}")]
pub struct TreeError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> TreeError {
    move |error| TreeError { action, path: path.to_owned(), source: error.into() }
}

/// What an archive says of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Only the permission bits count.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: u64,
}

impl Attributes {
    fn mode(self) -> Mode {
        Mode::from_bits_truncate(self.mode & PERMISSION_BITS)
    }

    fn times(self) -> Timestamps {
        let time = Timespec { tv_sec: i64::try_from(self.modified).unwrap_or(i64::MAX), tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// A directory being filled. All paths are relative to it and consist of plain names.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// The last entry's directory: archives keep neighbours together.
    last_parent: Option<(PathBuf, OwnedFd)>,
    /// Set at the end, when nothing more is written into them: their times would change, and a read-only
    /// one could not be filled.
    directories: Vec<(PathBuf, Attributes)>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Opens `destination`, or makes it.
    pub fn open(destination: &Path) -> Result<Self, TreeError> {
        let cwd = rustix::fs::CWD;
        let root = match rustix::fs::openat(cwd, destination, OPEN_DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => rustix::fs::mkdirat(cwd, destination, Mode::from_bits_truncate(0o755))
                .and_then(|()| rustix::fs::openat(cwd, destination, OPEN_DIRECTORY, Mode::empty())),
            other => other,
        }
        .map_err(failed("open destination", destination))?;
        Ok(Self { root, last_parent: None, directories: Vec::new(), buffer: vec![0; COPY_BYTES] })
    }

    /// Makes a directory, or keeps the one that is there.
    pub fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), TreeError> {
        self.enter(path)?;
        self.directories.push((path.to_owned(), attributes));
        Ok(())
    }

    /// Writes a file in place of whatever is there. Returns its size.
    pub fn file(
        &mut self,
        path: &Path,
        attributes: Attributes,
        content: &mut impl Read,
    ) -> Result<u64, TreeError> {
        let file = self.replace(path, "create file", |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_bits_truncate(0o600))
        })?;
        let mut file = std::fs::File::from(file);
        let mut size = 0;
        loop {
            let length = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read from the archive", path)(error)),
            };
            file.write_all(&self.buffer[..length]).map_err(failed("write", path))?;
            size += length as u64;
        }
        rustix::fs::fchmod(&file, attributes.mode()).map_err(failed("set the mode of", path))?;
        rustix::fs::futimens(&file, &attributes.times()).map_err(failed("set the time of", path))?;
        Ok(size)
    }

    /// Makes a symbolic link, wherever it may point: it is never followed here.
    pub fn symlink(&mut self, path: &Path, attributes: Attributes, target: &Path) -> Result<(), TreeError> {
        self.replace(path, "create symbolic link", |parent, name| {
            rustix::fs::symlinkat(target, parent, name)?;
            rustix::fs::utimensat(parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Makes another name for the file `target` of this tree.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), TreeError> {
        let wrong = || failed::<Errno>("link to", target)(Errno::INVAL);
        let (target_parent, target_name) = target.parent().zip(target.file_name()).ok_or_else(wrong)?;
        let target_parent =
            self.enter(target_parent)?.try_clone_to_owned().map_err(failed("open", target))?;
        self.replace(path, "create hard link", |parent, name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
    }

    /// Gives the directories their modes and times. Children first, as a parent may become unreadable.
    pub fn finish(mut self) -> Result<(), TreeError> {
        self.last_parent = None;
        let mut directories = std::mem::take(&mut self.directories);
        directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, attributes) in directories {
            let directory = self.enter(&path)?.try_clone_to_owned().map_err(failed("open", &path))?;
            self.last_parent = None;
            rustix::fs::fchmod(&directory, attributes.mode()).map_err(failed("set the mode of", &path))?;
            rustix::fs::futimens(&directory, &attributes.times())
                .map_err(failed("set the time of", &path))?;
        }
        Ok(())
    }

    /// Runs `create` in the directory of `path`, after removing what has its name there.
    fn replace<T>(
        &mut self,
        path: &Path,
        action: &'static str,
        create: impl Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, TreeError> {
        let wrong = || failed::<Errno>(action, path)(Errno::INVAL);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
        let parent = self.enter(parent)?;
        let created = match create(parent, name) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed("replace", path))?;
                create(parent, name)
            }
            other => other,
        };
        created.map_err(failed(action, path))
    }

    /// Opens the directory `path`, made on the way where it does not exist.
    fn enter(&mut self, path: &Path) -> Result<BorrowedFd<'_>, TreeError> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        let is_last = self.last_parent.as_ref().is_some_and(|(last, _)| last == path);
        if !is_last {
            let opened = self.walk(path)?;
            self.last_parent = Some((path.to_owned(), opened));
        }
        Ok(self.last_parent.as_ref().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd()))
    }

    fn walk(&self, path: &Path) -> Result<OwnedFd, TreeError> {
        let mut current: Option<OwnedFd> = None;
        for name in path {
            let parent = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let opened = match rustix::fs::openat(parent, name, OPEN_DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => rustix::fs::mkdirat(parent, name, Mode::from_bits_truncate(0o755))
                    .and_then(|()| rustix::fs::openat(parent, name, OPEN_DIRECTORY, Mode::empty())),
                other => other,
            };
            current = Some(opened.map_err(failed("enter directory", path))?);
        }
        current.ok_or_else(|| failed("enter directory", path)(Errno::INVAL))
    }
}
