//! What a caller may take of the daemon.

use std::path::Path;
use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::{DETACHED, PLAIN, named, program, raw};
use crate::api::testing::{World, new_machine};
use crate::api::{ApiError, Client, ConnectError, RolePolicy};
use crate::runtime::fake::{FakeRuntime, ScriptedExec, ScriptedSetup};

/// Far more than anything here takes, and less than the bounds that a caller could be left to.
const SOON: Duration = Duration::from_secs(5);

/// How many connections this user can hold that the daemon does not close.
async fn held(socket: &Path) -> usize {
    let mut held = Vec::new();
    loop {
        let mut connection = UnixStream::connect(socket).await.unwrap();
        // Settings, or the end.
        if connection.read(&mut [0; 64]).await.unwrap() == 0 {
            return held.len();
        }
        held.push(connection);
    }
}

#[tokio::test]
async fn one_user_holds_few_connections_and_root_as_many_as_there_are() {
    let gid = rustix::process::getegid().as_raw();
    let stranger = RolePolicy { operator_uids: Vec::new(), operator_gid: None, spindle_gid: None };
    let spindle = RolePolicy { spindle_gid: Some(gid), ..stranger.clone() };
    let operator = RolePolicy { operator_gid: Some(gid), ..stranger.clone() };
    let root = crate::api::testing::operators();
    for (roles, count) in [(stranger, 4), (spindle, 32), (operator, 32), (root, 256)] {
        let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), roles.clone());
        assert_eq!(timeout(SOON, held(&world.socket())).await.unwrap(), count, "{roles:?}");
    }
}

#[tokio::test]
async fn a_connection_has_128_calls_at_a_time() {
    let world = World::new(ScriptedSetup::Ready, vec![ScriptedExec::hangs(); 130]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let mut execs = Vec::new();
    for _ in 0..128 {
        execs.push(timeout(SOON, client.exec(&id, program().into(), PLAIN)).await.unwrap().unwrap());
    }
    let one_more = timeout(Duration::from_millis(300), client.exec(&id, program().into(), PLAIN));
    assert!(one_more.await.is_err(), "it waits at the caller's side");
    execs.pop();
    timeout(SOON, client.exec(&id, program().into(), PLAIN)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_that_does_not_end_is_ended() {
    use wire::{CreateRequest, CreateStart, create_request};
    let gid = rustix::process::getegid().as_raw();
    let roles = RolePolicy { operator_uids: Vec::new(), operator_gid: Some(gid), spindle_gid: None };
    let world = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), roles);
    let client = MachinesClient::new(raw(&world).await);
    let trickle = async |limit: Duration| {
        let start = CreateStart {
            image: "tiny".into(),
            has_source: true,
            setup_timeout_us: Some(u64::try_from(limit.as_micros()).unwrap()),
            ..CreateStart::default()
        };
        let start = CreateRequest { message: Some(create_request::Message::Start(start)) };
        let messages = stream::iter([start]).chain(stream::pending());
        client.clone().create(messages).await.unwrap().into_inner()
    };
    let mut two = [trickle(Duration::from_secs(2)).await, trickle(Duration::from_secs(2)).await];
    // The third of a user has no turn, though it has all that it needs.
    let mut whole = new_machine(DETACHED);
    whole.setup_timeout = Some(Duration::from_millis(300));
    let source = crate::host::tmpfile::anonymous_file(world.directory.path()).unwrap();
    let mut third =
        world.client().await.create(whole.clone(), Some(source.try_clone().unwrap())).await.unwrap();
    let ended = timeout(SOON, third.next()).await.unwrap();
    assert!(matches!(ended, Err(ApiError::Setup(_))), "{ended:?}");
    for events in &mut two {
        let status = timeout(SOON, events.message()).await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "timed out"));
    }
    whole.setup_timeout = Some(SOON);
    let mut next = world.client().await.create(whole, Some(source)).await.unwrap();
    while timeout(SOON, next.next()).await.unwrap().unwrap().is_some() {}
}

#[tokio::test]
async fn a_callers_exec_id_is_taken_once() {
    let world = World::new(ScriptedSetup::Ready, vec![ScriptedExec::exits(0); 2]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let exec = async || client.exec(&id, named("mine"), PLAIN).await;
    assert!(exec().await.unwrap().next().await.is_ok());
    let again = exec().await;
    assert!(matches!(&again, Err(ApiError::Exists(text)) if text.contains("exec `mine`")), "{again:?}");
}

/// A socket whose queue has room for one, which is taken.
fn full(path: &Path) -> (std::os::unix::net::UnixListener, std::os::unix::net::UnixStream) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(path).unwrap();
    (listener, waiting)
}

#[tokio::test]
async fn a_full_queue_is_waited_for_and_not_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let (listener, _waiting) = full(&path);
    let started = Instant::now();
    let error = timeout(SOON, Client::connect(&path)).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Other { .. }), "{error}");
    assert!(started.elapsed() > Duration::from_secs(1));
    let connecting = tokio::spawn(async move { Client::connect(&path).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _accepted = tokio::task::spawn_blocking(move || (listener.accept().unwrap(), listener)).await;
    timeout(SOON, connecting).await.unwrap().unwrap().unwrap();
}
