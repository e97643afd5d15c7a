//! Why a record can't be kept or read.

use std::io;
use std::path::{Path, PathBuf};

use crate::state::log::LogError;

/// Why a record can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("failed to {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no space left for the record `{}`; free some, or lower `logs.max_total`", path.display())]
    DiskFull {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a record that this version of creel can read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` is a record of version {version}, and this creel knows versions up to {known}: a newer creel wrote it", path.display())]
    Newer { path: PathBuf, version: u32, known: u32 },
    #[error("`{}` names {found}, which is another's", path.display())]
    WrongId { path: PathBuf, found: String },
    #[error("`{}` is more than a record can be ({bytes} bytes)", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("`{}` is a symbolic link, or not what it should be: remove it, or choose another `state.dir`", path.display())]
    WrongKind { path: PathBuf },
    #[error("`{}` belongs to uid {owner}, not to {expected}: remove it, or choose another `state.dir`", path.display())]
    ForeignOwner { path: PathBuf, owner: u32, expected: u32 },
    #[error("`{}` is open to others (mode {mode:03o}): run `chmod 700` on it", path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("{id} has a record already")]
    Exists { id: String },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// For `map_err`: what was done, and to what.
pub(in crate::state) fn failed<E: Into<io::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> RecordError {
    let path = path.to_owned();
    move |error| {
        let source: io::Error = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                RecordError::DiskFull { path, source }
            }
            _ => RecordError::Io { action, path, source },
        }
    }
}
