//! Writes files below one directory, and nowhere else.
//!
//! Every path is walked from the open directory, and no symbolic link is ever followed: not one that the archive made, not
//! one that lay there before. So nothing needs to be checked about where a path leads, and nothing can change between a
//! check and its use.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::attributes::Attributes;
use crate::name::Shown;
use crate::pending::Pending;

/// To walk through: also a directory that may be entered and not listed.
const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// To set modes and times.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Of directories that the archive only implies.
const IMPLIED_MODE: Mode = Mode::from_bits_truncate(0o755);

/// Of those that get their modes later.
const OWN_MODE: Mode = Mode::RWXU;

/// Why one entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("`{}` leads through `{}`, which is a symbolic link, and links are never followed", Shown(.path), Shown(.link))]
    ThroughLink { path: PathBuf, link: PathBuf },
    #[error("`{}` should be a directory, and something else is there", Shown(.0))]
    NoDirectory(PathBuf),
    #[error("`{}` is a directory, and something else should go there; remove it first", Shown(.0))]
    Directory(PathBuf),
    #[error("failed to {action} `{}`: {source}", Shown(.path))]
    Failed { action: &'static str, path: PathBuf, source: io::Error },
}

impl EntryError {
    /// Whether no other entry would fare better.
    pub(crate) fn is_everybodys(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let Self::Failed { source, .. } = self else { return false };
        let out_of_descriptors =
            [Errno::MFILE, Errno::NFILE, Errno::IO].map(|errno| Some(errno.raw_os_error()));
        matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
            || out_of_descriptors.contains(&source.raw_os_error())
    }
}

pub(crate) fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> EntryError {
    move |error| EntryError::Failed { action, path: path.to_owned(), source: error.into() }
}

/// A directory being filled. All paths are relative to it and consist of plain names.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The last entry's directory: archives keep neighbours together.
    last_parent: Option<(PathBuf, OwnedFd)>,
    pending: Pending,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, last_parent: None, pending: Pending::default() }
    }

    /// Makes a directory, or keeps the one that is there. What is complained of is its mode and time, or those of directories
    /// before it.
    pub(crate) fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), EntryError> {
        let wrong = || failed::<Errno>("make directory", path)(Errno::INVAL);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
        let parent = self.enter(parent)?;
        match rustix::fs::mkdirat(parent, name, OWN_MODE) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                unlock(parent, name);
                if !kind(parent, name).is_some_and(FileType::is_dir) {
                    return Err(EntryError::NoDirectory(path.to_owned()));
                }
            }
            Err(error) => return Err(failed("make directory", path)(error)),
        }
        self.pending.add(path, attributes);
        Ok(())
    }

    /// Makes an empty file in the place of whatever is there.
    pub(crate) fn file(&mut self, path: &Path) -> Result<File, EntryError> {
        let file = self.replace(path, "create file", |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_bits_truncate(0o600))
        })?;
        Ok(File::from(file))
    }

    /// Once its content is written.
    pub(crate) fn complete(file: &File, path: &Path, attributes: Attributes) -> Result<(), EntryError> {
        rustix::fs::fchmod(file, attributes.mode()).map_err(failed("set the mode of", path))?;
        rustix::fs::futimens(file, &attributes.times()).map_err(failed("set the time of", path))
    }

    /// Takes a file away again that could not be completed.
    pub(crate) fn remove(&mut self, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        if let Ok(parent) = self.enter(parent) {
            // Whoever was faster has done the same.
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
    }

    /// Makes a symbolic link, wherever it may point: it is never followed here.
    pub(crate) fn symlink(
        &mut self,
        path: &Path,
        attributes: Attributes,
        target: &OsStr,
    ) -> Result<(), EntryError> {
        self.replace(path, "create symbolic link", |parent, name| {
            rustix::fs::symlinkat(target, parent, name)?;
            rustix::fs::utimensat(parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Makes another name for the file `target` of this tree.
    pub(crate) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), EntryError> {
        let wrong = || failed::<Errno>("link to", target)(Errno::INVAL);
        let (target_parent, target_name) = target.parent().zip(target.file_name()).ok_or_else(wrong)?;
        if path == target {
            // Making room for the link would remove the file.
            return Err(wrong());
        }
        let target_parent =
            self.enter(target_parent)?.try_clone_to_owned().map_err(failed("open", target))?;
        if kind(target_parent.as_fd(), target_name).is_none() {
            // Before something is removed to make room.
            return Err(failed("link to", target)(Errno::NOENT));
        }
        self.replace(path, "create hard link", |parent, name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
    }

    /// Gives directories their modes and times where too many wait for that. `path` is the present entry.
    pub(crate) fn make_room(
        &mut self,
        path: &Path,
        complain: impl FnMut(EntryError) -> Result<(), EntryError>,
    ) -> Result<(), EntryError> {
        if self.pending.is_full() {
            let besides = self.pending.take_besides(path);
            return self.settle(besides, complain);
        }
        Ok(())
    }

    /// Gives all directories their modes and times.
    pub(crate) fn finish(
        &mut self,
        complain: impl FnMut(EntryError) -> Result<(), EntryError>,
    ) -> Result<(), EntryError> {
        let all = self.pending.take();
        self.settle(all, complain)
    }

    fn settle(
        &mut self,
        directories: impl Iterator<Item = (PathBuf, Attributes)>,
        mut complain: impl FnMut(EntryError) -> Result<(), EntryError>,
    ) -> Result<(), EntryError> {
        for (path, attributes) in directories {
            let mut set = || -> Result<(), EntryError> {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
                let parent = self.enter(parent)?;
                let directory = rustix::fs::openat(parent, name, OPEN, Mode::empty())
                    .map_err(failed("open directory", &path))?;
                rustix::fs::fchmod(&directory, attributes.mode())
                    .map_err(failed("set the mode of", &path))?;
                rustix::fs::futimens(&directory, &attributes.times())
                    .map_err(failed("set the time of", &path))
            };
            if let Err(error) = set() {
                complain(error)?;
            }
        }
        Ok(())
    }

    /// Runs `create` in the directory of `path`, after removing what has its name there.
    fn replace<T>(
        &mut self,
        path: &Path,
        action: &'static str,
        create: impl Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, EntryError> {
        let wrong = || failed::<Errno>(action, path)(Errno::INVAL);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
        let parent = self.enter(parent)?;
        let created = match create(parent, name) {
            Err(Errno::EXIST) => match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) => create(parent, name),
                Err(Errno::ISDIR | Errno::PERM) if kind(parent, name).is_some_and(FileType::is_dir) => {
                    return Err(EntryError::Directory(path.to_owned()));
                }
                Err(error) => return Err(failed("replace", path)(error)),
            },
            other => other,
        };
        created.map_err(failed(action, path))
    }

    /// Opens the directory `path`, made on the way where it does not exist.
    fn enter(&mut self, path: &Path) -> Result<BorrowedFd<'_>, EntryError> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last_parent.as_ref().is_none_or(|(last, _)| last != path) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let opened = match rustix::fs::openat2(&self.root, path, WALK, Mode::empty(), resolve) {
                Ok(opened) => opened,
                // Not there, not to be entered, or this kernel (before 5.6, or a filter) does not know the call: step by
                // step it is made, or it comes to light what is wrong.
                Err(_) => self.walk(path)?,
            };
            self.last_parent = Some((path.to_owned(), opened));
        }
        Ok(self.last_parent.as_ref().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd()))
    }

    fn walk(&self, path: &Path) -> Result<OwnedFd, EntryError> {
        let mut current: Option<OwnedFd> = None;
        let mut walked = PathBuf::new();
        for name in path {
            walked.push(name);
            let parent = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let opened = match rustix::fs::openat(parent, name, WALK, Mode::empty()) {
                Err(Errno::NOENT) => rustix::fs::mkdirat(parent, name, IMPLIED_MODE)
                    .and_then(|()| rustix::fs::openat(parent, name, WALK, Mode::empty())),
                other => other,
            };
            let opened = opened.map_err(|error| match kind(parent, name) {
                Some(FileType::Symlink) => {
                    EntryError::ThroughLink { path: path.to_owned(), link: walked.clone() }
                }
                Some(FileType::Directory) | None => failed("enter directory", &walked)(error),
                Some(_) => EntryError::NoDirectory(walked.clone()),
            })?;
            current = Some(opened);
        }
        current.ok_or_else(|| failed("enter directory", path)(Errno::INVAL))
    }
}

fn kind(parent: BorrowedFd<'_>, name: &OsStr) -> Option<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// A directory that is there already, is ours and is read-only gets its mode from the archive, at the end; until then it has
/// to be filled.
fn unlock(parent: BorrowedFd<'_>, name: &OsStr) {
    let unlock = || -> rustix::io::Result<()> {
        let directory = rustix::fs::openat(parent, name, OPEN, Mode::empty())?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode);
        match mode.contains(OWN_MODE) {
            true => Ok(()),
            false => rustix::fs::fchmod(&directory, mode | OWN_MODE),
        }
    };
    // Where it does not work, what is to be written there says why.
    let _ = unlock();
}
