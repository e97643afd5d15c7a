//! What setting up a machine reports while it goes on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

/// The phases of a machine's setup, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Image, disks, sockets.
    Prepare,
    /// Keeper, helpers and QEMU started, QMP answered.
    Spawn,
    /// From the guest's first instruction to the agent's connection.
    Boot,
    /// Hello and Init.
    Handshake,
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Spawn => "spawn",
            Self::Boot => "boot",
            Self::Handshake => "handshake",
        }
    }
}

/// One thing that setup has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupEvent {
    Started(Phase),
    Finished(Phase, Duration),
    /// Something that a user should know and that does not stop the setup.
    Notice(String),
}

/// Where a runtime reports its setup. Unbounded because a setup sends a handful.
#[derive(Clone)]
pub struct SetupEvents {
    sender: Option<mpsc::UnboundedSender<SetupEvent>>,
    observers: Vec<Observer>,
}

/// Is told of each event before its listener is. Must not block.
pub type Observer = Arc<dyn Fn(&SetupEvent) + Send + Sync>;

impl fmt::Debug for SetupEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetupEvents").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl SetupEvents {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<SetupEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender: Some(sender), observers: Vec::new() }, receiver)
    }

    /// For callers that do not look.
    pub fn ignored() -> Self {
        Self { sender: None, observers: Vec::new() }
    }

    /// Has `observer` too see what is reported from now on, whether or not anybody listens.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observers.push(observer);
        self
    }

    /// Says it; a listener that has gone away is no reason to stop.
    pub fn send(&self, event: SetupEvent) {
        for observer in &self.observers {
            observer(&event);
        }
        if let Some(sender) = &self.sender {
            let _ = sender.send(event);
        }
    }
}
