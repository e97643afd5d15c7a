//! How a machine's vsock reaches creel: leases for either transport.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::OnceCell;
use tracing::{error, info};

use super::cids::{CidLease, Cids};
use super::directory::MachineDirectory;
use super::runtime::Transport;
use crate::agent::Hub;
use crate::host::vhost_vsock;
use crate::transport::Listener;
use crate::transport::hybrid::HybridListener;
use crate::transport::kernel::KernelListener;

/// The prefix of the sockets that guest connections arrive at, in the machine's directory, or its jail's root.
pub(super) const VSOCK_PREFIX: &str = "sockets/vsock";

/// The guest's end of the transport, to be handed to QEMU.
#[derive(Debug)]
pub(super) enum GuestEnd {
    /// A helper process that the keeper connects.
    Hybrid,
    /// A descriptor of `/dev/vhost-vsock` that holds the CID.
    Kernel { vhost: OwnedFd, cid: u32 },
}

/// One machine's way to creel.
#[derive(Debug)]
pub(super) struct Acquired {
    pub guest_end: GuestEnd,
    /// Where its agent will arrive.
    pub listener: Box<dyn Listener>,
    /// To be kept until the machine's processes are gone. `None` for the hybrid transport.
    pub cid: Option<CidLease>,
}

/// Which transport machines use, and what they share of it. Outlives the settings that machines are made by: guests of
/// older settings still dial the same port.
#[derive(Debug)]
pub struct Vsocks {
    transport: Transport,
    port: u32,
    hub: OnceCell<Hub>,
    cids: Cids,
}

impl Vsocks {
    /// Binds nothing until the first machine, or until [`Self::ready`].
    pub fn new(transport: Transport, port: u32) -> Self {
        Self { transport, port, hub: OnceCell::new(), cids: Cids::default() }
    }

    /// The kernel transport on a port that somebody else has bound. Serves it from now on: who dials before there is a
    /// machine is refused.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_listener(listener: KernelListener) -> Self {
        let port = listener.port();
        let hub = OnceCell::new_with(Some(serve(listener)));
        Self { hub, ..Self::new(Transport::Kernel, port) }
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The vsock port that agents dial.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// How many CIDs machines have, and how many rest since they were given back.
    pub fn cid_counts(&self) -> (usize, usize) {
        self.cids.counts()
    }

    /// Binds what is to be bound.
    ///
    /// # Errors
    /// When the port can't be had; the text says what to do.
    pub async fn ready(&self) -> io::Result<()> {
        self.hub().await.map(drop)
    }

    /// The hub of the kernel transport; `None` for the hybrid one.
    ///
    /// # Errors
    /// When the port can't be bound.
    pub(super) async fn hub(&self) -> io::Result<Option<Hub>> {
        if self.transport == Transport::Hybrid {
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
        helper_uid: u32,
    ) -> io::Result<Acquired> {
        let Some(hub) = hub else {
            let uid = helper_uid;
            let listener = HybridListener::bind(&directory.path().join(VSOCK_PREFIX), self.port, uid)?;
            return Ok(Acquired { guest_end: GuestEnd::Hybrid, listener: Box::new(listener), cid: None });
        };
        let (lease, vhost) = self.cids.acquire(vhost_vsock::claim).map_err(naming_the_device)?;
        let cid = lease.cid();
        // Expected before QEMU has the descriptor: no connection can come too early.
        let expected = hub
            .expect(cid)
            .ok_or_else(|| io::Error::other(format!("vsock CID {cid} is expected already")))?;
        let guest_end = GuestEnd::Kernel { vhost, cid };
        Ok(Acquired { guest_end, listener: Box::new(expected), cid: Some(lease) })
    }
}

fn listen(port: u32) -> io::Result<Hub> {
    let listener = KernelListener::bind(port).map_err(|error| {
        let needs = match error.kind() {
            io::ErrorKind::AddrInUse => "another creel of this host serves it: end that one",
            io::ErrorKind::PermissionDenied => {
                "systemd holds it for creeld (systemctl stop creeld; systemctl enable --now creeld-vsock.socket; \
                 systemctl start creeld), and whoever starts creel by hand needs CAP_NET_BIND_SERVICE"
            }
            _ => "the kernel transport needs the module vhost_vsock",
        };
        let text = format!(
            "failed to listen on vsock port {port}: {error}; {needs}, or set `machine.transport` to \"hybrid\""
        );
        io::Error::new(error.kind(), text)
    })?;
    info!("vsock::{port} for agents, bound here");
    Ok(serve(listener))
}

fn serve(mut listener: KernelListener) -> Hub {
    let hub = Hub::default();
    let serving = hub.clone();
    tokio::spawn(async move {
        let port = listener.port();
        let why = serving.serve(&mut listener, port).await;
        error!(%why, port, "the vsock port is no longer served; new machines will miss their agents");
    });
    hub
}

fn naming_the_device(error: io::Error) -> io::Error {
    let text = format!(
        "failed to take a CID on `{}`: {error}; load the module vhost_vsock, or set `machine.transport` to \"hybrid\"",
        vhost_vsock::DEVICE
    );
    io::Error::new(error.kind(), text)
}
