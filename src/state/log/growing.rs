//! Reading a log while another process writes it.
//!
//! The file alone tells what is in it: a record is written by one pwrite(2) in ascending order, a slot that is used again
//! begins with the header of its new segment. So
//!
//! - a record whose last bytes are there was written whole before they were seen, and is read only after that;
//! - what was read of a slot whose header is still the same afterwards was not overwritten meanwhile;
//! - a segment that is missing between two others was given up only if it is missing in a look that began after the later one
//!   had been seen; otherwise it may have been written behind the reader's back.
//!
//! A write is told by inotify after it is done, so a record that a look found incomplete is looked at again.

use std::collections::HashMap;
use std::fmt;
use std::io;

use tokio::sync::oneshot;

use super::file::{Header, count_slots, first_in_slot, read_header, read_segment, read_up_to};
use super::frame::decode;
use super::segments::{Limits, Location, Segment, Segments};
use super::store::{Log, LogError};
use crate::host::inotify::Watch;

/// How often a gap is looked at again before it is taken for one: a writer can outrun its reader for as long as it likes.
const LOOKS: usize = 8;

/// What tells a reader of the log of another process to look again.
pub struct Growth {
    changes: Watch,
    /// Resolves once nobody can write any more.
    ended: oneshot::Receiver<()>,
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth").finish_non_exhaustive()
    }
}

impl Growth {
    /// `changes` of the log's file, watched since before the file was first read; `ended` resolves, or is dropped, when the
    /// writer is gone.
    pub fn new(changes: Watch, ended: oneshot::Receiver<()>) -> Self {
        Self { changes, ended }
    }

    /// Waits for a change; false once there will be none. Safe to cancel.
    pub(super) async fn goes_on(&mut self) -> bool {
        tokio::select! {
            () = self.changes.changed() => true,
            _ = &mut self.ended => false,
        }
    }
}

impl Log {
    /// Takes up what was written since the last look; whether there was anything.
    pub(super) fn refresh(&self) -> Result<bool, LogError> {
        let refreshed = match self.extend_last() {
            Ok(false) => self.scan(),
            other => other,
        };
        refreshed.map_err(|error| self.error("read", error))
    }

    /// Makes sure that a gap at `sequence` is one.
    pub(super) fn look_behind_gap(&self, sequence: u64) -> Result<(), LogError> {
        let behind = |log: &Self| match log.index().locate(sequence) {
            Location::Gone { next, .. } => Some(next.first),
            Location::In(_) | Location::Ahead => None,
        };
        let Some(mut next) = behind(self) else { return Ok(()) };
        for _ in 0..LOOKS {
            self.scan().map_err(|error| self.error("read", error))?;
            match behind(self) {
                Some(again) if again != next => next = again,
                _ => break,
            }
        }
        Ok(())
    }

    /// Forgets the segment `first` if its slot at `offset` holds another by now.
    pub(super) fn check_slot(&self, first: u64, offset: u64) -> Result<(), LogError> {
        let now = first_in_slot(&self.file, offset).map_err(|error| self.error("read", error))?;
        if now != Some(first) {
            self.scan().map_err(|error| self.error("read", error))?;
        }
        Ok(())
    }

    /// The common case: more records in the newest segment.
    fn extend_last(&self) -> io::Result<bool> {
        let (segment_bytes, mut segments) = {
            let index = self.index();
            (index.segment_bytes(), index.all())
        };
        let Some(last) = segments.last_mut() else { return Ok(false) };
        let longer = self.extended(*last)?;
        if longer == *last {
            return Ok(false);
        }
        *last = longer;
        self.replace(segment_bytes, segments, false);
        Ok(true)
    }

    /// Looks at every slot's header, and reads those segments that are new or may have grown.
    fn scan(&self) -> io::Result<bool> {
        // Before all else: nothing is written after the seal.
        let Some(Header { segment_bytes, sealed }) = read_header(&self.file)? else { return Ok(false) };
        let (before, was_sealed) = {
            let index = self.index();
            (index.all(), index.sealed)
        };
        let known: HashMap<u32, Segment> = before.iter().map(|segment| (segment.slot, *segment)).collect();
        let mut found = Vec::new();
        for slot in 0..count_slots(&self.file, segment_bytes)? {
            let offset = super::segments::FILE_HEADER_BYTES + u64::from(slot) * segment_bytes;
            let first = first_in_slot(&self.file, offset)?;
            match known.get(&slot) {
                Some(segment) if first == Some(segment.first) => found.push(*segment),
                _ => found.extend(
                    read_segment(&self.file, segment_bytes, slot)?
                        .map(|(segment, _)| segment)
                        .filter(|segment| segment.records > 0),
                ),
            }
        }
        found.sort_unstable_by_key(|segment| segment.first);
        for at in 0..found.len() {
            let next = found.get(at + 1).map(|next| next.first);
            if next != Some(found[at].end()) {
                found[at] = self.extended(found[at])?;
            }
        }
        let changed = found != before || sealed != was_sealed;
        self.replace(segment_bytes, found, sealed);
        Ok(changed)
    }

    /// The segment with the records that have come to it.
    fn extended(&self, mut segment: Segment) -> io::Result<Segment> {
        let (segment_bytes, slot) = {
            let index = self.index();
            (index.segment_bytes(), index.file_offset(&segment))
        };
        let room = usize::try_from(segment_bytes.saturating_sub(segment.used)).map_err(io::Error::other)?;
        let mut bytes = vec![0; room];
        let read = read_up_to(&self.file, &mut bytes, slot + segment.used)?;
        bytes.truncate(read);
        let mut bytes = bytes::Bytes::from(bytes);
        let mut before = bytes.len();
        while let Some(record) = decode(&mut bytes, segment.end(), segment.step) {
            segment.records += 1;
            segment.bytes += record.output_bytes();
            segment.used += (before - bytes.len()) as u64;
            before = bytes.len();
        }
        Ok(segment)
    }

    fn replace(&self, segment_bytes: u64, found: Vec<Segment>, sealed: bool) {
        let slots = found.iter().map(|segment| segment.slot + 1).max().unwrap_or(0);
        let mut segments = Segments::recovered(Limits::of_step(0), segment_bytes, slots, found);
        segments.sealed = sealed;
        *self.index() = segments;
    }
}
