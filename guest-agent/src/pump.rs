//! Carries one output stream of a program to the host, and knows when to stop.
//!
//! A stream ends when its last holder closes it. A program may leave a holder behind: a daemon that it
//! started. Then the stream is left once nothing has come for a while after the program's end, or, if
//! the daemon chatters, after a bounded time. What was written before the program ended is always sent,
//! however slowly the host reads. What the daemon writes later goes nowhere, but the pipe stays open: a
//! closed one would kill the daemon by SIGPIPE at its next word, in the middle of a later step.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::outbox::Outbox;
use crate::output::OutputEncoder;

/// The most that is read, and sent in one message, at once. A little less than 32 KiB, so that two full
/// messages fit into one vsock packet (64 KiB in Linux) instead of leaving a crumb for a second one.
const CHUNK_BYTES: usize = (32 << 10) - 256;

/// How long a stream is still followed once its program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Without new output.
    pub quiet: Duration,
    /// In all.
    pub at_most: Duration,
}

/// `None` while the program runs.
pub type Ending = watch::Receiver<Option<Grace>>;

/// What is known of the stream's end once the program has ended.
#[derive(Debug)]
struct LastPart {
    quiet: Duration,
    give_up: Instant,
    /// How much was in the pipe when the program ended, and has not been read yet.
    owed_bytes: u64,
}

/// Sends `pipe` to its end as messages under `id`. When the session is over it reads on and drops what
/// it reads, so that the program is never held up.
pub async fn pump(
    mut pipe: pipe::Receiver,
    mut encoder: OutputEncoder,
    id: &str,
    outbox: &Outbox,
    mut ending: Ending,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut last_part: Option<LastPart> = None;
    let mut session_over = false;
    let at_end = loop {
        if last_part.as_ref().is_some_and(|last| last.owed_bytes == 0 && Instant::now() >= last.give_up) {
            break false;
        }
        let quiet = last_part.as_ref().map(|last| last.quiet);
        tokio::select! {
            biased;
            grace = ended(&mut ending), if last_part.is_none() => {
                last_part = Some(LastPart {
                    quiet: grace.quiet,
                    give_up: Instant::now() + grace.at_most,
                    owed_bytes: rustix::io::ioctl_fionread(&pipe).unwrap_or(0),
                });
            }
            read = pipe.read(&mut chunk) => {
                // A pipe's read fails for reasons of this program only; the stream is then as good as ended.
                let Ok(length @ 1..) = read else { break true };
                if let Some(last) = &mut last_part {
                    last.owed_bytes = last.owed_bytes.saturating_sub(length as u64);
                }
                if !session_over && let Some(payload) = encoder.encode(&chunk[..length]) {
                    session_over = outbox.send(id, payload).await.is_err();
                }
            }
            () = sleep(quiet.unwrap_or_default()), if quiet.is_some() => break false,
        }
    };
    if !session_over && let Some(payload) = encoder.finish() {
        // The session may end at any time.
        let _ = outbox.send(id, payload).await;
    }
    if !at_end {
        tokio::spawn(drop_the_rest(pipe));
    }
}

async fn ended(ending: &mut Ending) -> Grace {
    match ending.wait_for(Option::is_some).await.map(|grace| *grace) {
        Ok(Some(grace)) => grace,
        // Whoever waited for the program is gone; so is the reason to linger.
        _ => Grace { quiet: Duration::ZERO, at_most: Duration::ZERO },
    }
}

async fn drop_the_rest(mut pipe: pipe::Receiver) {
    // Either way the pipe is done with.
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}
