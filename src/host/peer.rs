//! Who is at the other end of a unix socket, as the kernel knows it.
//!
//! The credentials are those of the moment of `connect(2)`: what the peer does afterwards, or hands the socket on to,
//! changes nothing. `SO_PEERCRED` alone misses supplementary groups, which is how people are usually put into a group.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `NGROUPS_MAX` of the kernel (include/uapi/linux/limits.h): a process can't have more.
const MAX_GROUPS: usize = 65536;

/// Enough for most people; more are asked for again.
const FIRST_GUESS_GROUPS: usize = 32;

/// A unix socket's peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCredentials {
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The supplementary groups; `gid` need not be among them.
    pub groups: Vec<u32>,
    /// `None` for a process that this process's pid namespace does not hold. For messages only: it may have ended, and
    /// its number may be another's.
    pub pid: Option<u32>,
}

impl PeerCredentials {
    /// Of a connected stream or seqpacket socket.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`: not a unix socket, or one that was never connected (`ENODATA`).
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let (uid, gid, pid) = credentials(socket)?;
        Ok(Self { uid, gid, groups: groups(socket)?, pid })
    }

    /// Whether the peer is in a group, be it as its effective or a supplementary one.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// unix(7), `SO_PEERCRED`. Not rustix's: its pid can't be zero, the kernel's can.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<(u32, u32, Option<u32>)> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_in_bytes::<libc::ucred>(1);
    // SAFETY: `found` is valid for writes of `length` bytes, and any bytes make a `ucred`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if found.uid == u32::MAX {
        // A socket without a peer has -1 (net/core/sock.c, cred_to_ucred).
        return Err(Errno::NODATA.into());
    }
    Ok((found.uid, found.gid, u32::try_from(found.pid).ok().filter(|pid| *pid != 0)))
}

/// `SO_PEERGROUPS`, since Linux 4.13: gid_t after gid_t; a buffer too small gets ERANGE and the size that it needs
/// (net/core/sock.c).
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; FIRST_GUESS_GROUPS];
    loop {
        let mut length = size_in_bytes::<u32>(groups.len());
        // SAFETY: `groups` is valid for writes of `length` bytes, and any bytes make a u32.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let too_small = Errno::from_io_error(&error) == Some(Errno::RANGE);
        // The set is fixed at connect(2), so the second call has room.
        if !too_small || count <= groups.len() || count > MAX_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

fn size_in_bytes<T>(count: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(count * size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Gid, Uid};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn one_is_ones_own_peer() {
        let (near, _far) = UnixStream::pair().unwrap();
        let peer = PeerCredentials::of(near.as_fd()).unwrap();
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut found = peer.groups.clone();
        groups.sort_unstable();
        found.sort_unstable();
        assert_eq!(
            (peer.uid, peer.gid, peer.pid),
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
                Some(std::process::id())
            )
        );
        assert_eq!(found, groups);
    }

    #[test]
    fn a_socket_without_a_peer_has_no_credentials() {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
        assert!(PeerCredentials::of(socket.unwrap().as_fd()).is_err());
    }

    /// As another user with more groups than the first guess holds; only root can be somebody else. To the kernel each
    /// thread has credentials of its own (credentials(7)), so a thread that ends will do.
    #[test]
    fn another_users_many_groups_are_all_seen() {
        use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
        assert!(rustix::process::geteuid().is_root(), "this test must run as root, to become another user");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::chown(directory.path(), Some(65534), None).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let wanted: Vec<u32> = (70_000..70_100).collect();
        let groups: Vec<Gid> = wanted.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let other = std::thread::spawn(move || {
            set_thread_groups(&groups).unwrap();
            set_thread_gid(Gid::from_raw(65533)).unwrap();
            set_thread_uid(Uid::from_raw(65534)).unwrap();
            UnixStream::connect(path).unwrap()
        });
        let connected = other.join().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let peer = PeerCredentials::of(stream.as_fd()).unwrap();
        drop(connected);
        assert_eq!((peer.uid, peer.gid, peer.pid), (65534, 65533, Some(std::process::id())));
        assert_eq!(peer.groups, wanted);
        assert!(peer.is_in_group(65533) && peer.is_in_group(70_042) && !peer.is_in_group(0));
    }
}
