//! Directories that are written under another name first, so that nobody ever sees half of one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

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
            let lock = File::open(&path)?;
            lock.try_lock_shared().map_err(io::Error::from)?;
            return Ok(Self { path, _lock: lock });
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
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
        match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // Nobody is left to tell; `sweep` finds what stays behind.
        let _ = remove_tree(&self.path);
    }
}

/// Removes staging directories under `parent` whose owner is gone; returns how many.
pub(super) fn sweep(parent: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let abandoned = match File::open(entry.path()) {
            Ok(directory) => directory.try_lock().is_ok(),
            // Unreadable ones are unlocked trash of our own making, gone ones are gone.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        if abandoned && remove_tree(&entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
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
