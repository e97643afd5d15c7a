//! What is known of one exec.
//!
//! Its tasks ([`super::run`]) and the session share it. Nothing here waits: whoever has to is told by a [`Notify`].

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use bytes::buf::Limit;
use creel_proto::agent::{ExecExit, PtyResize};
use tokio::sync::{Notify, mpsc};

use super::frames::Form;
use super::lane::{Lane, lane};
use super::run::Order;
use crate::input::{InputBuffer, NextInput};
use crate::log;
use crate::outbox::Outbox;
use crate::output::Stream;
use crate::ring::{BUFFER_BYTES, Buffers};
use crate::terminal::Terminal;

/// What one stream holds at most, in bytes, whatever credit the host gives.
const RING_BYTES: u64 = 1 << 20;

/// The same for hosts that give no credit, and want all.
const UNLIMITED_RING_BYTES: u64 = 256 << 10;

/// Orders that wait for an exec's task, which does each at once.
const QUEUED_ORDERS: usize = 32;

/// What becomes of the output.
#[derive(Debug)]
pub(super) enum Outlet {
    /// It waits for a connection.
    Waiting,
    Session {
        outbox: Outbox,
        /// The outbox has heard of it.
        said: bool,
    },
    /// Nobody will ever ask for it.
    Nowhere,
}

#[derive(Debug)]
pub(super) struct State {
    pub lanes: [Lane; 2],
    /// Whose turn it is.
    pub turn: usize,
    pub form: Form,
    pub input: InputBuffer,
    /// The host has to hear of the input, whatever there is to tell.
    pub state_due: bool,
    pub exit: Option<ExecExit>,
    pub exit_told: bool,
    pub outlet: Outlet,
    pub terminal: Option<Arc<Terminal>>,
}

/// What came of an attempt to read output.
#[derive(Debug)]
pub(super) enum Filled {
    Bytes(usize),
    End,
    Nothing,
    /// The host gives no credit for more.
    NoRoom,
}

#[derive(Debug)]
pub struct Exec {
    id: String,
    state: Mutex<State>,
    room: [Notify; 2],
    pub(super) typed: Notify,
    orders: mpsc::Sender<Order>,
    pub(super) buffers: Buffers,
}

impl Exec {
    /// One that sends to `outbox`, and what is ordered of it.
    pub(super) fn new(
        id: String,
        form: Form,
        input: InputBuffer,
        outbox: Outbox,
        buffers: Buffers,
    ) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let limit = if matches!(form, Form::Credit) { 0 } else { u64::MAX };
        let lane = || Lane { limit, ..Lane::default() };
        let state = State {
            lanes: [lane(), lane()],
            turn: 0,
            state_due: matches!(form, Form::Credit),
            form,
            input,
            exit: None,
            exit_told: false,
            outlet: Outlet::Session { outbox, said: false },
            terminal: None,
        };
        let (sender, orders) = mpsc::channel(QUEUED_ORDERS);
        let exec = Self {
            id,
            state: Mutex::new(state),
            room: [Notify::new(), Notify::new()],
            typed: Notify::new(),
            orders: sender,
            buffers,
        };
        (Arc::new(exec), orders)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Of its terminal, if it has one.
    pub fn resize(&self, size: PtyResize) {
        if let Some(terminal) = &self.state().terminal {
            terminal.resize(size.rows, size.cols);
        }
    }

    /// Of one that has ended nothing is heard, as the contract has it.
    pub fn order(&self, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
            log::warn(format_args!(
                "exec `{}` gets more orders than it takes: {order:?} is dropped",
                self.id
            ));
        }
    }

    /// The connection is lost, and another may come.
    pub fn detach(&self) {
        self.state().outlet = Outlet::Waiting;
    }

    /// Nobody will ever hear of it: the program runs on, and its output is dropped.
    pub fn abandon(&self) {
        let mut state = self.state();
        state.outlet = Outlet::Nowhere;
        for lane in &mut state.lanes {
            let end = lane.ring.end();
            // Its own end: it exists.
            let _ = lane.ring.acknowledge(end, &self.buffers);
        }
        self.say_room();
    }

    pub fn has_ended(&self) -> bool {
        self.state().exit.is_some()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once that there may be something to send.
    pub(super) fn announce(self: &Arc<Self>, state: &mut State) {
        if let Outlet::Session { outbox, said } = &mut state.outlet
            && !std::mem::replace(said, true)
        {
            outbox.ready(Arc::clone(self));
        }
    }

    /// Reads the next output by `read`, as much as there is room for.
    pub(super) fn fill(
        self: &Arc<Self>,
        stream: Stream,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> io::Result<usize>,
    ) -> Filled {
        let mut state = self.state();
        let room = state.room(lane(stream));
        if room == 0 {
            return Filled::NoRoom;
        }
        let ring = &mut state.lanes[lane(stream)].ring;
        match ring.fill(room, &self.buffers, read) {
            Ok(length @ 1..) => {
                if matches!(state.outlet, Outlet::Nowhere) {
                    let ring = &mut state.lanes[lane(stream)].ring;
                    // Its own end: it exists.
                    let _ = ring.acknowledge(ring.end(), &self.buffers);
                }
                self.announce(&mut state);
                Filled::Bytes(length)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Filled::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Filled::Nothing,
            // A pipe's read fails for reasons of this program only; the stream is then as good as ended.
            Ok(0) | Err(_) => Filled::End,
        }
    }

    /// Waits until there may be room for more of a stream.
    pub(super) async fn has_room(&self, stream: Stream) {
        self.room[lane(stream)].notified().await;
    }

    pub(super) fn say_room(&self) {
        for room in &self.room {
            room.notify_one();
        }
    }

    pub(super) fn say_room_of(&self, lane: usize) {
        self.room[lane].notify_one();
    }

    /// Nothing more comes of a stream.
    pub(super) fn end(self: &Arc<Self>, stream: Stream) {
        let mut state = self.state();
        state.lanes[lane(stream)].end();
        self.announce(&mut state);
    }

    pub(super) fn set_terminal(&self, terminal: Arc<Terminal>) {
        self.state().terminal = Some(terminal);
    }

    /// The program's next input.
    pub(super) fn next_input(&self) -> NextInput {
        self.state().input.peek()
    }

    /// The program was given so much of it.
    pub(super) fn wrote_input(self: &Arc<Self>, length: usize) {
        let mut state = self.state();
        state.input.wrote(length);
        if state.input.has_news() {
            self.announce(&mut state);
        }
    }

    /// Waits until there may be more input.
    pub(super) async fn has_input(&self) {
        self.typed.notified().await;
    }

    /// Nobody reads the input any more.
    pub(super) fn close_input(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.input.is_closed() {
            state.input.close();
            self.announce(&mut state);
        }
    }

    /// The end of the program and of all that is heard of it.
    pub(super) fn finish(self: &Arc<Self>, exit: ExecExit) {
        let mut state = self.state();
        for lane in &mut state.lanes {
            lane.end();
        }
        state.input.close();
        state.terminal = None;
        state.exit = Some(exit);
        self.announce(&mut state);
    }
}

impl State {
    /// How much may be read of a stream now.
    fn room(&self, lane: usize) -> usize {
        let Lane { ring, limit, .. } = &self.lanes[lane];
        let most = if matches!(self.form, Form::Credit) { RING_BYTES } else { UNLIMITED_RING_BYTES };
        let room = match self.outlet {
            Outlet::Nowhere => most,
            _ => limit.saturating_sub(ring.end()).min(most.saturating_sub(ring.held())),
        };
        usize::try_from(room).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES)
    }
}
