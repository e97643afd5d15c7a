//! In-process pipes in place of a guest, for tests.

use std::io;

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::listener::{Connection, Listener, Peer};

/// How many bytes a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;

/// The guest's end: dials the listener that was made with it.
#[derive(Debug, Clone)]
pub struct MemoryDialer {
    queue: mpsc::UnboundedSender<DuplexStream>,
}

impl MemoryDialer {
    /// # Errors
    /// `ConnectionRefused` once the listener is gone.
    pub fn dial(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.queue.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

/// The host's end.
#[derive(Debug)]
pub struct MemoryListener {
    queue: mpsc::UnboundedReceiver<DuplexStream>,
}

/// A listener and the only way to reach it.
pub fn pair() -> (MemoryDialer, MemoryListener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (MemoryDialer { queue: sender }, MemoryListener { queue: receiver })
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> io::Result<Connection> {
        let stream = self.queue.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Connection { stream: Box::new(stream), peer: Peer::Machine })
    }
}
