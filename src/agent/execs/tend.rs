//! The task of one exec: takes its input off the caller's hands as fast as the guest takes it, and notes what its readers
//! have acknowledged. It lives as long as the exec, across connections.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::exec::{InputFrame, Steer};
use super::shared::Shared;
use crate::runtime::{InputEvent, InputReader, OutputOffsets};

/// The contract's largest piece of input.
const MAX_INPUT_BYTES: u64 = 64 << 10;

pub(super) struct Tender {
    shared: Arc<Shared>,
    id: String,
    input: Option<InputReader>,
    /// The connection that the input was rewound for.
    attached: Option<(u64, mpsc::Sender<InputFrame>)>,
    /// How much of the input was read.
    taken: u64,
    /// Waits for a place among what is sent.
    pending: Option<InputFrame>,
}

impl Tender {
    pub(super) fn new(shared: Arc<Shared>, id: String, input: Option<InputReader>) -> Self {
        Self { shared, id, input, attached: None, taken: 0, pending: None }
    }

    pub(super) async fn run(
        mut self,
        mut acknowledged: watch::Receiver<OutputOffsets>,
        mut steer: watch::Receiver<Steer>,
    ) {
        let mut read = true;
        loop {
            let now = steer.borrow_and_update().clone();
            self.follow(&now);
            let until = if now.closed { self.taken } else { now.limit.min(self.taken + MAX_INPUT_BYTES) };
            let lane = self.attached.as_ref().map(|(_, lane)| lane.clone());
            let waiting = self.pending.is_some();
            tokio::select! {
                changed = steer.changed() => {
                    if changed.is_err() {
                        // The exec is over.
                        return;
                    }
                }
                changed = acknowledged.changed(), if read => match changed {
                    Ok(()) => {
                        let offsets = *acknowledged.borrow_and_update();
                        self.shared.acknowledged(&self.id, offsets);
                    }
                    Err(_) => read = false,
                },
                event = next(&mut self.input, until), if lane.is_some() && !waiting => self.take(event),
                place = place(lane.as_ref()), if lane.is_some() && waiting => match place {
                    Some(place) => {
                        if let Some(frame) = self.pending.take() {
                            place.send(frame);
                        }
                    }
                    // That connection has ended, which the guest's next word will follow.
                    None => self.attached = None,
                },
            }
        }
    }

    fn follow(&mut self, steer: &Steer) {
        let Some(input) = &mut self.input else { return };
        match (&steer.to, &self.attached) {
            (None, _) => {
                self.attached = None;
                self.pending = None;
            }
            (Some((to, _)), Some((attached, _))) if to == attached => {}
            // Its lane is closed, and it has not been replaced yet.
            (Some((_, lane)), _) if lane.is_closed() => {}
            (to, _) => {
                self.pending = None;
                self.attached.clone_from(to);
                // Between what the guest has said before and what was sent, which has been looked at: it exists.
                let _ = input.written(steer.written);
                let _ = input.rewind(steer.written);
                self.taken = steer.written;
            }
        }
        let _ = input.written(steer.written);
        if steer.closed {
            input.close();
        }
    }

    fn take(&mut self, event: InputEvent) {
        let Some((link, _)) = &self.attached else { return };
        let (offset, data, end) = match event {
            InputEvent::Resize(size) => return self.shared.resized(&self.id, size),
            InputEvent::Bytes { offset, bytes } => (offset, bytes, false),
            InputEvent::End { offset } => (offset, Bytes::new(), true),
        };
        self.taken = offset + data.len() as u64;
        if self.shared.sends_input(&self.id, *link, self.taken) {
            self.pending = Some(InputFrame { id: self.id.clone(), offset, data, end });
        }
    }
}

async fn next(input: &mut Option<InputReader>, until: u64) -> InputEvent {
    match input {
        Some(input) => input.next(until).await,
        None => std::future::pending().await,
    }
}

async fn place(lane: Option<&mpsc::Sender<InputFrame>>) -> Option<mpsc::Permit<'_, InputFrame>> {
    lane?.reserve().await.ok()
}
