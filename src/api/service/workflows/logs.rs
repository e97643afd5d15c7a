//! `Logs`: records or lines, read as fast as the caller takes them.

use std::collections::VecDeque;

use creel_proto::v1 as wire;
use creel_proto::v1::log_event::Event;
use futures_util::FutureExt;
use tonic::Status;

use super::lines::Lines;
use crate::api::service::blocking;
use crate::api::status;
use crate::error::with_causes;
use crate::state::log::{FollowError, Follower, Record};

/// What is read at once.
const BATCH_BYTES: u64 = 128 << 10;
const BATCH_RECORDS: usize = 256;

type Item = Result<Record, FollowError>;

/// One call.
#[derive(Debug)]
pub(super) struct Reading {
    /// `None` while it is read in another thread, and at its end.
    follower: Option<Follower>,
    follow: bool,
    /// `None`: records are wanted.
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
    pub(super) fn new(follower: Follower, follow: bool, lines: bool) -> Self {
        let lines = lines.then(Lines::default);
        Self { follower: Some(follower), follow, lines, read: VecDeque::new(), finished: false }
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
                (Ok(record), None) => Event::Record(record.into()),
                (Ok(record), Some(lines)) => {
                    lines.push(record);
                    continue;
                }
                (Err(FollowError::Expired(range)), None) => Event::Expired(range.into()),
                (Err(FollowError::Expired(range)), Some(lines)) => {
                    lines.finish();
                    lines.append(Event::Expired(range.into()));
                    continue;
                }
                (Err(FollowError::Log(error)), _) => return Err(status::internal(with_causes(&error))),
            };
            return Ok(Some(wire::LogEvent { event: Some(event) }));
        }
    }

    /// Reads what there is, and waits if nothing is; `false` at the end.
    async fn read_on(&mut self) -> Result<bool, Status> {
        let Some(follower) = self.follower.take() else {
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
        let (mut follower, read, now) = blocking(move || batch(follower)).await?;
        self.read = read;
        let ended = match now {
            Now::More => false,
            Now::End => true,
            Now::Nothing if !self.follow => true,
            Now::Nothing if !self.read.is_empty() => false,
            Now::Nothing => {
                // What is written now is read from memory.
                self.read.extend(follower.next().await);
                self.read.is_empty()
            }
        };
        if !ended {
            self.follower = Some(follower);
        }
        Ok(true)
    }
}

fn batch(mut follower: Follower) -> (Follower, VecDeque<Item>, Now) {
    let (mut read, mut bytes) = (VecDeque::new(), 0);
    while bytes < BATCH_BYTES && read.len() < BATCH_RECORDS {
        match follower.next().now_or_never() {
            None => return (follower, read, Now::Nothing),
            Some(None) => return (follower, read, Now::End),
            Some(Some(item)) => {
                bytes += item.as_ref().map_or(0, Record::output_bytes);
                read.push_back(item);
            }
        }
    }
    (follower, read, Now::More)
}
