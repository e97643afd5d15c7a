//! Hands connections of the shared kernel vsock port to the machines that expect them.
//!
//! A CID says which machine dialled. Only a CID that somebody waits for is answered, and only once:
//! the first connection closes the door, so that no other process of the guest can come second.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::transport::{Connection, Listener, Peer};

type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Connection>>>>;

/// Routes accepted connections by CID.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    waiting: Waiting,
}

/// A connection to come. Dropped, the CID is no longer expected.
#[derive(Debug)]
pub struct Expected {
    cid: u32,
    waiting: Waiting,
    connection: oneshot::Receiver<Connection>,
}

impl Hub {
    /// Expects one connection from `cid`; `None` when somebody already does.
    pub fn expect(&self, cid: u32) -> Option<Expected> {
        let (sender, connection) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains_key(&cid) {
            return None;
        }
        waiting.insert(cid, sender);
        Some(Expected { cid, waiting: Arc::clone(&self.waiting), connection })
    }

    /// Serves a listener until it fails, and returns why it did.
    pub async fn serve(&self, listener: &mut dyn Listener) -> io::Error {
        loop {
            match listener.accept().await {
                Ok(connection) => self.route(connection),
                Err(error) => return error,
            }
        }
    }

    fn route(&self, connection: Connection) {
        let Peer::Cid(cid) = connection.peer else {
            warn!("refused a connection without a CID on the shared agent port");
            return;
        };
        let expected = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&cid);
        let taken = expected.is_some_and(|sender| sender.send(connection).is_ok());
        if taken {
            debug!(cid, "agent connected");
        } else {
            // A guest may dial as often as it likes: nothing that it can repeat is worth a warning.
            debug!(cid, "refused an agent connection that no machine expects");
        }
    }
}

/// Yields that one connection; a second call never returns one.
#[async_trait]
impl Listener for Expected {
    async fn accept(&mut self) -> io::Result<Connection> {
        (&mut self.connection).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Another machine may have come to expect the same CID since ours was taken.
        self.connection.close();
        if waiting.get(&self.cid).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(&self.cid);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn connection(cid: u32) -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(16);
        (Connection { stream: Box::new(near), peer: Peer::Cid(cid) }, far)
    }

    #[tokio::test]
    async fn only_the_first_connection_of_an_expected_cid_is_kept() {
        let hub = Hub::default();
        let mut expected = hub.expect(7).unwrap();
        assert!(hub.expect(7).is_none());

        let (stranger, mut stranger_end) = connection(8);
        hub.route(stranger);
        assert_eq!(stranger_end.read(&mut [0; 1]).await.unwrap(), 0);

        let (first, _first_end) = connection(7);
        hub.route(first);
        let (second, mut second_end) = connection(7);
        hub.route(second);
        assert_eq!(second_end.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(expected.accept().await.unwrap().peer, Peer::Cid(7));
    }

    #[tokio::test]
    async fn a_cid_that_is_no_longer_expected_can_be_expected_again() {
        let hub = Hub::default();
        drop(hub.expect(7).unwrap());
        assert!(hub.expect(7).is_some());
    }
}
