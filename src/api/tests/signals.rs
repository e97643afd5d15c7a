//! Signals to programs, through the daemon.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use tonic::Code;

use super::{DETACHED, PLAIN, named, raw};
use crate::api::testing::{World, new_machine};
use crate::api::{ApiError, Progress};
use crate::runtime::fake::{ScriptedExec, ScriptedSetup};
use crate::runtime::{DestroyMode, MachineId};

#[tokio::test]
async fn a_signal_reaches_the_exec_that_it_names_and_no_other() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let exec = client.exec(&id, named("mine"), PLAIN).await.unwrap();
    while client.list(false).await.unwrap()[0].execs == 0 {}
    client.signal(&id, "mine", 10).await.unwrap();
    let error = client.signal(&id, "other", 10).await.unwrap_err();
    assert!(matches!(&error, ApiError::NotFound(text) if text.contains("no exec `other`")), "{error}");
    drop(exec);
    while client.list(false).await.unwrap()[0].execs == 1 {}
    assert!(matches!(client.signal(&id, "mine", 10).await, Err(ApiError::NotFound(_))), "it was given up");
    assert_eq!(world.journal.entries(), ["setup", "exec mine", "signal 10 to mine"]);
}

#[tokio::test]
async fn there_is_a_time_before_signals_and_one_after() {
    let world = World::new(ScriptedSetup::Hangs, []);
    let client = world.client().await;
    let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
    let Ok(Some(Progress::Accepted(id))) = creating.next().await else { panic!("not accepted") };
    world.living(1).await;
    assert!(matches!(client.signal(&id, "x", 15).await, Err(ApiError::NotNow(_))));
    client.destroy(&id, DestroyMode::Kill).await.unwrap();
    assert!(matches!(client.signal(&id, "x", 15).await, Err(ApiError::NotNow(_))));
    let unknown = MachineId::random().unwrap();
    assert!(matches!(client.signal(&unknown, "x", 15).await, Err(ApiError::NotFound(_))));
}

#[tokio::test]
async fn what_is_no_signal_is_refused_by_name() {
    let world = World::new(ScriptedSetup::Ready, []);
    let mut client = MachinesClient::new(raw(&world).await);
    let machine_id = MachineId::random().unwrap().to_string();
    let mut told = Vec::new();
    for (machine_id, exec_id, signal) in [
        ("", "x", 15),
        (&machine_id, "", 15),
        (&machine_id, "x", 0),
        (&machine_id, "x", -9),
        (&machine_id, "x", 65),
    ] {
        let (machine_id, exec_id) = (machine_id.to_owned(), exec_id.to_owned());
        let request = wire::SignalRequest { machine_id, exec_id, signal };
        let answer = tokio::time::timeout(Duration::from_secs(5), client.signal(request)).await.unwrap();
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        told.push(status.message().to_owned());
    }
    insta::assert_snapshot!(told.join("\n"), @"
    `` is not a machine's id: those have ten lower-case letters and digits
    `exec_id` must be 1 to 200 bytes without control characters
    `signal` is 0; signals have numbers from 1 to 64
    `signal` is -9; signals have numbers from 1 to 64
    `signal` is 65; signals have numbers from 1 to 64
    ");
}
