//! The sockets of runs in a user's runtime directory: `<run dir>/run-<id>.sock`, on which a `creel run` serves its
//! machines while it lives.
//!
//! A socket whose process was killed stays as a file on which nobody listens. It is told from one that is about to
//! listen by the directory's lock, under which sockets are bound, and removed by whoever looks next.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{DirectoryError, RunDir, is_id};

const PREFIX: &str = "run-";
const SUFFIX: &str = ".sock";

/// A run's socket file; dropping it removes the file.
#[derive(Debug)]
pub struct RunSocket {
    path: PathBuf,
}

impl RunSocket {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunSocket {
    fn drop(&mut self) {
        // Somebody who found it dead may have been first.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether `path` is named like a run's socket, and not like creeld's.
pub fn is_of_a_run(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX)).is_some_and(is_id)
}

impl RunDir {
    /// Listens for a run, mode 0600. Its path fits a socket address, since that of a machine's socket does.
    ///
    /// # Errors
    /// When the directory can't be locked or written, or there is a socket of that id.
    pub fn listen(&self, id: &str) -> Result<(RunSocket, UnixListener), DirectoryError> {
        if !is_id(id) {
            return Err(DirectoryError::BadId { id: id.into() });
        }
        let path = self.path().join(format!("{PREFIX}{id}{SUFFIX}"));
        let failed = |action| {
            let path = path.clone();
            move |source: io::Error| DirectoryError::Io { action, path, source }
        };
        // Bound and not yet listening, it would pass for a dead one.
        let _lock = self.lock()?;
        let listener = UnixListener::bind(&path).map_err(failed("listen at"))?;
        let socket = RunSocket { path: path.clone() };
        // Until then only its directory and the peer's uid, which the server looks at, keep others out.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
        Ok((socket, listener))
    }

    /// The sockets of the runs that live, sorted; removes those that nobody listens on.
    ///
    /// # Errors
    /// When the directory can't be read, or one that is dead can't be judged or removed.
    pub fn run_sockets(&self) -> Result<Vec<PathBuf>, DirectoryError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| DirectoryError::Io { action, path, source }
        };
        let mut living = Vec::new();
        for entry in fs::read_dir(self.path()).map_err(failed("list", self.path()))? {
            let entry = entry.map_err(failed("list", self.path()))?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
            let path = entry.path();
            if !id.is_some_and(is_id) || !entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                continue;
            }
            match is_refused(&path) {
                Ok(true) => {}
                Ok(false) => {
                    living.push(path);
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "left a socket alone that is none of a run");
                    continue;
                }
            }
            let _lock = self.lock()?;
            // It may have begun to listen since.
            if is_refused(&path).map_err(failed("connect to", &path))? {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &path)(error));
                    }
                    _ => tracing::debug!(path = %path.display(), "removed the socket of a run that is gone"),
                }
            } else {
                living.push(path);
            }
        }
        living.retain(|path| path.exists());
        living.sort_unstable();
        Ok(living)
    }
}

/// Whether nobody listens there. Does not wait: a full queue is a sign of life. One that is gone is not refused.
fn is_refused(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::NOENT) => Ok(false),
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let base = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(&base.path().join("run")).unwrap();
        (base, run_dir)
    }

    #[test]
    fn a_run_is_found_by_its_socket_which_is_private_and_goes_with_it() {
        let (_base, run_dir) = run_dir();
        assert_eq!(run_dir.run_sockets().unwrap(), Vec::<PathBuf>::new());
        let (one, listener) = run_dir.listen("k3v9w0x2ma").unwrap();
        let (other, _other_listener) = run_dir.listen("0000000000").unwrap();
        let mode = one.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(run_dir.run_sockets().unwrap(), [other.path(), one.path()]);
        assert!(run_dir.listen("k3v9w0x2ma").is_err(), "one run, one socket");
        assert!(run_dir.listen("../x").is_err());
        drop((one, listener));
        assert_eq!(run_dir.run_sockets().unwrap(), [other.path()]);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let (_base, run_dir) = run_dir();
        let (socket, listener) = run_dir.listen("k3v9w0x2ma").unwrap();
        let path = socket.path().to_owned();
        // As SIGKILL leaves it.
        std::mem::forget(socket);
        drop(listener);
        let foreign = run_dir.path().join("creel.sock");
        drop(UnixListener::bind(&foreign).unwrap());
        let file = run_dir.path().join("run-0000000000.sock");
        fs::write(&file, "").unwrap();
        assert!(path.exists());
        assert_eq!(run_dir.run_sockets().unwrap(), Vec::<PathBuf>::new());
        assert!(!path.exists() && foreign.exists() && file.exists());
    }

    #[test]
    fn a_run_that_is_too_busy_to_accept_is_no_dead_one() {
        let (_base, run_dir) = run_dir();
        let (socket, listener) = run_dir.listen("k3v9w0x2ma").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(socket.path()).unwrap();
        assert_eq!(run_dir.run_sockets().unwrap(), [socket.path()]);
    }
}
