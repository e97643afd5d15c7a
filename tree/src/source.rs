//! What is packed: a path as somebody has written it, and what its archive calls it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};

use crate::name::Shown;

/// What [`pack`](crate::pack) starts from.
#[derive(Debug)]
pub struct Source {
    /// The directory in which it is.
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
    /// As the archive's first entry; empty where the path ends in no name.
    pub(crate) called: PathBuf,
    pub(crate) follow: bool,
}

/// Why there is nothing to pack.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("`{}` does not exist", Shown(.0))]
    Missing(PathBuf),
    #[error("`{}` does not lead through directories only", Shown(.0))]
    NotADirectory(PathBuf),
    #[error("failed to open `{}`: {source}", Shown(.path))]
    Open { path: PathBuf, source: io::Error },
}

const OPEN_PARENT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Source {
    /// `path` may lead through links. What it names itself is followed if it is a link and `path` ends with a slash, or with
    /// `follow`. The archive's first entry is called as the last part of the path; where that is no name (`.`, `..`, `/`),
    /// it is `./`, and all else lies directly below.
    ///
    /// # Errors
    /// When it does not exist or can't be reached.
    pub fn open(path: &Path, follow: bool) -> Result<Self, SourceError> {
        let bytes = path.as_os_str().as_bytes();
        let has_slash = bytes.ends_with(b"/");
        let trimmed = &bytes[..bytes.len() - bytes.iter().rev().take_while(|byte| **byte == b'/').count()];
        let (parent, name) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&trimmed[..=slash], &trimmed[slash + 1..]),
            None => (&b"."[..], trimmed),
        };
        let nameless = matches!(name, b"" | b"." | b"..");
        let (parent, name, called) = match nameless {
            // `/` and `a/..` are opened themselves.
            true => (if bytes.is_empty() { b"." } else { bytes }, &b"."[..], &b""[..]),
            false => (parent, name, name),
        };
        let open = |error: rustix::io::Errno| match error {
            rustix::io::Errno::NOENT => SourceError::Missing(path.to_owned()),
            rustix::io::Errno::NOTDIR => SourceError::NotADirectory(path.to_owned()),
            _ => SourceError::Open { path: path.to_owned(), source: error.into() },
        };
        let source = Self {
            parent: rustix::fs::open(OsStr::from_bytes(parent), OPEN_PARENT, Mode::empty()).map_err(open)?,
            name: OsStr::from_bytes(name).to_owned(),
            called: PathBuf::from(OsStr::from_bytes(called)),
            follow: follow || has_slash,
        };
        source.stat().map_err(open)?;
        Ok(source)
    }

    /// What its archive's first entry is called; `None`: `./`.
    pub fn called(&self) -> Option<&OsStr> {
        (!self.called.as_os_str().is_empty()).then_some(self.called.as_os_str())
    }

    pub(crate) fn stat(&self) -> rustix::io::Result<Stat> {
        let flags = if self.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::statat(&self.parent, &self.name, flags)
    }
}
