//! A machine's agent, whichever connection it is on: many execs at once, some of which outlive a connection.
//!
//! What belongs to the machine is in `execs`, what belongs to one connection in `link`. Dropping the session ends both.

use std::sync::Arc;

use creel_proto::agent::{ExecSignal, Hello, OpenDebugShell, Poweroff};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, MAX_MESSAGE_BYTES};
use tokio::sync::mpsc;

use super::ending::{Ending, Loss};
use super::execs::Shared;
use super::exit::ExecEnd;
use super::link;
use super::resume::Proven;
use super::terms::{Patience, Terms};
use super::wire::Wire;
use crate::runtime::{ExecRequest, ExecStreams, ShellRequest, SignalError};

/// Events that wait for the machine's task.
const EVENT_QUEUE: usize = 64;

/// What a program that is given up may take, between SIGTERM and SIGKILL, to clean up in the guest. Nobody waits for it.
pub const CANCEL_GRACE_MS: u32 = 2000;

/// What the reader tells the machine's task.
#[derive(Debug)]
pub enum SessionEvent {
    /// A piece of work ended; all of its output was sent to its queue before.
    WorkEnded { id: String, end: ExecEnd },
    /// The guest could not begin a debug shell; one that it begins has a connection of its own.
    ShellRefused { detail: String },
    /// The guest will power off.
    PoweroffAcknowledged,
    /// The connection has ended, and another one may take its place.
    Away { why: Loss },
    /// The agent is lost: nothing comes after this.
    Closed { why: Ending },
}

/// Where a session's events arrive.
pub type SessionEvents = mpsc::Receiver<SessionEvent>;

/// Why a piece of work could not be given to the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("`{0}` still runs in this machine, or has been given up and not ended")]
    Duplicate(String),
    #[error(
        "the image's agent can't unpack a source disk (it lacks extension `{}`); use an image with creel's agent",
        extensions::SOURCE_1
    )]
    NoSourceDisk,
    #[error(
        "the step's command and environment make {size} bytes, and the agent takes {MAX_MESSAGE_BYTES} at once"
    )]
    TooLarge { size: usize },
    #[error(
        "the image's agent can't copy files (it lacks extension `{}`); use an image with creel's agent",
        extensions::FILES_1
    )]
    NoFiles,
    #[error("the machine runs {max} execs, which is as many as it may; wait for one to end")]
    TooMany { max: usize },
    #[error("the agent's connection is closed")]
    Closed,
}

/// An agent that was greeted.
#[derive(Debug)]
pub struct Session {
    hello: Hello,
    terms: Terms,
    patience: Patience,
    shared: Arc<Shared>,
}

impl Session {
    /// Starts the tasks of a session whose handshake is done.
    pub(super) fn start(wire: Wire, hello: Hello, terms: Terms, patience: Patience) -> (Self, SessionEvents) {
        let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
        let shared = Arc::new(Shared::new(terms, events));
        link::start(&shared, wire, None, patience);
        (Self { hello, terms, patience, shared }, event_queue)
    }

    /// What the agent said of itself. Guest-made text: bounded in use, never trusted.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What was agreed on.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Goes on with a connection that has proven to be of the same agent, in place of the one before. False: the agent
    /// has broken the contract, and is not believed again.
    pub fn resume(&self, proven: Proven) -> bool {
        let (wire, init) = proven.into_parts();
        link::start(&self.shared, wire, Some(init), self.patience)
    }

    /// Whether the agent is away and may come back.
    pub fn is_away(&self) -> bool {
        let table = self.shared.lock();
        table.link.is_none() && table.terms.resume && !table.over
    }

    /// Gives a piece of work to the agent; its end comes as [`SessionEvent::WorkEnded`]. An agent that is away is given
    /// it when it comes back.
    ///
    /// # Errors
    /// When it could not be sent, or there is no room for its output.
    pub fn begin(&self, request: ExecRequest, streams: ExecStreams) -> Result<(), StartError> {
        self.shared.begin(request, streams)
    }

    /// Gives a piece of work up: its output is dropped from now on, and its queue closed, so that its reader ends. A
    /// program is cancelled in the guest, where its agent can do that; nobody hears how it ended.
    pub fn cancel(&self, id: &str) {
        self.shared.cancel(id);
    }

    /// Sends a signal to the process group of a program that runs and that somebody waits for.
    ///
    /// # Errors
    /// When there is none of that id, or the agent can't.
    pub fn signal(&self, id: &str, signal: u32) -> Result<(), SignalError> {
        self.shared.signal(id, signal, Envelope::new(id, ExecSignal { signal }))
    }

    /// Asks for a login shell on a terminal, for which the guest is to dial this vsock port.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn open_shell(&self, vsock_port: u32, request: &ShellRequest) -> Result<(), StartError> {
        let ShellRequest { term, size } = request;
        let (rows, cols) = (size.rows.into(), size.columns.into());
        let request = OpenDebugShell { vsock_port, term: term.clone(), rows, cols };
        self.send(Envelope::new(ids::PTY, request))
    }

    /// Whether ends say more than version 1 has words for (`creel.output.1`).
    pub fn extended(&self) -> bool {
        self.terms.extended
    }

    /// Asks the guest to power off.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn power_off(&self) -> Result<(), StartError> {
        self.send(Envelope::new(ids::POWEROFF, Poweroff {}))
    }

    fn send(&self, envelope: Envelope) -> Result<(), StartError> {
        // A full queue means an agent that has stopped reading: as good as gone.
        if self.shared.lock().order_message(envelope) { Ok(()) } else { Err(StartError::Closed) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

#[cfg(test)]
mod tests;
