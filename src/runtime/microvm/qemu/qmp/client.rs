//! The connection: one task that reads and writes, any number of askers, one listener for events.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::runtime::microvm::qemu::qmp::event::Event;
use crate::runtime::microvm::qemu::qmp::line::{Incoming, LineBuffer, LineError};

/// Events that wait for the listener; further ones are dropped, except those that say how the machine ends.
const MAX_EVENTS: usize = 128;
/// Of these, how many places only final events may take.
const FINAL_EVENTS: usize = 16;
/// Commands that wait to be written.
const MAX_COMMANDS: usize = 16;
/// Commands that wait for their answer; beyond that new ones fail as if not answered.
const MAX_PENDING: usize = 64;

/// What can go wrong with a command or the connection.
#[derive(Debug, Clone, Error)]
pub enum QmpError {
    #[error("failed to connect to QEMU's control socket `{}`", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("QEMU did not greet on its control socket within {} ms", timeout.as_millis())]
    NoGreeting { timeout: Duration },
    #[error("QEMU did not answer `{command}` within {} ms", timeout.as_millis())]
    NoAnswer { command: String, timeout: Duration },
    #[error("QEMU refused `{command}`: {description} ({class})")]
    Refused { command: String, class: String, description: String },
    #[error("the connection to QEMU has ended: {0}")]
    Closed(Arc<Closed>),
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum Closed {
    #[error("QEMU closed it")]
    ByQemu,
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("QEMU sent something that is no QMP: {0}")]
    Line(#[source] LineError),
    #[error("QEMU sent something else than QMP has at this point")]
    Order,
    #[error("creel closed it")]
    ByCreel,
}

/// The events of one machine, in order. Ends with the connection.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the connection has ended and all its events were taken. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.queue.recv().await
    }
}

/// A connection to QEMU. Dropping it closes the connection; the machine goes on.
pub struct Qmp {
    commands: mpsc::Sender<Command>,
    ended: Arc<OnceLock<Arc<Closed>>>,
    _task: AbortOnDropHandle<()>,
}

impl fmt::Debug for Qmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qmp").field("ended", &self.ended.get()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Command {
    name: String,
    arguments: Option<Value>,
    answer: oneshot::Sender<Result<Value, Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    class: String,
    description: String,
}

impl Qmp {
    /// Connects to the socket that QEMU listens on and waits for its greeting: all within `limit`.
    ///
    /// creel must have closed its own copy of the listening socket. Else the connection is queued there though QEMU is
    /// dead, and only `limit` ends the wait.
    ///
    /// # Errors
    /// When nobody listens, or what answers is not QEMU.
    pub async fn connect(path: &Path, limit: Duration) -> Result<(Self, Events), QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| QmpError::Connect { path: path.to_owned(), source: Arc::new(source) })?;
        Self::handshake(stream, limit).await
    }

    /// Takes a connected stream over and enters command mode.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn handshake(stream: UnixStream, limit: Duration) -> Result<(Self, Events), QmpError> {
        let (send_events, queue) = mpsc::channel(MAX_EVENTS);
        let mut connection = Connection { stream, lines: LineBuffer::default(), events: send_events };
        match timeout(limit, connection.greet()).await {
            Err(_) => return Err(QmpError::NoGreeting { timeout: limit }),
            Ok(Err(closed)) => return Err(QmpError::Closed(Arc::new(closed))),
            Ok(Ok(version)) => tracing::debug!(version, "connected to QEMU"),
        }
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let ended = Arc::new(OnceLock::new());
        let reason = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let mut queues = Queues { commands: receiver, pending: HashMap::new() };
            let closed = connection.serve(&mut queues).await;
            tracing::debug!(reason = %closed, "the connection to QEMU has ended");
            // Before the queues are dropped, so that whoever waits in them finds it.
            let _ = reason.set(Arc::new(closed));
        });
        Ok((Self { commands, ended, _task: AbortOnDropHandle::new(task) }, Events { queue }))
    }

    /// Runs a command and returns its result. Commands of several callers are answered independently.
    ///
    /// # Errors
    /// When QEMU refuses it or does not answer within `limit`; it may have been carried out then all the same.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Option<Value>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let exchange = async {
            let (answer, result) = oneshot::channel();
            let request = Command { name: command.to_owned(), arguments, answer };
            self.commands.send(request).await.ok()?;
            result.await.ok()
        };
        match timeout(limit, exchange).await {
            Err(_) => Err(QmpError::NoAnswer { command: command.to_owned(), timeout: limit }),
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(Refusal { class, description }))) => {
                Err(QmpError::Refused { command: command.to_owned(), class, description })
            }
            Ok(None) => {
                Err(QmpError::Closed(self.ended.get().map_or_else(|| Arc::new(Closed::ByCreel), Arc::clone)))
            }
        }
    }
}

/// Who waits for what.
struct Queues {
    commands: mpsc::Receiver<Command>,
    pending: HashMap<u64, oneshot::Sender<Result<Value, Refusal>>>,
}

impl Queues {
    /// An answer that nobody waits for any more came too late.
    fn answer(&mut self, id: Option<u64>, result: Result<Value, Refusal>) {
        if let Some(sender) = id.and_then(|id| self.pending.remove(&id)) {
            let _ = sender.send(result);
        }
    }
}

struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
    events: mpsc::Sender<Event>,
}

impl Connection {
    /// Greeting, then `qmp_capabilities`: after its answer commands are taken. Returns QEMU's version.
    async fn greet(&mut self) -> Result<String, Closed> {
        let Incoming::Greeting { version } = self.receive().await? else { return Err(Closed::Order) };
        self.stream.write_all(&encoded(0, "qmp_capabilities", None)).await.map_err(Closed::Io)?;
        loop {
            match self.receive().await? {
                Incoming::Return { id: Some(0), .. } => return Ok(version),
                Incoming::Event(event) => self.deliver(event),
                _ => return Err(Closed::Order),
            }
        }
    }

    async fn receive(&mut self) -> Result<Incoming, Closed> {
        loop {
            if let Some(incoming) = self.lines.next_message().map_err(Closed::Line)? {
                return Ok(incoming);
            }
            if self.stream.read_buf(self.lines.space()).await.map_err(Closed::Io)? == 0 {
                return Err(Closed::ByQemu);
            }
        }
    }

    /// Reads and writes until the connection ends. A peer that does not read only stops commands, one that floods
    /// only fills the event queue.
    async fn serve(mut self, queues: &mut Queues) -> Closed {
        let mut output = BytesMut::new();
        let mut next_id = 1;
        loop {
            let Connection { stream, lines, .. } = &mut self;
            let (mut read, mut write) = stream.split();
            tokio::select! {
                outcome = read.read_buf(lines.space()) => match outcome {
                    Ok(0) => break Closed::ByQemu,
                    Ok(_) => if let Err(closed) = self.take_lines(queues) { break closed },
                    Err(error) => break Closed::Io(error),
                },
                outcome = write.write(&output), if !output.is_empty() => match outcome {
                    Ok(written) => output.advance(written),
                    // What QEMU said before it closed is still to be read: its last event, above all.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => output.clear(),
                    Err(error) => break Closed::Io(error),
                },
                command = queues.commands.recv(), if output.is_empty() => match command {
                    Some(command) => {
                        queues.pending.retain(|_, answer| !answer.is_closed());
                        if queues.pending.len() < MAX_PENDING {
                            output.extend_from_slice(&encoded(next_id, &command.name, command.arguments.as_ref()));
                            queues.pending.insert(next_id, command.answer);
                            next_id += 1;
                        }
                    }
                    None => break Closed::ByCreel,
                },
            }
        }
    }

    fn take_lines(&mut self, queues: &mut Queues) -> Result<(), Closed> {
        while let Some(incoming) = self.lines.next_message().map_err(Closed::Line)? {
            match incoming {
                Incoming::Return { id, value } => queues.answer(id, Ok(value)),
                Incoming::Error { id, class, description } => {
                    queues.answer(id, Err(Refusal { class, description }));
                }
                Incoming::Event(event) => self.deliver(event),
                Incoming::Greeting { .. } => return Err(Closed::Order),
            }
        }
        Ok(())
    }

    fn deliver(&self, event: Event) {
        if !event.is_final() && self.events.capacity() <= FINAL_EVENTS {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            tracing::debug!(?event, "dropped an event of QEMU's: nobody takes them");
        }
    }
}

fn encoded(id: u64, command: &str, arguments: Option<&Value>) -> Vec<u8> {
    let mut object = json!({ "execute": command, "id": id });
    if let (Some(arguments), Some(object)) = (arguments, object.as_object_mut()) {
        object.insert("arguments".to_owned(), arguments.clone());
    }
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}
