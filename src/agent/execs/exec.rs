//! One exec of `creel.exec.2` as its host knows it, whatever becomes of connections. Pure but for the streams' buffers.

use std::collections::VecDeque;

use bytes::Bytes;
use creel_proto::agent::{ExecExit, ExecStart, ExecState, ExecWindow};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::lane::Lane;
use crate::agent::credit::{Pool, Window};
use crate::agent::ending::Violation;
use crate::runtime::{OutputOffsets, OutputWriter, Stream, TerminalSize};

/// Signals that wait for a connection.
const MAX_SIGNALS: usize = 32;

/// A piece of a program's input, on its way to a connection.
#[derive(Debug)]
pub(in crate::agent) struct InputFrame {
    pub id: String,
    pub offset: u64,
    pub data: Bytes,
    pub end: bool,
}

/// What the guest has said of a program's input, for the task that reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Steer {
    /// The connection to send on; `None` until the guest has said on it where to begin.
    pub to: Option<(u64, mpsc::Sender<InputFrame>)>,
    pub written: u64,
    pub limit: u64,
    pub closed: bool,
}

/// See the states in ARCHITECTURE.md, "Execs: streams, credit, resume".
#[derive(Debug)]
pub(super) struct Exec {
    /// Whole until the guest was heard to know the exec: it may have to be sent again.
    start: Option<Box<ExecStart>>,
    /// The host's own.
    pub deadline: Option<Instant>,
    pub started: Instant,
    /// `None`: given up.
    output: Option<OutputWriter>,
    lanes: [Lane; 2],
    input_window: Option<Window>,
    /// How much of the input was handed to a connection.
    sent: u64,
    steer: watch::Sender<Steer>,
    signals: VecDeque<u32>,
    size: Option<TerminalSize>,
    size_ordered: bool,
    /// An order to tell the window waits already.
    window_ordered: bool,
}

/// What the guest's word about the input has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heed {
    News,
    Nothing,
}

impl Exec {
    pub(super) fn new(
        start: ExecStart,
        deadline: Option<Instant>,
        output: OutputWriter,
        [stdout, stderr]: [Window; 2],
        input_window: Option<Window>,
    ) -> (Self, watch::Receiver<Steer>) {
        let (steer, steered) = watch::channel(Steer::default());
        let exec = Self {
            start: Some(Box::new(start)),
            deadline,
            started: Instant::now(),
            output: Some(output),
            lanes: [Lane::new(Stream::Stdout, stdout), Lane::new(Stream::Stderr, stderr)],
            input_window,
            sent: 0,
            steer,
            signals: VecDeque::new(),
            size: None,
            size_ordered: false,
            window_ordered: false,
        };
        (exec, steered)
    }

    /// Asks for the exec: to start it, or to go on with it. One that is given up is not started to be cancelled.
    pub(super) fn start(&self, timeout_seconds: u32) -> ExecStart {
        let window = Some(self.window());
        match &self.start {
            Some(start) if !self.is_given_up() => ExecStart { window, timeout_seconds, ..(**start).clone() },
            _ => ExecStart { attach: true, window, ..ExecStart::default() },
        }
    }

    /// Bytes that have come and are with no reader yet are sent again on a new connection: this process may end before they
    /// are, and what its successor needs of them must be in the guest.
    fn window(&self) -> ExecWindow {
        let [stdout, stderr] = &self.lanes;
        ExecWindow {
            stdout_acknowledged: stdout.acknowledged(),
            stderr_acknowledged: stderr.acknowledged(),
            stdout_limit: stdout.limit(),
            stderr_limit: stderr.limit(),
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.output.is_none()
    }

    /// Nobody waits for it or reads it any more; what still comes is counted and dropped.
    pub(super) fn give_up(&mut self) {
        self.output = None;
        self.lanes.iter_mut().for_each(Lane::acknowledge_all);
        self.steer.send_modify(|steer| steer.closed = true);
    }

    /// The guest knows it.
    fn heard(&mut self) {
        self.start = None;
    }

    pub(super) fn receive(
        &mut self,
        id: &str,
        stream: Stream,
        (offset, bytes, end): (u64, &[u8], bool),
    ) -> Result<(), Violation> {
        self.heard();
        let lane = &mut self.lanes[index(stream)];
        let known = lane.receive(id, offset, bytes.len() as u64, end)?;
        // No more than there are.
        let (_, new) = bytes.split_at(usize::try_from(known).unwrap_or(bytes.len()));
        match &self.output {
            // Both count alike.
            Some(output) => drop(output.push(stream, offset + known, new)),
            None => lane.acknowledge_all(),
        }
        Ok(())
    }

    /// Its readers have acknowledged more.
    pub(super) fn acknowledge(&mut self, offsets: OutputOffsets) {
        self.lanes[0].acknowledge(offsets.stdout);
        self.lanes[1].acknowledge(offsets.stderr);
    }

    /// Whether the guest should hear of new credit, and does not already.
    pub(super) fn orders_window(&mut self) -> bool {
        let all_read = self.output.as_ref().is_none_or(OutputWriter::is_read);
        let due = self.start.is_none() && self.lanes.iter().any(|lane| lane.is_due(all_read));
        due && !std::mem::replace(&mut self.window_ordered, true)
    }

    /// New credit, to be told at once.
    pub(super) fn renewed_window(&mut self, pool: &mut Pool) -> ExecWindow {
        self.window_ordered = false;
        self.lanes.iter_mut().for_each(|lane| lane.renew(pool));
        self.window()
    }

    pub(super) fn exit(&mut self, id: &str, exit: &ExecExit) -> Result<(), Violation> {
        if exit.unknown {
            return Ok(());
        }
        self.lanes[0].finish(id, exit.stdout_bytes)?;
        self.lanes[1].finish(id, exit.stderr_bytes)
    }

    pub(super) fn received(&self) -> OutputOffsets {
        OutputOffsets { stdout: self.lanes[0].received(), stderr: self.lanes[1].received() }
    }

    /// Heeds the first state of a connection, which says where to go on, or a later one, which never goes back.
    pub(super) fn heed(
        &mut self,
        id: &str,
        state: &ExecState,
        link: u64,
        frames: &mpsc::Sender<InputFrame>,
    ) -> Result<Heed, Violation> {
        self.heard();
        let ExecState { input_written: written, input_limit: limit, input_closed: closed } = *state;
        let id = || id.to_owned();
        let before = self.steer.borrow().clone();
        let first = before.to.is_none();
        if written > self.sent {
            return Err(Violation::InputBeyond { id: id(), written, sent: self.sent });
        }
        if written < before.written {
            return Err(Violation::InputBack { id: id(), written, before: before.written });
        }
        if !first && limit < before.limit {
            return Err(Violation::CreditBack { id: id(), limit, before: before.limit });
        }
        let closed = closed || before.closed;
        if !first && (written, limit, closed) == (before.written, before.limit, before.closed) {
            return Ok(Heed::Nothing);
        }
        // `sent` stays, also on a new connection: what was sent on an earlier one is in the guest's buffer, and may be written
        // before it comes again.
        let to = before.to.or_else(|| Some((link, frames.clone())));
        self.steer.send_replace(Steer { to, written, limit, closed });
        Ok(Heed::News)
    }

    /// Input up to `offset` goes to this connection; not, if that has ended.
    pub(super) fn send_input(&mut self, link: u64, offset: u64) -> bool {
        let current = self.steer.borrow().to.as_ref().is_some_and(|(to, _)| *to == link);
        if current {
            self.sent = self.sent.max(offset);
        }
        current
    }

    /// Its connection has ended.
    pub(super) fn detach(&mut self) {
        self.window_ordered = false;
        self.steer.send_if_modified(|steer| steer.to.take().is_some());
    }

    /// A new connection begins.
    pub(super) fn attach(&mut self, pool: &mut Pool) {
        self.detach();
        self.lanes.iter_mut().for_each(|lane| lane.begin_again(pool));
    }

    /// Keeps a signal until it can be sent; not, where too many wait already.
    pub(super) fn signal(&mut self, signal: u32) -> bool {
        let fits = self.signals.len() < MAX_SIGNALS;
        if fits {
            self.signals.push_back(signal);
        }
        fits
    }

    pub(super) fn next_signal(&mut self) -> Option<u32> {
        self.signals.pop_front()
    }

    pub(super) fn waiting_signals(&self) -> usize {
        self.signals.len()
    }

    /// True: an order to tell it is to be given.
    pub(super) fn resize(&mut self, size: TerminalSize) -> bool {
        self.size = Some(size);
        !std::mem::replace(&mut self.size_ordered, true)
    }

    /// The last size that was asked for, to be told at once.
    pub(super) fn told_size(&mut self) -> Option<TerminalSize> {
        self.size_ordered = false;
        self.size
    }

    /// Whether a connection that begins should hear of a size.
    pub(super) fn orders_size(&mut self) -> bool {
        self.size_ordered = self.size.is_some();
        self.size_ordered
    }

    pub(super) fn into_windows(self) -> ([Window; 2], Option<Window>) {
        (self.lanes.map(Lane::into_window), self.input_window)
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
