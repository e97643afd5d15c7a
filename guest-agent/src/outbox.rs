//! What goes to the host on one connection, and the one place that writes it.
//!
//! Messages go first, in their order: they are short and few, and a ping among them must not wait for output. Output is not
//! queued here. An exec that has some says so once, and is asked for one frame whenever its turn comes, so that one that
//! floods takes no more of the connection than any other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Buf as _;
use creel_proto::{Envelope, FrameError, Payload};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};

use crate::batch::Batch;
use crate::exec::Exec;

/// So much is put together before it is written, where there is so much: what comes meanwhile waits for it. Several packets of
/// vsock (64 KiB), since a write that ends within one leaves the next write the rest of its credit, and a packet short.
const AHEAD_BYTES: usize = 256 << 10;

/// Messages that wait before no more requests are taken.
const WAITING_MESSAGES: usize = 256;

/// The session is over; nobody will receive anything more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session with the host is over")]
pub struct SessionOver;

#[derive(Debug)]
struct Outgoing {
    envelope: Envelope,
    flushed: Option<oneshot::Sender<()>>,
}

/// Where tasks put their messages, and execs say that they have something. Once the session is over it takes nothing.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

/// The other end. Dropped, the session is over.
#[derive(Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Queues>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    messages: VecDeque<Outgoing>,
    /// Each at most once.
    ready: VecDeque<Arc<Exec>>,
    over: bool,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, outgoing: Outgoing) {
        let mut queues = self.queues();
        if !queues.over {
            queues.messages.push_back(outgoing);
            self.filled.notify_one();
        }
    }
}

pub fn outbox() -> (Outbox, Writer) {
    let shared = Arc::<Shared>::default();
    (Outbox(Arc::clone(&shared)), Writer(shared))
}

impl Outbox {
    /// Does not wait: whoever makes messages of requests waits in [`Self::room`] before it takes the next one.
    pub fn send(&self, id: &str, payload: impl Into<Payload>) {
        self.0.push(Outgoing { envelope: Envelope::new(id, payload), flushed: None });
    }

    /// Also waits until the message has been written to the connection.
    pub async fn send_and_flush(&self, id: &str, payload: impl Into<Payload>) -> Result<(), SessionOver> {
        let (flushed, written) = oneshot::channel();
        self.0.push(Outgoing { envelope: Envelope::new(id, payload), flushed: Some(flushed) });
        written.await.map_err(|_| SessionOver)
    }

    /// Waits while the host does not take what waits for it.
    pub async fn room(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.0.queues().messages.len() < WAITING_MESSAGES {
                return;
            }
            emptied.await;
        }
    }

    /// The exec has something to send and has not said so since it was asked last.
    pub fn ready(&self, exec: Arc<Exec>) {
        let mut queues = self.0.queues();
        if !queues.over {
            queues.ready.push_back(exec);
            self.0.filled.notify_one();
        }
    }
}

impl Writer {
    /// Writes until the connection fails.
    pub async fn run(self, mut connection: impl AsyncWrite + Unpin) -> Result<(), FrameError> {
        let mut batch = Batch::default();
        let mut flushed: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let filled = self.0.filled.notified();
            self.collect(&mut batch, &mut flushed)?;
            if !batch.has_remaining() {
                filled.await;
                continue;
            }
            if flushed.is_empty() {
                // What it does not take is followed by what has come meanwhile.
                connection.write_buf(&mut batch).await?;
                continue;
            }
            connection.write_all_buf(&mut batch).await?;
            connection.flush().await?;
            for waiting in flushed.drain(..) {
                // Whoever waited may have given up.
                let _ = waiting.send(());
            }
        }
    }

    /// Puts together what is written next, behind what is still to be, unless that is enough.
    fn collect(&self, batch: &mut Batch, flushed: &mut Vec<oneshot::Sender<()>>) -> Result<(), FrameError> {
        if batch.remaining() >= AHEAD_BYTES {
            return Ok(());
        }
        let messages = std::mem::take(&mut self.0.queues().messages);
        if !messages.is_empty() {
            for Outgoing { envelope, flushed: waiting } in messages {
                batch.put(envelope)?;
                flushed.extend(waiting);
            }
            self.0.emptied.notify_waiters();
        }
        while batch.remaining() < AHEAD_BYTES {
            let Some(exec) = self.0.queues().ready.pop_front() else { break };
            if exec.write_next(batch)? {
                self.0.queues().ready.push_back(exec);
            }
        }
        batch.close();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queues = self.0.queues();
        queues.over = true;
        let (messages, ready) = (std::mem::take(&mut queues.messages), std::mem::take(&mut queues.ready));
        drop(queues);
        // Outside of the lock: the last handle of an exec may be among them.
        drop((messages, ready));
        self.0.emptied.notify_waiters();
    }
}
