//! Hands connections of the shared kernel vsock port to the machines that expect them.
//!
//! A CID says which machine dialled. Only a CID that somebody waits for is answered, as long as he does; which of its
//! connections are of any use is his business, and he looks at them one at a time. A hub that expects nobody refuses
//! everybody: that is how a port without a service is kept from filling up.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::transport::refusals::Refusals;
use crate::transport::{Connection, Listener, Peer};

/// Connections of one machine that were not looked at yet. An agent has one at a time.
const WAITING_CONNECTIONS: usize = 4;

type Waiting = Arc<Mutex<HashMap<u32, mpsc::Sender<Connection>>>>;

/// Routes accepted connections by CID.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    waiting: Waiting,
}

/// Connections to come. Dropped, the CID is no longer expected.
#[derive(Debug)]
pub struct Expected {
    cid: u32,
    waiting: Waiting,
    connections: mpsc::Receiver<Connection>,
}

impl Hub {
    /// Expects connections from `cid`; `None` when somebody already does.
    pub fn expect(&self, cid: u32) -> Option<Expected> {
        let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains_key(&cid) {
            return None;
        }
        waiting.insert(cid, sender);
        Some(Expected { cid, waiting: Arc::clone(&self.waiting), connections })
    }

    /// Serves the listener of `port` until it fails, and returns why it did. Who is refused is logged.
    pub async fn serve(&self, listener: &mut dyn Listener, port: u32) -> io::Error {
        let mut refusals = Refusals::new(port, "no machine expects it");
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(connection) => {
                        if let Err(Refused { cid }) = self.route(connection) {
                            refusals.refused(cid);
                        }
                    }
                    Err(error) => return error,
                },
                () = refusals.rest_is_due() => refusals.tell_rest(),
            }
        }
    }

    /// Hands the connection on, or closes it.
    fn route(&self, connection: Connection) -> Result<(), Refused> {
        let Peer::Cid(cid) = connection.peer else {
            // Its listener is given to one machine: a bug of ours, not something that a guest can bring about.
            warn!("closed a connection without a CID on a shared vsock port");
            return Ok(());
        };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get(&cid).map(|sender| sender.try_send(connection)) {
            Some(Ok(())) => {
                debug!(cid, "agent connected");
                Ok(())
            }
            Some(Err(_)) | None => Err(Refused { cid }),
        }
    }
}

/// A guest that nobody waits for, of a dead machine or another program's, or of which too many connections wait.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    cid: u32,
}

#[async_trait]
impl Listener for Expected {
    async fn accept(&mut self) -> io::Result<Connection> {
        self.connections.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Another machine may have come to expect the same CID since ours was taken.
        self.connections.close();
        if waiting.get(&self.cid).is_some_and(mpsc::Sender::is_closed) {
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
    async fn connections_of_an_expected_cid_are_kept_as_long_as_there_is_room_and_somebody_waits() {
        let hub = Hub::default();
        let mut expected = hub.expect(7).unwrap();
        assert!(hub.expect(7).is_none());

        let (stranger, mut stranger_end) = connection(8);
        assert_eq!(hub.route(stranger), Err(Refused { cid: 8 }));
        assert_eq!(stranger_end.read(&mut [0; 1]).await.unwrap(), 0);

        let mut ends = Vec::new();
        for _ in 0..WAITING_CONNECTIONS {
            let (one, end) = connection(7);
            assert_eq!(hub.route(one), Ok(()));
            ends.push(end);
        }
        let (crowd, mut crowd_end) = connection(7);
        assert_eq!(hub.route(crowd), Err(Refused { cid: 7 }));
        assert_eq!(crowd_end.read(&mut [0; 1]).await.unwrap(), 0);

        let first = expected.accept().await.unwrap();
        assert_eq!(first.peer, Peer::Cid(7));
        let (later, _later_end) = connection(7);
        assert_eq!(hub.route(later), Ok(()));

        drop(expected);
        assert_eq!(ends[1].read(&mut [0; 1]).await.unwrap(), 0, "nobody looks at it any more");
        let (late, mut late_end) = connection(7);
        assert_eq!(hub.route(late), Err(Refused { cid: 7 }));
        assert_eq!(late_end.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cid_that_is_no_longer_expected_can_be_expected_again() {
        let hub = Hub::default();
        drop(hub.expect(7).unwrap());
        assert!(hub.expect(7).is_some());
    }
}
