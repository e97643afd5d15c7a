//! A program's input between the host and the program. Pure.
//!
//! What comes is told by its offset, so that the host may send again what it does not know to be written. What waits is
//! bounded by the limit that the host was told, which moves on with what the program reads.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use creel_proto::agent::ExecState;

/// How far the host may send ahead of what the program has been given.
pub const WINDOW_BYTES: u64 = 256 << 10;

/// The contract's most for one message.
const MAX_DATA_BYTES: usize = 64 << 10;

/// Shorter pieces are copied together: each is a part of the buffer that it was received in and would keep all of it.
const LEAST_SHARED_BYTES: usize = 16 << 10;

/// Input that breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("input of {length} bytes in one message; {MAX_DATA_BYTES} are allowed")]
    TooLong { length: usize },
    #[error("input from offset {offset}, while it has come up to {received} only")]
    Gap { offset: u64, received: u64 },
    #[error("input up to offset {until}, while the limit is {limit}")]
    BeyondLimit { until: u64, limit: u64 },
    #[error("input that ends at {end} and goes up to {until}")]
    BeyondEnd { until: u64, end: u64 },
}

/// What is to be done with the program's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextInput {
    /// Of these the first ones, as many as can be, are to be written.
    Bytes(Bytes),
    /// All has been written, and nothing comes any more.
    End,
    /// Nothing has come.
    Wait,
}

#[derive(Debug)]
pub struct InputBuffer {
    pieces: VecDeque<Bytes>,
    /// Short pieces, the last that came.
    open: BytesMut,
    written: u64,
    received: u64,
    end: Option<u64>,
    closed: bool,
    /// What the host was told last.
    told: ExecState,
}

impl InputBuffer {
    /// Of a program that reads its input.
    pub fn open() -> Self {
        let told = ExecState { input_limit: WINDOW_BYTES, ..ExecState::default() };
        Self {
            pieces: VecDeque::new(),
            open: BytesMut::new(),
            written: 0,
            received: 0,
            end: None,
            closed: false,
            told,
        }
    }

    /// Of a program that finds its input empty.
    pub fn closed() -> Self {
        let told = ExecState { input_closed: true, ..ExecState::default() };
        Self { closed: true, told, ..Self::open() }
    }

    /// Takes what the host sends. What was taken before is passed over.
    ///
    /// # Errors
    /// When it breaks the contract. Nothing has changed then.
    pub fn take(&mut self, offset: u64, data: Bytes, end: bool) -> Result<(), InputError> {
        let (received, limit) = (self.received, self.told.input_limit);
        if data.len() > MAX_DATA_BYTES {
            return Err(InputError::TooLong { length: data.len() });
        }
        if offset > received {
            return Err(InputError::Gap { offset, received });
        }
        let until = offset + data.len() as u64;
        if until > limit {
            return Err(InputError::BeyondLimit { until, limit });
        }
        match self.end {
            Some(known) if until > known || (end && until != known) => {
                return Err(InputError::BeyondEnd { until, end: known });
            }
            None if end && until < received => {
                return Err(InputError::BeyondEnd { until: received, end: until });
            }
            _ => {}
        }
        if end {
            self.end = Some(until);
        }
        if until > received {
            self.received = until;
            // Below the data's length, which is in memory.
            let known = usize::try_from(received - offset).unwrap_or(data.len());
            if !self.closed {
                self.push(data.slice(known..));
            }
        }
        Ok(())
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < LEAST_SHARED_BYTES {
            self.open.extend_from_slice(&data);
            return;
        }
        self.seal();
        self.pieces.push_back(data);
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(self.open.split().freeze());
        }
    }

    /// What the program is to be given next.
    pub fn peek(&mut self) -> NextInput {
        if self.pieces.is_empty() {
            self.seal();
        }
        match self.pieces.front() {
            Some(piece) => NextInput::Bytes(piece.clone()),
            None if self.end == Some(self.written) || self.closed => NextInput::End,
            None => NextInput::Wait,
        }
    }

    /// The program has been given this many bytes of what [`Self::peek`] said.
    pub fn wrote(&mut self, length: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            let length = length.min(piece.len());
            self.written += length as u64;
            // In place, without keeping more than before.
            bytes::Buf::advance(piece, length);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Nobody reads it any more: what waits goes nowhere.
    pub fn close(&mut self) {
        self.closed = true;
        self.pieces.clear();
        self.open = BytesMut::new();
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the host should hear of what has changed: not of every byte, but before it has to wait.
    pub fn has_news(&self) -> bool {
        let told = &self.told;
        let ran_empty = self.written == self.received && told.input_written < self.written;
        let moved = self.written - told.input_written >= WINDOW_BYTES / 2;
        told.input_closed != self.closed || ran_empty || moved
    }

    /// Tells the host how things are.
    pub fn tell(&mut self) -> ExecState {
        self.told.input_written = self.written;
        self.told.input_closed = self.closed;
        if !self.closed {
            self.told.input_limit = self.written + WINDOW_BYTES;
        }
        self.told
    }
}

#[cfg(test)]
mod tests;
