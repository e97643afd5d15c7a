//! A console history of fixed size: the first bytes and the last ones, in a file that one process writes and any
//! number read while it is written.
//!
//! ```text
//! 0       8         12          16          20      24          32           40     64         64+head    64+head+tail
//! | magic | version | head size | tail size | spare | announced | committed | spare | head ... | tail ring ... |
//! ```
//!
//! Integers are little-endian. Byte `o` of the stream lies in the head while it fits there, then in the ring at
//! `(o - head) % tail`. The writer stores where it is *going* (`announced`), then the bytes, then where it *is*
//! (`committed`). A reader takes `committed` first and `announced` last: every byte below `committed` that no announced
//! byte could have replaced is whole, so no lock is needed, and a writer that died halfway does no harm.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, pread, pwrite};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::plan::MAX_REGION_BYTES;

const MAGIC: [u8; 8] = *b"creelcon";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 64;
const ANNOUNCED_AT: u64 = 24;
const COMMITTED_AT: u64 = 32;

/// How often a reader starts over when the writer laps it.
const READ_ATTEMPTS: u32 = 8;

/// How much of a stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSizes {
    pub head_bytes: u32,
    pub tail_bytes: u32,
}

/// The one writer of a history.
#[derive(Debug)]
pub struct ConsoleWriter {
    file: OwnedFd,
    head: u64,
    tail: u64,
    total: u64,
    /// Set by a failed write (a full disk): the file then stays as it was, and the stream is still counted.
    failed: Option<Errno>,
}

impl ConsoleWriter {
    /// Makes the file `name` in `directory`, at its full size at once where the file system can: later a full disk
    /// costs nothing.
    ///
    /// # Errors
    /// Those of `openat`, `ftruncate` and the first write; `EEXIST` if the file is there.
    pub fn create(directory: BorrowedFd<'_>, name: &str, sizes: ConsoleSizes) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let (head, tail) = (u64::from(sizes.head_bytes), u64::from(sizes.tail_bytes));
        let length = HEADER_BYTES + head + tail;
        if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length).is_err() {
            rustix::fs::ftruncate(&file, length)?;
        }
        let mut header = Vec::with_capacity(20);
        header.extend_from_slice(&MAGIC);
        for word in [VERSION, sizes.head_bytes, sizes.tail_bytes] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        write_at(file.as_fd(), &header, 0)?;
        Ok(Self { file, head, tail, total: 0, failed: None })
    }

    /// Appends to the stream. A failing disk stops the recording, never the caller.
    pub fn append(&mut self, bytes: &[u8]) {
        let start = self.total;
        self.total = start.saturating_add(bytes.len() as u64);
        if self.failed.is_none() {
            self.failed = self.store(start, bytes).err();
        }
    }

    /// Bytes appended so far, kept or not.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Why the recording stopped, if it did.
    pub fn failure(&self) -> Option<Errno> {
        self.failed
    }

    fn store(&self, start: u64, bytes: &[u8]) -> rustix::io::Result<()> {
        let end = self.total;
        let file = self.file.as_fd();
        write_at(file, &end.to_le_bytes(), ANNOUNCED_AT)?;
        let slice = |from: u64, to: u64| {
            let index = |offset: u64| usize::try_from(offset - start).unwrap_or(bytes.len()).min(bytes.len());
            &bytes[index(from)..index(to)]
        };
        if start < self.head {
            write_at(file, slice(start, end.min(self.head)), HEADER_BYTES + start)?;
        }
        let mut at = start.max(self.head).max(end.saturating_sub(self.tail));
        while at < end && self.tail > 0 {
            let slot = (at - self.head) % self.tail;
            let until = end.min(at + (self.tail - slot));
            write_at(file, slice(at, until), HEADER_BYTES + self.head + slot)?;
            at = until;
        }
        write_at(file, &end.to_le_bytes(), COMMITTED_AT)
    }
}

/// What is kept of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleHistory {
    /// The stream's beginning.
    pub head: Vec<u8>,
    /// Its end. Follows `head` directly unless [`dropped_bytes`](Self::dropped_bytes) says otherwise.
    pub tail: Vec<u8>,
    /// Bytes written in all.
    pub total: u64,
}

/// Why a history can't be read.
#[derive(Debug, Error)]
pub enum ConsoleError {
    #[error("failed to read the console history")]
    Read(#[source] io::Error),
    #[error(
        "the console history has no valid header: its keeper ended before writing one, or it is another file"
    )]
    Header,
}

impl ConsoleHistory {
    /// Reads a history that may be written at this moment, or whose writer died at any point.
    ///
    /// # Errors
    /// See [`ConsoleError`].
    pub fn read(file: impl AsFd) -> Result<Self, ConsoleError> {
        let file = file.as_fd();
        let read = |offset, length| read_at(file, offset, length).map_err(ConsoleError::Read);
        let number = |offset| -> Result<u64, ConsoleError> {
            let bytes = read(offset, 8)?;
            bytes.try_into().map(u64::from_le_bytes).map_err(|_| ConsoleError::Header)
        };
        let header = read(0, 20)?;
        let word = |at: usize| {
            header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
        };
        let (Some(VERSION), Some(head_bytes), Some(tail_bytes)) = (word(8), word(12), word(16)) else {
            return Err(ConsoleError::Header);
        };
        if header[..8] != MAGIC || head_bytes > MAX_REGION_BYTES || tail_bytes > MAX_REGION_BYTES {
            return Err(ConsoleError::Header);
        }
        let (head_size, tail_size) = (u64::from(head_bytes), u64::from(tail_bytes));
        let mut history = Self::default();
        for _ in 0..READ_ATTEMPTS {
            let committed = number(COMMITTED_AT)?;
            let head = read(HEADER_BYTES, committed.min(head_size))?;
            let ring = read(HEADER_BYTES + head_size, committed.saturating_sub(head_size).min(tail_size))?;
            let announced = number(ANNOUNCED_AT)?.max(committed);
            let whole_from = announced.saturating_sub(tail_size).max(head_size);
            history = Self {
                head,
                tail: unroll(&ring, whole_from, committed, head_size, tail_size),
                total: committed,
            };
            if whole_from <= committed || committed <= head_size || tail_size == 0 {
                break;
            }
        }
        Ok(history)
    }

    /// Bytes between head and tail that were not kept.
    pub fn dropped_bytes(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// The last bytes of the stream, at most `max_bytes`, without a gap in them.
    pub fn last(&self, max_bytes: usize) -> Vec<u8> {
        let from_tail = &self.tail[self.tail.len().saturating_sub(max_bytes)..];
        let missing = max_bytes - from_tail.len();
        if missing == 0 || self.dropped_bytes() > 0 {
            return from_tail.to_vec();
        }
        let from_head = &self.head[self.head.len().saturating_sub(missing)..];
        [from_head, from_tail].concat()
    }
}

/// The ring's bytes with stream offsets `from..to`, in order.
fn unroll(ring: &[u8], from: u64, to: u64, head: u64, tail: u64) -> Vec<u8> {
    if from >= to || tail == 0 {
        return Vec::new();
    }
    let slot = |offset: u64| usize::try_from((offset - head) % tail).unwrap_or(usize::MAX);
    let (first, last) = (slot(from), slot(to - 1));
    // A file cut short by a full disk has fewer bytes than its header promises.
    let part = |range: std::ops::Range<usize>| ring.get(range).unwrap_or_default();
    if first <= last {
        part(first..last + 1).to_vec()
    } else {
        [part(first..ring.len()), part(0..last + 1)].concat()
    }
}

fn write_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads up to `length` bytes; fewer at the end of the file.
fn read_at(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(file, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
