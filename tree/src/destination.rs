//! Where an archive goes: the rules of `cp` and `docker cp`.
//!
//! The destination's own path is the caller's, who is trusted with it: it may lead through links. Nothing below it may.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::name::Shown;

/// Where [`unpack`](crate::unpack) writes.
#[derive(Debug)]
pub struct Destination {
    /// All is written below it.
    pub(crate) root: OwnedFd,
    /// The archive's one top entry gets this name; without it, entries keep theirs.
    pub(crate) rename: Option<OsString>,
    /// The name that the archive's one top entry must have.
    pub(crate) only_top: Option<OsString>,
    /// For messages.
    pub(crate) path: PathBuf,
}

/// Why a path can't be a destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    #[error("destination directory `{}` does not exist; make it first, or leave the slash at its end off", Shown(.0))]
    NoDirectory(PathBuf),
    #[error("destination `{}` is not a directory; leave the slash at its end off to replace it", Shown(.0))]
    NotADirectory(PathBuf),
    #[error("`{}` does not exist, in which the destination would be; make that directory first", Shown(.0))]
    NoParent(PathBuf),
    #[error("failed to open destination `{}`: {source}", Shown(.path))]
    Open { path: PathBuf, source: io::Error },
}

/// Enough to walk from, also where a directory may be entered and not listed.
const OPEN: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Destination {
    /// As `cp` has it. An existing directory: the archive's entries go below it. Else the archive's one top entry gets the
    /// path's last name, in the place of what has it now, and the directory before it must exist. A path that ends with a
    /// slash must be a directory.
    ///
    /// # Errors
    /// When the path can't be one.
    pub fn resolve(path: &Path) -> Result<Self, DestinationError> {
        let failed = |source: Errno| DestinationError::Open { path: path.to_owned(), source: source.into() };
        let error = match rustix::fs::open(path, OPEN, Mode::empty()) {
            Ok(root) => return Ok(Self { root, rename: None, only_top: None, path: path.to_owned() }),
            Err(error) => error,
        };
        let bytes = path.as_os_str().as_bytes();
        let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&bytes[..=slash], &bytes[slash + 1..]),
            None => (&b"."[..], bytes),
        };
        let must_be_directory = matches!(name, b"" | b"." | b"..");
        match error {
            Errno::NOENT if must_be_directory => return Err(DestinationError::NoDirectory(path.to_owned())),
            Errno::NOTDIR if must_be_directory => {
                return Err(DestinationError::NotADirectory(path.to_owned()));
            }
            // Not there, a file, a link to nothing or to itself: it is made or replaced.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {}
            error => return Err(failed(error)),
        }
        let parent = Path::new(OsStr::from_bytes(parent));
        match rustix::fs::open(parent, OPEN, Mode::empty()) {
            Ok(root) => Ok(Self {
                root,
                rename: Some(OsStr::from_bytes(name).to_owned()),
                only_top: None,
                path: path.to_owned(),
            }),
            Err(Errno::NOENT) => Err(DestinationError::NoParent(parent.to_owned())),
            Err(error) => Err(failed(error)),
        }
    }

    /// A directory, made with its parents where it is missing.
    ///
    /// # Errors
    /// When it can't be made, or is something else.
    pub fn directory(path: &Path) -> Result<Self, DestinationError> {
        let failed = |source| DestinationError::Open { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let root = rustix::fs::open(path, OPEN, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self { root, rename: None, only_top: None, path: path.to_owned() })
    }

    /// A directory, made where it is missing (its parent must exist), and no link to one.
    ///
    /// # Errors
    /// When it can't be made, or is something else.
    pub fn own_directory(path: &Path) -> Result<Self, DestinationError> {
        let open = || rustix::fs::open(path, OPEN | OFlags::NOFOLLOW, Mode::empty());
        let root = match open() {
            Err(Errno::NOENT) => {
                rustix::fs::mkdir(path, Mode::from_bits_truncate(0o755)).and_then(|()| open())
            }
            other => other,
        };
        let root =
            root.map_err(|source| DestinationError::Open { path: path.to_owned(), source: source.into() })?;
        Ok(Self { root, rename: None, only_top: None, path: path.to_owned() })
    }

    /// Refuses archives whose top is not the one entry of this name: whoever sends an archive has no say in what it is
    /// called here, or a directory of the caller's could get an entry that nobody asked for.
    #[must_use]
    pub fn with_only_top(self, name: &OsStr) -> Self {
        Self { only_top: Some(name.to_owned()), ..self }
    }

    /// Below an open directory.
    pub fn opened(root: OwnedFd) -> Self {
        Self { root, rename: None, only_top: None, path: PathBuf::from(".") }
    }

    /// The name that the archive's one top entry gets, where it does not keep its own.
    pub fn rename(&self) -> Option<&OsStr> {
        self.rename.as_deref()
    }
}
