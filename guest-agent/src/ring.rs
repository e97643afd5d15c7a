//! What was read of one stream of output and is not safe yet. Pure.
//!
//! Bytes are read straight into it, are sent from where they lie, and stay until the host has acknowledged them, so that
//! they can be sent again over another connection. It lies in buffers that are used again: at full speed nothing is
//! allocated and nothing is copied.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::buf::Limit;
use bytes::{BufMut as _, Bytes, BytesMut};

/// A buffer, and so the most that is read or sent at once: with a frame's header it fits into one vsock packet (64 KiB in
/// Linux, `VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`) instead of leaving a crumb for a second one.
pub const BUFFER_BYTES: usize = (64 << 10) - 128;

/// A stream's first buffer: most execs say little.
const FIRST_BUFFER_BYTES: usize = 4 << 10;

/// Where less than this is left of a buffer, the next one is begun: small reads cost as much as large ones.
const LEAST_READ_BYTES: usize = BUFFER_BYTES / 2;

/// Fewer bytes are copied when they are sent. The buffer goes on being filled then, so that a program that writes byte by
/// byte costs a little more than it writes, not a hundred times as much.
const LEAST_SHARED_BYTES: usize = 8 << 10;

/// Buffers that wait to be used again.
const SPARE_BUFFERS: usize = 32;

/// Buffers of all rings, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<BytesMut>>>);

impl Buffers {
    fn take(&self) -> BytesMut {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// Keeps the buffer that `bytes` are of, unless another part of it is still in use.
    fn give_back(&self, bytes: Bytes) {
        let Ok(mut buffer) = bytes.try_into_mut() else { return };
        buffer.clear();
        if buffer.try_reclaim(BUFFER_BYTES) {
            let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        }
    }
}

/// An offset that can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    #[error("offset {offset} lies before {acknowledged}, up to where all was acknowledged")]
    Forgotten { offset: u64, acknowledged: u64 },
    #[error("offset {offset} lies behind {end}, where the stream ends so far")]
    Beyond { offset: u64, end: u64 },
}

/// The next bytes to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Of the first byte.
    pub offset: u64,
    pub bytes: Bytes,
}

#[derive(Debug, Default)]
pub struct Ring {
    /// Full buffers, and those that have been sent from: each with the offset of its first byte.
    sealed: VecDeque<(u64, Bytes)>,
    /// The stream's last bytes, and room behind them.
    open: BytesMut,
    acknowledged: u64,
    /// What comes next.
    cursor: u64,
    end: u64,
}

impl Ring {
    /// Lets `read` put up to `most` bytes, at least 1, at the end of the stream.
    pub fn fill(
        &mut self,
        most: usize,
        buffers: &Buffers,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let first = self.end < FIRST_BUFFER_BYTES as u64;
        let least = if first { 1 } else { LEAST_READ_BYTES.min(most) };
        if self.open.capacity() - self.open.len() < least {
            self.seal();
            self.open = match first {
                true => BytesMut::with_capacity(FIRST_BUFFER_BYTES),
                false => buffers.take(),
            };
        }
        let before = self.open.len();
        let room = self.open.capacity() - before;
        let result = read(&mut (&mut self.open).limit(most.min(room)));
        self.end += (self.open.len() - before) as u64;
        result
    }

    /// The next bytes, at most `most` of them and all before `limit`. With `most` bytes less than a buffer's, a buffer is
    /// sent in several pieces.
    pub fn next(&mut self, limit: u64, most: usize) -> Option<Piece> {
        let until = self.end.min(limit);
        let sendable = usize::try_from(until.checked_sub(self.cursor)?).ok()?.min(most);
        if sendable == 0 {
            return None;
        }
        if self.cursor >= self.open_start() && sendable >= LEAST_SHARED_BYTES {
            self.seal();
        }
        let offset = self.cursor;
        let (start, whole) = match self.sealed.partition_point(|(start, _)| *start <= offset) {
            0 => (self.open_start(), None),
            after => match &self.sealed[after - 1] {
                (start, bytes) if start + bytes.len() as u64 > offset => (*start, Some(bytes)),
                _ => (self.open_start(), None),
            },
        };
        // Within one buffer, which is in memory.
        let from = usize::try_from(offset - start).ok()?;
        let bytes = match whole {
            Some(bytes) => bytes.slice(from..bytes.len().min(from + sendable)),
            None => Bytes::copy_from_slice(&self.open[from..from + sendable]),
        };
        self.cursor += bytes.len() as u64;
        Some(Piece { offset, bytes })
    }

    /// All before `offset` is safe, and forgotten here. One that was said before does nothing.
    ///
    /// # Errors
    /// When there is no such byte yet.
    pub fn acknowledge(&mut self, offset: u64, buffers: &Buffers) -> Result<(), OffsetError> {
        if offset > self.end {
            return Err(OffsetError::Beyond { offset, end: self.end });
        }
        self.acknowledged = self.acknowledged.max(offset);
        self.cursor = self.cursor.max(self.acknowledged);
        while let Some((start, bytes)) = self.sealed.front()
            && start + bytes.len() as u64 <= self.acknowledged
        {
            if let Some((_, bytes)) = self.sealed.pop_front() {
                buffers.give_back(bytes);
            }
        }
        if self.acknowledged == self.end {
            self.open.clear();
        }
        Ok(())
    }

    /// Acknowledges what is before `offset`, and sends again from there on.
    ///
    /// # Errors
    /// When that was acknowledged, or does not exist yet. Nothing has changed then.
    pub fn rewind(&mut self, offset: u64, buffers: &Buffers) -> Result<(), OffsetError> {
        if offset < self.acknowledged {
            return Err(OffsetError::Forgotten { offset, acknowledged: self.acknowledged });
        }
        self.acknowledge(offset, buffers)?;
        self.cursor = offset;
        Ok(())
    }

    /// Nothing more comes. If nothing is held either, no memory is: an exec that has ended may be remembered for long.
    pub fn free_if_empty(&mut self) {
        if self.held() == 0 {
            self.open = BytesMut::new();
        }
    }

    /// Where the stream ends so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Up to where the stream was sent.
    pub fn sent(&self) -> u64 {
        self.cursor
    }

    /// Whether all that came has been sent.
    pub fn is_sent(&self) -> bool {
        self.cursor == self.end
    }

    /// What came and was not acknowledged, in bytes.
    pub fn held(&self) -> u64 {
        self.end - self.acknowledged
    }

    fn open_start(&self) -> u64 {
        self.end - self.open.len() as u64
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let start = self.open_start();
            self.sealed.push_back((start, self.open.split().freeze()));
        }
    }
}

#[cfg(test)]
mod tests;
