//! An exec of a daemon's machine on streams of this process, whatever becomes of the connection.
//!
//! What its reader has acknowledged here is acknowledged there, and what creeld gave to the program is released here, so
//! that a call that breaks is followed by one that goes on where it was.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::exec::{ExecReceiver, ExecSender, Executing, Holding, NewExec, Said};
use super::{Client, FIRST_PAUSE, LONGEST_PAUSE};
use crate::api::{ApiError, Malformed};
use crate::machines::Ask;
use crate::runtime::{
    ExecStreams, InputEvent, InputProgress, InputReader, MachineId, Outcome, OutputChunk, OutputOffsets,
    OutputWriter, STREAM_WINDOW_BYTES, Stream, Verdict,
};

/// How long creeld is looked for once the connection has broken.
const ATTACH_BOUND: Duration = Duration::from_secs(5);

/// How long the exec waits meanwhile.
const LINGER: Duration = Duration::from_secs(6);

/// How long creeld is waited for to say that what was cancelled has ended.
const CANCEL_BOUND: Duration = Duration::from_millis(500);

/// Output is acknowledged in steps: each is a message. No more than half of the least window that an exec may have
/// (`agent::credit`): one that waits for more would wait for ever.
const ACKNOWLEDGED_STEP_BYTES: u64 = 4 << 10;

impl Client {
    /// Does something in a machine, on `streams`: output that nobody acknowledges holds it back. When the connection
    /// breaks, it is made anew, and the exec goes on. Cancelled by `cancel`, or by dropping the future, the exec is
    /// cancelled in the machine.
    ///
    /// # Errors
    /// Why there is no verdict. [`ApiError::Lost`]: what has become of the exec is not known.
    pub async fn run(
        &self,
        machine: &MachineId,
        exec: NewExec,
        streams: ExecStreams,
        cancel: &CancellationToken,
    ) -> Result<Verdict, ApiError> {
        let ExecStreams { input, output } = streams;
        let held = Holding { input: input.is_some(), linger: Some(LINGER), acknowledges: true };
        let mut starting = Starting::new(self.clone(), machine.clone(), exec, held);
        let started = tokio::select! {
            started = starting.started() => Some(started),
            () = cancel.cancelled() => timeout(CANCEL_BOUND, starting.started()).await.ok(),
        };
        let Some(executing) = started else { return Ok(Verdict::of(Outcome::Cancelled)) };
        let executing = executing?;
        let exec_id = executing.exec_id().to_owned();
        let mut ends = Ends { input, output };
        let mut call = Call::new(executing);
        loop {
            let lost = match ends.serve(&mut call, cancel).await {
                Err(lost @ ApiError::Lost(_)) => lost,
                ended => {
                    // One that was cancelled and did not say so in time is told once more, and not waited for.
                    call.over = !cancel.is_cancelled();
                    return ended;
                }
            };
            call.over = true;
            if cancel.is_cancelled() {
                return Ok(Verdict::of(Outcome::Cancelled));
            }
            info!(exec = %exec_id, error = %lost, "attaching again");
            let executing = tokio::select! {
                attached = self.attach_again(machine, &exec_id, ends.output.end(), held, lost) => attached?,
                // It is given up once nobody has attached for its linger.
                () = cancel.cancelled() => return Ok(Verdict::of(Outcome::Cancelled)),
            };
            if let Some(input) = &mut ends.input {
                let rewound = input.rewind(executing.input_offset());
                rewound.map_err(|error| Malformed(format!("`attached.input_offset`: {error}")))?;
            }
            call = Call::new(executing);
        }
    }

    /// Nothing says when creeld takes connections again.
    async fn attach_again(
        &self,
        machine: &MachineId,
        exec_id: &str,
        offsets: OutputOffsets,
        held: Holding,
        lost: ApiError,
    ) -> Result<Executing, ApiError> {
        let deadline = Instant::now() + ATTACH_BOUND;
        let (mut pause, mut lost) = (FIRST_PAUSE, lost);
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match timeout(remaining, self.attach(machine, exec_id, offsets, held)).await {
                Ok(Err(error @ ApiError::Lost(_))) if !remaining.is_zero() => lost = error,
                Ok(answered) => return answered,
                Err(_) => return Err(lost),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// One call; dropped before its end, it takes its exec with it, which would linger otherwise.
struct Call {
    /// Until it is dropped.
    parts: Option<(ExecSender, ExecReceiver)>,
    over: bool,
}

impl Call {
    fn new(executing: Executing) -> Self {
        Self { parts: Some(executing.split()), over: false }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some((sender, mut receiver)) = self.parts.take().filter(|_| !self.over) else { return };
        // Without a runtime there is no connection either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let cancelled = async {
                sender.say(Ask::Cancel).await;
                while !matches!(receiver.next().await, Ok(Said::Verdict(_)) | Err(_)) {}
            };
            let _ = timeout(CANCEL_BOUND, cancelled).await;
        });
    }
}

/// A call whose exec is not known yet; dropped, it takes that with it too.
struct Starting(Option<JoinHandle<Result<Executing, ApiError>>>);

impl Starting {
    fn new(client: Client, machine: MachineId, exec: NewExec, held: Holding) -> Self {
        Self(Some(tokio::spawn(async move { client.exec(&machine, exec, held).await })))
    }

    async fn started(&mut self) -> Result<Executing, ApiError> {
        let Some(starting) = &mut self.0 else { return Err(ApiError::ended_early()) };
        let started = starting.await.map_err(|error| ApiError::Internal(error.to_string()));
        self.0 = None;
        started?
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let (Some(starting), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Ok(Ok(Ok(executing))) = timeout(ATTACH_BOUND, starting).await {
                drop(Call::new(executing));
            }
        });
    }
}

/// The exec's streams, as this process has them.
struct Ends {
    input: Option<InputReader>,
    output: OutputWriter,
}

impl Ends {
    /// Until the call ends.
    async fn serve(&mut self, call: &mut Call, cancel: &CancellationToken) -> Result<Verdict, ApiError> {
        let Some((sender, receiver)) = &mut call.parts else { return Err(ApiError::ended_early()) };
        let mut acknowledged = self.output.acknowledged();
        // What was acknowledged over a connection that broke may not have arrived, and the exec may wait for that.
        acknowledged.mark_changed();
        let mut said_acknowledged = OutputOffsets::default();
        let mut unwritten: Option<OutputChunk> = None;
        // Nothing is waited for outside of the `select!`: a connection that has broken takes nothing, and only its
        // receiver tells.
        let mut unsaid = VecDeque::new();
        // Nothing may be sent before it was told how far.
        let mut input_limit = None;
        let mut cancelled = None;
        loop {
            tokio::select! {
                said = receiver.next(), if unwritten.is_none() => match said? {
                    Said::Output(chunk) => unwritten = Some(self.in_place(chunk)?),
                    Said::InputWritten(progress) => {
                        input_limit = Some(progress.written + STREAM_WINDOW_BYTES);
                        self.input_written(progress)?;
                    }
                    Said::Verdict(verdict) => return Ok(*verdict),
                },
                () = write(&self.output, unwritten.as_ref()) => unwritten = None,
                room = sender.room_to_say(), if !unsaid.is_empty() => {
                    if let (Some(ask), Some(room)) = (unsaid.pop_front(), room) {
                        room.send(ask);
                    }
                }
                _ = acknowledged.changed(), if unsaid.is_empty() => {
                    let offsets = *acknowledged.borrow_and_update();
                    if is_a_step(said_acknowledged, offsets) {
                        said_acknowledged = offsets;
                        unsaid.push_back(Ask::Acknowledge(offsets));
                    }
                }
                ask = next_input(self.input.as_mut(), input_limit), if unsaid.is_empty() => unsaid.push_back(ask),
                () = cancel.cancelled(), if cancelled.is_none() => {
                    cancelled = Some(Instant::now() + CANCEL_BOUND);
                    unsaid.push_back(Ask::Cancel);
                }
                () = at(cancelled) => return Ok(Verdict::of(Outcome::Cancelled)),
            }
        }
    }

    /// # Errors
    /// When a chunk does not go on where the output was.
    fn in_place(&self, chunk: OutputChunk) -> Result<OutputChunk, Malformed> {
        let (end, offset) = (self.output.end(), chunk.raw_offset);
        let expected = match chunk.stream {
            Stream::Stdout => end.stdout,
            Stream::Stderr => end.stderr,
        };
        if offset == expected {
            return Ok(chunk);
        }
        Err(Malformed(format!("`output.raw_offset` is {offset} instead of {expected}")))
    }

    fn input_written(&self, progress: InputProgress) -> Result<(), Malformed> {
        let Some(input) = &self.input else { return Ok(()) };
        let written = input.written(progress.written);
        written.map_err(|error| Malformed(format!("`input_written.offset`: {error}")))?;
        if progress.closed {
            input.close();
        }
        Ok(())
    }
}

fn is_a_step(said: OutputOffsets, now: OutputOffsets) -> bool {
    now.stdout.saturating_sub(said.stdout) >= ACKNOWLEDGED_STEP_BYTES
        || now.stderr.saturating_sub(said.stderr) >= ACKNOWLEDGED_STEP_BYTES
}

/// A reader that has gone away does not end the program. Safe to cancel.
async fn write(output: &OutputWriter, chunk: Option<&OutputChunk>) {
    match chunk {
        Some(chunk) => drop(output.send(chunk.stream, &chunk.bytes).await),
        None => std::future::pending().await,
    }
}

/// Safe to cancel.
async fn next_input(input: Option<&mut InputReader>, limit: Option<u64>) -> Ask {
    let (Some(input), Some(limit)) = (input, limit) else { return std::future::pending().await };
    match input.next(limit).await {
        InputEvent::Bytes { offset, bytes } => Ask::Input { offset, bytes },
        InputEvent::Resize(size) => Ask::Resize(size),
        InputEvent::End { .. } => Ask::CloseInput,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
