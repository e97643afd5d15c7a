//! `Logs`: records, lines, or the bytes of one stream, read as fast as the caller takes them.

use std::collections::VecDeque;

use creel_proto::v1 as wire;
use creel_proto::v1::log_event::Event;
use futures_util::FutureExt;
use tonic::Status;

use super::lines::Lines;
use crate::api::service::blocking;
use crate::api::status;
use crate::error::with_causes;
use crate::state::log::{
    FollowError, Follower, Record, Stream, StreamExpired, StreamFollower, StreamOffset, StreamPiece,
};

/// What is read at once.
const BATCH_BYTES: u64 = 128 << 10;
const BATCH_RECORDS: usize = 256;

/// What is read.
#[derive(Debug)]
enum Item {
    Record(Record),
    Piece(StreamPiece),
    /// Something that is no longer kept.
    Gone(Event),
    Failed(String),
}

impl Item {
    fn output_bytes(&self) -> u64 {
        match self {
            Self::Record(record) => record.output_bytes(),
            Self::Piece(piece) => piece.bytes.len() as u64,
            Self::Gone(_) | Self::Failed(_) => 0,
        }
    }
}

#[derive(Debug)]
enum Source {
    Records(Follower),
    Stream(StreamFollower),
}

impl Source {
    /// The next item, waited for if need be. Safe to cancel.
    async fn next(&mut self) -> Option<Item> {
        Some(match self {
            Self::Records(follower) => match follower.next().await? {
                Ok(record) => Item::Record(record),
                Err(FollowError::Expired(range)) => Item::Gone(Event::Expired(range.into())),
                Err(FollowError::Log(error)) => Item::Failed(with_causes(&error)),
            },
            Self::Stream(follower) => match follower.next().await? {
                Ok(piece) => Item::Piece(piece),
                Err(StreamExpired::Expired { from, to }) => Item::Gone(Event::Gap(wire::LogGap { from, to })),
                Err(StreamExpired::Log(error)) => Item::Failed(with_causes(&error)),
            },
        })
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Reading {
    /// `None` while it is read in another thread, and at its end.
    source: Option<Source>,
    follow: bool,
    /// `None`: they come as they are read.
    lines: Option<Lines>,
    read: VecDeque<Item>,
    /// The lines that never ended are told.
    finished: bool,
}

/// What there is to read now.
enum Now {
    More,
    /// Nothing, yet.
    Nothing,
    End,
}

impl Reading {
    pub(super) fn new(
        follower: Follower,
        stream: Option<(i32, Stream, StreamOffset)>,
        follow: bool,
        lines: bool,
    ) -> Self {
        let lines = lines.then(Lines::default);
        let source = match stream {
            Some((step, stream, from)) => Source::Stream(follower.of_stream(step, stream, from)),
            None => Source::Records(follower),
        };
        Self { source: Some(source), follow, lines, read: VecDeque::new(), finished: false }
    }

    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<wire::LogEvent>, Status> {
        loop {
            if let Some(event) = self.lines.as_mut().and_then(Lines::next) {
                return Ok(Some(wire::LogEvent { event: Some(event) }));
            }
            let Some(item) = self.read.pop_front() else {
                if !self.read_on().await? {
                    return Ok(None);
                }
                continue;
            };
            let event = match (item, &mut self.lines) {
                (Item::Record(record), None) => Event::Record(record.into()),
                (Item::Record(record), Some(lines)) => {
                    lines.push(record);
                    continue;
                }
                (Item::Piece(piece), _) => Event::Piece(piece.into()),
                (Item::Gone(gone), None) => gone,
                (Item::Gone(gone), Some(lines)) => {
                    lines.finish();
                    lines.append(gone);
                    continue;
                }
                (Item::Failed(why), _) => return Err(status::internal(why)),
            };
            return Ok(Some(wire::LogEvent { event: Some(event) }));
        }
    }

    /// Reads what there is, and waits if nothing is; `false` at the end.
    async fn read_on(&mut self) -> Result<bool, Status> {
        let Some(source) = self.source.take() else {
            return Ok(match &mut self.lines {
                Some(lines) if !self.finished => {
                    self.finished = true;
                    lines.finish();
                    true
                }
                _ => false,
            });
        };
        // What was written long ago is on the disk.
        let (mut source, read, now) = blocking(move || batch(source)).await?;
        self.read = read;
        let ended = match now {
            Now::More => false,
            Now::End => true,
            Now::Nothing if !self.follow => true,
            Now::Nothing if !self.read.is_empty() => false,
            Now::Nothing => {
                // What is written now is read from memory.
                self.read.extend(source.next().await);
                self.read.is_empty()
            }
        };
        if !ended {
            self.source = Some(source);
        }
        Ok(true)
    }
}

fn batch(mut source: Source) -> (Source, VecDeque<Item>, Now) {
    let (mut read, mut bytes) = (VecDeque::new(), 0);
    while bytes < BATCH_BYTES && read.len() < BATCH_RECORDS {
        match source.next().now_or_never() {
            None => return (source, read, Now::Nothing),
            Some(None) => return (source, read, Now::End),
            Some(Some(item)) => {
                bytes += item.output_bytes();
                read.push_back(item);
            }
        }
    }
    (source, read, Now::More)
}
