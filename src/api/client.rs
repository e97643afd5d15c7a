//! What `creel` asks of a daemon.

mod exec;
mod observe;
mod run;
mod shell;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use creel_proto::v1 as wire;
use creel_proto::v1::host_client::HostClient;
use creel_proto::v1::images_client::ImagesClient;
use creel_proto::v1::machines_client::MachinesClient;
use creel_proto::v1::{create_event, create_request};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

pub use exec::{ExecReceiver, ExecSender, Executing, Holding, NewExec, Said};
pub use observe::{ConsoleStream, EventStream, HostInfo, ListedImage, StatsStream};

use super::convert::microseconds;
use super::convert::shell::shell_start;
use super::error::{ApiError, ConnectError};
use crate::engine::ImageFacts;
use crate::machines::{Lifetime, Summary};
use crate::runtime::{DestroyMode, MachineId, SHELL_QUEUE, SetupError, SetupEvent, Shell, ShellRequest};

/// How much of a source archive goes into one message: a quarter of what the contract allows.
pub const SOURCE_CHUNK_BYTES: usize = 256 << 10;

/// What creeld may send before somebody reads it: of one call, and of all together. A call that is not read must not
/// hold up the others, so all together have room for more such calls than creeld takes.
const CALL_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 * CALL_WINDOW_BYTES;

/// A message of output fits into one: each frame is a system call of creeld.
const FRAME_BYTES: u32 = 128 << 10;

/// How long a socket whose queue is full is tried again, and the pauses between: there is no event that says when it has
/// room. creeld accepts at once, so it is full only under a burst.
const CONNECT_BOUND: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A listing of a thousand machines is a megabyte; a verdict has up to 256 KiB of console.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Of a status with its details; creeld's own stay below 8 KiB.
const MAX_HEADER_LIST_BYTES: u32 = 64 << 10;

/// A machine to be.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// By name.
    pub image: String,
    pub lifetime: Lifetime,
    /// `None`: the image's own.
    pub memory_mib: Option<u32>,
    pub vcpus: Option<u32>,
    /// Of the whole machine. `None`: the guest's memory and what running it costs.
    pub memory_limit_mib: Option<u32>,
    pub setup_timeout: Option<Duration>,
    /// `None`: the machine's id.
    pub workflow_id: Option<String>,
}

/// A connection to a daemon. Clones share it; one that broke is made anew by the next call.
#[derive(Debug, Clone)]
pub struct Client {
    machines: MachinesClient<Channel>,
    images: ImagesClient<Channel>,
    host: HostClient<Channel>,
    path: Arc<PathBuf>,
}

impl Client {
    /// # Errors
    /// Those of the socket. Whether one may do anything is said by the first call.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        let path = Arc::new(path.to_owned());
        let channel = endpoint().connect_with_connector(connector(&path)).await;
        let channel = channel.map_err(|error| ConnectError::new(&path, &error))?;
        Ok(Self::over(channel, path))
    }

    /// The same daemon over a connection of its own, which the first call makes: creeld bounds the calls of each.
    pub(super) fn another(&self) -> Self {
        let channel = endpoint().connect_with_connector_lazy(connector(&self.path));
        Self::over(channel, Arc::clone(&self.path))
    }

    fn over(channel: Channel, path: Arc<PathBuf>) -> Self {
        let host = HostClient::new(channel.clone());
        let images = ImagesClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let machines = MachinesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Self { machines, images, host, path }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to create a machine; `source` is read from its start. An attached machine lives as long as the value that
    /// is returned.
    ///
    /// # Errors
    /// What creeld refuses at once; the rest comes by [`Creating::next`].
    pub async fn create(&self, machine: NewMachine, source: Option<File>) -> Result<Creating, ApiError> {
        let (lifetime, max_age) = match machine.lifetime {
            Lifetime::Attached => (wire::Lifetime::Attached, None),
            Lifetime::Detached { max_age } => (wire::Lifetime::Detached, max_age),
        };
        let start = wire::CreateStart {
            image: machine.image,
            lifetime: lifetime.into(),
            memory_mib: machine.memory_mib,
            vcpus: machine.vcpus,
            memory_limit_mib: machine.memory_limit_mib,
            setup_timeout_us: machine.setup_timeout.map(microseconds),
            max_age_us: max_age.map(microseconds),
            workflow_id: machine.workflow_id,
            has_source: source.is_some(),
            machine_id: None,
        };
        let start = wire::CreateRequest { message: Some(create_request::Message::Start(start)) };
        let unreadable = Arc::new(OnceLock::new());
        let source = source.map(|source| chunks(source, Arc::clone(&unreadable)));
        let messages = stream::iter([start]).chain(stream::iter(source).flatten());
        let events = self.machines.clone().create(messages).await?.into_inner();
        Ok(Creating { events, failed: None, unreadable })
    }

    /// Sends a signal, by its number, to the process group of an exec.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when no such exec runs, [`ApiError::NotNow`] when the machine is not ready or has ended,
    /// [`ApiError::Unsupported`] when its agent can't.
    pub async fn signal(&self, machine: &MachineId, exec_id: &str, signal: i32) -> Result<(), ApiError> {
        let (machine_id, exec_id) = (machine.to_string(), exec_id.to_owned());
        let request = wire::SignalRequest { machine_id, exec_id, signal };
        self.machines.clone().signal(request).await?;
        Ok(())
    }

    /// Opens a shell in a machine. Dropping it hangs up.
    ///
    /// # Errors
    /// Why there is none. Once there is one, how it ended says what became of the connection too.
    pub async fn shell(&self, machine: &MachineId, request: ShellRequest) -> Result<Shell, ApiError> {
        let start = shell_start(machine, request);
        let (input, typed) = mpsc::channel(SHELL_QUEUE);
        let typed = ReceiverStream::new(typed).map(wire::ShellRequest::from);
        let events = self.machines.clone().shell(stream::iter([start]).chain(typed)).await?.into_inner();
        Ok(shell::follow(events, input))
    }

    /// Ends a machine; returns it as it ended.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when creeld knows nothing of it; [`ApiError::Internal`] names what could not be freed.
    pub async fn destroy(&self, machine: &MachineId, mode: DestroyMode) -> Result<Summary, ApiError> {
        let kill = mode == DestroyMode::Kill;
        let request = wire::DestroyRequest { machine_id: machine.to_string(), kill };
        let response = self.machines.clone().destroy(request).await?.into_inner();
        let machine = response.machine.ok_or_else(ApiError::ended_early)?;
        Ok(machine.try_into()?)
    }

    /// The machines that live, and with `ended` the last ones that have ended; oldest first.
    ///
    /// # Errors
    /// When one may not, or the connection is lost.
    pub async fn list(&self, ended: bool) -> Result<Vec<Summary>, ApiError> {
        let response = self.machines.clone().list(wire::ListRequest { ended }).await?.into_inner();
        response.machines.into_iter().map(|machine| Ok(machine.try_into()?)).collect()
    }

    /// What a plan has to know of an image.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] names the images that there are.
    pub async fn inspect_image(&self, name: &str) -> Result<ImageFacts, ApiError> {
        let request = wire::InspectImageRequest { name: name.to_owned() };
        let found = self.images.clone().inspect(request).await?.into_inner();
        let wire::InspectImageResponse { name, shell, base_config_hash, .. } = found;
        Ok(ImageFacts { name, shell, base_config_hash })
    }
}

fn endpoint() -> Endpoint {
    // The name is for the protocol's `:authority` alone.
    Endpoint::from_static("http://creeld")
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
}

fn connector(
    path: &Arc<PathBuf>,
) -> impl Service<Uri, Response = TokioIo<UnixStream>, Error = io::Error, Future: Send> + Send + 'static {
    let path = Arc::clone(path);
    tower::service_fn(move |_| {
        let path = Arc::clone(&path);
        async move { dial(&path).await.map(TokioIo::new) }
    })
}

/// connect(2) of a unix socket that does not block says EAGAIN where the listener's queue is full (unix(7)).
async fn dial(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_BOUND;
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() + pause < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// A source archive as messages. An end would be taken for the archive's, so a read that fails becomes a message that
/// creeld refuses.
fn chunks(
    source: File,
    unreadable: Arc<OnceLock<String>>,
) -> impl Stream<Item = wire::CreateRequest> + Send + 'static {
    stream::unfold(Some((source, false)), move |state| {
        let unreadable = Arc::clone(&unreadable);
        async move {
            let (mut source, started) = state?;
            let read = async {
                if !started {
                    source.seek(SeekFrom::Start(0))?;
                }
                let mut reader = tokio::fs::File::from_std(source);
                reader.set_max_buf_size(SOURCE_CHUNK_BYTES);
                let mut chunk = BytesMut::with_capacity(SOURCE_CHUNK_BYTES);
                reader.read_buf(&mut chunk).await?;
                Ok::<_, io::Error>((reader.into_std().await, chunk.freeze()))
            };
            match read.await {
                Ok((_, chunk)) if chunk.is_empty() => None,
                Ok((source, chunk)) => {
                    let message = Some(create_request::Message::Source(chunk));
                    Some((wire::CreateRequest { message }, Some((source, true))))
                }
                Err(error) => {
                    let _ = unreadable.set(error.to_string());
                    Some((wire::CreateRequest { message: None }, None))
                }
            }
        }
    })
}

/// What a creation has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Accepted(MachineId),
    Setup(SetupEvent),
    /// A detached machine needs the call no longer.
    Ready(Summary),
    /// The attached machine has ended.
    Ended(Summary),
}

/// A machine being created; an attached one lives as long as this.
#[derive(Debug)]
pub struct Creating {
    events: Streaming<wire::CreateEvent>,
    /// Whole, which the status can't be.
    failed: Option<SetupError>,
    unreadable: Arc<OnceLock<String>>,
}

impl Creating {
    /// The next thing; `None` at the call's orderly end. Safe to cancel.
    ///
    /// # Errors
    /// Why there is no machine, or that the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Progress>, ApiError> {
        loop {
            let event = match self.events.message().await {
                Ok(Some(event)) => event.event,
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.error(status)),
            };
            return Ok(Some(match event {
                Some(create_event::Event::Accepted(accepted)) => {
                    Progress::Accepted(super::convert::machine_id(&accepted.machine_id)?)
                }
                Some(create_event::Event::PhaseStarted(event)) => Progress::Setup(event.try_into()?),
                Some(create_event::Event::PhaseFinished(event)) => Progress::Setup(event.try_into()?),
                Some(create_event::Event::Notice(text)) => Progress::Setup(SetupEvent::Notice(text)),
                Some(create_event::Event::Ready(machine)) => Progress::Ready(machine.try_into()?),
                Some(create_event::Event::Ended(machine)) => Progress::Ended(machine.try_into()?),
                Some(create_event::Event::Failed(failure)) => {
                    self.failed = Some(failure.try_into()?);
                    continue;
                }
                // Of a later version.
                None => continue,
            }));
        }
    }

    fn error(&mut self, status: tonic::Status) -> ApiError {
        if let Some(error) = self.unreadable.get() {
            return ApiError::Source(error.clone());
        }
        match (ApiError::from(status), self.failed.take()) {
            (ApiError::Setup(_), Some(whole)) => ApiError::Setup(whole),
            (error, _) => error,
        }
    }
}
