//! The task that owns one exec: it has the streams and the verdict, and serves whoever is attached.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug};

use super::attachment::{Ask, Attachment, Link, News, attachment};
use super::start::{Fingerprint, Holding};
use super::table::{Execs, Place};
use crate::machines::error::Detached;
use crate::runtime::{
    InputProgress, InputWriter, OffsetError, OutputOffsets, OutputReader, STREAM_WINDOW_BYTES, Stream,
    Verdict,
};

/// A caller who wants to be attached. No answer: not to this exec.
#[derive(Debug)]
pub(super) struct Attach {
    pub offsets: OutputOffsets,
    pub holding: Holding,
    /// It starts what has been started: it is attached only if it asks for the same, and takes it from nobody.
    pub repeats: Option<Fingerprint>,
    pub reply: oneshot::Sender<Result<Attachment, OffsetError>>,
}

/// What the task is made of.
#[derive(Debug)]
pub(super) struct Owner {
    pub exec_id: String,
    pub execs: Execs,
    pub orders: mpsc::Receiver<Attach>,
    pub reader: OutputReader,
    /// `None`: the program finds its input empty.
    pub writer: Option<InputWriter>,
    /// Whether callers may write; otherwise `writer` is for the terminal's sizes.
    pub reads: bool,
    pub fingerprint: Fingerprint,
    pub cancel: CancellationToken,
    pub place: Place,
}

/// An exec and its streams, as the task has them.
struct Held {
    owner: Owner,
    run: Pin<Box<dyn Future<Output = Verdict> + Send>>,
    /// Once it has ended.
    verdict: Option<Verdict>,
    linger: Duration,
    /// Up to where the caller that is attached was given output.
    sent: OutputOffsets,
    /// All output was read up to its end, by that caller.
    output_over: bool,
    /// The program's input was told its end. What a caller has announced and left with is not: the next one says it again.
    input_ended: bool,
    progress: Option<watch::Receiver<InputProgress>>,
    /// The caller that is attached was told of the input, which comes first.
    progress_told: bool,
}

/// A caller that is attached.
struct Caller {
    link: Link,
    /// Taken from it, and not by the program's input yet, which may hold less than a caller may send ahead. What the caller
    /// says after its input, an acknowledgement say, must not wait for the program to read.
    pending: Pending,
    /// It may say something yet.
    asking: bool,
    /// It has the verdict.
    told: bool,
}

/// Input on its way, up to about [`STREAM_WINDOW_BYTES`].
#[derive(Default)]
struct Pending {
    pieces: VecDeque<Bytes>,
    bytes: u64,
    /// Nothing comes after it.
    end: bool,
}

impl Pending {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len() as u64;
        self.pieces.push_back(bytes);
    }

    fn pop(&mut self) {
        if let Some(first) = self.pieces.pop_front() {
            self.bytes -= first.len() as u64;
        }
    }
}

/// What comes after a caller.
enum Next {
    Caller(Caller),
    /// Whether it had the verdict.
    Nobody {
        told: bool,
    },
}

impl Owner {
    /// The first caller is attached before anything happens.
    pub(super) fn spawn(
        self,
        holding: Holding,
        run: impl Future<Output = Verdict> + Send + 'static,
    ) -> Attachment {
        let span = tracing::info_span!("held exec", exec = %self.exec_id);
        let progress = self.writer.as_ref().filter(|_| self.reads).map(InputWriter::progress);
        let mut held = Held {
            owner: self,
            run: Box::pin(run),
            verdict: None,
            linger: Duration::ZERO,
            sent: OutputOffsets::default(),
            output_over: false,
            input_ended: false,
            progress_told: progress.is_none(),
            progress,
        };
        let (caller, attachment) = held.attached(OutputOffsets::default(), holding);
        tokio::spawn(held.live(caller).instrument(span));
        attachment
    }
}

impl Held {
    async fn live(mut self, first: Caller) {
        let mut attached = Some(first);
        while let Some(caller) = attached.take() {
            attached = match self.serve(caller).await {
                Next::Caller(another) => Some(another),
                Next::Nobody { told } => self.wait(told).await,
            };
        }
        // Nobody can attach from here on; whoever is about to is told that there is no such exec.
        let Owner { orders, place, reader, cancel, .. } = self.owner;
        drop((orders, place, reader));
        if self.verdict.is_none() {
            debug!("nobody holds the exec any more, cancelling it");
            cancel.cancel();
            self.run.await;
        }
    }

    fn attached(&mut self, offsets: OutputOffsets, holding: Holding) -> (Caller, Attachment) {
        self.linger = holding.linger.unwrap_or(self.linger);
        (self.sent, self.output_over) = (offsets, false);
        if let Some(progress) = &mut self.progress {
            // So that each caller is told where it stands, and knows how far it may send.
            progress.mark_changed();
            self.progress_told = false;
        }
        let input_offset = self.owner.writer.as_ref().map_or(0, InputWriter::offset);
        let exec_id = self.owner.exec_id.clone();
        let (link, attachment) = attachment(exec_id, input_offset, offsets, holding.acknowledges);
        (Caller { link, pending: Pending::default(), asking: true, told: false }, attachment)
    }

    /// `None` where the caller may not.
    fn admit(&mut self, attach: Attach, alone: bool) -> Option<Caller> {
        let Attach { offsets, holding, repeats, reply } = attach;
        if let Some(fingerprint) = repeats {
            let untouched = self.owner.reader.acknowledged() == OutputOffsets::default();
            if !alone || !untouched || fingerprint != self.owner.fingerprint {
                return None;
            }
        }
        if let Err(error) = self.owner.reader.rewind(offsets) {
            let _ = reply.send(Err(error));
            return None;
        }
        let (caller, attachment) = self.attached(offsets, holding);
        // One who has gone away meanwhile drops the attachment, and is seen to have.
        let _ = reply.send(Ok(attachment));
        Some(caller)
    }

    async fn serve(&mut self, mut caller: Caller) -> Next {
        loop {
            let acknowledges = caller.link.handed.is_none();
            tokio::select! {
                Some(attach) = self.owner.orders.recv() => {
                    let gone = caller.link.news.is_closed();
                    if gone && self.linger.is_zero() {
                        return Next::Nobody { told: caller.told };
                    }
                    if let Some(another) = self.admit(attach, gone) {
                        debug!("another caller has attached");
                        caller.link.detach(Detached::Replaced(self.owner.exec_id.clone()));
                        return Next::Caller(another);
                    }
                }
                () = caller.link.news.closed() => return Next::Nobody { told: caller.told },
                verdict = &mut self.run, if self.verdict.is_none() => self.verdict = Some(verdict),
                ask = caller.link.asks.recv(), if caller.asking && caller.pending.bytes < STREAM_WINDOW_BYTES => {
                    let Some(ask) = ask else {
                        caller.asking = false;
                        continue;
                    };
                    if let Err(why) = self.heed(ask, acknowledges, &mut caller.pending) {
                        caller.link.detach(why);
                        return Next::Nobody { told: caller.told };
                    }
                    self.end_input(&caller.pending);
                }
                // What nobody takes any more is lost.
                () = give(self.owner.writer.as_ref(), caller.pending.pieces.front()) => {
                    caller.pending.pop();
                    self.end_input(&caller.pending);
                }
                handed = handed(caller.link.handed.as_mut()) => self.acknowledge(handed),
                said = say(&caller.link.news, &mut self.owner.reader, self.progress.as_mut(),
                    self.verdict.as_ref(), self.output_over, self.progress_told), if !caller.told => match said {
                    Said::Output(stream, end) => *of(&mut self.sent, stream) = end,
                    Said::OutputOver => self.output_over = true,
                    Said::Verdict => caller.told = true,
                    Said::InputWritten => self.progress_told = true,
                }
            }
        }
    }

    /// Until somebody attaches; `None` once that is waited for no longer.
    async fn wait(&mut self, told: bool) -> Option<Caller> {
        if self.linger.is_zero() {
            return None;
        }
        let waiting = self.owner.execs.wait(told);
        let mut until = Instant::now() + self.linger;
        loop {
            tokio::select! {
                biased;
                () = waiting.given_up.cancelled() => return None,
                Some(attach) = self.owner.orders.recv() => {
                    if let Some(caller) = self.admit(attach, true) {
                        return Some(caller);
                    }
                }
                // Its verdict waits as long as it did.
                verdict = &mut self.run, if self.verdict.is_none() => {
                    self.verdict = Some(verdict);
                    until = Instant::now() + self.linger;
                }
                () = sleep_until(until) => return None,
            }
        }
    }

    /// Ends the input once all before its end is with the program.
    fn end_input(&mut self, pending: &Pending) {
        if let Some(writer) = self.owner.writer.as_ref().filter(|_| pending.end && pending.pieces.is_empty())
        {
            writer.end();
            self.input_ended = true;
        }
    }

    fn heed(&mut self, ask: Ask, acknowledges: bool, pending: &mut Pending) -> Result<(), Detached> {
        match ask {
            Ask::Input { offset, bytes } => {
                let writer = self.owner.writer.as_ref().filter(|_| self.owner.reads);
                let writer = writer.ok_or(Detached::NoInput)?;
                if writer.progress().borrow().closed {
                    return Ok(());
                }
                if self.input_ended || pending.end {
                    return Err(Detached::InputAfterEnd);
                }
                let expected = writer.offset() + pending.bytes;
                if offset != expected {
                    return Err(Detached::InputOffset { claimed: offset, expected });
                }
                if !bytes.is_empty() {
                    pending.push(bytes);
                }
            }
            Ask::CloseInput => pending.end = true,
            Ask::Resize(size) => {
                if let Some(writer) = &self.owner.writer {
                    writer.resize(size);
                }
            }
            Ask::Acknowledge(offsets) => {
                if !acknowledges {
                    return Err(Detached::AcknowledgesNot);
                }
                for (offset, sent) in [(offsets.stdout, self.sent.stdout), (offsets.stderr, self.sent.stderr)]
                {
                    if offset > sent {
                        return Err(Detached::Acknowledged { offset, sent });
                    }
                }
                self.acknowledge(offsets);
            }
            Ask::Cancel => self.owner.cancel.cancel(),
        }
        Ok(())
    }

    fn acknowledge(&self, offsets: OutputOffsets) {
        // What was sent exists.
        let _ = self.owner.reader.acknowledge(Stream::Stdout, offsets.stdout);
        let _ = self.owner.reader.acknowledge(Stream::Stderr, offsets.stderr);
    }
}

fn of(offsets: &mut OutputOffsets, stream: Stream) -> &mut u64 {
    match stream {
        Stream::Stdout => &mut offsets.stdout,
        Stream::Stderr => &mut offsets.stderr,
    }
}

/// Returns once the program's input has these bytes, or takes none any more. Safe to cancel.
async fn give(writer: Option<&InputWriter>, bytes: Option<&Bytes>) {
    match (writer, bytes) {
        (Some(writer), Some(bytes)) => {
            let _ = writer.send(bytes).await;
        }
        _ => std::future::pending().await,
    }
}

/// What was handed out since. Safe to cancel.
async fn handed(offsets: Option<&mut watch::Receiver<OutputOffsets>>) -> OutputOffsets {
    if let Some(offsets) = offsets
        && offsets.changed().await.is_ok()
    {
        return *offsets.borrow_and_update();
    }
    // The caller has gone, which is seen elsewhere.
    std::future::pending().await
}

enum Said {
    /// Up to this offset.
    Output(Stream, u64),
    OutputOver,
    InputWritten,
    Verdict,
}

/// Says the next thing, once the caller has room for it. Safe to cancel: nothing is read that is not said.
async fn say(
    news: &mpsc::Sender<News>,
    reader: &mut OutputReader,
    progress: Option<&mut watch::Receiver<InputProgress>>,
    verdict: Option<&Verdict>,
    output_over: bool,
    progress_told: bool,
) -> Said {
    let Ok(room) = news.reserve().await else {
        // The caller has gone, which is seen elsewhere.
        return std::future::pending().await;
    };
    let over = async {
        match verdict {
            Some(verdict) if output_over => verdict.clone(),
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        progress = written(progress) => {
            room.send(News::InputWritten(progress));
            Said::InputWritten
        }
        chunk = reader.next(), if !output_over && progress_told => match chunk {
            Some(chunk) => {
                let said = Said::Output(chunk.stream, chunk.raw_offset + chunk.bytes.len() as u64);
                room.send(News::Output(chunk));
                said
            }
            None => Said::OutputOver,
        },
        verdict = over, if progress_told => {
            room.send(News::Verdict(Box::new(verdict)));
            Said::Verdict
        }
    }
}

/// What has become of the input since it was told last. Safe to cancel.
async fn written(progress: Option<&mut watch::Receiver<InputProgress>>) -> InputProgress {
    if let Some(progress) = progress
        && progress.changed().await.is_ok()
    {
        return *progress.borrow_and_update();
    }
    std::future::pending().await
}
