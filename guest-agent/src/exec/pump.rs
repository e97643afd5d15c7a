//! Carries one output stream of a program into its exec's ring, and knows when to stop.
//!
//! Without room in the ring nothing is read: the pipe fills, and the program waits.
//!
//! A stream ends when its last holder closes it. A program may leave a holder behind: a daemon that it
//! started. Then the stream is left once nothing has come for a while after the program's end, or, if
//! the daemon chatters, after a bounded time. What was written before the program ended is always sent,
//! however slowly the host reads. What the daemon writes later goes nowhere, but the pipe stays open: a
//! closed one would kill the daemon by SIGPIPE at its next word, in the middle of a later step. A terminal hangs up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use bytes::buf::Limit;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::state::{Exec, Filled};
use crate::output::Stream;
use crate::terminal::Terminal;

/// What a terminal may hold of what was written to it (`TTYB_DEFAULT_MEM_LIMIT` of drivers/tty/tty_buffer.c): it does not
/// say how much it does.
const TERMINAL_BYTES: u64 = 64 << 10;

/// How long a stream is still followed once its program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grace {
    /// Without new output.
    pub quiet: Duration,
    /// In all.
    pub at_most: Duration,
}

/// `None` while the program runs.
pub(super) type Ending = watch::Receiver<Option<Grace>>;

/// Where output comes from.
#[derive(Debug)]
pub(super) enum Source {
    Pipe(pipe::Receiver),
    Terminal(Arc<Terminal>),
}

impl Source {
    async fn readable(&self) {
        // A failure is seen by the read that follows.
        let _ = match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Terminal(terminal) => terminal.readable().await,
        };
    }

    fn try_read(&self, buffer: &mut Limit<&mut BytesMut>) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read_buf(buffer),
            Self::Terminal(terminal) => terminal.try_read(buffer),
        }
    }

    /// How much can be read at most of what was written up to now.
    fn waiting_bytes(&self) -> u64 {
        match self {
            Self::Pipe(pipe) => rustix::io::ioctl_fionread(pipe).unwrap_or(0),
            Self::Terminal(_) => TERMINAL_BYTES,
        }
    }
}

/// What is known of the stream's end once the program has ended.
#[derive(Debug)]
struct LastPart {
    quiet: Duration,
    give_up: Instant,
    /// How much was there to be read when the program ended, and has not been read yet.
    owed_bytes: u64,
}

/// Reads `source` to its end.
pub(super) async fn pump(exec: Arc<Exec>, stream: Stream, source: Source, mut ending: Ending) {
    let mut last_part: Option<LastPart> = None;
    let at_end = loop {
        if last_part.is_none()
            && let Some(Grace { quiet, at_most }) = *ending.borrow()
        {
            let give_up = Instant::now() + at_most;
            last_part = Some(LastPart { quiet, give_up, owed_bytes: source.waiting_bytes() });
        }
        if last_part.as_ref().is_some_and(|last| last.owed_bytes == 0 && Instant::now() >= last.give_up) {
            break false;
        }
        let has_room = match exec.fill(stream, |buffer| source.try_read(buffer)) {
            Filled::Bytes(length) => {
                if let Some(last) = &mut last_part {
                    last.owed_bytes = last.owed_bytes.saturating_sub(length as u64);
                }
                // A program that always has something must not keep the others waiting.
                tokio::task::consume_budget().await;
                continue;
            }
            Filled::End => break true,
            Filled::Nothing => true,
            Filled::NoRoom => false,
        };
        let until = match &mut last_part {
            None => None,
            Some(last) if has_room => {
                last.owed_bytes = 0;
                Some(last.give_up.min(Instant::now() + last.quiet))
            }
            Some(last) => (last.owed_bytes == 0).then_some(last.give_up),
        };
        tokio::select! {
            biased;
            () = ended(&mut ending), if last_part.is_none() => {}
            () = source.readable(), if has_room => {}
            () = exec.has_room(stream), if !has_room => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break false,
        }
    };
    exec.end(stream);
    if !at_end && let Source::Pipe(pipe) = source {
        tokio::spawn(drop_the_rest(pipe));
    }
}

async fn ended(ending: &mut Ending) {
    if ending.wait_for(Option::is_some).await.is_err() {
        // Nobody waits for the program any more, and so nobody will say that it has ended.
        std::future::pending::<()>().await;
    }
}

async fn drop_the_rest(mut pipe: pipe::Receiver) {
    // Either way the pipe is done with.
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}
