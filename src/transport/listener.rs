//! The one seam: a listener for one vsock port, yielding byte streams and who is at their other end.

use std::fmt;
use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream. Half-close is a message of the protocol above it, never a shutdown of the
/// transport: hybrid transports don't carry one.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Who connected, as far as the transport itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The guest with this CID: set by the host's kernel, out of the guest's reach. It says which
    /// machine, not which process in it.
    Cid(u32),
    /// Whoever can reach this machine's own socket: its vsock helper.
    Machine,
}

/// One accepted connection.
pub struct Connection {
    pub stream: Box<dyn ByteStream>,
    pub peer: Peer,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Accepts what guests dial.
#[async_trait]
pub trait Listener: Send + fmt::Debug {
    /// Waits for the next connection. Safe to cancel: no connection is lost by it.
    ///
    /// # Errors
    /// When the listening socket itself is of no more use.
    async fn accept(&mut self) -> io::Result<Connection>;
}
