//! The guest's console on our standard output, byte for byte.

use std::io::{self, IsTerminal as _, Write as _};

use super::connect::api_failure;
use crate::api::Client;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::machines::ConsoleChunk;
use crate::runtime::MachineId;
use crate::text::printable;

/// Prints a machine's console: what there is, or with `follow` until the machine's end. On a terminal what that would
/// obey is shown instead; a gap is told on stderr.
pub(in crate::cli) async fn console(
    client: &Client,
    machine: &MachineId,
    follow: bool,
) -> Result<Exit, Failure> {
    let mut console = client.console(machine, follow).await.map_err(|error| api_failure(&error))?;
    let mut expected = 0;
    while let Some(chunk) = console.next().await.map_err(|error| api_failure(&error))? {
        if chunk.offset > expected {
            eprintln!("creel: {} bytes of the console were not kept", chunk.offset - expected);
        }
        expected = chunk.offset + chunk.bytes.len() as u64;
        match tokio::task::spawn_blocking(move || write(&chunk)).await.map_err(Failure::internal)? {
            Ok(()) => {}
            // `creel ... | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Success),
            Err(error) => return Err(Failure::internal(format!("failed to write the console: {error}"))),
        }
    }
    Ok(Exit::Success)
}

fn write(chunk: &ConsoleChunk) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        stdout.write_all(harmless(&chunk.bytes).as_bytes())?;
    } else {
        stdout.write_all(&chunk.bytes)?;
    }
    stdout.flush()
}

/// The guest writes it, and a terminal does as it is told.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let lines: Vec<String> = text.split('\n').map(|line| printable(&line.replace('\t', "    "))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_can_not_drive_the_terminal() {
        assert_eq!(harmless(b"a\tb\r\nc\x1b[2J\n"), "a    b\nc\u{fffd}[2J\n");
    }
}
