//! The workflow level: client and server over a real socket.

mod ends;
mod life;
mod logs;
mod refusals;
mod repeats;
mod restart;
mod rights;
mod slots;

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::workflows_client::WorkflowsClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::raw;
use crate::api::status::detail_in;
use crate::api::testing::World;
use crate::runtime::fake::{FakeRuntime, ScriptedExec, ScriptedSetup};
use crate::runtime::{Outcome, Verdict};

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(10);

const FILE: &str = "
engine: microvm
when:
  - event: manual
clone:
  skip: true
steps:
  - name: one
    command: one
  - name: two
    command: two
";

type Client = WorkflowsClient<Channel>;

fn world(setup: ScriptedSetup, execs: impl IntoIterator<Item = ScriptedExec>) -> World {
    let world = World::new(setup, execs);
    world.put_image();
    world
}

async fn client(world: &World) -> Client {
    WorkflowsClient::new(raw(world).await)
}

fn tenant() -> wire::WorkflowTenant {
    wire::WorkflowTenant { owner: "did:plc:ann".into(), repo_did: "did:plc:repo".into() }
}

fn key(id: &str) -> Option<wire::WorkflowKey> {
    Some(wire::WorkflowKey { tenant: Some(tenant()), workflow_id: id.into() })
}

fn request(id: &str) -> wire::InitRequest {
    let kind = Some(wire::trigger::Kind::Manual(wire::ManualTrigger::default()));
    wire::InitRequest {
        workflow: key(id),
        file_name: "test.yml".into(),
        manifest: FILE.into(),
        trigger: Some(wire::Trigger { kind, repository: None }),
        pipeline_id: "at://did:plc:ann/sh.tangled.pipeline/1".into(),
        timeout_us: None,
    }
}

async fn init(client: &mut Client, id: &str) -> wire::Workflow {
    client.init(request(id)).await.unwrap().into_inner().workflow.unwrap()
}

async fn init_for(client: &mut Client, id: &str, time: Duration) -> wire::Workflow {
    let timeout_us = Some(u64::try_from(time.as_micros()).unwrap());
    let request = wire::InitRequest { timeout_us, ..request(id) };
    client.init(request).await.unwrap().into_inner().workflow.unwrap()
}

/// All that is said, and how it ends.
async fn acquire(client: &mut Client, id: &str, no_wait: bool) -> (Vec<Option<u32>>, Result<(), Status>) {
    let mut said = Vec::new();
    let request = wire::AcquireSlotRequest { workflow: key(id), no_wait };
    let mut events = match client.acquire_slot(request).await {
        Ok(events) => events.into_inner(),
        Err(status) => return (said, Err(status)),
    };
    loop {
        match events.message().await {
            Ok(Some(event)) => said.push(match event.event.unwrap() {
                wire::slot_event::Event::Ahead(ahead) => Some(ahead),
                wire::slot_event::Event::Acquired(_) => None,
            }),
            Ok(None) => return (said, Ok(())),
            Err(status) => return (said, Err(status)),
        }
    }
}

async fn set_up(client: &mut Client, id: &str) -> Result<Vec<wire::workflow_setup_event::Event>, Status> {
    let mut events = client.setup(wire::WorkflowSetupRequest { workflow: key(id) }).await?.into_inner();
    let mut said = Vec::new();
    while let Some(event) = events.message().await? {
        said.push(event.event.unwrap());
    }
    Ok(said)
}

async fn step(client: &mut Client, id: &str, step: u32) -> Result<Outcome, Status> {
    step_with(client, id, step, &[]).await
}

async fn step_with(
    client: &mut Client,
    id: &str,
    step: u32,
    secrets: &[(&str, &str)],
) -> Result<Outcome, Status> {
    let secret =
        |(name, value): &(&str, &str)| wire::Variable { name: (*name).into(), value: (*value).into() };
    let secrets = secrets.iter().map(secret).collect();
    let request = wire::RunStepRequest { workflow: key(id), step, secrets };
    let verdict = client.run_step(request).await?.into_inner().verdict.unwrap();
    Ok(Verdict::try_from(verdict).unwrap().outcome)
}

async fn cancel(client: &mut Client, id: &str) -> wire::Workflow {
    let request = wire::CancelWorkflowRequest { workflow: key(id) };
    timeout(SOON, client.cancel(request)).await.unwrap().unwrap().into_inner().workflow.unwrap()
}

async fn destroy(client: &mut Client, id: &str) -> wire::Workflow {
    let request = wire::DestroyWorkflowRequest { workflow: key(id) };
    timeout(SOON, client.destroy(request)).await.unwrap().unwrap().into_inner().workflow.unwrap()
}

async fn get(client: &mut Client, id: &str) -> wire::Workflow {
    let request = wire::GetWorkflowRequest { workflow: key(id) };
    client.get(request).await.unwrap().into_inner().workflow.unwrap()
}

async fn list(client: &mut Client, ended: bool) -> Vec<wire::Workflow> {
    let request = wire::ListWorkflowsRequest { tenant: None, ended };
    client.list(request).await.unwrap().into_inner().workflows
}

/// The log as lines: `step kind content`.
async fn lines(client: &mut Client, id: &str, from_record: u64, follow: bool) -> Vec<String> {
    let request = wire::LogsRequest { workflow: key(id), from_record, follow, lines: true, stream: None };
    let mut events = client.logs(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(event) = timeout(SOON, events.message()).await.unwrap().unwrap() {
        told.push(match event.event.unwrap() {
            wire::log_event::Event::Line(line) => {
                let mark = [line.kind.as_str(), &line.step_status].join(" ");
                format!("{} {} {}", line.step_id, mark.trim_end(), line.content)
            }
            other => format!("{other:?}"),
        });
    }
    told
}

/// Waits until `reached`, which somebody else brings about.
async fn until(client: &mut Client, id: &str, reached: impl Fn(&wire::Workflow) -> bool) -> wire::Workflow {
    let waiting = async {
        loop {
            let workflow = get(client, id).await;
            if reached(&workflow) {
                return workflow;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect("it does not come to that")
}

fn outcome(workflow: &wire::Workflow) -> Option<Outcome> {
    workflow.verdict.clone().map(|verdict| Verdict::try_from(verdict).unwrap().outcome)
}

/// The verdict in a status's details.
fn verdict_in(status: &Status) -> Option<Outcome> {
    let verdict: wire::Verdict = detail_in(status, "creel.v1.Verdict")?;
    Some(Verdict::try_from(verdict).unwrap().outcome)
}
