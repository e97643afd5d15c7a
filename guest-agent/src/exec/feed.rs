//! Carries a program's input from its exec's buffer into it.

use std::io;
use std::sync::Arc;

use tokio::net::unix::pipe;

use super::state::Exec;
use crate::input::NextInput;
use crate::terminal::Terminal;

/// Where input goes.
#[derive(Debug)]
pub(super) enum Sink {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

impl Sink {
    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.writable().await,
            Self::Terminal(terminal) => terminal.writable().await,
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(bytes),
            Self::Terminal(terminal) => terminal.try_write(bytes),
        }
    }

    /// As much as there is room for, at least something.
    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Gives the program its input, to the end of it or of whoever reads it.
pub(super) async fn feed(exec: Arc<Exec>, sink: Sink) {
    loop {
        match exec.next_input() {
            NextInput::Bytes(bytes) => match sink.write(&bytes).await {
                Ok(length) => {
                    exec.wrote_input(length);
                    tokio::task::consume_budget().await;
                }
                // EPIPE: nobody holds the other end any more.
                Err(_) => break,
            },
            NextInput::End => {
                if let Sink::Terminal(terminal) = &sink {
                    // The program reads an end, and may be typed to no more. Closing the terminal would hang up on it.
                    let _ = sink.write(&[terminal.end_of_input()]).await;
                }
                break;
            }
            NextInput::Wait => exec.has_input().await,
        }
    }
    exec.close_input();
}
