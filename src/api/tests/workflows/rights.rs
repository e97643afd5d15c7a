//! Whose a workflow is: two users of group creel-spindle, by the kernel's word.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::*;
use crate::api::{RolePolicy, WORKFLOWS_SERVICE_NAME};

const ANN: u32 = 30_001;
const BOB: u32 = 30_002;

/// All of root's group, which threads of this test are in whatever their uid, are spindles; root operates.
fn roles() -> RolePolicy {
    let gid = rustix::process::getegid().as_raw();
    RolePolicy { operator_uids: vec![0], operator_gid: None, spindle_gid: Some(gid) }
}

async fn client_as(world: &World, uid: u32) -> Client {
    WorkflowsClient::new(world.channel_as(uid).await)
}

fn world_of_two(execs: usize) -> World {
    let execs = vec![ScriptedExec::exits(0); execs];
    let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, execs), roles());
    world.put_image();
    world
}

fn of(owner: &str) -> wire::WorkflowTenant {
    wire::WorkflowTenant { owner: owner.into(), repo_did: "did:plc:repo".into() }
}

/// The codes of every call that names this workflow, as if it were one's own.
async fn every_call(client: &mut Client, key: wire::WorkflowKey) -> Vec<Code> {
    let workflow = Some(key);
    let code = |status: Status| status.code();
    let acquire = wire::AcquireSlotRequest { workflow: workflow.clone(), no_wait: true };
    let logs = wire::LogsRequest {
        workflow: workflow.clone(),
        from_record: 0,
        follow: false,
        lines: false,
        stream: None,
    };
    let step = wire::RunStepRequest { workflow: workflow.clone(), step: 0, secrets: Vec::new() };
    vec![
        client.acquire_slot(acquire).await.map(drop).map_err(code).unwrap_err(),
        client
            .setup(wire::WorkflowSetupRequest { workflow: workflow.clone() })
            .await
            .map(drop)
            .map_err(code)
            .unwrap_err(),
        client.run_step(step).await.map(drop).map_err(code).unwrap_err(),
        client
            .cancel(wire::CancelWorkflowRequest { workflow: workflow.clone() })
            .await
            .map(drop)
            .map_err(code)
            .unwrap_err(),
        client
            .destroy(wire::DestroyWorkflowRequest { workflow: workflow.clone() })
            .await
            .map(drop)
            .map_err(code)
            .unwrap_err(),
        client.logs(logs).await.map(drop).map_err(code).unwrap_err(),
        client.get(wire::GetWorkflowRequest { workflow }).await.map(drop).map_err(code).unwrap_err(),
    ]
}

#[tokio::test]
async fn what_another_user_made_does_not_exist() {
    let world = world_of_two(4);
    let (mut ann, mut bob) = (client_as(&world, ANN).await, client_as(&world, BOB).await);
    let planned = init(&mut ann, "w").await;
    assert_eq!(planned.creator_uid, ANN);
    let key = planned.key.clone().unwrap();
    let nothing = vec![Code::NotFound; 7];
    // Before it runs, while it runs, and once it has ended.
    assert_eq!(every_call(&mut bob, key.clone()).await, nothing);
    set_up(&mut ann, "w").await.unwrap();
    assert_eq!(every_call(&mut bob, key.clone()).await, nothing);
    let tenants = [None, Some(tenant()), Some(of("did:plc:bob"))];
    for (tenant, ended) in tenants.iter().flat_map(|tenant| [(tenant.clone(), false), (tenant.clone(), true)])
    {
        let listed = bob.list(wire::ListWorkflowsRequest { tenant, ended }).await.unwrap().into_inner();
        assert_eq!(listed.workflows, []);
    }
    assert_eq!(step(&mut ann, "w", 0).await.unwrap(), Outcome::Exited { code: 0 }, "it goes on");
    // Bob's own of the same name, for the same tenant, is another one.
    let own = init(&mut bob, "w").await;
    assert_eq!((own.creator_uid, own.machine_id != planned.machine_id), (BOB, true));
    destroy(&mut bob, "w").await;
    assert_eq!(get(&mut ann, "w").await.state(), wire::WorkflowState::Running, "and ends alone");
    destroy(&mut ann, "w").await;
    let past = world.restarted(FakeRuntime::new(ScriptedSetup::Ready, []));
    let (mut ann, mut bob) = (client_as(&past, ANN).await, client_as(&past, BOB).await);
    assert_eq!(get(&mut ann, "w").await.machine_id, planned.machine_id);
    assert_eq!(get(&mut bob, "w").await.machine_id, own.machine_id);
    let listed: Vec<_> =
        list(&mut bob, true).await.into_iter().map(|workflow| workflow.creator_uid).collect();
    assert_eq!(listed, [BOB]);
}

#[tokio::test]
async fn another_tenants_does_not_exist_even_for_its_own_user() {
    let world = world_of_two(0);
    let mut ann = client_as(&world, ANN).await;
    init(&mut ann, "w").await;
    let others =
        [of("did:plc:bob"), wire::WorkflowTenant { repo_did: String::new(), ..tenant() }, of("DID:PLC:ANN")];
    for tenant in others {
        let key = wire::WorkflowKey { tenant: Some(tenant.clone()), workflow_id: "w".into() };
        assert_eq!(every_call(&mut ann, key).await, vec![Code::NotFound; 7], "{tenant:?}");
        let listed =
            ann.list(wire::ListWorkflowsRequest { tenant: Some(tenant), ended: true }).await.unwrap();
        assert_eq!(listed.into_inner().workflows, []);
    }
    let own = ann.list(wire::ListWorkflowsRequest { tenant: Some(tenant()), ended: false }).await.unwrap();
    assert_eq!(own.into_inner().workflows.len(), 1);
}

#[tokio::test]
async fn an_operator_finds_everybodys_and_its_own_first() {
    let world = world_of_two(0);
    let (mut ann, mut bob) = (client_as(&world, ANN).await, client_as(&world, BOB).await);
    let mut root = client(&world).await;
    init(&mut ann, "w").await;
    assert_eq!(get(&mut root, "w").await.creator_uid, ANN);
    init(&mut bob, "w").await;
    let both = root.get(wire::GetWorkflowRequest { workflow: key("w") }).await.unwrap_err();
    assert_eq!(both.code(), Code::FailedPrecondition, "which of the two?");
    let uids: Vec<_> =
        list(&mut root, false).await.into_iter().map(|workflow| workflow.creator_uid).collect();
    assert_eq!(uids, [ANN, BOB]);
    assert_eq!(init(&mut root, "w").await.creator_uid, 0);
    assert_eq!(destroy(&mut root, "w").await.creator_uid, 0);
    assert_eq!(get(&mut ann, "w").await.state(), wire::WorkflowState::Pending);
}

#[tokio::test]
async fn strangers_have_neither_workflows_nor_reflection_and_spindles_no_machines() {
    let nobody = RolePolicy { operator_uids: vec![0], operator_gid: None, spindle_gid: None };
    let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), nobody);
    let channel = world.channel_as(ANN).await;
    let mut stranger = WorkflowsClient::new(channel.clone());
    let refused = stranger.init(request("w")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    insta::assert_snapshot!(refused.message(), @"your user may not use this creeld; join group `creel`, or `creel-spindle` for the workflow level alone (as root: `usermod -aG creel-spindle USER`) and log in again");
    assert_eq!(every_call(&mut stranger, key("w").unwrap()).await, vec![Code::PermissionDenied; 7]);
    assert_eq!(services(channel.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let service = WORKFLOWS_SERVICE_NAME.to_owned();
    let health = HealthClient::new(channel).check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(health.status, tonic_health::ServingStatus::Serving as i32);

    let world = world_of_two(0);
    let channel = world.channel_as(ANN).await;
    let mut machines = wire::machines_client::MachinesClient::new(channel.clone());
    let refused = machines.list(wire::ListRequest { ended: true }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let services = services(channel).await.unwrap();
    assert!(services.iter().any(|name| name == WORKFLOWS_SERVICE_NAME), "{services:?}");
}

/// As `grpcurl list` asks.
async fn services(channel: Channel) -> Result<Vec<String>, Status> {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(futures_util::stream::iter([request])).await?;
    let answer = answers.into_inner().message().await?.unwrap().message_response.unwrap();
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{answer:?}") };
    Ok(listed.service.into_iter().map(|service| service.name).collect())
}
