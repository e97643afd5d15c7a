//! AF_VSOCK: one listener a port, shared by all machines, peers told apart by the CID that the host's
//! kernel put there (vsock(7)).
//!
//! There is no namespace wall around these ports: any process of this host may dial them through vsock loopback. Only
//! guests are let in here; which guests, the [hub](crate::agent::Hub) decides.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::net::{AddressFamily, getsockname};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};
use tracing::warn;

use super::listener::{Connection, Listener, Peer};
use super::refusals::Refusals;

/// The first CID that a guest can have; below it stand the hypervisor, loopback and the host.
const FIRST_GUEST_CID: u32 = 3;

/// VMADDR_PORT_ANY of linux/vm_sockets.h: the kernel chooses.
const PORT_ANY: u32 = u32::MAX;

/// The kernel has no event for "a descriptor can be had again".
pub(super) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Listens on one AF_VSOCK port for every guest of this host.
#[derive(Debug)]
pub struct KernelListener {
    listener: VsockListener,
    port: u32,
    refusals: Refusals,
}

impl KernelListener {
    /// Binds `port` on every CID of this host.
    ///
    /// # Errors
    /// As bind(2) has them: `EACCES` for a port below 1024 without `CAP_NET_BIND_SERVICE`,
    /// `EAFNOSUPPORT` where the kernel has no vsock.
    pub fn bind(port: u32) -> io::Result<Self> {
        Self::new(VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?)
    }

    /// Binds a port that nobody has, above those that take a capability.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_any() -> io::Result<Self> {
        Self::bind(PORT_ANY)
    }

    /// Takes a listening socket that somebody else has bound.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` when it is no AF_VSOCK socket; those of getsockname(2).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if getsockname(&fd)?.address_family() != AddressFamily::VSOCK {
            return Err(Errno::AFNOSUPPORT.into());
        }
        // Panics if epoll does not take the descriptor, which it does any socket.
        Self::new(VsockListener::from(fd))
    }

    fn new(listener: VsockListener) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let refusals = Refusals::new(port, "it comes from a process of this host, not from a guest");
        Ok(Self { listener, port, refusals })
    }

    /// The port that guests dial.
    pub fn port(&self) -> u32 {
        self.port
    }
}

/// The next connection and the CID it comes from; `None` when there is none after all.
async fn accept_any(listener: &VsockListener, port: u32) -> io::Result<Option<(VsockStream, u32)>> {
    let error = match listener.accept().await {
        Ok((stream, address)) => return Ok(Some((stream, address.cid()))),
        Err(error) => error,
    };
    match Errno::from_io_error(&error) {
        // The connection was gone before it was accepted (accept(2)).
        Some(Errno::CONNABORTED | Errno::PROTO | Errno::CONNRESET | Errno::PERM) => Ok(None),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            warn!(%error, port, "failed to accept a vsock connection; trying again");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
            Ok(None)
        }
        _ => Err(error),
    }
}

fn is_guest(cid: u32) -> bool {
    (FIRST_GUEST_CID..VMADDR_CID_ANY).contains(&cid)
}

#[async_trait]
impl Listener for KernelListener {
    async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let accepted = tokio::select! {
                accepted = accept_any(&self.listener, self.port) => accepted?,
                () = self.refusals.rest_is_due() => None,
            };
            match accepted {
                Some((stream, cid)) if is_guest(cid) => {
                    return Ok(Connection { stream: Box::new(stream), peer: Peer::Cid(cid) });
                }
                Some((_, cid)) => self.refusals.refused(cid),
                None => self.refusals.tell_rest(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guests_are_let_in() {
        // vsock(7): hypervisor, loopback, host, and the wildcard, which is no one's address.
        for cid in [0, 1, 2, VMADDR_CID_ANY] {
            assert!(!is_guest(cid), "{cid}");
        }
        assert!(is_guest(3) && is_guest(VMADDR_CID_ANY - 1));
    }

    #[tokio::test]
    async fn another_family_s_socket_is_no_vsock_port() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = KernelListener::from_fd(tcp.into()).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::AFNOSUPPORT));
    }
}
