//! Who may do what, by the kernel's word.

use std::process::Command;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{DETACHED, PLAIN, program, raw};
use crate::api::testing::{World, new_machine, operators};
use crate::api::{ApiError, Client, RolePolicy, SERVICE_NAME};
use crate::runtime::fake::{FakeRuntime, ScriptedSetup};
use crate::runtime::{DestroyMode, MachineId, ShellRequest};

/// What somebody without rights is told by each call.
async fn refusals(client: &Client) -> Vec<String> {
    let id = MachineId::random().unwrap();
    let refusals = [
        client.list(true).await.map(drop),
        client.destroy(&id, DestroyMode::Kill).await.map(drop),
        client.inspect_image("tiny").await.map(drop),
        client.list_images().await.map(drop),
        client.host().await.map(drop),
        client.inspect(&id, None).await.map(drop),
        client.stats(&[], None).await.map(drop),
        client.console(&id, true).await.map(drop),
        client.events(true, None).await.map(drop),
        client.create(new_machine(DETACHED), None).await.map(drop),
        client.exec(&id, program().into(), PLAIN).await.map(drop),
        client.signal(&id, "x", 15).await,
        client.shell(&id, ShellRequest::default()).await.map(drop),
    ];
    refusals
        .into_iter()
        .map(|refusal| match refusal {
            Err(ApiError::Denied(text)) => text,
            other => panic!("{other:?} instead of a denial"),
        })
        .collect()
}

#[tokio::test]
async fn who_has_no_rights_is_told_the_remedy_and_may_ask_for_health() {
    let gid = rustix::process::getegid().as_raw();
    let nobody = RolePolicy { operator_uids: Vec::new(), operator_gid: None, spindle_gid: None };
    let spindle = RolePolicy { spindle_gid: Some(gid), ..nobody.clone() };
    let mut told = Vec::new();
    for roles in [nobody, spindle] {
        let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), roles);
        let mut texts = refusals(&world.client().await).await;
        texts.dedup();
        told.append(&mut texts);
        let mut health = HealthClient::new(raw(&world).await);
        for service in ["", SERVICE_NAME] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let status = health.check(request).await.unwrap().into_inner().status;
            assert_eq!(status, tonic_health::ServingStatus::Serving as i32);
        }
        assert_eq!(world.journal.entries(), Vec::<String>::new());
    }
    insta::assert_snapshot!(told.join("\n"), @"
    your user may not use this creeld; join group `creel` (as root: `usermod -aG creel USER`) and log in again
    your user has the workflow level only; for the machine level, join group `creel` (as root: `usermod -aG creel USER`) and log in again
    ");
}

const STRANGERS_SOCKET: &str = "CREEL_TEST_STRANGERS_SOCKET";

/// The kernel's word on another user; only root can be one.
#[tokio::test]
async fn another_user_is_refused_and_a_member_of_the_group_is_not() {
    use std::os::unix::fs::PermissionsExt;
    assert!(rustix::process::geteuid().is_root(), "this test must run as root, to become another user");
    let roles = RolePolicy { operator_gid: Some(71_234), ..operators() };
    let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), roles);
    for path in [world.directory.path().to_owned(), world.socket()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    // As `nobody`, who may not read the directory that the test program lies in.
    let program = world.directory.path().join("client");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let socket = world.socket();
    let ask = |groups: &'static str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", groups]).arg(&program);
        command.args(["--ignored", "--exact", "api::tests::rights::as_another_user", "--nocapture"]);
        command.env(STRANGERS_SOCKET, &socket).current_dir("/");
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for (groups, said) in [("--clear-groups", "denied"), ("--groups=71234", "allowed")] {
        let output = ask(groups).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&format!("<{said}>")), "{groups}: {output:?}");
    }
}

#[tokio::test]
#[ignore = "the other user's part of the test above"]
async fn as_another_user() {
    let socket = std::env::var_os(STRANGERS_SOCKET).expect("run by the test above");
    let client = Client::connect(socket.as_ref()).await.unwrap();
    match client.list(false).await {
        Ok(_) => println!("<allowed>"),
        Err(ApiError::Denied(_)) => println!("<denied>"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn one_stranger_too_many_is_hung_up_on() {
    let world = World::with_roles(
        FakeRuntime::new(ScriptedSetup::Ready, []),
        RolePolicy { operator_uids: Vec::new(), operator_gid: None, spindle_gid: None },
    );
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(raw(&world).await);
    }
    let mut health = HealthClient::new(held.pop().unwrap());
    health.check(HealthCheckRequest::default()).await.unwrap();
    // One too many is closed at once: it reads the end.
    let mut one_more = tokio::net::UnixStream::connect(world.socket()).await.unwrap();
    let mut buffer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut one_more, &mut buffer).await.unwrap();
    assert!(buffer.is_empty());
}
