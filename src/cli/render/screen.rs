//! stdout and stderr, written by a thread of their own.
//!
//! A terminal that is held (Ctrl-S) or a pipe that nobody reads blocks its writer for as long as it likes. Nothing of a
//! run may wait for that but the output itself: deadlines, cancels and teardown go on. So one thread writes both
//! streams, and draws the spinners, in the order in which it is told; output waits for room in its queue, all else is
//! little and does not.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{Semaphore, oneshot};

use super::palette::Palette;

/// How much output waits for its reader, in bytes; more of it waits in the log.
const MAX_WAITING_BYTES: u32 = 1 << 20;

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// Undoes what a step may have done to the terminal: attributes, a hidden cursor, the alternate screen (1047, since
/// 1049 would also move the cursor of a terminal that is not in it).
const RESET_TERMINAL: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1047l";

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Output as it is, plain lines about it.
    Text,
    /// One JSON object a line on stdout.
    Json,
}

/// The process's output streams.
#[derive(Debug)]
pub struct Screen {
    style: Style,
    pub palette: Palette,
    queue: Sender<Piece>,
    room: Arc<Semaphore>,
    /// Why stdout can't be written any more.
    broken: Arc<OnceLock<io::ErrorKind>>,
}

#[derive(Debug)]
enum Piece {
    Output(Vec<u8>),
    Note(String),
    Busy {
        who: String,
        doing: String,
    },
    Still {
        who: String,
    },
    /// Everything before it has been written.
    Flushed(oneshot::Sender<()>),
}

impl Screen {
    /// Starts the writer of this process's stdout and stderr.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(style: Style) -> io::Result<Self> {
        let (queue, pieces) = channel();
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize));
        let broken = Arc::new(OnceLock::new());
        let writer = Writer::new(Arc::clone(&room), Arc::clone(&broken));
        // Not joined: at the end it may be blocked, and there is nothing of it to wait for.
        std::thread::Builder::new().name("screen".to_owned()).spawn(move || writer.run(&pieces))?;
        Ok(Self { style, palette: Palette::of_stderr(), queue, room, broken })
    }

    pub fn style(&self) -> Style {
        self.style
    }

    /// A line about the run, on stderr.
    pub fn note(&self, line: impl Into<String>) {
        self.tell(Piece::Note(line.into()));
    }

    /// Bytes of a step, on stdout, once there is room for them.
    ///
    /// # Errors
    /// When stdout can't be written: nobody sees the output any more.
    pub async fn output(&self, bytes: Vec<u8>) -> io::Result<()> {
        let cost = u32::try_from(bytes.len()).unwrap_or(u32::MAX).clamp(1, MAX_WAITING_BYTES);
        // The semaphore is never closed; the writer gives back what it has written.
        if let Ok(permits) = self.room.acquire_many(cost).await {
            permits.forget();
        }
        if let Some(kind) = self.broken.get() {
            return Err((*kind).into());
        }
        self.tell(Piece::Output(bytes));
        Ok(())
    }

    /// Shows on a terminal that `who` is doing something; nothing elsewhere.
    pub fn busy(&self, who: &str, doing: &str) {
        self.tell(Piece::Busy { who: who.to_owned(), doing: doing.to_owned() });
    }

    /// `who` is doing nothing that takes time any more.
    pub fn still(&self, who: &str) {
        self.tell(Piece::Still { who: who.to_owned() });
    }

    /// Waits until all that was said before is written.
    pub async fn flushed(&self) {
        let (flushed, wait) = oneshot::channel();
        self.tell(Piece::Flushed(flushed));
        let _ = wait.await;
    }

    fn tell(&self, piece: Piece) {
        // The writer lives as long as this does.
        let _ = self.queue.send(piece);
    }
}

struct Writer {
    progress: MultiProgress,
    spinners: BTreeMap<String, ProgressBar>,
    room: Arc<Semaphore>,
    broken: Arc<OnceLock<io::ErrorKind>>,
    /// Whether the cursor stands behind unfinished output.
    in_line: bool,
    /// Whether a step's output has gone to a terminal since the last note.
    touched: bool,
    terminal: bool,
}

impl Writer {
    fn new(room: Arc<Semaphore>, broken: Arc<OnceLock<io::ErrorKind>>) -> Self {
        let terminal = io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            progress: MultiProgress::with_draw_target(target),
            spinners: BTreeMap::new(),
            room,
            broken,
            in_line: false,
            touched: false,
            terminal: terminal && io::stdout().is_terminal(),
        }
    }

    fn run(mut self, pieces: &Receiver<Piece>) {
        loop {
            // Without a spinner there is nothing to wake up for.
            let wait = if self.spinners.is_empty() { Duration::from_secs(3600) } else { TICK };
            match pieces.recv_timeout(wait) {
                Ok(piece) => self.write(piece),
                Err(RecvTimeoutError::Timeout) => self.spinners.values().for_each(ProgressBar::tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, piece: Piece) {
        match piece {
            Piece::Output(bytes) => self.output(&bytes),
            Piece::Note(line) => self.note(&line),
            Piece::Busy { who, doing } => {
                let progress = &self.progress;
                let spinner = self.spinners.entry(who).or_insert_with(|| {
                    let spinner = progress.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                        spinner.set_style(style);
                    }
                    spinner
                });
                spinner.set_message(doing);
            }
            Piece::Still { who } => {
                if let Some(spinner) = self.spinners.remove(&who) {
                    spinner.finish_and_clear();
                }
            }
            Piece::Flushed(flushed) => drop(flushed.send(())),
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        if self.broken.get().is_none() {
            let written = self.progress.suspend(|| {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            });
            match written {
                Ok(()) => self.in_line = bytes.last().is_some_and(|byte| *byte != b'\n'),
                Err(error) => drop(self.broken.set(error.kind())),
            }
            self.touched = true;
        }
        let cost = bytes.len().clamp(1, MAX_WAITING_BYTES as usize);
        self.room.add_permits(cost);
    }

    fn note(&mut self, line: &str) {
        let (in_line, touched) = (self.terminal && self.in_line, self.terminal && self.touched);
        self.progress.suspend(|| {
            let mut stderr = io::stderr().lock();
            // A closed stderr is no reason to stop a workflow.
            if touched {
                let _ = stderr.write_all(RESET_TERMINAL);
            }
            let _ = writeln!(stderr, "{}{line}", if in_line { "\n" } else { "" });
        });
        self.in_line = false;
        self.touched = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_gives_its_room_back() {
        let screen = Screen::start(Style::Json).unwrap();
        screen.output(Vec::new()).await.unwrap();
        screen.flushed().await;
        assert_eq!(screen.room.available_permits(), MAX_WAITING_BYTES as usize);
    }
}
