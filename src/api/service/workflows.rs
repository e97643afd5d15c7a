//! The calls of `creel.v1.Workflows`. None owns what it asks for: a call that is dropped ends its wait.

mod lines;
mod logs;

use std::sync::Arc;

use creel_proto::v1 as wire;
use creel_proto::v1::{slot_event, workflow_setup_event, workflows_server};
use futures_util::stream::try_unfold;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::Span;

use super::{Events, place};
use crate::api::connection::Caller;
use crate::api::convert::log::stream_place;
use crate::api::convert::microseconds;
use crate::api::convert::workflow as convert;
use crate::api::places::{Places, Quota};
use crate::api::role::Role;
use crate::api::status::{self, Wanted};
use crate::engine::Secret;
use crate::runtime::SetupEvent;
use crate::spans;
use crate::workflow::StepOrder;
use crate::workflows::{Asker, Found, Key, Name, NewWorkflow, Refusal, SetupSaid, SlotSaid, View, Workflows};

/// Calls that read logs: each has buffers of half a MiB.
const READERS: Quota =
    Quota { all: 320, reserved: 32, per_uid: 64, spindles: 256, per_spindle: 192, guests: 0, per_guest: 0 };

/// A listing is smaller than what gRPC's libraries take without being told to (4 MiB).
const MAX_LISTING_BYTES: usize = 3 << 20;

#[derive(Debug)]
pub(in crate::api) struct WorkflowsService {
    workflows: Workflows,
    readers: Arc<Places>,
    /// A list reads every record there is: one at a time.
    listing: Semaphore,
}

impl WorkflowsService {
    pub(in crate::api) fn new(workflows: Workflows) -> Self {
        Self { workflows, readers: Places::new(READERS), listing: Semaphore::new(1) }
    }

    /// The workflow that a call names, as far as its caller may know of it.
    async fn found(
        &self,
        asker: Asker,
        key: Option<wire::WorkflowKey>,
        wanted: Wanted,
    ) -> Result<Found, Status> {
        let name = convert::name(key).map_err(status::malformed)?;
        note(&name);
        let found = self.workflows.find(asker, &name).await;
        let found = found.map_err(|refusal| status::refused(&refusal, wanted))?;
        let machine = match &found {
            Found::Here(workflow) => workflow.machine_id(),
            Found::Past(view) => &view.machine_id,
        };
        Span::current().record("machine", machine.as_str());
        Ok(found)
    }
}

/// Names the workflow in the call's span.
fn note(name: &Name) {
    Span::current()
        .record("tenant", tracing::field::display(spans::one(&name.tenant)))
        .record("workflow", name.workflow_id.as_str());
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| status::internal("the connection has no credentials"))
}

fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let caller = caller(request)?;
    Ok(Asker { uid: caller.credentials.uid, operator: caller.role == Role::Operator })
}

/// For the calls that make a workflow go on, with secrets: nobody's but the caller's own, whatever its role.
fn driver<T>(request: &Request<T>) -> Result<Asker, Status> {
    Ok(Asker { operator: false, ..asker(request)? })
}

/// Of a workflow of which the record is left.
fn past(view: &View, wanted: Wanted) -> Status {
    let verdict = view.verdict.clone();
    match verdict {
        Some(verdict) => status::refused(&Refusal::Over(Box::new(verdict)), wanted),
        None => status::internal("an ended workflow has no verdict"),
    }
}

#[tonic::async_trait]
impl workflows_server::Workflows for WorkflowsService {
    type AcquireSlotStream = Events<wire::SlotEvent>;
    type SetupStream = Events<wire::WorkflowSetupEvent>;
    type LogsStream = Events<wire::LogEvent>;

    async fn timeout(
        &self,
        _request: Request<wire::TimeoutRequest>,
    ) -> Result<Response<wire::TimeoutResponse>, Status> {
        let timeout_us = microseconds(self.workflows.timeout());
        Ok(Response::new(wire::TimeoutResponse { timeout_us }))
    }

    async fn init(
        &self,
        request: Request<wire::InitRequest>,
    ) -> Result<Response<wire::InitResponse>, Status> {
        let creator_uid = asker(&request)?.uid;
        let message = request.into_inner();
        // Of the message as it was understood: fields in order, unknown ones left out.
        let digest = Sha256::digest(message.encode_to_vec()).into();
        let request = new_workflow(message, creator_uid, digest).map_err(status::malformed)?;
        note(&request.key.name);
        let view = self.workflows.init(request).await.map_err(|error| status::init_failed(&error))?;
        Ok(Response::new(wire::InitResponse { workflow: Some(view.into()) }))
    }

    async fn acquire_slot(
        &self,
        request: Request<wire::AcquireSlotRequest>,
    ) -> Result<Response<Self::AcquireSlotStream>, Status> {
        let (asker, place) = (driver(&request)?, place(&request)?);
        let wire::AcquireSlotRequest { workflow, no_wait } = request.into_inner();
        let workflow = match self.found(asker, workflow, Wanted::Machine).await? {
            Found::Here(workflow) => workflow,
            Found::Past(view) => return Err(past(&view, Wanted::Machine)),
        };
        let refused = |refusal| status::refused(&refusal, Wanted::Machine);
        let waiting = workflow.acquire_slot(!no_wait).map_err(refused)?;
        let events = try_unfold((waiting, place), move |(mut waiting, place)| async move {
            let event = match waiting.next().await.map_err(refused)? {
                None => return Ok(None),
                Some(SlotSaid::Ahead(ahead)) => {
                    slot_event::Event::Ahead(u32::try_from(ahead).unwrap_or(u32::MAX))
                }
                Some(SlotSaid::Acquired) => slot_event::Event::Acquired(wire::Empty {}),
            };
            Ok(Some((wire::SlotEvent { event: Some(event) }, (waiting, place))))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn setup(
        &self,
        request: Request<wire::WorkflowSetupRequest>,
    ) -> Result<Response<Self::SetupStream>, Status> {
        let (asker, place) = (driver(&request)?, place(&request)?);
        let workflow = match self.found(asker, request.into_inner().workflow, Wanted::Machine).await? {
            Found::Here(workflow) => workflow,
            Found::Past(view) => return Err(past(&view, Wanted::Machine)),
        };
        let refused = |refusal| status::refused(&refusal, Wanted::Machine);
        let setting_up = workflow.set_up().map_err(refused)?;
        let events = try_unfold((setting_up, place), move |(mut setting_up, place)| async move {
            let said = setting_up.next().await.map_err(refused)?;
            Ok(said.map(|said| (setup_event(said), (setting_up, place))))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn run_step(
        &self,
        request: Request<wire::RunStepRequest>,
    ) -> Result<Response<wire::RunStepResponse>, Status> {
        let asker = driver(&request)?;
        let wire::RunStepRequest { workflow, step, secrets } = request.into_inner();
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        let refused = |refusal| status::refused(&refusal, Wanted::Step);
        let verdict = match self.found(asker, workflow, Wanted::Step).await? {
            Found::Here(workflow) => {
                let secrets = secrets.into_iter().map(|secret| (secret.name, Secret::new(secret.value)));
                workflow.run_step(index, secrets.collect()).await.map_err(refused)?
            }
            Found::Past(view) => {
                let count = view.steps.len();
                let step = view.steps.get(index);
                let step = step.ok_or_else(|| refused(StepOrder::Unknown { index, count }.into()))?;
                step.verdict.clone().ok_or_else(|| past(&view, Wanted::Step))?
            }
        };
        Ok(Response::new(wire::RunStepResponse { verdict: Some(verdict.into()) }))
    }

    async fn cancel(
        &self,
        request: Request<wire::CancelWorkflowRequest>,
    ) -> Result<Response<wire::CancelWorkflowResponse>, Status> {
        let asker = asker(&request)?;
        let view = match self.found(asker, request.into_inner().workflow, Wanted::Step).await? {
            Found::Here(workflow) => workflow.cancel().await,
            Found::Past(view) => *view,
        };
        Ok(Response::new(wire::CancelWorkflowResponse { workflow: Some(view.into()) }))
    }

    async fn destroy(
        &self,
        request: Request<wire::DestroyWorkflowRequest>,
    ) -> Result<Response<wire::DestroyWorkflowResponse>, Status> {
        let asker = asker(&request)?;
        let view = match self.found(asker, request.into_inner().workflow, Wanted::Step).await? {
            Found::Here(workflow) => {
                let destroyed = workflow.destroy().await;
                destroyed.map_err(|refusal| status::refused(&refusal, Wanted::Step))?
            }
            Found::Past(view) => *view,
        };
        Ok(Response::new(wire::DestroyWorkflowResponse { workflow: Some(view.into()) }))
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (asker, place, caller) = (asker(&request)?, place(&request)?, caller(&request)?);
        let wire::LogsRequest { workflow, from_record, follow, lines, stream } = request.into_inner();
        let stream = stream.as_ref().map(stream_place).transpose().map_err(status::malformed)?;
        if stream.is_some() && (lines || from_record != 0) {
            return Err(Status::invalid_argument(
                "`stream` has an offset of its own; leave out `from_record` and `lines`",
            ));
        }
        let found = self.found(asker, workflow, Wanted::Step).await?;
        let reader = self.readers.take(caller.credentials.uid, caller.standing);
        let reader = reader
            .map_err(|why| Status::resource_exhausted(format!("too many calls that read logs: {why}")))?;
        let live = match &found {
            Found::Here(workflow) => workflow.log(from_record),
            Found::Past(_) => None,
        };
        let follower = match live {
            Some(live) => Ok(live),
            None => self.workflows.past_log(found.machine_id(), from_record).await,
        };
        let follower = follower.map_err(|refusal| status::refused(&refusal, Wanted::Step))?;
        let reading = logs::Reading::new(follower, stream, follow, lines);
        let events = try_unfold((reading, place, reader), |(mut reading, place, reader)| async move {
            let event = reading.next().await?;
            Ok(event.map(|event| (event, (reading, place, reader))))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get(
        &self,
        request: Request<wire::GetWorkflowRequest>,
    ) -> Result<Response<wire::GetWorkflowResponse>, Status> {
        let asker = asker(&request)?;
        let view = match self.found(asker, request.into_inner().workflow, Wanted::Step).await? {
            Found::Here(workflow) => workflow.view(),
            Found::Past(view) => *view,
        };
        Ok(Response::new(wire::GetWorkflowResponse { workflow: Some(view.into()) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListWorkflowsRequest>,
    ) -> Result<Response<wire::ListWorkflowsResponse>, Status> {
        let asker = asker(&request)?;
        let wire::ListWorkflowsRequest { tenant, ended } = request.into_inner();
        let tenant = tenant.map(convert::tenant).transpose().map_err(status::malformed)?;
        // Never closed.
        let _turn = self.listing.acquire().await.map_err(status::internal)?;
        let views = self.workflows.list(asker, tenant.as_ref(), ended).await;
        let views = views.map_err(|refusal| status::refused(&refusal, Wanted::Step))?;
        let mut room = MAX_LISTING_BYTES;
        let fits = |workflow: &wire::Workflow| {
            // A tag and a length before each.
            let size = workflow.encoded_len() + 8;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let mut workflows: Vec<_> = views.into_iter().rev().map(convert::listed).filter(fits).collect();
        workflows.reverse();
        Ok(Response::new(wire::ListWorkflowsResponse { workflows }))
    }
}

fn new_workflow(
    message: wire::InitRequest,
    creator_uid: u32,
    digest: crate::workflows::Digest,
) -> Result<NewWorkflow, crate::api::Malformed> {
    let (trigger, facts) = convert::trigger(message.trigger, message.pipeline_id)?;
    Ok(NewWorkflow {
        key: Key { name: convert::name(message.workflow)?, creator_uid },
        digest,
        file_name: convert::file_name(message.file_name)?,
        manifest: convert::manifest(message.manifest)?,
        trigger,
        facts,
        timeout: convert::timeout(message.timeout_us)?,
    })
}

fn setup_event(said: SetupSaid) -> wire::WorkflowSetupEvent {
    use workflow_setup_event::Event;
    let phase = |phase| wire::Phase::from(phase).into();
    let event = match said {
        SetupSaid::Progress(SetupEvent::Started(started)) => {
            Event::PhaseStarted(wire::PhaseStarted { phase: phase(started) })
        }
        SetupSaid::Progress(SetupEvent::Finished(finished, took)) => {
            let took_us = microseconds(took);
            Event::PhaseFinished(wire::PhaseFinished { phase: phase(finished), took_us })
        }
        SetupSaid::Progress(SetupEvent::Notice(text)) => Event::Notice(text),
        SetupSaid::Ready(view) => Event::Ready((*view).into()),
    };
    wire::WorkflowSetupEvent { event: Some(event) }
}
