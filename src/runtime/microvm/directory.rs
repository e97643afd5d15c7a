//! The directory of one machine, as a lease, in a runtime directory that belongs to one user.
//!
//! `<run dir>/m-<id>` holds the machine's sockets, records and console. Its life is a `flock` on the directory itself:
//! the open file that holds the lock is shared with the keeper by inheritance, so the lock stands as long as either
//! lives, and no pid file can lie. A directory whose lock is free has no living owner and no keeper: [`reclaim`] removes
//! it. Making a directory and locking it are two steps, so both are done under the lock of the file `lock`.
//!
//! [`reclaim`]: RunDir::reclaim

mod sockets;

pub use sockets::{RunSocket, is_of_a_run};

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use creel_keeper::{is_still, remove_directory};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::io::Errno;
use thiserror::Error;

/// What the vsock helper makes, and what it connects to, is in a directory of its own: the rest is not its business.
pub const SOCKETS: &str = "sockets";

const PREFIX: &str = "m-";
const LOCK_FILE: &str = "lock";

/// `sun_path` of unix(7), with its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Room left for a socket's name and its `/` in a machine's directory.
const SOCKET_NAME_BYTES: usize = 32;

/// The lock is held for microseconds; only a stopped process holds it longer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a runtime or machine directory can't be had.
#[derive(Debug, Error)]
pub enum DirectoryError {
    #[error("failed to {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is a symbolic link or no directory: remove it, or choose another runtime directory")]
    NotADirectory { path: PathBuf },
    #[error(
        "`{path}` belongs to uid {owner}, not to {expected}: remove it, or choose another runtime directory"
    )]
    ForeignOwner { path: PathBuf, owner: u32, expected: u32 },
    #[error("`{path}` is open to others (mode {mode:03o}): run `chmod go-w` or `chmod 700` on it")]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error(
        "`{path}` is too long: socket paths in it must stay under 108 bytes, and it may have {max} at most; choose a \
         shorter runtime directory"
    )]
    TooLong { path: PathBuf, max: usize },
    #[error("`{id}` is no machine id: it must be 1 to 64 of a-z, 0-9 and `-`")]
    BadId { id: String },
    #[error("machine `{id}` already has a directory")]
    Exists { id: String },
    #[error(
        "the lock of `{path}` was not free within {timeout:?}: another creel is stopped while it holds it"
    )]
    Locked { path: PathBuf, timeout: Duration },
}

/// A user's runtime directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// What [`RunDir::reclaim`] removed.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// Ids of the machines, sorted.
    pub names: Vec<String>,
    /// Directories that are dead but could not be removed.
    pub failed: Vec<DirectoryError>,
}

impl Reclaimed {
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

impl RunDir {
    /// Opens the directory, making it and its parents where they are missing (0700, root's 0755).
    ///
    /// # Errors
    /// When it is a link, another user's, open to others, or so deep that sockets in it can't have a path.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let failed =
            |action| move |source: io::Error| DirectoryError::Io { action, path: path.into(), source };
        let path_max = MAX_SOCKET_PATH - SOCKET_NAME_BYTES - PREFIX.len() - 2;
        if path.as_os_str().as_bytes().len() > path_max {
            return Err(DirectoryError::TooLong { path: path.into(), max: path_max });
        }
        // Root's own is looked into by others, who want to know whether a daemon's socket is there.
        let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make"))?;
        // By its descriptor from here on: what is checked is what is used.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|source| {
            match Errno::from_io_error(&source) {
                Some(Errno::NOTDIR | Errno::LOOP) => DirectoryError::NotADirectory { path: path.into() },
                _ => failed("open")(source),
            }
        })?;
        let metadata = file.metadata().map_err(failed("inspect"))?;
        let expected = rustix::process::geteuid().as_raw();
        if metadata.uid() != expected {
            return Err(DirectoryError::ForeignOwner { path: path.into(), owner: metadata.uid(), expected });
        }
        // The system's is listed by anyone, since the daemon's socket lies in it; what is in a machine's own directory
        // is not. A user's own lies in `/tmp` at worst, and is nobody else's business.
        let others = if expected == 0 { 0o022 } else { 0o077 };
        if metadata.mode() & others != 0 {
            return Err(DirectoryError::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o777 });
        }
        Ok(Self { path: path.into(), fd: file.into() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids of the machines that have a directory here, living or dead, sorted.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn discover(&self) -> Result<Vec<String>, DirectoryError> {
        let failed = |source| DirectoryError::Io { action: "list", path: self.path.clone(), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).filter(|id| is_id(id))
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes the directories of machines that have neither an owner nor a keeper.
    ///
    /// # Errors
    /// When the directory can't be listed or locked; single failures are in [`Reclaimed::failed`].
    pub fn reclaim(&self) -> Result<Reclaimed, DirectoryError> {
        let mut dead = Vec::new();
        {
            let _lock = self.lock()?;
            for id in self.discover()? {
                if let Ok(directory) = open_directory(&self.fd, &directory_name(&id))
                    && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
                    // Its lease may have removed it since it was opened.
                    && is_still(self.fd.as_fd(), &directory_name(&id), directory.as_fd()) == Ok(true)
                {
                    dead.push((id, directory));
                }
            }
        }
        // Each lock is held until its directory is gone, so two reclaimers never meet in one.
        let mut reclaimed = Reclaimed::default();
        for (id, directory) in dead {
            match remove_directory(self.fd.as_fd(), &directory_name(&id), directory.as_fd()) {
                Ok(()) => reclaimed.names.push(id),
                Err(error) => {
                    let path = self.path.join(directory_name(&id));
                    reclaimed.failed.push(DirectoryError::Io {
                        action: "remove",
                        path,
                        source: error.into(),
                    });
                }
            }
            drop(directory);
        }
        Ok(reclaimed)
    }

    /// The lock under which directories are made and judged.
    fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.path.join(LOCK_FILE);
        let failed = |action| {
            let path = path.clone();
            move |source: io::Error| DirectoryError::Io { action, path, source }
        };
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = openat(&self.fd, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("open")(error.into()))?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd.into()),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed("lock")(error.into())),
        }
        // flock has no bound of its own; the thread has, since it ends when the holder does.
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = rustix::io::retry_on_intr(|| flock(&fd, FlockOperation::LockExclusive));
            let _ = sender.send(outcome.map(|()| fd));
        });
        match receiver.recv_timeout(LOCK_TIMEOUT) {
            Ok(Ok(fd)) => Ok(fd.into()),
            Ok(Err(error)) => Err(failed("lock")(error.into())),
            Err(_) => Err(DirectoryError::Locked { path, timeout: LOCK_TIMEOUT }),
        }
    }
}

/// A machine's directory; dropping it removes the directory with all it holds.
#[derive(Debug)]
pub struct MachineDirectory {
    id: String,
    path: PathBuf,
    /// Holds the lock. The keeper has a copy of the same open file.
    fd: OwnedFd,
    parent: OwnedFd,
}

impl MachineDirectory {
    /// Makes and locks `<run dir>/m-<id>`, mode 0700.
    ///
    /// # Errors
    /// When there is one already, living or dead, or the path is too long for sockets.
    pub fn acquire(run_dir: &RunDir, id: &str) -> Result<Self, DirectoryError> {
        if !is_id(id) {
            return Err(DirectoryError::BadId { id: id.into() });
        }
        let name = directory_name(id);
        let path = run_dir.path.join(&name);
        let max = MAX_SOCKET_PATH - SOCKET_NAME_BYTES;
        if path.as_os_str().as_bytes().len() > max {
            return Err(DirectoryError::TooLong { path, max });
        }
        let failed = |action| {
            let path = path.clone();
            move |error: Errno| DirectoryError::Io { action, path, source: error.into() }
        };
        let parent = rustix::io::fcntl_dupfd_cloexec(&run_dir.fd, 3).map_err(failed("open"))?;
        let _lock = run_dir.lock()?;
        match mkdirat(&run_dir.fd, &name, Mode::RWXU) {
            Err(Errno::EXIST) => return Err(DirectoryError::Exists { id: id.into() }),
            outcome => outcome.map_err(failed("make"))?,
        }
        let locked = open_directory(&run_dir.fd, &name)
            .and_then(|fd| flock(&fd, FlockOperation::NonBlockingLockExclusive).map(|()| fd));
        match locked {
            Ok(fd) => Ok(Self { id: id.into(), fd, parent, path }),
            Err(error) => {
                let _ = rustix::fs::unlinkat(&run_dir.fd, &name, rustix::fs::AtFlags::REMOVEDIR);
                Err(failed("lock")(error))
            }
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory; whoever holds a copy of it keeps the lease.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The runtime directory that it lies in.
    pub fn parent_fd(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Its name in the runtime directory.
    pub fn name(&self) -> String {
        directory_name(&self.id)
    }

    /// Makes the directory of the helper's sockets, for this user and that one.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make_sockets(&self, helper_uid: u32) -> Result<(), DirectoryError> {
        let path = self.path.join(SOCKETS);
        let failed = |action| {
            move |error: Errno| DirectoryError::Io { action, path: path.clone(), source: error.into() }
        };
        mkdirat(&self.fd, SOCKETS, Mode::RWXU).map_err(failed.clone()("make"))?;
        if helper_uid != rustix::process::geteuid().as_raw() {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
            let made = openat(&self.fd, SOCKETS, flags, Mode::empty()).map_err(failed.clone()("open"))?;
            // Ours by its group, which is root's.
            rustix::fs::fchown(&made, Some(rustix::fs::Uid::from_raw(helper_uid)), None)
                .map_err(failed.clone()("give away"))?;
            rustix::fs::fchmod(&made, Mode::RWXU | Mode::RWXG).map_err(failed("open up"))?;
        }
        Ok(())
    }

    /// The path of a socket in it.
    ///
    /// # Errors
    /// When the path would not fit a socket address.
    pub fn socket_path(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        if path.as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
            return Err(DirectoryError::TooLong { path, max: MAX_SOCKET_PATH });
        }
        Ok(path)
    }
}

impl Drop for MachineDirectory {
    fn drop(&mut self) {
        // An embedded keeper may have been first, which is no error.
        if let Err(error) = remove_directory(self.parent.as_fd(), &self.name(), self.fd.as_fd()) {
            tracing::warn!(path = %self.path.display(), %error, "failed to remove the directory of a machine");
        }
    }
}

fn directory_name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

pub(super) fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

fn open_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat(
        parent,
        name,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests;
