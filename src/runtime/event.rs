//! What setting up a machine reports while it goes on.

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
#[derive(Debug, Clone)]
pub struct SetupEvents(Option<mpsc::UnboundedSender<SetupEvent>>);

impl SetupEvents {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<SetupEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// For callers that do not look.
    pub fn ignored() -> Self {
        Self(None)
    }

    /// Says it; a listener that has gone away is no reason to stop.
    pub fn send(&self, event: SetupEvent) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(event);
        }
    }
}
