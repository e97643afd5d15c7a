//! AF_VSOCK: one listener a port, shared by all machines, peers told apart by the CID that the host's
//! kernel put there (vsock(7)).

use std::io;

use async_trait::async_trait;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::debug;

use super::listener::{Connection, Listener, Peer};

/// The first CID that a guest can have; below it stand the hypervisor, loopback and the host.
const FIRST_GUEST_CID: u32 = 3;

/// Listens on one AF_VSOCK port for every guest of this host.
#[derive(Debug)]
pub struct KernelListener {
    listener: VsockListener,
}

impl KernelListener {
    /// Binds `port` on every CID of this host.
    ///
    /// # Errors
    /// As bind(2) has them: `EACCES` for a port below 1024 without `CAP_NET_BIND_SERVICE`,
    /// `EAFNOSUPPORT` where the kernel has no vsock.
    pub fn bind(port: u32) -> io::Result<Self> {
        Ok(Self { listener: VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))? })
    }
}

#[async_trait]
impl Listener for KernelListener {
    async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let (stream, address) = self.listener.accept().await?;
            if address.cid() >= FIRST_GUEST_CID {
                return Ok(Connection { stream: Box::new(stream), peer: Peer::Cid(address.cid()) });
            }
            // Any local user may dial, as often as it likes.
            debug!(cid = address.cid(), "refused a vsock connection that comes from no guest");
        }
    }
}
