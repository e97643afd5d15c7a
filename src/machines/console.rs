//! A machine's console, read as it grows.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::Entry;
use crate::runtime::Console;

/// Of one chunk, which is all that a reader holds in memory.
const MAX_CHUNK_BYTES: usize = 64 << 10;

/// Bytes of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleChunk {
    /// Of its first byte. One that is not where the last chunk ended follows bytes that were not kept.
    pub offset: u64,
    pub bytes: Bytes,
}

/// Reads a console from its first kept byte on. It holds up nobody: what is not read in time is overwritten.
#[derive(Debug)]
pub struct ConsoleReader {
    source: Source,
    /// Of the first byte that was not read.
    offset: u64,
}

#[derive(Debug)]
enum Source {
    /// With the machine whose end is the console's; `None`: what there is now is all.
    Open(Box<dyn Console>, Option<Arc<Entry>>),
    /// Not longer than a chunk.
    Remembered(Bytes),
    Read,
}

impl ConsoleReader {
    pub(super) fn living(console: Box<dyn Console>, until_end_of: Option<Arc<Entry>>) -> Self {
        Self { source: Source::Open(console, until_end_of), offset: 0 }
    }

    pub(super) fn remembered(tail: Option<Vec<u8>>) -> Self {
        Self { source: Source::Remembered(tail.unwrap_or_default().into()), offset: 0 }
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// When the console can't be read.
    pub async fn next(&mut self) -> io::Result<Option<ConsoleChunk>> {
        loop {
            let (console, entry) = match &mut self.source {
                Source::Read => return Ok(None),
                Source::Remembered(tail) => {
                    let bytes = std::mem::take(tail);
                    self.source = Source::Read;
                    return Ok(
                        Some(ConsoleChunk { offset: 0, bytes }).filter(|chunk| !chunk.bytes.is_empty())
                    );
                }
                Source::Open(console, entry) => (console, entry),
            };
            // Before the read: what comes between the two is read yet.
            let ended = entry.as_ref().is_none_or(|entry| entry.stage().is_over());
            if let Some((offset, bytes)) = console.read()?.from(self.offset).first() {
                let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_CHUNK_BYTES)]);
                self.offset = offset + bytes.len() as u64;
                return Ok(Some(ConsoleChunk { offset: *offset, bytes }));
            }
            match entry {
                Some(entry) if !ended => tokio::select! {
                    () = console.changed() => {}
                    _ = entry.end() => {}
                },
                _ => self.source = Source::Read,
            }
        }
    }
}
