//! How a machine's vsock reaches creel: leases for either transport.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::OnceCell;
use tracing::error;

use super::directory::MachineDirectory;
use crate::agent::Hub;
use crate::config;
use crate::host::vhost_vsock;
use crate::transport::Listener;
use crate::transport::hybrid::HybridListener;
use crate::transport::kernel::KernelListener;

/// The prefix of the sockets that guest connections arrive at, in the machine's directory.
pub(super) const VSOCK_PREFIX: &str = "vsock";

/// CIDs below are the hypervisor's, loopback's and the host's (vsock(7)).
const FIRST_CID: u32 = 3;

/// Of some four thousand million CIDs, this many in a row are never taken.
const CID_ATTEMPTS: usize = 64;

/// The guest's end of the transport, to be handed to QEMU.
#[derive(Debug)]
pub(super) enum GuestEnd {
    /// A helper process that the keeper connects.
    Hybrid,
    /// A descriptor of `/dev/vhost-vsock` that holds the CID.
    Kernel { vhost: OwnedFd, cid: u32 },
}

/// Which transport machines use, and what they share of it.
#[derive(Debug)]
pub(super) struct Vsocks {
    transport: config::Transport,
    port: u32,
    hub: OnceCell<Hub>,
}

impl Vsocks {
    pub(super) fn new(transport: config::Transport, port: u32) -> Self {
        Self { transport, port, hub: OnceCell::new() }
    }

    /// The hub of the kernel transport, listening from the first machine on; `None` for the hybrid one.
    ///
    /// # Errors
    /// When the port can't be bound.
    pub(super) async fn hub(&self) -> io::Result<Option<Hub>> {
        if self.transport == config::Transport::Hybrid {
            return Ok(None);
        }
        self.hub.get_or_try_init(|| async { listen(self.port) }).await.cloned().map(Some)
    }

    /// One machine's end, and where its agent will arrive.
    ///
    /// # Errors
    /// When a socket can't be bound, or no CID be had.
    pub(super) fn acquire(
        &self,
        hub: Option<&Hub>,
        directory: &MachineDirectory,
    ) -> io::Result<(GuestEnd, Box<dyn Listener>)> {
        let Some(hub) = hub else {
            let uid = rustix::process::geteuid().as_raw();
            let listener = HybridListener::bind(&directory.path().join(VSOCK_PREFIX), self.port, uid)?;
            return Ok((GuestEnd::Hybrid, Box::new(listener)));
        };
        for _ in 0..CID_ATTEMPTS {
            let cid = random_cid()?;
            let vhost = match vhost_vsock::claim(cid) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::ADDRINUSE) => continue,
                claimed => claimed.map_err(naming_the_device)?,
            };
            // Expected before QEMU has the descriptor: no connection can come too early.
            if let Some(expected) = hub.expect(cid) {
                return Ok((GuestEnd::Kernel { vhost, cid }, Box::new(expected)));
            }
        }
        Err(io::Error::other(format!("no free vsock CID found in {CID_ATTEMPTS} attempts")))
    }
}

fn listen(port: u32) -> io::Result<Hub> {
    let mut listener = KernelListener::bind(port).map_err(|error| {
        let needs = match error.kind() {
            io::ErrorKind::AddrInUse => "another creel of this host serves it: end that one",
            _ => "the kernel transport needs the module vhost_vsock and CAP_NET_BIND_SERVICE",
        };
        let text = format!(
            "failed to listen on vsock port {port}: {error}; {needs}, or set `machine.transport` to \"hybrid\""
        );
        io::Error::new(error.kind(), text)
    })?;
    let hub = Hub::default();
    let serving = hub.clone();
    tokio::spawn(async move {
        let why = serving.serve(&mut listener).await;
        error!(%why, port, "the vsock port is no longer served; new machines will miss their agents");
    });
    Ok(hub)
}

fn random_cid() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    // The last one is VMADDR_CID_ANY.
    Ok(u32::from_ne_bytes(bytes) % (u32::MAX - FIRST_CID) + FIRST_CID)
}

fn naming_the_device(error: io::Error) -> io::Error {
    let text = format!(
        "failed to take a CID on `{}`: {error}; load the module vhost_vsock, or set `machine.transport` to \"hybrid\"",
        vhost_vsock::DEVICE
    );
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_cids_are_guests() {
        for _ in 0..1000 {
            let cid = random_cid().unwrap();
            assert!((FIRST_CID..u32::MAX).contains(&cid));
        }
    }
}
