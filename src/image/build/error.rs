//! What a build says while it runs, and how it ends.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::image::initramfs::InitramfsError;
use crate::image::program::ProgramError;
use crate::image::store::{Image, ImageError};

/// A finished build.
#[derive(Debug)]
pub struct Built {
    pub image: Image,
    /// Whether it was there already.
    pub cached: bool,
    pub elapsed: Duration,
}

/// A build's progress; its `Display` is a line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// All inputs were read and hashed.
    Hashed {
        input: String,
    },
    /// These inputs were built before.
    Cached {
        digest: String,
    },
    RootStaged {
        entries: usize,
    },
    /// mmdebstrap asks the mirrors what there is.
    Resolving {
        suite: String,
    },
    Resolved {
        packages: usize,
    },
    Fetching,
    Unpacking,
    Installing {
        what: &'static str,
    },
    /// One more package was set up.
    Package {
        name: String,
        done: usize,
        total: usize,
    },
    /// A program was started that takes a while.
    Packing {
        program: &'static str,
    },
    Packed {
        file: &'static str,
        bytes: u64,
    },
    Stored {
        digest: String,
    },
}

impl fmt::Display for BuildEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hashed { input } => write!(f, "inputs {}", &input[..12]),
            Self::Cached { digest } => write!(f, "already built: {}", &digest[..12]),
            Self::RootStaged { entries } => write!(f, "root staged, {entries} entries"),
            Self::Resolving { suite } => write!(f, "asking the mirrors for {suite}"),
            Self::Resolved { packages } => write!(f, "{packages} packages"),
            Self::Fetching => f.write_str("fetching packages"),
            Self::Unpacking => f.write_str("unpacking the base system"),
            Self::Installing { what } => write!(f, "installing {what}"),
            Self::Package { name, done, total } => write!(f, "{done}/{total} {name}"),
            Self::Packing { program } => write!(f, "packing the root with {program}"),
            Self::Packed { file, bytes } => {
                write!(f, "{file}: {:.1} MiB", *bytes as f64 / f64::from(1 << 20))
            }
            Self::Stored { digest } => write!(f, "stored as {}", &digest[..12]),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("no image can be built: option `{option}` is `{value}`; {remedy}")]
    Option { option: &'static str, value: String, remedy: &'static str },
    #[error("{} {}; install the package busybox-static", path.display(), why)]
    Busybox { path: PathBuf, why: &'static str },
    #[error("`{}` of the overlay is {kind}; an image holds files, directories and links only", path.display())]
    OverlayEntry { path: PathBuf, kind: &'static str },
    #[error(transparent)]
    Debian(#[from] super::debian::DebianError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Store(#[from] ImageError),
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl BuildError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
