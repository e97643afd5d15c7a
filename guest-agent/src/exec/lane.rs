//! One stream of an exec's output: what is held of it, how far it may be sent, and whether it has ended.

use crate::output::Stream;
use crate::ring::{Buffers, OffsetError, Ring};

/// One stream of output.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub ring: Ring,
    /// How far the host takes it.
    pub limit: u64,
    /// Nothing more comes.
    pub ended: bool,
    /// The host was told so, on this connection.
    pub end_told: bool,
}

impl Lane {
    /// All before `offset` is safe.
    pub fn acknowledge(&mut self, offset: u64, buffers: &Buffers) -> Result<(), OffsetError> {
        self.ring.acknowledge(offset, buffers)?;
        if self.ended {
            self.ring.free_if_empty();
        }
        Ok(())
    }

    pub fn end(&mut self) {
        self.ended = true;
        self.ring.free_if_empty();
    }
}

/// Its place among an exec's lanes.
pub(super) fn lane(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
