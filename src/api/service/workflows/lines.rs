//! Records as lines, a few at a time: a record of newlines is as many lines as it has bytes.

use std::collections::VecDeque;

use creel_proto::v1::log_event::Event;

use crate::state::log::{LineSplitter, Payload, Record};

/// Lines of so many bytes are made at once.
const PIECE_BYTES: usize = 1 << 10;

/// Cuts records into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    splitter: LineSplitter,
    /// What is left of a record.
    rest: Option<Record>,
    ready: VecDeque<Event>,
}

impl Lines {
    /// The next line of what was pushed.
    pub(super) fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let mut record = self.rest.take()?;
            if let Payload::Data { stream, bytes } = &mut record.payload
                && bytes.len() > PIECE_BYTES
            {
                let piece = Payload::Data { stream: *stream, bytes: bytes.split_to(PIECE_BYTES) };
                let piece = Record { payload: piece, ..record.clone() };
                self.rest = Some(record);
                record = piece;
            }
            let ready = &mut self.ready;
            self.splitter.push(&record, |line| ready.push_back(Event::Line(line.into())));
        }
        self.ready.pop_front()
    }

    /// Once all lines of the one before are taken.
    pub(super) fn push(&mut self, record: Record) {
        self.rest = Some(record);
    }

    /// No more comes, or a gap: the lines that never ended.
    pub(super) fn finish(&mut self) {
        let ready = &mut self.ready;
        self.splitter.finish(|line| ready.push_back(Event::Line(line.into())));
    }

    /// What comes after all that is ready.
    pub(super) fn append(&mut self, event: Event) {
        self.ready.push_back(event);
    }
}
