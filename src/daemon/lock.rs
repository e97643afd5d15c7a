//! A lock file: one daemon for one state, one for one socket. The kernel drops it with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held while this lives. The file stays: removing it would let two daemons lock two files of one name.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error("another creeld{} serves `{}`: end that one first, or give this one directories of its own (`state.dir`, `run.dir`, `daemon.socket`)", holder(*pid), what.display())]
    Held { what: PathBuf, pid: Option<u32> },
    #[error("failed to lock `{}`: its directory must exist and be writable", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl Lock {
    /// Locks the file `path`, which stands for `what`.
    ///
    /// # Errors
    /// When another process holds it, or the file can't be made.
    pub(super) fn acquire(path: &Path, what: &Path) -> Result<Self, LockError> {
        let failed = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only for the message: the lock is the truth.
                let _ = file.take(16).read_to_string(&mut text);
                return Err(LockError::Held { what: what.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_who_is_named_and_ends_with_him() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("creeld.lock");
        let held = Lock::acquire(&path, directory.path()).unwrap();
        let error = Lock::acquire(&path, directory.path()).unwrap_err();
        let expected = format!("another creeld (pid {}) serves", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(held);
        Lock::acquire(&path, directory.path()).unwrap();
    }

    #[test]
    fn a_link_in_the_lock_s_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("lock"), directory.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        Lock::acquire(&path, directory.path()).unwrap_err();
        assert!(!target.exists());
    }
}
