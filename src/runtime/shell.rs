//! A login shell on a terminal in a machine, for a person who looks for what went wrong.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use super::verdict::{Outcome, Verdict};

/// How many shells a machine may have. Each has a terminal, a few processes in the guest, and a connection.
pub const MAX_SHELLS: usize = 4;

/// How many inputs, and how many pieces of output, wait before their sender does.
pub const SHELL_QUEUE: usize = 4;

/// How much one piece of input holds at most.
pub const MAX_SHELL_INPUT_BYTES: usize = 8 << 10;

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// The terminal that a shell is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellRequest {
    /// The value of TERM; empty leaves it to the guest.
    pub term: String,
    pub size: TerminalSize,
}

/// What reaches the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellInput {
    /// What is typed; at most [`MAX_SHELL_INPUT_BYTES`].
    Bytes(Bytes),
    Resize(TerminalSize),
}

/// A shell under way. Dropped, it hangs up: the shell and all that it has started in the machine ends.
#[derive(Debug)]
pub struct Shell {
    /// A full queue means that programs do not read. Dropping it is no end.
    pub input: mpsc::Sender<ShellInput>,
    /// What the terminal shows; a full queue holds it back. Ends before `end` is told.
    pub output: mpsc::Receiver<Bytes>,
    /// How the shell ended, or the machine under it.
    pub end: oneshot::Receiver<Verdict>,
    /// Whoever takes the others out keeps this one.
    pub hang_up: DropGuard,
}

impl Shell {
    /// How it ended. What it still shows is dropped.
    pub async fn ended(mut self) -> Verdict {
        while self.output.recv().await.is_some() {}
        told(&mut self.end).await
    }
}

/// What a shell's `end` says.
pub async fn told(end: &mut oneshot::Receiver<Verdict>) -> Verdict {
    end.await
        .unwrap_or_else(|_| Verdict::of(Outcome::internal("the task that carried the shell was dropped")))
}

/// Why there is no shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    #[error("the machine has {max} shells, which is as many as it may have; leave one of them")]
    Full { max: usize },
    /// By the guest, or it could not be asked; the text says why.
    #[error("the guest opened no shell: {0}")]
    Refused(String),
    #[error("the machine has ended")]
    Ended,
    /// The machine is another process's, and that could not be asked.
    #[error("{0}")]
    Unreachable(String),
}
