//! What an exec has to send, a frame at a time.
//!
//! The order is the contract's: news of the input as they are, output of both streams in turn, each with its end, and the exit
//! after both ends.

use std::sync::Arc;

use creel_proto::agent::ExecExit;
use creel_proto::{Envelope, FrameError};

use super::lane::Lane;
use super::state::{Exec, Outlet, State};
use crate::batch::{Batch, OutputFrame};
use crate::exit::version_1;
use crate::output::{OutputForm, Stream, TextEncoder};
use crate::ring::{BUFFER_BYTES, Piece};

/// The most that a host without credit gets in one message: a little less than the 32 KiB of version 1, so that two messages
/// fit into one vsock packet.
const VERSION_1_BYTES: usize = (32 << 10) - 256;

/// What the host understands, and so who keeps output until it is safe.
#[derive(Debug)]
pub enum Form {
    /// `creel.exec.2`: bytes, which the host acknowledges, as far as it gives credit.
    Credit,
    /// `creel.output.1`: bytes, which are forgotten once they are sent.
    Raw,
    /// Version 1: text.
    Text([TextEncoder; 2]),
}

impl From<OutputForm> for Form {
    fn from(form: OutputForm) -> Self {
        match form {
            OutputForm::Raw => Self::Raw,
            OutputForm::Text => Self::Text([Stream::Stdout, Stream::Stderr].map(TextEncoder::new)),
        }
    }
}

impl Exec {
    /// Puts at most one frame of output into `batch`, and what is due beside it. Whether there is more.
    ///
    /// # Errors
    /// When a frame would be too long.
    pub fn write_next(self: &Arc<Self>, batch: &mut Batch) -> Result<bool, FrameError> {
        let mut state = self.state();
        let state = &mut *state;
        if let Form::Credit = state.form
            && (state.state_due || state.input.has_news())
        {
            state.state_due = false;
            batch.put(Envelope::new(self.id(), state.input.tell()))?;
        }
        if self.write_output(state, batch)? {
            return Ok(true);
        }
        let ends_told = state.lanes.iter().all(|lane| lane.end_told);
        if ends_told
            && !state.exit_told
            && let Some(exit) = &state.exit
        {
            state.exit_told = true;
            batch.put(Envelope::new(self.id(), state.told(exit.clone())))?;
        }
        if let Outlet::Session { said, .. } = &mut state.outlet {
            *said = false;
        }
        Ok(false)
    }

    /// Whether there was a frame.
    fn write_output(&self, state: &mut State, batch: &mut Batch) -> Result<bool, FrameError> {
        for _ in 0..2 {
            let turn = state.turn;
            state.turn = 1 - turn;
            let stream = [Stream::Stdout, Stream::Stderr][turn];
            let lane = &mut state.lanes[turn];
            if lane.end_told {
                continue;
            }
            let most = if let Form::Credit = state.form { BUFFER_BYTES } else { VERSION_1_BYTES };
            let piece = lane.ring.next(lane.limit, most);
            let end = lane.ended && lane.ring.is_sent();
            if piece.is_none() && !end {
                continue;
            }
            lane.end_told = end;
            match &mut state.form {
                Form::Credit => self.put(batch, stream, piece, lane, end),
                Form::Raw => {
                    if piece.is_some() {
                        self.put(batch, stream, piece, lane, false);
                    }
                    self.forget(lane, turn);
                }
                Form::Text(encoders) => {
                    let encoder = &mut encoders[turn];
                    let text = piece.and_then(|piece| encoder.encode(&piece.bytes));
                    let rest = end.then(|| encoder.finish()).flatten();
                    for payload in text.into_iter().chain(rest) {
                        batch.put(Envelope::new(self.id(), payload))?;
                    }
                    self.forget(lane, turn);
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn put(&self, batch: &mut Batch, stream: Stream, piece: Option<Piece>, lane: &Lane, end: bool) {
        let Piece { offset, bytes } =
            piece.unwrap_or_else(|| Piece { offset: lane.ring.end(), bytes: bytes::Bytes::new() });
        batch.put_output(OutputFrame { id: self.id(), stream, offset, bytes, end });
    }

    /// What was sent to a host that acknowledges nothing is gone, and makes room.
    fn forget(&self, lane: &mut Lane, turn: usize) {
        // Up to where it was sent, which exists.
        let _ = lane.ring.acknowledge(lane.ring.sent(), &self.buffers);
        self.say_room_of(turn);
    }
}

impl State {
    /// The exit as this host knows it.
    fn told(&self, exit: ExecExit) -> ExecExit {
        match self.form {
            Form::Credit => ExecExit {
                stdout_bytes: self.lanes[0].ring.end(),
                stderr_bytes: self.lanes[1].ring.end(),
                ..exit
            },
            Form::Raw => exit,
            Form::Text(_) => version_1(exit),
        }
    }
}
