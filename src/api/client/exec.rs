//! An exec of a daemon's machine: what is said to it, and what it says.

use std::time::Duration;

use bytes::Bytes;
use creel_proto::v1 as wire;
use creel_proto::v1::exec_event::Event;
use creel_proto::v1::{exec_request, exec_start};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Client;
use crate::api::convert::exec::MAX_INPUT_BYTES;
use crate::api::convert::microseconds;
use crate::api::{ApiError, Malformed};
use crate::machines::Ask;
use crate::runtime::streams::Gone;
use crate::runtime::{
    InputProgress, MachineId, OutputChunk, OutputOffsets, STREAM_WINDOW_BYTES, TerminalSize, Verdict, Work,
};

/// What was said and is not on its way: each is small, or a piece of input.
const QUEUE: usize = 2;

/// Something to be done in a machine.
#[derive(Debug, Clone)]
pub struct NewExec {
    /// Used once in the machine's life; `None`: creeld makes one.
    pub id: Option<String>,
    pub work: Work,
    pub timeout: Option<Duration>,
}

impl From<Work> for NewExec {
    fn from(work: Work) -> Self {
        Self { id: None, work, timeout: None }
    }
}

/// How a call holds its exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// The program reads what is sent.
    pub input: bool,
    /// How long the exec waits for another call when this one ends; `None`: it is cancelled.
    pub linger: Option<Duration>,
    /// Output is kept until it is acknowledged; otherwise until it was sent.
    pub acknowledges: bool,
}

/// What an exec has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Output(OutputChunk),
    InputWritten(InputProgress),
    /// The last.
    Verdict(Box<Verdict>),
}

impl Client {
    /// Starts something in a machine. Dropping the value that is returned, both halves of it, ends the call: then it is
    /// cancelled, or lingers. Its input ends with the sender, also where it lingers.
    ///
    /// # Errors
    /// Why it was not started.
    pub async fn exec(
        &self,
        machine: &MachineId,
        exec: NewExec,
        held: Holding,
    ) -> Result<Executing, ApiError> {
        let NewExec { id, work, timeout } = exec;
        self.call(machine, id, work.into(), timeout, held).await
    }

    /// Attaches to an exec; whoever was attached is not any more ([`ApiError::Replaced`]).
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when there is none, [`ApiError::BadInput`] when its output can't be read from there.
    pub async fn attach(
        &self,
        machine: &MachineId,
        exec_id: &str,
        offsets: OutputOffsets,
        held: Holding,
    ) -> Result<Executing, ApiError> {
        let OutputOffsets { stdout: stdout_offset, stderr: stderr_offset } = offsets;
        let work = exec_start::Work::Attach(wire::Attach { stdout_offset, stderr_offset });
        self.call(machine, Some(exec_id.to_owned()), work, None, held).await
    }

    async fn call(
        &self,
        machine: &MachineId,
        exec_id: Option<String>,
        work: exec_start::Work,
        timeout: Option<Duration>,
        held: Holding,
    ) -> Result<Executing, ApiError> {
        let start = wire::ExecStart {
            machine_id: machine.to_string(),
            exec_id,
            timeout_us: timeout.map(microseconds),
            work: Some(work),
            input: held.input,
            linger_us: held.linger.map(microseconds),
            acknowledges: held.acknowledges,
        };
        let start = wire::ExecRequest { message: Some(exec_request::Message::Start(start)) };
        let (asks, said) = mpsc::channel(QUEUE);
        let messages = stream::iter([start]).chain(ReceiverStream::new(said).map(wire::ExecRequest::from));
        let mut events = self.machines.clone().exec(messages).await?.into_inner();
        let first = events.message().await?.ok_or_else(ApiError::ended_early)?;
        let Some(Event::Attached(wire::ExecAttached { exec_id, input_offset })) = first.event else {
            return Err(Malformed("an exec does not begin with `attached`".to_owned()).into());
        };
        let (told, progress) = watch::channel(None);
        let sender = ExecSender { asks, offset: input_offset, progress };
        Ok(Executing { exec_id, input_offset, sender, receiver: ExecReceiver { events, told } })
    }
}

/// An exec under way.
#[derive(Debug)]
pub struct Executing {
    exec_id: String,
    input_offset: u64,
    sender: ExecSender,
    receiver: ExecReceiver,
}

impl Executing {
    /// By which one attaches to it.
    pub fn exec_id(&self) -> &str {
        &self.exec_id
    }

    /// The first input that is sent here is that of this offset.
    pub fn input_offset(&self) -> u64 {
        self.input_offset
    }

    /// As [`ExecReceiver::next`].
    ///
    /// # Errors
    /// The same.
    pub async fn next(&mut self) -> Result<Said, ApiError> {
        self.receiver.next().await
    }

    pub fn split(self) -> (ExecSender, ExecReceiver) {
        (self.sender, self.receiver)
    }
}

/// The way to say something to an exec. Dropped, its input ends.
#[derive(Debug)]
pub struct ExecSender {
    asks: mpsc::Sender<Ask>,
    offset: u64,
    /// `None` until it was told.
    progress: watch::Receiver<Option<InputProgress>>,
}

impl ExecSender {
    /// Waits while creeld has as much as the program may be behind: what is said after it must not have to wait for the
    /// program. For that, what the exec says has to be read meanwhile.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub async fn input(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            self.room().await?;
            let piece = bytes.split_to(bytes.len().min(MAX_INPUT_BYTES));
            let (offset, length) = (self.offset, piece.len() as u64);
            self.asks.send(Ask::Input { offset, bytes: piece }).await.map_err(|_| Gone)?;
            self.offset += length;
        }
        Ok(())
    }

    async fn room(&mut self) -> Result<(), Gone> {
        let offset = self.offset;
        let settled = |progress: &Option<InputProgress>| {
            progress.is_some_and(|InputProgress { written, closed }| {
                closed || offset.saturating_sub(written) < STREAM_WINDOW_BYTES
            })
        };
        let progress = self.progress.wait_for(settled).await.map_err(|_| Gone)?;
        if progress.is_some_and(|progress| progress.closed) { Err(Gone) } else { Ok(()) }
    }

    /// The input has ended.
    pub async fn close_input(&mut self) {
        self.say(Ask::CloseInput).await;
    }

    /// A new size of the program's terminal.
    pub async fn resize(&mut self, size: TerminalSize) {
        self.say(Ask::Resize(size)).await;
    }

    /// Output before these offsets need never be seen again.
    pub async fn acknowledge(&mut self, offsets: OutputOffsets) {
        self.say(Ask::Acknowledge(offsets)).await;
    }

    /// Cancels the exec, also one that would linger; its verdict says so.
    pub async fn cancel(&mut self) {
        self.say(Ask::Cancel).await;
    }

    /// `None` where the call has ended. Safe to cancel.
    pub(super) async fn room_to_say(&self) -> Option<mpsc::Permit<'_, Ask>> {
        self.asks.reserve().await.ok()
    }

    /// What a call that has ended no longer hears is told by its end.
    pub(super) async fn say(&self, ask: Ask) {
        let _ = self.asks.send(ask).await;
    }
}

/// What an exec says.
#[derive(Debug)]
pub struct ExecReceiver {
    events: Streaming<wire::ExecEvent>,
    told: watch::Sender<Option<InputProgress>>,
}

impl ExecReceiver {
    /// The next thing. Safe to cancel.
    ///
    /// # Errors
    /// Why there is no verdict; also when asked beyond it.
    pub async fn next(&mut self) -> Result<Said, ApiError> {
        loop {
            let event = self.events.message().await?.ok_or_else(ApiError::ended_early)?;
            return Ok(match event.event {
                Some(Event::Output(output)) => Said::Output(output.try_into()?),
                Some(Event::InputWritten(wire::InputWritten { offset: written, closed })) => {
                    let progress = InputProgress { written, closed };
                    self.told.send_replace(Some(progress));
                    Said::InputWritten(progress)
                }
                Some(Event::Verdict(verdict)) => Said::Verdict(Box::new(verdict.try_into()?)),
                // Said twice, or of a later version.
                Some(Event::Attached(_)) | None => continue,
            });
        }
    }
}
