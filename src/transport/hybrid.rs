//! Hybrid vsock: a guest's connection to host port P arrives at the unix socket `<prefix>_P`
//! (Firecracker's docs/vsock.md, "Guest-initiated connections").
//!
//! The socket lies in the machine's own 0700 directory, so file permissions say who may connect; the
//! peer's uid is checked all the same.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::io::Errno;
use tokio::net::UnixListener;
use tracing::warn;

use super::kernel::EXHAUSTED_PAUSE;
use super::listener::{Connection, Listener, Peer};

/// Where guest connections to `port` arrive, when the helper was given `prefix` as its socket path.
pub fn guest_port_path(prefix: &Path, port: u32) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// Listens for one port of one machine. The socket's file is removed on drop.
#[derive(Debug)]
pub struct HybridListener {
    listener: UnixListener,
    path: PathBuf,
    /// The only uid that may connect: the helper's.
    uid: u32,
}

impl HybridListener {
    /// Binds `<prefix>_<port>`, open to `uid` alone.
    ///
    /// # Errors
    /// As bind(2) and chmod(2) have them, with the path in the text.
    pub fn bind(prefix: &Path, port: u32, uid: u32) -> io::Result<Self> {
        let path = guest_port_path(prefix, port);
        let naming = |error: io::Error| {
            io::Error::new(error.kind(), format!("failed to listen on `{}`: {error}", path.display()))
        };
        let listener = UnixListener::bind(&path).map_err(naming)?;
        let bound = Self { listener, path: path.clone(), uid };
        // Another user than ours can't be given it by its mode: its directory keeps others out, and `accept` does.
        let mode = if uid == rustix::process::geteuid().as_raw() { 0o600 } else { 0o666 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(naming)?;
        Ok(bound)
    }
}

impl Drop for HybridListener {
    fn drop(&mut self) {
        // The whole directory goes with its machine; a file that is already gone is fine.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[async_trait]
impl Listener for HybridListener {
    async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => match Errno::from_io_error(&error) {
                    // The connection was gone before it was accepted (accept(2)).
                    Some(Errno::CONNABORTED | Errno::PROTO | Errno::CONNRESET | Errno::PERM) => continue,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        warn!(%error, path = %self.path.display(), "failed to accept a connection; trying again");
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            // One whose peer can't be told is nobody's.
            let Ok(peer) = stream.peer_cred() else { continue };
            let uid = peer.uid();
            if uid == self.uid {
                return Ok(Connection { stream: Box::new(stream), peer: Peer::Machine });
            }
            warn!(uid, expected = self.uid, path = %self.path.display(), "refused a connection of another user");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_guest_connection_arrives_at_the_port_s_own_socket() {
        let directory = tempfile::tempdir().unwrap();
        let prefix = directory.path().join("vsock");
        let uid = rustix::process::geteuid().as_raw();
        let mut listener = HybridListener::bind(&prefix, 824, uid).unwrap();
        let path = directory.path().join("vsock_824");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut guest = UnixStream::connect(&path).await.unwrap();
        guest.write_all(b"hello").await.unwrap();
        let mut connection = listener.accept().await.unwrap();
        let mut heard = [0; 5];
        connection.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard, connection.peer), (b"hello", Peer::Machine));

        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn another_user_s_connection_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let prefix = directory.path().join("vsock");
        let stranger = rustix::process::geteuid().as_raw() + 1;
        let mut listener = HybridListener::bind(&prefix, 824, stranger).unwrap();
        let mut guest = UnixStream::connect(directory.path().join("vsock_824")).await.unwrap();
        tokio::select! {
            accepted = listener.accept() => panic!("accepted {accepted:?}"),
            read = guest.read_u8() => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
        }
    }
}
