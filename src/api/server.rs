//! The server: a listener, who may come in, and what it serves.

use std::path::PathBuf;
use std::time::Duration;

use creel_proto::v1::host_server::HostServer;
use creel_proto::v1::images_server::ImagesServer;
use creel_proto::v1::machines_server::MachinesServer;
use creel_proto::v1::workflows_server::WorkflowsServer;
use futures_util::stream;
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tracing::debug;

use super::connection::{Caller, Door};
use super::deadline::Deadline;
use super::gate::{Bounds, Gate};
use super::measured::Measured;
use super::request_id::Identify;
use super::role::{OPERATOR_GROUP, Role, RolePolicy, SPINDLE_GROUP};
use super::service::{HostService, ImagesService, MAX_REQUEST_BYTES, MachinesService, WorkflowsService};
use crate::image::ImageStore;
use crate::machines::Machines;
use crate::workflows::Workflows;

/// What `grpc.health.v1.Health` knows it as, beside the empty name.
pub const SERVICE_NAME: &str = "creel.v1.Machines";
pub const WORKFLOWS_SERVICE_NAME: &str = "creel.v1.Workflows";

/// Calls that one connection has open at a time; more wait at the caller's side. A spindle's that wait for slots must not
/// keep it from running steps.
pub(super) const MAX_CALLS_PER_CONNECTION: u32 = 128;

/// What a peer may send before somebody reads it: a call, and a connection, in which no call that waits holds up the
/// others. How this adds up is said in `gate`.
const CALL_WINDOW_BYTES: u32 = 32 << 10;
const CONNECTION_WINDOW_BYTES: u32 = MAX_CALLS_PER_CONNECTION * CALL_WINDOW_BYTES;

/// What a caller of reflection may say: a symbol's name.
const MAX_REFLECTION_REQUEST_BYTES: usize = 4 << 10;

const MAX_HEADER_LIST_BYTES: u32 = 8 << 10;

/// How long connections may take to end by themselves when the server stops.
const GOODBYE_BOUND: Duration = Duration::from_secs(5);

/// Serves both levels.
#[derive(Debug)]
pub struct Server {
    /// What it serves.
    pub machines: Machines,
    /// `None`: the server of a `creel run` has no workflow level.
    pub workflows: Option<Workflows>,
    pub images: ImageStore,
    /// Holds source archives while they are needed, as files without a name.
    pub scratch: PathBuf,
    pub roles: RolePolicy,
}

impl Server {
    /// Serves until `shutdown`, which callers trigger once the machines have ended
    /// ([`Machines::end_all`]): then it takes no more connections, gives those that there are five seconds, and closes
    /// them. From [`Machines::drain`] on, creating machines ends in UNAVAILABLE.
    ///
    /// # Errors
    /// Those of the transport; none is known.
    pub async fn serve(
        self,
        listener: UnixListener,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let close = CancellationToken::new();
        let metrics = self.machines.metrics().clone();
        let door = Door::new(listener, self.roles, close.clone(), metrics.clone());
        let incoming = stream::unfold(door, |door| async {
            let connection = door.next().await;
            Some((Ok::<_, std::io::Error>(connection), door))
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut names = vec![SERVICE_NAME];
        names.extend(self.workflows.as_ref().map(|_| WORKFLOWS_SERVICE_NAME));
        for name in &names {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        let host = HostServer::new(HostService::new(self.machines.clone(), self.workflows.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES);
        let service = MachinesService::new(self.machines, self.scratch, shutdown.clone());
        let machines = MachinesServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
        let images =
            ImagesServer::new(ImagesService::new(self.images)).max_decoding_message_size(MAX_REQUEST_BYTES);
        let workflows = self.workflows.map(|workflows| {
            WorkflowsServer::new(WorkflowsService::new(workflows))
                .max_decoding_message_size(MAX_REQUEST_BYTES)
        });
        // Both of its names: tools of different ages ask for one or the other.
        let (v1, v1alpha) = (reflection().build_v1(), reflection().build_v1alpha());
        let (v1, v1alpha) = (v1.expect(OUR_OWN_FILES), v1alpha.expect(OUR_OWN_FILES));
        let v1 = v1.max_decoding_message_size(MAX_REFLECTION_REQUEST_BYTES);
        let v1alpha = v1alpha.max_decoding_message_size(MAX_REFLECTION_REQUEST_BYTES);
        let health_service = health_service.max_decoding_message_size(MAX_HEALTH_REQUEST_BYTES);
        let bounds = Bounds::new();
        let mut serving =
            Box::pin(
                tonic::transport::Server::builder()
                    .initial_stream_window_size(CALL_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
                    .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
                    .layer(Measured::new(metrics))
                    .layer(Identify)
                    .layer(Deadline)
                    .add_service(Gate::new(health_service, &bounds))
                    .add_optional_service(workflows.map(|workflows| {
                        InterceptedService::new(Gate::new(workflows, &bounds), members_only)
                    }))
                    .add_service(InterceptedService::new(Gate::new(v1, &bounds), members_only))
                    .add_service(InterceptedService::new(Gate::new(v1alpha, &bounds), members_only))
                    .add_service(InterceptedService::new(Gate::new(machines, &bounds), operators_only))
                    .add_service(InterceptedService::new(Gate::new(images, &bounds), operators_only))
                    .add_service(InterceptedService::new(Gate::new(host, &bounds), operators_only))
                    .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned()),
            );
        tokio::select! {
            result = &mut serving => return result,
            () = shutdown.cancelled() => {}
        }
        for name in names.into_iter().chain([""]) {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        if let Ok(result) = timeout(GOODBYE_BOUND, &mut serving).await {
            return result;
        }
        debug!("closing the connections that have not ended by themselves");
        close.cancel();
        serving.await
    }
}

/// A service's name, with room.
const MAX_HEALTH_REQUEST_BYTES: usize = 4 << 10;

/// Compiled into this program by the build, and used by every test of reflection.
const OUR_OWN_FILES: &str = "the descriptors are well-formed";

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(creel_proto::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Runs before a message is read.
fn members_only(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Caller>().map(|caller| caller.role) {
        Some(Role::Operator | Role::Spindle) => Ok(request),
        Some(Role::Stranger) | None => Err(Status::permission_denied(format!(
            "your user may not use this creeld; join group `{OPERATOR_GROUP}`, or `{SPINDLE_GROUP}` for the workflow \
             level alone (as root: `usermod -aG {SPINDLE_GROUP} USER`) and log in again"
        ))),
    }
}

/// Runs before a message is read.
fn operators_only(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Caller>().map(|caller| caller.role) {
        Some(Role::Operator) => Ok(request),
        Some(Role::Spindle) => Err(Status::permission_denied(format!(
            "your user has the workflow level only; for the machine level, join group `{OPERATOR_GROUP}` (as root: \
             `usermod -aG {OPERATOR_GROUP} USER`) and log in again"
        ))),
        Some(Role::Stranger) | None => Err(Status::permission_denied(format!(
            "your user may not use this creeld; join group `{OPERATOR_GROUP}` (as root: `usermod -aG {OPERATOR_GROUP} \
             USER`) and log in again"
        ))),
    }
}
