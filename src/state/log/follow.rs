//! Readers of the log: each at its own pace, from any record on, live until the log is sealed.
//!
//! A follower shares nothing with the writer but a look at the index, so a slow one slows nobody; if what it wants next
//! has been given up meanwhile, it is told so once and goes on behind the gap. A reader that comes late sees a cut made
//! by the limits in the same way. One of another process than the writer's has a copy of the index, see `growing`.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::file::{read_most, recover};
use super::frame::{Record, decode};
use super::growing::Growth;
use super::segments::{Limits, Location, SEGMENT_HEADER_BYTES, Segment};
use super::store::{Log, LogError};

/// Read at once; some of the longest records, which are 64 KiB.
const READ_BYTES: u64 = 256 << 10;

/// Records that are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of output are gone (records {from} to {}): the log keeps the first and the last", to - 1)]
pub struct ExpiredRange {
    /// The first record that is gone.
    pub from: u64,
    /// The first that is there again.
    pub to: u64,
    /// The output that the reader misses, in bytes after masking.
    pub bytes: u64,
    /// The step of record `to`.
    pub step: i32,
}

/// What a follower gets in place of a record.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The next call goes on with record `to`.
    #[error(transparent)]
    Expired(#[from] ExpiredRange),
    /// The log can't be read; the follower is at its end.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads records in order.
pub struct Follower {
    log: Arc<Log>,
    source: Source,
    next: u64,
    /// Where `next` begins, if a record of the same segment was read before.
    cursor: Option<Cursor>,
    /// Read from the file, from `cursor` on.
    buffer: Bytes,
    /// Bytes of output before `next`.
    passed: Option<u64>,
    failed: bool,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("path", &self.log.path)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    first: u64,
    step: i32,
    /// From the start of the slot.
    offset: u64,
}

/// Who writes the log.
enum Source {
    /// This process.
    Live(watch::Receiver<()>),
    /// Another process, waited for if there is a way to be told.
    Growing(Option<Growth>),
    /// Nobody any more.
    Still,
}

enum Filled {
    /// The buffer holds the next record, unless it was given up just now.
    Yes,
    /// All that is written has been read.
    Waiting,
    Sealed,
}

impl Follower {
    pub(super) fn live(log: Arc<Log>, progress: watch::Receiver<()>, from: u64) -> Self {
        Self::new(log, Source::Live(progress), from)
    }

    /// Reads the log in `file`, which another process may be writing: what is there at any time, and with `growth` also
    /// what comes, until the log is sealed or its writer is gone.
    ///
    /// # Errors
    /// When it can't be read, or is no log.
    pub fn growing(file: File, path: &Path, from: u64, growth: Option<Growth>) -> Result<Self, LogError> {
        Ok(Self::new(Arc::new(recovered(file, path)?), Source::Growing(growth), from))
    }

    /// Reads the log of a workflow that has ended from `path`.
    pub fn replay(path: &Path, from: u64) -> Result<Self, LogError> {
        let file = File::open(path).map_err(|source| {
            let path = path.to_owned();
            LogError::Io { action: "open", path, source }
        })?;
        Ok(Self::new(Arc::new(recovered(file, path)?), Source::Still, from))
    }

    fn new(log: Arc<Log>, source: Source, next: u64) -> Self {
        let passed = (next == 0).then_some(0);
        Self { log, source, next, cursor: None, buffer: Bytes::new(), passed, failed: false }
    }

    /// The record that `next` returns next.
    pub fn position(&self) -> u64 {
        self.next
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Goes on with record `next` instead of where it is.
    pub(super) fn seek(&mut self, next: u64) {
        self.next = next;
        self.cursor = None;
        self.buffer = Bytes::new();
        self.passed = (next == 0).then_some(0);
    }

    /// The next record, waited for if need be; None at the end of a sealed log, or when its writers are gone. Safe to
    /// cancel. Reads of the file block, but what a live follower reads was written a moment ago.
    pub async fn next(&mut self) -> Option<Result<Record, FollowError>> {
        loop {
            // Marked as seen before the look, so that what is written after the look wakes us.
            if let Source::Live(progress) = &mut self.source {
                progress.borrow_and_update();
            }
            if let Some(record) = self.take() {
                return Some(Ok(record));
            }
            if self.failed {
                return None;
            }
            match self.fill() {
                Ok(Filled::Yes) => match self.take() {
                    Some(record) => return Some(Ok(record)),
                    None if self.unreadable() => {
                        self.failed = true;
                        let damaged = io::Error::new(io::ErrorKind::InvalidData, "a record is damaged");
                        return Some(Err(self.log.error("read", damaged).into()));
                    }
                    // Given up while it was read.
                    None => {}
                },
                Ok(Filled::Sealed) => return None,
                Ok(Filled::Waiting) => match &mut self.source {
                    Source::Live(progress) => {
                        if progress.changed().await.is_err() {
                            // The last writer is gone; it may have written before it went.
                            self.source = Source::Still;
                        }
                    }
                    Source::Growing(growth) => match self.log.refresh() {
                        Ok(true) => {}
                        Ok(false) => {
                            let Some(waiting) = growth else { return None };
                            if !waiting.goes_on().await {
                                // The writer may have written before it went: one more look.
                                *growth = None;
                            }
                        }
                        Err(error) => {
                            self.failed = true;
                            return Some(Err(error.into()));
                        }
                    },
                    Source::Still => return None,
                },
                Err(FollowError::Expired(range)) => return Some(Err(range.into())),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Whether what was read last is the log's own still, and so should have held the next record.
    fn unreadable(&self) -> bool {
        self.cursor.is_some_and(|cursor| self.log.index().holds(cursor.first))
    }

    /// The next record, if it lies in the buffer whole.
    fn take(&mut self) -> Option<Record> {
        let cursor = self.cursor.as_mut()?;
        let before = self.buffer.len();
        let record = decode(&mut self.buffer, self.next, cursor.step)?;
        cursor.offset += (before - self.buffer.len()) as u64;
        self.next += 1;
        self.passed = self.passed.map(|passed| passed + record.output_bytes());
        Some(record)
    }

    fn fill(&mut self) -> Result<Filled, FollowError> {
        if let Source::Growing(_) = self.source {
            self.log.look_behind_gap(self.next)?;
        }
        let (segment, slot) = {
            let index = self.log.index();
            match index.locate(self.next) {
                Location::In(segment) => (segment, index.file_offset(&segment)),
                Location::Gone { next, bytes_known } => {
                    drop(index);
                    return Err(self.skip_to(next, bytes_known).into());
                }
                Location::Ahead if index.sealed => return Ok(Filled::Sealed),
                Location::Ahead => return Ok(Filled::Waiting),
            }
        };
        let cursor = match self.cursor {
            Some(cursor) if cursor.first == segment.first => cursor,
            _ => return self.find(&segment, slot),
        };
        self.buffer = self.read(&segment, slot, cursor.offset, READ_BYTES)?;
        self.cursor = Some(cursor);
        Ok(Filled::Yes)
    }

    /// Moves the cursor to `next` within a segment that was not read before.
    fn find(&mut self, segment: &Segment, slot: u64) -> Result<Filled, FollowError> {
        let mut bytes = self.read(segment, slot, SEGMENT_HEADER_BYTES, segment.used)?;
        let mut passed = segment.bytes_before;
        let whole = bytes.len();
        for sequence in segment.first..self.next {
            let Some(record) = decode(&mut bytes, sequence, segment.step) else { break };
            passed += record.output_bytes();
        }
        let offset = SEGMENT_HEADER_BYTES + (whole - bytes.len()) as u64;
        self.cursor = Some(Cursor { first: segment.first, step: segment.step, offset });
        self.passed = Some(passed);
        self.buffer = bytes;
        Ok(Filled::Yes)
    }

    /// Reads at most `most` of the bytes of `segment` from `offset` on. Should the segment be given up meanwhile, what
    /// was read may be another's, and counts for nothing: the next look says how far the gap goes.
    fn read(&self, segment: &Segment, slot: u64, offset: u64, most: u64) -> Result<Bytes, LogError> {
        let length = segment.used.saturating_sub(offset).min(most);
        let bytes = read_most(&self.log.file, usize::try_from(length).unwrap_or(0), slot + offset);
        let bytes = bytes.map_err(|error| self.log.error("read", error))?;
        if let Source::Growing(_) = self.source {
            self.log.check_slot(segment.first, slot)?;
        }
        Ok(if self.log.index().holds(segment.first) { bytes.into() } else { Bytes::new() })
    }

    fn skip_to(&mut self, segment: Segment, bytes_known: u64) -> ExpiredRange {
        let passed = self.passed.unwrap_or(bytes_known);
        let bytes = segment.bytes_before.saturating_sub(passed);
        let range = ExpiredRange { from: self.next, to: segment.first, bytes, step: segment.step };
        self.next = segment.first;
        self.passed = Some(segment.bytes_before);
        self.cursor = None;
        self.buffer = Bytes::new();
        range
    }
}

fn recovered(file: File, path: &Path) -> Result<Log, LogError> {
    let recovered = recover(&file, Limits::of_step(0));
    let recovered =
        recovered.map_err(|source| LogError::Io { action: "read", path: path.to_owned(), source })?;
    let (segments, _) = recovered.ok_or_else(|| LogError::NotALog { path: path.to_owned() })?;
    Ok(Log::new(file, path, segments))
}
