//! Directories that are written under another name first, so that nobody ever sees half of one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::store::{Collect, Removed};

/// What every staging directory's name starts with.
const PREFIX: &str = ".staging-";

/// A private directory (0700) that is removed when dropped. It is locked while its owner lives, so that what a killed
/// process left can be told from what is in use.
#[derive(Debug)]
pub(super) struct StagingDir {
    path: PathBuf,
    _lock: File,
}

impl StagingDir {
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                // Left by a process that had our id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // A collection may come between: then another one is made.
            let lock = match File::open(&path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if lock.try_lock_shared().is_ok() && is_at(&lock, &path) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves `part` of this directory to `dest` in one step, where nothing is.
    ///
    /// # Errors
    /// `AlreadyExists` where something is.
    pub(super) fn publish_new(&self, part: &Path, dest: &Path) -> io::Result<()> {
        match renameat_with(CWD, part, CWD, dest, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // A file system without it replaces nothing but an empty directory.
            Err(Errno::INVAL) => match fs::rename(part, dest) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                renamed => renamed?,
            },
            Err(error) => return Err(error.into()),
        }
        sync_parent(dest)
    }

    /// Moves `part` of this directory to `dest` in one step. What was there before ends up in `part`'s place, and goes
    /// with this directory.
    pub(super) fn publish(&self, part: &Path, dest: &Path) -> io::Result<()> {
        match renameat_with(CWD, part, CWD, dest, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => renameat_with(CWD, part, CWD, dest, RenameFlags::EXCHANGE)?,
            // A file system without either can still rename to where nothing is.
            Err(Errno::INVAL) => fs::rename(part, dest)?,
            Err(error) => return Err(error.into()),
        }
        sync_parent(dest)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // Nobody is left to tell; `sweep` finds what stays behind.
        let _ = remove_tree(&self.path);
    }
}

/// Whether the open directory is still the one with that path.
pub(super) fn is_at(open: &File, path: &Path) -> bool {
    let same = || {
        let (ours, named) = (open.metadata()?, path.metadata()?);
        io::Result::Ok((ours.ino(), ours.dev()) == (named.ino(), named.dev()))
    };
    same().unwrap_or(false)
}

/// Removes staging directories under `parent` whose owner is gone, or only finds them; returns which, with their sizes.
pub(super) fn sweep(parent: &Path, how: Collect) -> io::Result<Vec<Removed>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // Held until it is removed: its maker may be about to lock it.
        let lock = match File::open(entry.path()) {
            Ok(directory) if directory.try_lock().is_ok() => Some(directory),
            // Unreadable ones are unlocked trash of our own making, gone ones are gone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            _ => continue,
        };
        let size_bytes = freeable_bytes(&entry.path());
        if how == Collect::DryRun || remove_tree(&entry.path()).is_ok() {
            removed.push(Removed { what: name.to_string_lossy().into_owned(), size_bytes });
        }
        drop(lock);
    }
    Ok(removed)
}

/// What the disk gets back when a directory is removed, as far as it can be read, in bytes. A file with another name
/// elsewhere gives nothing back.
pub(super) fn freeable_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => freeable_bytes(&entry.path()),
            Ok(found) if found.nlink() == 1 => found.blocks() * 512,
            _ => 0,
        })
        .sum()
}

/// Removes a directory and what is in it, read-only directories included.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn make_writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes names in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Hard-links `source`, or copies it where that isn't possible (another file system, or another owner's file:
/// `fs.protected_hardlinks`). A copy gets `mode`; a link shares the source's.
pub(super) fn link_or_copy(source: &Path, dest: &Path, mode: u32) -> io::Result<()> {
    if rustix::fs::linkat(CWD, source, CWD, dest, AtFlags::SYMLINK_FOLLOW).is_ok() {
        return Ok(());
    }
    copy_with_mode(source, dest, mode)
}

/// Copies `source` and sets the mode exactly, whatever the umask.
pub(super) fn copy_with_mode(source: &Path, dest: &Path, mode: u32) -> io::Result<()> {
    fs::copy(source, dest)?;
    fs::set_permissions(dest, Permissions::from_mode(mode))
}
