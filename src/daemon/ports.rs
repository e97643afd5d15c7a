//! The vsock ports that guests dial: one has a service, the others are kept from filling up.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tracing::{error, info};

use super::sockets::PortUse;
use crate::agent::Hub;
use crate::assembly::Assembly;
use crate::config::Config;
use crate::runtime::microvm::{Transport, Vsocks};
use crate::transport::kernel::KernelListener;

/// The agents' port goes to the runtime, if it has a use for it; nobody is let in at the others, and nothing piles up.
pub(super) fn vsocks(config: &Config, inherited: Vec<(PortUse, OwnedFd)>) -> io::Result<Arc<Vsocks>> {
    let transport = Assembly::new(config.clone()).daemon_transport();
    let mut vsocks = None;
    for (port_use, fd) in inherited {
        let listener = KernelListener::from_fd(fd)?;
        if port_use == PortUse::Agent && transport == Transport::Kernel {
            vsocks = Some(Vsocks::with_listener(listener));
        } else {
            info!(
                port = listener.port(),
                "nothing serves the vsock port for {port_use}: connections are refused"
            );
            tokio::spawn(refuse(listener));
        }
    }
    Ok(Arc::new(vsocks.unwrap_or_else(|| Vsocks::new(transport, config.vsock_ports.agent))))
}

async fn refuse(mut listener: KernelListener) {
    let port = listener.port();
    let error = Hub::default().serve(&mut listener, port).await;
    error!(%error, port, "a vsock port is no longer watched");
}
