//! Directories that are their user's alone, and records in them: what was checked is what is used.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::records::{RecordError, failed};

/// A plan has at most some hundred steps of at most some KiB; this keeps another's file from being read into memory.
pub(super) const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Makes `<state dir>/<name>` and its parents where they are missing, and opens it.
pub(super) fn make(state_dir: &Path, name: &str) -> Result<(PathBuf, OwnedFd), RecordError> {
    let path = state_dir.join(name);
    // Root's state directory holds images too, which anyone may read.
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    let made = DirBuilder::new().recursive(true).mode(mode).create(state_dir);
    made.map_err(failed("make", state_dir))?;
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", &path)(error));
        }
        _ => {}
    }
    let opened = open(state_dir, name)?;
    opened.ok_or_else(|| failed("open", &path)(io::Error::from(io::ErrorKind::NotFound)))
}

/// Opens it; `None` when there is none.
pub(super) fn open(state_dir: &Path, name: &str) -> Result<Option<(PathBuf, OwnedFd)>, RecordError> {
    let path = state_dir.join(name);
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(RecordError::WrongKind { path }),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let file = File::from(fd);
    let found = file.metadata().map_err(failed("inspect", &path))?;
    check_owner(&path, found.uid())?;
    if found.mode() & 0o077 != 0 {
        return Err(RecordError::OpenToOthers { path, mode: found.mode() & 0o777 });
    }
    Ok(Some((path, file.into())))
}

pub(super) fn check_owner(path: &Path, owner: u32) -> Result<(), RecordError> {
    let expected = rustix::process::geteuid().as_raw();
    if owner == expected {
        return Ok(());
    }
    Err(RecordError::ForeignOwner { path: path.to_owned(), owner, expected })
}

/// Opens a file of a directory, whose path is for messages, for reading.
pub(super) fn open_file(
    directory: BorrowedFd<'_>,
    directory_path: &Path,
    name: &str,
) -> Result<(PathBuf, File), RecordError> {
    let path = directory_path.join(name);
    // Nonblocking, should it be a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Err(RecordError::WrongKind { path }),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let file = File::from(fd);
    if !file.metadata().map_err(failed("inspect", &path))?.is_file() {
        return Err(RecordError::WrongKind { path });
    }
    Ok((path, file))
}

/// Reads a record in JSON that says its `version`, of which versions up to `known` can be read.
pub(super) fn read_versioned<T: DeserializeOwned>(
    path: &Path,
    mut file: File,
    known: u32,
) -> Result<T, RecordError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }

    let path = path.to_owned();
    let bytes = file.metadata().map_err(failed("inspect", &path))?.len();
    if bytes > MAX_RECORD_BYTES {
        return Err(RecordError::TooLong { path, bytes });
    }
    let mut text = Vec::new();
    (&mut file).take(MAX_RECORD_BYTES).read_to_end(&mut text).map_err(failed("read", &path))?;
    let unreadable = |source| RecordError::Unreadable { path: path.clone(), source };
    // First, since a newer one may have another form altogether.
    let Versioned { version } = serde_json::from_slice(&text).map_err(unreadable)?;
    if version > known {
        return Err(RecordError::Newer { path, version, known });
    }
    serde_json::from_slice(&text).map_err(unreadable)
}
