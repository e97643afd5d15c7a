//! The calls of `creel.v1`, a service each. Who calls has been checked before they get here.

mod create;
mod exec;
mod host;
mod images;
mod observe;
mod shell;
mod source;
mod workflows;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machines_server;
use futures_util::Stream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::connection::Caller;
use super::convert::machine_id;
use super::gate::{CallPlace, FirstMessage};
use super::status;
use super::turns::Turns;
use crate::machines::{Machines, Summary};
use crate::runtime::DestroyMode;
pub(super) use host::HostService;
pub(super) use images::ImagesService;
pub use source::MAX_SOURCE_BYTES;
pub(super) use workflows::WorkflowsService;

/// One message: a MiB of source or of a program's arguments and environment, and what stands around it.
pub(super) const MAX_REQUEST_BYTES: usize = (1 << 20) + (64 << 10);

/// How long a caller may wait between the messages that it has to send.
pub(super) const MESSAGE_BOUND: Duration = Duration::from_secs(60);

/// Source archives that are received at a time, those of root and creeld's own user alone included; more wait.
const UPLOADS: (usize, usize) = (4, 4);
const UPLOADS_PER_UID: usize = 2;

/// A name that a caller gives to something.
const MAX_NAME_BYTES: usize = 200;

/// SIGRTMAX (signal(7)).
const MAX_SIGNAL: i32 = 64;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
pub(super) struct MachinesService {
    machines: Machines,
    scratch: PathBuf,
    uploads: Arc<Turns>,
    /// Ends the calls that would otherwise go on as long as their callers want.
    shutdown: CancellationToken,
}

impl MachinesService {
    pub(super) fn new(machines: Machines, scratch: PathBuf, shutdown: CancellationToken) -> Self {
        let (ordinary, reserved) = UPLOADS;
        Self { machines, scratch, uploads: Turns::new(ordinary, reserved, UPLOADS_PER_UID), shutdown }
    }
}

#[tonic::async_trait]
impl machines_server::Machines for MachinesService {
    type CreateStream = Events<wire::CreateEvent>;
    type ExecStream = Events<wire::ExecEvent>;
    type ShellStream = Events<wire::ShellEvent>;
    type StatsStream = Events<wire::StatsResponse>;
    type ConsoleStream = Events<wire::ConsoleChunk>;
    type EventsStream = Events<wire::EventsResponse>;

    async fn create(
        &self,
        request: Request<Streaming<wire::CreateRequest>>,
    ) -> Result<Response<Self::CreateStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| status::internal("the connection has no credentials"))?;
        let place = place(&request)?;
        let mut messages = request.into_inner();
        let first = next(&mut messages).await?.and_then(|first| first.message);
        let Some(wire::create_request::Message::Start(start)) = first else {
            return Err(Status::invalid_argument("the first message of a call must be `start`"));
        };
        // One that is there already takes no room.
        if start.machine_id.is_none() {
            self.machines.check_room().map_err(|error| status::create_failed(&error))?;
        }
        let create = create::Create::new(start, caller)?;
        Ok(Response::new(create.run(self, messages, place)))
    }

    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let place = place(&request)?;
        let first = request.extensions().get::<FirstMessage>().map(FirstMessage::decode::<wire::ExecRequest>);
        let first = first.transpose()?.flatten().and_then(|first| first.message);
        let Some(wire::exec_request::Message::Start(start)) = first else {
            return Err(Status::invalid_argument("the first message of a call must be `start`"));
        };
        exec::run(&self.machines, start, request.into_inner(), place).await.map(Response::new)
    }

    async fn shell(
        &self,
        request: Request<Streaming<wire::ShellRequest>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let place = place(&request)?;
        let mut messages = request.into_inner();
        let first = next(&mut messages).await?.and_then(|first| first.message);
        let Some(wire::shell_request::Message::Start(start)) = first else {
            return Err(Status::invalid_argument("the first message of a call must be `start`"));
        };
        shell::run(&self.machines, start, messages, place).await.map(Response::new)
    }

    async fn signal(
        &self,
        request: Request<wire::SignalRequest>,
    ) -> Result<Response<wire::SignalResponse>, Status> {
        let wire::SignalRequest { machine_id: id, exec_id, signal } = request.into_inner();
        let id = machine_id(&id).map_err(status::malformed)?;
        check_name(&exec_id, "exec_id")?;
        if !(1..=MAX_SIGNAL).contains(&signal) {
            return Err(Status::invalid_argument(format!(
                "`signal` is {signal}; signals have numbers from 1 to {MAX_SIGNAL}"
            )));
        }
        let sent = self.machines.signal(&id, &exec_id, signal).await;
        sent.map_err(|error| status::signal_failed(&error))?;
        Ok(Response::new(wire::SignalResponse {}))
    }

    async fn destroy(
        &self,
        request: Request<wire::DestroyRequest>,
    ) -> Result<Response<wire::DestroyResponse>, Status> {
        let wire::DestroyRequest { machine_id: id, kill } = request.into_inner();
        let id = machine_id(&id).map_err(status::malformed)?;
        let mode = if kill { DestroyMode::Kill } else { DestroyMode::Graceful };
        let ended = self.machines.destroy(&id, mode).await.map_err(|error| status::destroy_failed(&error))?;
        Ok(Response::new(wire::DestroyResponse { machine: Some(ended.into()) }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectRequest>,
    ) -> Result<Response<wire::InspectResponse>, Status> {
        observe::inspect(&self.machines, request.into_inner()).await.map(Response::new)
    }

    async fn stats(
        &self,
        request: Request<wire::StatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let watching = observe::Watching::new(self, &request)?;
        observe::stats(watching, request.into_inner()).map(Response::new)
    }

    async fn console(
        &self,
        request: Request<wire::ConsoleRequest>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        let watching = observe::Watching::new(self, &request)?;
        observe::console(watching, request.into_inner()).await.map(Response::new)
    }

    async fn events(
        &self,
        request: Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let watching = observe::Watching::new(self, &request)?;
        observe::events(watching, request.into_inner()).map(Response::new)
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let wire::ListRequest { ended } = request.into_inner();
        let machines = self.machines.clone();
        // Reads a few files a machine.
        let listed = blocking(move || machines.list(ended)).await?;
        let machines = listed.into_iter().map(without_console).collect();
        Ok(Response::new(wire::ListResponse { machines }))
    }
}

/// What counts the call, to be kept until its answer ends.
fn place<T>(request: &Request<T>) -> Result<CallPlace, Status> {
    let place = request.extensions().get::<CallPlace>().cloned();
    place.ok_or_else(|| status::internal("the call is not counted"))
}

/// The caller's next message, `None` once it has closed its side.
async fn next<T>(messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
    match timeout(MESSAGE_BOUND, messages.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the call was left without a message for {MESSAGE_BOUND:?}"
        ))),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(status::internal)
}

/// Sixty-four consoles would be more than a message may hold.
fn without_console(mut summary: Summary) -> wire::Machine {
    if let Some(verdict) = &mut summary.verdict {
        verdict.console_tail = None;
    }
    summary.into()
}

/// A name that ends up in logs and in the guest.
fn check_name(name: &str, field: &str) -> Result<(), Status> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(|c: char| c.is_control()) {
        return Err(Status::invalid_argument(format!(
            "`{field}` must be 1 to {MAX_NAME_BYTES} bytes without control characters"
        )));
    }
    Ok(())
}
