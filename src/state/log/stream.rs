//! One stream of one step, from an offset of its own on: for readers who know how many bytes they have, not which records.

use std::cmp::max;

use bytes::Bytes;
use jiff::Timestamp;

use super::follow::{FollowError, Follower};
use super::frame::{Payload, Record, Stream};
use super::store::LogError;

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOffset {
    /// Counted in bytes of the log, which are masked.
    Stored(u64),
    /// Counted at the source, before masking. What is given begins at or before it, since a mask does not tell which bytes it
    /// stands for.
    Raw(u64),
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPiece {
    /// Of its first byte, as stored.
    pub offset: u64,
    /// How far at the source the stream was stored with this piece.
    pub raw_offset: u64,
    pub time: Timestamp,
    pub bytes: Bytes,
}

/// What a follower of a stream gets in place of a piece.
#[derive(Debug, thiserror::Error)]
pub enum StreamExpired {
    /// The next call goes on at `to`.
    #[error("bytes {from} to {} of the stream are gone: the log keeps the first and the last", to - 1)]
    Expired { from: u64, to: u64 },
    /// The log can't be read; the follower is at its end.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads a stream in order, as a [`Follower`] reads the log.
#[derive(Debug)]
pub struct StreamFollower {
    records: Follower,
    step: i32,
    stream: Stream,
    from: StreamOffset,
    /// The stored offset of the next byte that is looked at.
    next: u64,
    /// Behind a gap that was told just now.
    held: Option<Record>,
}

impl Follower {
    /// Only what `stream` of `step` has from `from` on, whatever record this follower stands at.
    pub fn of_stream(mut self, step: i32, stream: Stream, from: StreamOffset) -> StreamFollower {
        let lane = stream.lane();
        let segment = self.log().index().last_of(step, |segment| match from {
            StreamOffset::Stored(offset) => segment.begins[lane].stored <= offset,
            StreamOffset::Raw(offset) => segment.begins[lane].raw <= offset,
        });
        self.seek(segment.map_or(0, |segment| segment.first));
        let next = segment.map_or(0, |segment| segment.begins[lane].stored);
        StreamFollower { records: self, step, stream, from, next, held: None }
    }
}

impl StreamFollower {
    /// The next piece, waited for if need be; None at the end of a sealed log, or when its writers are gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<StreamPiece, StreamExpired>> {
        loop {
            let record = match self.held.take() {
                Some(record) => record,
                None => match self.records.next().await? {
                    Ok(record) => record,
                    // Of which streams it was, the offset of the next record tells.
                    Err(FollowError::Expired(_)) => continue,
                    Err(FollowError::Log(error)) => return Some(Err(error.into())),
                },
            };
            let Payload::Data { stream, bytes } = &record.payload else { continue };
            if (record.step, *stream) != (self.step, self.stream) {
                continue;
            }
            let end = record.offset + bytes.len() as u64;
            let (begin, over) = match self.from {
                StreamOffset::Stored(offset) => (max(self.next, offset), end <= offset),
                StreamOffset::Raw(offset) => (self.next, record.raw_offset <= offset),
            };
            if !over && record.offset > begin {
                self.next = record.offset;
                let gap = StreamExpired::Expired { from: begin, to: record.offset };
                self.held = Some(record);
                return Some(Err(gap));
            }
            self.next = end;
            // An empty record only acknowledges.
            if over || bytes.is_empty() {
                continue;
            }
            let skipped = usize::try_from(begin.saturating_sub(record.offset)).unwrap_or(usize::MAX);
            let skipped = skipped.min(bytes.len());
            return Some(Ok(StreamPiece {
                offset: record.offset + skipped as u64,
                raw_offset: record.raw_offset,
                time: record.time,
                bytes: bytes.slice(skipped..),
            }));
        }
    }
}
