//! A shell that shows what is typed.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::machine::Journal;
use crate::runtime::{Outcome, SHELL_QUEUE, Shell, ShellInput, TerminalSize, Verdict};

/// `exit N`, in a piece of its own, ends it with that code. So does the machine's end, and a caller who hangs up.
pub(super) fn open(journal: Journal, gone: impl Future<Output = Outcome> + Send + 'static) -> Shell {
    let (input, mut typed) = mpsc::channel(SHELL_QUEUE);
    let (shown, output) = mpsc::channel(SHELL_QUEUE);
    let (told, end) = oneshot::channel();
    let token = CancellationToken::new();
    let hang_up = token.clone().drop_guard();
    let echo = async move {
        while let Some(piece) = typed.recv().await {
            match piece {
                ShellInput::Resize(TerminalSize { rows, columns }) => {
                    journal.note(format!("resize {rows}x{columns}"));
                }
                ShellInput::Bytes(bytes) => {
                    let code = bytes.strip_prefix(b"exit ").and_then(|code| std::str::from_utf8(code).ok());
                    if let Some(code) = code.and_then(|code| code.trim().parse().ok()) {
                        return Outcome::Exited { code };
                    }
                    let _ = shown.send(bytes).await;
                }
            }
        }
        std::future::pending().await
    };
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = echo => outcome,
            outcome = gone => outcome,
            () = token.cancelled() => Outcome::Cancelled,
        };
        let _ = told.send(Verdict::of(outcome));
    });
    Shell { input, output, end, hang_up }
}
