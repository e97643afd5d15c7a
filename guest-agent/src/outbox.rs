//! The one queue of messages to the host, and the one place that writes them.
//!
//! The queue is bounded: when the host reads slowly, it fills, senders wait, pipes fill, and the programs in
//! the guest write slower. When the session is over, sending fails, and the sender goes on without it.

use creel_proto::{Envelope, FrameCodec, FrameError, Payload};
use futures_util::SinkExt as _;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::FramedWrite;

/// How many messages wait for the host at most.
pub const QUEUE_MESSAGES: usize = 256;

/// Messages are written together up to this many bytes: two full chunks of output reach it.
const WRITE_BYTES: usize = 63 << 10;

/// The session is over; nobody will receive anything more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session with the host is over")]
pub struct SessionOver;

#[derive(Debug)]
struct Outgoing {
    envelope: Envelope,
    flushed: Option<oneshot::Sender<()>>,
}

/// Where tasks put their messages.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Outgoing>,
}

/// The queue's other end.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Outgoing>,
}

pub fn outbox() -> (Outbox, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
    (Outbox { queue: sender }, Writer { queue: receiver })
}

impl Outbox {
    /// Waits for a place in the queue.
    pub async fn send(&self, id: &str, payload: impl Into<Payload>) -> Result<(), SessionOver> {
        let outgoing = Outgoing { envelope: Envelope::new(id, payload), flushed: None };
        self.queue.send(outgoing).await.map_err(|_| SessionOver)
    }

    /// Also waits until the message has been written to the connection.
    pub async fn send_and_flush(&self, id: &str, payload: impl Into<Payload>) -> Result<(), SessionOver> {
        let (flushed, written) = oneshot::channel();
        let outgoing = Outgoing { envelope: Envelope::new(id, payload), flushed: Some(flushed) };
        self.queue.send(outgoing).await.map_err(|_| SessionOver)?;
        written.await.map_err(|_| SessionOver)
    }
}

impl Writer {
    /// Writes until the connection fails, or until the last [`Outbox`] is gone.
    pub async fn run(mut self, connection: impl AsyncWrite + Unpin) -> Result<(), FrameError> {
        let mut frames = FramedWrite::new(connection, FrameCodec);
        frames.set_backpressure_boundary(WRITE_BYTES);
        while let Some(outgoing) = self.queue.recv().await {
            frames.feed(outgoing.envelope).await?;
            if outgoing.flushed.is_some() || self.queue.is_empty() {
                frames.flush().await?;
            }
            if let Some(waiting) = outgoing.flushed {
                // Whoever waited may have given up.
                let _ = waiting.send(());
            }
        }
        Ok(())
    }
}
