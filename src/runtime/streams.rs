//! The streams of one exec, between whoever asked for it and the runtime that runs it.
//!
//! Output is kept until its reader acknowledges it, and input until the program has been given it, so that either can be
//! sent again over a connection that replaces a broken one. What is not acknowledged is bounded, and that is what holds
//! back a writer: a reader that does not read stops its own exec and nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::exec::{OutputChunk, Stream};
use super::retained::{OffsetError, Piece, Retained};
use super::shell::TerminalSize;

/// How much of each stream of an exec may wait for its reader at most, in bytes.
pub const STREAM_WINDOW_BYTES: u64 = 256 << 10;

/// What an exec reads and writes, as its runtime has it.
#[derive(Debug)]
pub struct ExecStreams {
    /// `None`: the program finds its input empty.
    pub input: Option<InputReader>,
    pub output: OutputWriter,
}

/// Offsets of the two streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputOffsets {
    pub stdout: u64,
    pub stderr: u64,
}

impl OutputOffsets {
    fn lanes(self) -> [u64; 2] {
        [self.stdout, self.stderr]
    }

    fn of([stdout, stderr]: [u64; 2]) -> Self {
        Self { stdout, stderr }
    }
}

/// Nobody reads the output any more, or takes the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the stream is gone")]
pub struct Gone;

/// Output that does not go on where the stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("output comes from offset {claimed} instead of {expected}")]
pub struct Misplaced {
    pub claimed: u64,
    pub expected: u64,
}

fn lane(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// A way for one exec's output.
pub fn output() -> (OutputWriter, OutputReader) {
    let shared = Arc::new(Output {
        state: Mutex::default(),
        readable: Notify::new(),
        acknowledged: watch::Sender::new(OutputOffsets::default()),
        reader_gone: watch::Sender::new(false),
    });
    (OutputWriter(Arc::clone(&shared)), OutputReader(shared))
}

#[derive(Debug)]
struct Output {
    state: Mutex<OutputState>,
    readable: Notify,
    acknowledged: watch::Sender<OutputOffsets>,
    reader_gone: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct OutputState {
    retained: Retained<2>,
    ended: bool,
    unread: bool,
}

impl OutputState {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let lane = lane(stream);
        self.retained.push(lane, bytes);
        if self.unread {
            let end = self.retained.end()[lane];
            // Its own end: it exists.
            let _ = self.retained.acknowledge(lane, end);
        }
    }
}

impl Output {
    fn state(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_acknowledged(&self, state: &OutputState) {
        let acknowledged = OutputOffsets::of(state.retained.acknowledged());
        self.acknowledged.send_if_modified(|said| std::mem::replace(said, acknowledged) != acknowledged);
    }
}

/// The runtime's end of an exec's output. The output ends when it is dropped.
#[derive(Debug)]
pub struct OutputWriter(Arc<Output>);

impl OutputWriter {
    /// Waits while as much as [`STREAM_WINDOW_BYTES`] of the stream is not acknowledged, and takes no byte beyond that.
    /// Given up in the midst, it has taken a part.
    ///
    /// # Errors
    /// When the reader has gone; the bytes are counted nevertheless.
    pub async fn send(&self, stream: Stream, mut bytes: &[u8]) -> Result<(), Gone> {
        let mut acknowledged = self.0.acknowledged.subscribe();
        loop {
            {
                let mut state = self.0.state();
                let room = match state.unread {
                    true => bytes.len(),
                    false => {
                        let room = STREAM_WINDOW_BYTES.saturating_sub(state.retained.held(lane(stream)));
                        usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len())
                    }
                };
                let (now, later) = bytes.split_at(room);
                if !now.is_empty() {
                    state.push(stream, now);
                    self.0.tell_acknowledged(&state);
                    self.0.readable.notify_one();
                }
                if later.is_empty() {
                    return if state.unread { Err(Gone) } else { Ok(()) };
                }
                bytes = later;
            }
            // The sender lives as long as we do.
            let _ = acknowledged.changed().await;
        }
    }

    /// Takes bytes at once. How many may be under way is the caller's business, who gives credit for them.
    ///
    /// # Errors
    /// When they do not begin where the stream ends.
    pub fn push(&self, stream: Stream, offset: u64, bytes: &[u8]) -> Result<(), Misplaced> {
        let mut state = self.0.state();
        let expected = state.retained.end()[lane(stream)];
        if offset != expected {
            return Err(Misplaced { claimed: offset, expected });
        }
        state.push(stream, bytes);
        self.0.tell_acknowledged(&state);
        self.0.readable.notify_one();
        Ok(())
    }

    /// Where the streams end so far.
    pub fn end(&self) -> OutputOffsets {
        OutputOffsets::of(self.0.state().retained.end())
    }

    /// Whether its reader has read all that came. What it did not acknowledge then it acknowledges when more has come.
    pub fn is_read(&self) -> bool {
        let state = self.0.state();
        state.unread || state.retained.read() == state.retained.end()
    }

    /// What is acknowledged, as it grows. All that comes is, once the reader has gone.
    pub fn acknowledged(&self) -> watch::Receiver<OutputOffsets> {
        self.0.acknowledged.subscribe()
    }

    /// Waits until the reader has gone.
    pub async fn reader_gone(&self) {
        let mut gone = self.0.reader_gone.subscribe();
        // The sender lives as long as we do.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

impl Drop for OutputWriter {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.readable.notify_one();
    }
}

/// The end of an exec's output at which it is read. Dropped, all that comes counts as acknowledged.
#[derive(Debug)]
pub struct OutputReader(Arc<Output>);

impl OutputReader {
    /// The next bytes in the order in which they came; `None` at the end. Safe to cancel. What is read has to be
    /// acknowledged, or the program is held back.
    pub async fn next(&mut self) -> Option<OutputChunk> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(Piece { lane, offset, bytes }) = state.retained.next([u64::MAX; 2]) {
                    let stream = if lane == 0 { Stream::Stdout } else { Stream::Stderr };
                    return Some(OutputChunk { stream, raw_offset: offset, bytes });
                }
                if state.ended {
                    return None;
                }
            }
            self.0.readable.notified().await;
        }
    }

    /// [`Self::next`], acknowledged at once: for readers that keep what they are given.
    pub async fn take(&mut self) -> Option<OutputChunk> {
        let chunk = self.next().await?;
        // What was read exists.
        let _ = self.acknowledge(chunk.stream, chunk.raw_offset + chunk.bytes.len() as u64);
        Some(chunk)
    }

    /// All of a stream before this offset need never be read again.
    ///
    /// # Errors
    /// When there is no such byte yet.
    pub fn acknowledge(&self, stream: Stream, offset: u64) -> Result<(), OffsetError> {
        let mut state = self.0.state();
        state.retained.acknowledge(lane(stream), offset)?;
        self.0.tell_acknowledged(&state);
        Ok(())
    }

    /// Reads again from these offsets on.
    ///
    /// # Errors
    /// When one was acknowledged, or does not exist yet.
    pub fn rewind(&mut self, offsets: OutputOffsets) -> Result<(), OffsetError> {
        self.0.state().retained.rewind(offsets.lanes())
    }

    pub fn acknowledged(&self) -> OutputOffsets {
        *self.0.acknowledged.borrow()
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.unread = true;
        let [stdout, stderr] = state.retained.end();
        // Their own ends: they exist.
        let _ = state.retained.acknowledge(0, stdout);
        let _ = state.retained.acknowledge(1, stderr);
        self.0.tell_acknowledged(&state);
        self.0.reader_gone.send_replace(true);
    }
}

/// A way for one exec's input.
pub fn input() -> (InputWriter, InputReader) {
    let shared = Arc::new(Input {
        state: Mutex::new(InputState {
            retained: Retained::default(),
            window: STREAM_WINDOW_BYTES,
            resize: None,
            ended: false,
            end_told: false,
        }),
        readable: Notify::new(),
        progress: watch::Sender::new(InputProgress::default()),
    });
    (InputWriter(Arc::clone(&shared)), InputReader(shared))
}

/// What has become of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputProgress {
    /// Everything before this offset was given to the program.
    pub written: u64,
    /// Nobody reads it any more.
    pub closed: bool,
}

/// What comes for the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputEvent {
    Bytes {
        offset: u64,
        bytes: Bytes,
    },
    /// Of its terminal: the last that was said.
    Resize(TerminalSize),
    /// Nothing comes after this offset but sizes.
    End {
        offset: u64,
    },
}

#[derive(Debug)]
struct Input {
    state: Mutex<InputState>,
    readable: Notify,
    progress: watch::Sender<InputProgress>,
}

#[derive(Debug)]
struct InputState {
    retained: Retained<1>,
    /// How much of it may wait.
    window: u64,
    resize: Option<TerminalSize>,
    ended: bool,
    end_told: bool,
}

impl Input {
    fn state(&self) -> MutexGuard<'_, InputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of an exec's input at which it is written. Dropped, the input ends.
#[derive(Debug)]
pub struct InputWriter(Arc<Input>);

impl InputWriter {
    /// Waits while as much as [`STREAM_WINDOW_BYTES`] was not given to the program.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut progress = self.0.progress.subscribe();
        loop {
            if progress.borrow_and_update().closed {
                return Err(Gone);
            }
            {
                let mut state = self.0.state();
                if state.retained.held(0) < state.window {
                    state.retained.push(0, bytes);
                    self.0.readable.notify_one();
                    return Ok(());
                }
            }
            // The sender lives as long as we do.
            let _ = progress.changed().await;
        }
    }

    /// A new size of the program's terminal.
    pub fn resize(&self, size: TerminalSize) {
        self.0.state().resize = Some(size);
        self.0.readable.notify_one();
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        self.0.state().ended = true;
        self.0.readable.notify_one();
    }

    /// Of the byte that comes next.
    pub fn offset(&self) -> u64 {
        self.0.state().retained.end()[0]
    }

    /// What becomes of it.
    pub fn progress(&self) -> watch::Receiver<InputProgress> {
        self.0.progress.subscribe()
    }
}

impl Drop for InputWriter {
    fn drop(&mut self) {
        self.end();
    }
}

/// The runtime's end of an exec's input. Dropped, nobody takes it any more.
#[derive(Debug)]
pub struct InputReader(Arc<Input>);

impl InputReader {
    /// The next thing, no byte of it at or behind `limit`. Waits where there is none. Safe to cancel.
    pub async fn next(&mut self, limit: u64) -> InputEvent {
        loop {
            {
                let mut state = self.0.state();
                if let Some(size) = state.resize.take() {
                    return InputEvent::Resize(size);
                }
                if let Some(Piece { offset, bytes, .. }) = state.retained.next([limit]) {
                    return InputEvent::Bytes { offset, bytes };
                }
                let (end, read) = (state.retained.end()[0], state.retained.read()[0]);
                if state.ended && !state.end_told && read == end {
                    state.end_told = true;
                    return InputEvent::End { offset: end };
                }
            }
            self.0.readable.notified().await;
        }
    }

    /// Lets so much wait, and no more than [`STREAM_WINDOW_BYTES`].
    pub fn hold_at_most(&self, bytes: u64) {
        self.0.state().window = bytes.min(STREAM_WINDOW_BYTES);
    }

    /// The program has been given all before `offset`.
    ///
    /// # Errors
    /// When there is no such byte yet.
    pub fn written(&self, offset: u64) -> Result<(), OffsetError> {
        let mut state = self.0.state();
        state.retained.acknowledge(0, offset)?;
        let written = state.retained.acknowledged()[0];
        self.0.progress.send_if_modified(|said| std::mem::replace(&mut said.written, written) != written);
        Ok(())
    }

    /// Nobody reads it any more.
    pub fn close(&self) {
        self.0.progress.send_if_modified(|said| !std::mem::replace(&mut said.closed, true));
    }

    /// Gives all again that comes after `offset`, its end too.
    ///
    /// # Errors
    /// When it was given to the program already, or does not exist yet.
    pub fn rewind(&mut self, offset: u64) -> Result<(), OffsetError> {
        let mut state = self.0.state();
        state.retained.rewind([offset])?;
        state.end_told = false;
        Ok(())
    }
}

impl Drop for InputReader {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const A_WHILE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn output_that_nobody_acknowledges_holds_its_writer_back() {
        let (writer, mut reader) = output();
        let block = vec![7; usize::try_from(STREAM_WINDOW_BYTES).unwrap()];
        writer.send(Stream::Stdout, &block).await.unwrap();
        assert!(timeout(A_WHILE, writer.send(Stream::Stdout, b"x")).await.is_err());
        writer.send(Stream::Stderr, b"the other is free").await.unwrap();
        let first = reader.next().await.unwrap();
        assert!(timeout(A_WHILE, writer.send(Stream::Stdout, b"x")).await.is_err(), "it was only read");
        reader.acknowledge(Stream::Stdout, first.bytes.len() as u64).unwrap();
        timeout(SOON, writer.send(Stream::Stdout, b"x")).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn output_ends_behind_its_last_byte_and_can_be_read_again() {
        let (writer, mut reader) = output();
        writer.push(Stream::Stdout, 0, b"abc").unwrap();
        assert_eq!(writer.push(Stream::Stdout, 4, b"x"), Err(Misplaced { claimed: 4, expected: 3 }));
        drop(writer);
        assert_eq!(reader.next().await.unwrap().bytes, "abc");
        assert_eq!(reader.next().await, None);
        reader.rewind(OutputOffsets { stdout: 1, stderr: 0 }).unwrap();
        assert_eq!(reader.take().await.unwrap().bytes, "bc");
        assert_eq!(reader.next().await, None);
        assert!(reader.rewind(OutputOffsets::default()).is_err());
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_stops_nobody() {
        let (writer, reader) = output();
        drop(reader);
        let block = vec![7; 1 << 20];
        for _ in 0..3 {
            assert_eq!(timeout(SOON, writer.send(Stream::Stderr, &block)).await.unwrap(), Err(Gone));
        }
        let all = OutputOffsets { stdout: 0, stderr: 3 << 20 };
        assert_eq!((writer.end(), *writer.acknowledged().borrow()), (all, all));
        timeout(SOON, writer.reader_gone()).await.unwrap();
    }

    #[tokio::test]
    async fn input_waits_until_the_program_has_it_and_comes_again_after_a_break() {
        let (writer, mut reader) = input();
        writer.send(b"abcdef").await.unwrap();
        let size = TerminalSize { rows: 2, columns: 3 };
        writer.resize(TerminalSize::default());
        writer.resize(size);
        drop(writer);
        assert_eq!(reader.next(4).await, InputEvent::Resize(size));
        assert_eq!(reader.next(4).await, InputEvent::Bytes { offset: 0, bytes: "abcd".into() });
        assert!(timeout(A_WHILE, reader.next(4)).await.is_err(), "there is no credit");
        assert_eq!(reader.next(9).await, InputEvent::Bytes { offset: 4, bytes: "ef".into() });
        assert_eq!(reader.next(9).await, InputEvent::End { offset: 6 });
        reader.written(3).unwrap();
        reader.rewind(3).unwrap();
        assert_eq!(reader.next(9).await, InputEvent::Bytes { offset: 3, bytes: "def".into() });
        assert_eq!(reader.next(9).await, InputEvent::End { offset: 6 });
        assert!(reader.written(7).is_err());
    }

    #[tokio::test]
    async fn input_that_nobody_takes_any_more_is_refused() {
        let (writer, reader) = input();
        let block = vec![7; usize::try_from(STREAM_WINDOW_BYTES).unwrap()];
        writer.send(&block).await.unwrap();
        let waiting = async { timeout(SOON, writer.send(b"x")).await.unwrap() };
        let closing = async {
            tokio::task::yield_now().await;
            reader.close();
        };
        assert_eq!(tokio::join!(waiting, closing).0, Err(Gone));
    }
}
