//! Takes an exec's output off its queue and into the log store.

use tokio::sync::mpsc;

use crate::runtime::{OutputChunk, Stream};
use crate::state::log::{Appender, LogError};

/// Writes one step's two streams.
#[derive(Debug)]
pub struct Recorder {
    stdout: Appender,
    stderr: Appender,
}

impl Recorder {
    pub fn new(stdout: Appender, stderr: Appender) -> Self {
        Self { stdout, stderr }
    }

    /// Records until the queue's senders are gone, then writes what the masks still hold back.
    ///
    /// # Errors
    /// When the store can't be written; the queue is then closed, so its writer does not wait.
    pub async fn record(mut self, mut queue: mpsc::Receiver<OutputChunk>) -> Result<(), LogError> {
        // write(2) of at most a frame into the page cache: not worth another thread.
        while let Some(chunk) = queue.recv().await {
            let appender = match chunk.stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            appender.append(chunk.raw_offset, &chunk.bytes)?;
        }
        self.stdout.finish()?;
        self.stderr.finish()?;
        Ok(())
    }
}
