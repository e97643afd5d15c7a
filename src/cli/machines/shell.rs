//! `creel shell`: a login shell in a machine, on the terminal here.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connect::{api_failure, find, machine_id};
use super::raw::{Raw, terminal_name, terminal_size};
use super::verdict::finish;
use crate::cli::args::ShellArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::signals::cancel_on_signals;
use crate::exit::Exit;
use crate::runtime::shell::told;
use crate::runtime::{MAX_SHELL_INPUT_BYTES, Shell, ShellInput, ShellRequest, Verdict};

/// Ctrl-D, which a terminal takes for the end of what is typed.
const END_OF_FILE: u8 = 4;

/// When Ctrl-D is typed again, to a shell that has not ended. The first one may have been for another program, or is lost: a
/// shell that edits its lines takes the terminal out of the mode in which the key means an end, and what was typed ahead
/// loses its meaning (termios(3), ICANON).
const AGAIN: Duration = Duration::from_secs(1);

pub(in crate::cli) async fn shell(context: &Context, arguments: ShellArgs) -> Result<Exit, Failure> {
    let cancel = CancellationToken::new();
    cancel_on_signals(cancel.clone())?;
    let machine = machine_id(&arguments.id)?;
    let client = find(context, &arguments.socket, &machine).await?;
    let request = ShellRequest { term: terminal_name(), size: terminal_size().unwrap_or_default() };
    let cancelled = || Failure::new(Exit::Cancelled, "cancelled");
    let shell = tokio::select! {
        shell = client.shell(&machine, request) => shell.map_err(|error| api_failure(&error))?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    let raw = Raw::enter().map_err(Failure::internal)?;
    let ended = tokio::select! {
        ended = converse(shell, raw.is_some()) => ended,
        // The call is dropped with its future, and the shell hangs up.
        () = cancel.cancelled() => Err(cancelled()),
    };
    drop(raw);
    Ok(finish(&ended?))
}

async fn converse(shell: Shell, typed_on_terminal: bool) -> Result<Verdict, Failure> {
    let Shell { input, mut output, mut end, hang_up: _hang_up } = shell;
    type_in(input.clone(), typed_on_terminal);
    let mut resized = signal(SignalKind::window_change()).map_err(Failure::internal)?;
    let resize = async {
        while resized.recv().await.is_some() {
            if let Some(size) = terminal_size() {
                // A shell that has ended is told by its end.
                let _ = input.send(ShellInput::Resize(size)).await;
            }
        }
        std::future::pending().await
    };
    let show = async {
        while let Some(bytes) = output.recv().await {
            let written = tokio::task::spawn_blocking(move || write(&bytes)).await;
            written.map_err(Failure::internal)?.map_err(|error| {
                Failure::new(Exit::Broken, format!("failed to write what the shell shows: {error}"))
            })?;
        }
        Ok(told(&mut end).await)
    };
    tokio::select! {
        ended = show => ended,
        never = resize => never,
    }
}

fn write(bytes: &Bytes) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Reads stdin on a thread of its own, which may wait for a key that never comes: it ends with the process.
fn type_in(input: mpsc::Sender<ShellInput>, on_terminal: bool) {
    std::thread::spawn(move || {
        let mut buffer = [0; MAX_SHELL_INPUT_BYTES];
        let mut ends = Ends::default();
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let bytes = &buffer[..length];
                    ends.saw(bytes);
                    if input.blocking_send(ShellInput::Bytes(Bytes::copy_from_slice(bytes))).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // A terminal in raw mode ends by being hung up, which is told by SIGHUP.
        if on_terminal {
            return;
        }
        let mut keys = ends.last_keys();
        while input.blocking_send(ShellInput::Bytes(keys)).is_ok() {
            std::thread::sleep(AGAIN);
            keys = Bytes::from_static(&[END_OF_FILE]);
        }
    });
}

/// How what was typed ends.
#[derive(Debug, Default)]
struct Ends {
    /// There is a line that no newline has ended: Ctrl-D would not be taken for an end after it (termios(3), VEOF).
    within_a_line: bool,
}

impl Ends {
    fn saw(&mut self, bytes: &[u8]) {
        self.within_a_line = bytes.last().is_some_and(|last| *last != b'\n');
    }

    fn last_keys(&self) -> Bytes {
        if self.within_a_line {
            Bytes::from_static(&[b'\n', END_OF_FILE])
        } else {
            Bytes::from_static(&[END_OF_FILE])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_typed_stands_at_the_start_of_a_line() {
        let keys = |pieces: &[&[u8]]| {
            let mut ends = Ends::default();
            pieces.iter().for_each(|piece| ends.saw(piece));
            ends.last_keys()
        };
        assert_eq!(keys(&[]), &b"\x04"[..]);
        assert_eq!(keys(&[b"exit\n"]), &b"\x04"[..]);
        assert_eq!(keys(&[b"a\n", b"exit"]), &b"\n\x04"[..]);
    }
}
