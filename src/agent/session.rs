//! One agent connection, multiplexed: many execs at once over one stream.
//!
//! A reader task takes frames off the stream, sends output straight to the exec that it belongs to
//! (a full queue holds the stream back, and so the guest) and everything else to the machine's task
//! as [`SessionEvent`]s. A writer task owns the other direction. Dropping the session ends both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use creel_proto::agent::{ExecStart, Hello, Poweroff, SourceUnpack};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, FrameError, MAX_MESSAGE_BYTES, Payload};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::codec::Framed;
use tracing::{debug, trace};

use super::exit::{ExecEnd, MAX_DETAIL_CHARS};
use crate::runtime::{ExecRequest, Outcome, OutputChunk, Stream, Usage, Work};
use crate::text::one_line;
use crate::transport::ByteStream;

type Wire = Framed<Box<dyn ByteStream>, FrameCodec>;

/// Requests that wait for the stream; a machine has few.
const OUTGOING_QUEUE: usize = 64;

/// What the reader tells the machine's task.
#[derive(Debug)]
pub enum SessionEvent {
    /// A piece of work ended; all of its output was sent to its queue before.
    WorkEnded { id: String, end: ExecEnd },
    /// The guest will power off.
    PoweroffAcknowledged,
    /// The stream ended or broke; nothing comes after this.
    Closed { detail: String },
}

/// Where a session's events arrive.
pub type SessionEvents = mpsc::Receiver<SessionEvent>;

/// Work that has started and not ended.
#[derive(Debug)]
struct Running {
    output: mpsc::Sender<OutputChunk>,
    started: Instant,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

type Table = Arc<Mutex<HashMap<String, Running>>>;

/// Why a piece of work could not be given to the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("`{0}` is already running in this machine")]
    Duplicate(String),
    #[error(
        "the image's agent can't unpack a source disk (it lacks extension `{}`); use an image with creel's agent",
        extensions::SOURCE_1
    )]
    NoSourceDisk,
    #[error(
        "the step's command and environment make {size} bytes, and the agent takes {MAX_MESSAGE_BYTES} at once"
    )]
    TooLarge { size: usize },
    #[error("the agent's connection is closed")]
    Closed,
}

/// A connected agent.
#[derive(Debug)]
pub struct Session {
    hello: Hello,
    source_disk: bool,
    table: Table,
    outgoing: mpsc::Sender<Envelope>,
    tasks: [JoinHandle<()>; 2],
}

impl Session {
    /// Starts the tasks of a session whose handshake is done.
    pub(super) fn start(wire: Wire, hello: Hello, agreed: &[String]) -> (Self, SessionEvents) {
        let has = |name: &str| agreed.iter().any(|extension| extension == name);
        let (sink, stream) = wire.split();
        let (outgoing, outgoing_queue) = mpsc::channel(OUTGOING_QUEUE);
        let (events, event_queue) = mpsc::channel(OUTGOING_QUEUE);
        let table = Table::default();
        let reader =
            Reader { stream, table: Arc::clone(&table), events, extended: has(extensions::OUTPUT_1) };
        let tasks = [tokio::spawn(reader.run()), tokio::spawn(write(sink, outgoing_queue))];
        (Self { hello, source_disk: has(extensions::SOURCE_1), table, outgoing, tasks }, event_queue)
    }

    /// What the agent said of itself. Guest-made text: bounded in use, never trusted.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Gives a piece of work to the agent; its end comes as [`SessionEvent::WorkEnded`].
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn begin(&self, request: ExecRequest, output: mpsc::Sender<OutputChunk>) -> Result<(), StartError> {
        let timeout_seconds = request.guest_timeout_seconds(Instant::now());
        let payload: Payload = match request.work {
            Work::Program { argv, env, cwd, user } => {
                let env = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                ExecStart { argv, env, cwd, user, timeout_seconds }.into()
            }
            Work::UnpackSource { .. } if !self.source_disk => return Err(StartError::NoSourceDisk),
            Work::UnpackSource { destination, user } => SourceUnpack { destination, user }.into(),
        };
        let envelope = Envelope::new(request.id.clone(), payload);
        {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            if table.contains_key(&request.id) {
                return Err(StartError::Duplicate(request.id));
            }
            let size = envelope.encoded_len();
            if size > MAX_MESSAGE_BYTES {
                return Err(StartError::TooLarge { size });
            }
            let running = Running { output, started: Instant::now(), stdout_bytes: 0, stderr_bytes: 0 };
            table.insert(request.id.clone(), running);
        }
        let sent = self.send(envelope);
        if sent.is_err() {
            self.forget(&request.id);
        }
        sent
    }

    /// Forgets a piece of work: its output is dropped from now on, and its queue closed, so that its reader ends.
    pub fn forget(&self, id: &str) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Asks the guest to power off.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn power_off(&self) -> Result<(), StartError> {
        self.send(Envelope::new(ids::POWEROFF, Poweroff {}))
    }

    fn send(&self, envelope: Envelope) -> Result<(), StartError> {
        // A full queue means an agent that has stopped reading: as good as gone.
        self.outgoing.try_send(envelope).map_err(|_| StartError::Closed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(mut sink: SplitSink<Wire, Envelope>, mut queue: mpsc::Receiver<Envelope>) {
    while let Some(envelope) = queue.recv().await {
        if let Err(error) = sink.send(envelope).await {
            // The reader sees the same stream end and says so.
            debug!(%error, "failed to write to the agent");
            return;
        }
    }
}

struct Reader {
    stream: SplitStream<Wire>,
    table: Table,
    events: mpsc::Sender<SessionEvent>,
    extended: bool,
}

/// The peer broke the contract; nothing after it can be believed.
#[derive(Debug, thiserror::Error)]
enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("agent sent {stream:?} of `{id}` from offset {claimed} instead of {expected}")]
    Offset { id: String, stream: Stream, claimed: u64, expected: u64 },
}

impl Reader {
    async fn run(mut self) {
        let detail = match self.read_all().await {
            Ok(()) => "the agent closed its connection".to_owned(),
            Err(violation) => one_line(&violation.to_string(), MAX_DETAIL_CHARS),
        };
        // Nobody listens any more when the machine is going away.
        let _ = self.events.send(SessionEvent::Closed { detail }).await;
    }

    async fn read_all(&mut self) -> Result<(), Violation> {
        while let Some(envelope) = self.stream.next().await {
            let envelope = envelope?;
            let id = envelope.id().to_owned();
            match envelope.payload {
                Payload::ExecStdout(chunk) => {
                    self.output(&id, Stream::Stdout, chunk.data, chunk.raw, chunk.offset).await?;
                }
                Payload::ExecStderr(chunk) => {
                    self.output(&id, Stream::Stderr, chunk.data, chunk.raw, chunk.offset).await?;
                }
                Payload::ExecExit(exit) => {
                    let extended = self.extended;
                    self.ended(id, |wall, out, err| ExecEnd::read(exit, extended, wall, out, err)).await;
                }
                Payload::SourceUnpackResult(result) => {
                    self.ended(id, |wall, _, _| source_end(result, wall)).await;
                }
                Payload::PoweroffResult(result) => {
                    trace!(error = %result.error, "guest answered the power-off");
                    let _ = self.events.send(SessionEvent::PoweroffAcknowledged).await;
                }
                // Version 1 lets a guest say more than was asked (built paths); none of it is an answer.
                other => trace!(%id, payload = other.name(), "ignored what the agent said"),
            }
        }
        Ok(())
    }

    async fn output(
        &self,
        id: &str,
        stream: Stream,
        data: String,
        raw: Bytes,
        claimed: u64,
    ) -> Result<(), Violation> {
        let bytes = if self.extended { raw } else { Bytes::from(data) };
        let (queue, raw_offset) = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = table.get_mut(id) else {
                trace!(%id, "ignored output of an exec that is not running");
                return Ok(());
            };
            let count = match stream {
                Stream::Stdout => &mut running.stdout_bytes,
                Stream::Stderr => &mut running.stderr_bytes,
            };
            let expected = *count;
            if self.extended && claimed != expected {
                return Err(Violation::Offset { id: id.to_owned(), stream, claimed, expected });
            }
            *count += bytes.len() as u64;
            (running.output.clone(), expected)
        };
        // A reader that has gone away does not stop the program: its output is dropped.
        let _ = queue.send(OutputChunk { stream, raw_offset, bytes }).await;
        Ok(())
    }

    async fn ended(&self, id: String, read: impl FnOnce(std::time::Duration, u64, u64) -> ExecEnd) {
        let running = self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(running) = running else {
            trace!(%id, "ignored the end of an exec that is not running");
            return;
        };
        let end = read(running.started.elapsed(), running.stdout_bytes, running.stderr_bytes);
        // Closing the output's queue before the end is told: a reader drains it to the last byte.
        drop(running);
        let _ = self.events.send(SessionEvent::WorkEnded { id, end }).await;
    }
}

fn source_end(result: creel_proto::agent::SourceUnpackResult, wall: std::time::Duration) -> ExecEnd {
    let usage = Usage { wall, ..Usage::default() };
    if result.error.is_empty() {
        let files = if result.files == 1 { "file" } else { "files" };
        let detail = format!("unpacked {} {files}, {} bytes", result.files, result.bytes);
        return ExecEnd { outcome: Outcome::Exited { code: 0 }, detail: Some(detail), usage };
    }
    // As a clone that fails: the step's own doing (a destination that can't be written, a full disk
    // in the guest), not the machine's.
    let detail = one_line(&result.error, MAX_DETAIL_CHARS);
    ExecEnd { outcome: Outcome::Exited { code: 1 }, detail: Some(detail), usage }
}
