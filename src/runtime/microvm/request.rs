//! What holders of a machine ask of its task.

use tokio::sync::oneshot;

use crate::runtime::{
    DestroyMode, ExecRequest, ExecStreams, Outcome, ShellError, ShellRequest, SignalError, Verdict,
};

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Request {
    Exec {
        request: ExecRequest,
        streams: ExecStreams,
        reply: oneshot::Sender<Verdict>,
    },
    /// Ends an exec's wait with this outcome, and its program in the guest.
    Abandon {
        id: String,
        outcome: Outcome,
    },
    /// Sends a signal to an exec's process group.
    Signal {
        id: String,
        signal: u32,
        reply: oneshot::Sender<Result<(), SignalError>>,
    },
    /// Asks the guest for a shell, which is to dial this vsock port. Whoever asks waits there.
    OpenShell {
        port: u32,
        request: ShellRequest,
        reply: oneshot::Sender<Result<ShellAsked, ShellError>>,
    },
    Destroy {
        mode: DestroyMode,
        reply: Reply,
    },
}

/// The guest has been asked for a shell.
#[derive(Debug)]
pub(super) struct ShellAsked {
    /// Whether the end says more than version 1 has words for.
    pub extended: bool,
    /// Why the guest does not come. Nothing, where it does.
    pub refused: oneshot::Receiver<String>,
}

/// Answers a request to destroy: with what could not be freed.
pub(super) type Reply = oneshot::Sender<Result<(), String>>;
