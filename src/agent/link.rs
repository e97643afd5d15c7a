//! One connection of an agent: a task that reads it, and one that writes.
//!
//! The reader never waits for a reader of output where there is credit: what comes has room. It hands bytes to the execs
//! that they belong to, and ends to the machine's task. The writer says what the table has to say, and input only when
//! that is nothing.

use std::sync::Arc;

use bytes::Bytes;
use creel_proto::agent::{ExecExit, ExecInput, SourceUnpackResult};
use creel_proto::names::ids;
use creel_proto::{Envelope, Payload};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use super::ending::{Ending, Loss, Violation};
use super::execs::{InputFrame, Shared, Stale, Taken};
use super::exit::{ExecEnd, MAX_DETAIL_CHARS};
use super::session::SessionEvent;
use super::terms::{Patience, Terms};
use super::wire::{Heard, Wire};
use crate::runtime::{Outcome, Stream, Usage};
use crate::text::one_line;

/// Pieces of input that wait for the connection, of all execs.
const INPUT_FRAMES: usize = 4;

/// How much a peer may say that means nothing: ids never asked for, news without any. A guest that keeps to the contract
/// says next to none.
pub const MAX_CHATTER: u32 = 10_000;

/// Takes a connection into use, in place of the one before. `first` is said first.
pub(super) fn start(shared: &Arc<Shared>, wire: Wire, first: Option<Envelope>, patience: Patience) -> bool {
    let (sink, stream) = wire.split();
    let (frames, queue) = mpsc::channel(INPUT_FRAMES);
    let (wake, ends) = (Arc::new(Notify::new()), CancellationToken::new());
    let mut table = shared.lock();
    if table.over {
        return false;
    }
    let terms = table.terms;
    let id = table.begin_link(frames, Arc::clone(&wake), ends.clone(), first);
    drop(table);
    let writer = Writer { id, shared: Arc::clone(shared), sink, wake, queue };
    let reader = Reader {
        id,
        shared: Arc::clone(shared),
        stream,
        terms,
        patience,
        chatter: 0,
        pings: 0,
        answered: 0,
        awaited: None,
        ends: ends.clone(),
    };
    let over = ends;
    tokio::spawn(async move {
        tokio::select! {
            () = over.cancelled() => {}
            () = writer.run() => {}
        }
    });
    tokio::spawn(async move {
        let shared = Arc::clone(&reader.shared);
        let Some(why) = reader.run().await else { return };
        // Its half of the stream is gone by now, and the writer's goes with this.
        shared.link_ended(id, why).await;
    });
    true
}

struct Writer {
    id: u64,
    shared: Arc<Shared>,
    sink: SplitSink<Wire, Envelope>,
    wake: Arc<Notify>,
    queue: mpsc::Receiver<InputFrame>,
}

impl Writer {
    async fn run(mut self) {
        if let Err(error) = self.write_all().await {
            // The reader sees the same stream end and says so.
            debug!(%error, "failed to write to the agent");
        }
    }

    async fn write_all(&mut self) -> Result<(), creel_proto::FrameError> {
        loop {
            loop {
                let next = self.shared.lock().next_message(self.id);
                let Some(message) = next else { break };
                self.sink.feed(message).await?;
            }
            self.sink.flush().await?;
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                frame = self.queue.recv() => {
                    // The sender's other copy is the table's, as long as this is its connection.
                    let Some(InputFrame { id, offset, data, end }) = frame else { return Ok(()) };
                    self.sink.feed(Envelope::new(id, ExecInput { offset, data, end })).await?;
                }
            }
        }
    }
}

struct Reader {
    id: u64,
    shared: Arc<Shared>,
    stream: SplitStream<Wire>,
    terms: Terms,
    patience: Patience,
    chatter: u32,
    pings: u64,
    /// The last ping that was.
    answered: u64,
    /// The ping that was not answered yet.
    awaited: Option<u64>,
    /// Another connection has taken its place, or nobody cares any more. Heeded between messages only: of one that has been
    /// taken off the table somebody has to be told.
    ends: CancellationToken,
}

/// What a message was good for.
enum Worth {
    Something,
    Nothing,
}

impl From<bool> for Worth {
    fn from(something: bool) -> Self {
        if something { Self::Something } else { Self::Nothing }
    }
}

/// Why a message is the last.
enum Stop {
    Stale,
    Violation(Violation),
}

impl From<Stale> for Stop {
    fn from(_: Stale) -> Self {
        Self::Stale
    }
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Reader {
    /// `None`: it was ended.
    async fn run(mut self) -> Option<Ending> {
        let ends = self.ends.clone();
        loop {
            let heard = tokio::select! {
                biased;
                () = ends.cancelled() => return None,
                heard = self.next() => heard,
            };
            let heard = match heard {
                Ok(heard) => heard,
                Err(ending) => return Some(ending),
            };
            let worth = match heard {
                Heard::Message(envelope) => self.take(envelope).await,
                Heard::PassedOver => Ok(Worth::Nothing),
            };
            match worth {
                Ok(Worth::Something) => {}
                // Version 1 lets a guest say more than was asked (built paths), as often as it likes.
                Ok(Worth::Nothing) if !self.terms.credit => {}
                Ok(Worth::Nothing) => {
                    self.chatter += 1;
                    if self.chatter > MAX_CHATTER {
                        return Some(Violation::Chatter { count: self.chatter }.into());
                    }
                }
                Err(Stop::Violation(violation)) => return Some(violation.into()),
                // Nobody is told of it: it was ended by the one that came after.
                Err(Stop::Stale) => return None,
            }
        }
    }

    async fn next(&mut self) -> Result<Heard, Ending> {
        let heard_of = Instant::now();
        loop {
            let patience = match self.awaited {
                None => self.patience.ping_after,
                Some(_) => self.patience.ping_after + self.patience.pong_within,
            };
            tokio::select! {
                biased;
                heard = self.stream.next() => {
                    let heard = heard.ok_or(Ending::Loss(Loss::Closed))??;
                    if !matches!(&heard, Heard::Message(message) if matches!(message.payload, Payload::Pong(_))) {
                        self.awaited = None;
                    }
                    return Ok(heard);
                }
                () = sleep_until(heard_of + patience), if self.terms.heartbeat => {
                    if self.awaited.is_some() {
                        return Err(Ending::Loss(Loss::Silent(patience)));
                    }
                    self.pings += 1;
                    self.awaited = Some(self.pings);
                    self.shared.lock().order_ping(self.pings);
                }
            }
        }
    }

    async fn take(&mut self, envelope: Envelope) -> Result<Worth, Stop> {
        let id = envelope.id().to_owned();
        match envelope.payload {
            Payload::ExecStdout(chunk) if self.terms.credit => {
                self.receive(&id, Stream::Stdout, (chunk.offset, &chunk.raw, chunk.end))
            }
            Payload::ExecStderr(chunk) if self.terms.credit => {
                self.receive(&id, Stream::Stderr, (chunk.offset, &chunk.raw, chunk.end))
            }
            Payload::ExecStdout(chunk) => {
                self.pass_on(&id, Stream::Stdout, chunk.data, chunk.raw, chunk.offset).await
            }
            Payload::ExecStderr(chunk) => {
                self.pass_on(&id, Stream::Stderr, chunk.data, chunk.raw, chunk.offset).await
            }
            Payload::ExecState(state) => Ok(self.shared.heed(self.id, &id, &state)??.into()),
            // Where somebody has taken the name for an exec, it is that one's.
            Payload::ExecExit(exit) if id == ids::PTY && !self.shared.knows(&id) => {
                let detail = one_line(&exit.error, MAX_DETAIL_CHARS);
                self.shared.tell(SessionEvent::ShellRefused { detail }).await;
                Ok(Worth::Nothing)
            }
            Payload::ExecExit(exit) => {
                let known = self.shared.knows(&id);
                let Some(taken) = self.shared.ended(self.id, &id, Some(&exit))?? else {
                    trace!(%id, "ignored the end of an exec that nobody waits for");
                    return Ok(known.into());
                };
                let end = exec_end(exit, self.terms.extended, &taken);
                // The output's queue is closed before the end is told: a reader drains it to the last byte.
                drop(taken);
                self.shared.tell(SessionEvent::WorkEnded { id, end }).await;
                Ok(Worth::Something)
            }
            Payload::SourceUnpackResult(result) => {
                let Some(taken) = self.shared.ended(self.id, &id, None)?? else { return Ok(Worth::Nothing) };
                let end = source_end(result, &taken);
                drop(taken);
                self.shared.tell(SessionEvent::WorkEnded { id, end }).await;
                Ok(Worth::Something)
            }
            Payload::PoweroffResult(result) => {
                trace!(error = %result.error, "guest answered the power-off");
                self.shared.tell(SessionEvent::PoweroffAcknowledged).await;
                Ok(Worth::Nothing)
            }
            Payload::Pong(pong) if self.awaited == Some(pong.sequence) => {
                (self.awaited, self.answered) = (None, pong.sequence);
                Ok(Worth::Something)
            }
            // Something else was heard before it, and did as well.
            Payload::Pong(pong) if pong.sequence <= self.pings && pong.sequence > self.answered => {
                self.answered = pong.sequence;
                Ok(Worth::Something)
            }
            // None of it is an answer.
            other => {
                trace!(%id, payload = other.name(), "ignored what the agent said");
                Ok(Worth::Nothing)
            }
        }
    }

    fn receive(&self, id: &str, stream: Stream, chunk: (u64, &[u8], bool)) -> Result<Worth, Stop> {
        Ok(self.shared.receive(self.id, id, stream, chunk)??.into())
    }

    /// Without credit: waits for the exec's reader, and the guest's other execs wait with it.
    async fn pass_on(
        &self,
        id: &str,
        stream: Stream,
        data: String,
        raw: Bytes,
        claimed: u64,
    ) -> Result<Worth, Stop> {
        let bytes = if self.terms.extended { raw } else { Bytes::from(data) };
        let claimed = self.terms.extended.then_some(claimed);
        let waited_for = self.shared.count(id, stream, bytes.len() as u64, claimed)?;
        let Some((output, given_up)) = waited_for else {
            trace!(%id, "ignored output of an exec that nobody waits for");
            return Ok(Worth::Nothing);
        };
        tokio::select! {
            // A reader that has gone away does not stop the program: its output is dropped.
            _ = output.send(stream, &bytes) => {}
            // One that does not read stops the program and all others, until it is given up.
            () = given_up.cancelled() => {}
            () = self.ends.cancelled() => {}
        }
        Ok(Worth::Something)
    }
}

fn exec_end(exit: ExecExit, extended: bool, taken: &Taken) -> ExecEnd {
    let (started, stdout, stderr) = match taken {
        Taken::Plain(running) => (running.started, running.bytes[0], running.bytes[1]),
        Taken::Credited { started, stdout, stderr } => (*started, *stdout, *stderr),
    };
    let unknown = exit.unknown && matches!(taken, Taken::Credited { .. });
    let end = ExecEnd::read(exit, extended, started.elapsed(), stdout, stderr);
    if unknown {
        let detail = "its agent came back and did not know this exec any more".to_owned();
        return ExecEnd { outcome: Outcome::AgentLost { detail }, detail: None, ..end };
    }
    end
}

fn source_end(result: SourceUnpackResult, taken: &Taken) -> ExecEnd {
    let (Taken::Plain(super::execs::Running { started, .. }) | Taken::Credited { started, .. }) = taken;
    let usage = Usage { wall: started.elapsed(), ..Usage::default() };
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
