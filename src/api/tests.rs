//! Client and server over a real socket.

mod bounds;
mod broken;
mod execs;
mod observe;
mod rights;
mod shells;
mod signals;
mod workflows;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use futures_util::stream;
use tonic::Code;
use tonic::transport::Endpoint;

use super::testing::{World, new_machine};
use super::{ApiError, Client, ConnectError, Executing, Holding, NewExec, Progress, Said};
use crate::host::tmpfile::anonymous_file;
use crate::machines::{Lifetime, State};
use crate::runtime::fake::{ScriptedExec, ScriptedSetup};
use crate::runtime::{
    CrashCause, DestroyMode, MachineId, Outcome, Phase, SetupError, SetupEvent, SetupFailure, Stream,
    Verdict, Work,
};

const DETACHED: Lifetime = Lifetime::Detached { max_age: None };

fn program() -> Work {
    Work::Program {
        argv: vec!["true".into()],
        env: Vec::new(),
        cwd: "/workspace".into(),
        user: "spindle-workflow".into(),
        terminal: None,
    }
}

/// A call that holds its exec as long as it lasts.
const PLAIN: Holding = Holding { input: false, linger: None, acknowledges: false };

fn named(id: &str) -> NewExec {
    NewExec { id: Some(id.to_owned()), ..program().into() }
}

fn limited(timeout: Duration) -> NewExec {
    NewExec { timeout: Some(timeout), ..program().into() }
}

/// Reads to the end: the output, and the verdict.
async fn heard(mut exec: Executing) -> (Vec<u8>, Verdict) {
    let mut output = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            Said::Output(chunk) => {
                assert_eq!(chunk.raw_offset, output.len() as u64);
                output.extend_from_slice(&chunk.bytes);
            }
            Said::InputWritten(_) => {}
            Said::Verdict(verdict) => return (output, *verdict),
        }
    }
}

async fn raw(world: &World) -> tonic::transport::Channel {
    Endpoint::from_shared(format!("unix:{}", world.socket().display())).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn a_machine_lives_and_works_from_create_to_destroy() {
    let talking = ScriptedExec::exits(3)
        .writing(Stream::Stdout, "one\n")
        .writing(Stream::Stdout, b"\xff\0two".to_vec());
    let world = World::new(ScriptedSetup::Ready, [talking]);
    let client = world.client().await;
    let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
    let mut told = Vec::new();
    while let Some(progress) = creating.next().await.unwrap() {
        told.push(progress);
    }
    let [Progress::Accepted(id), Progress::Setup(started), Progress::Setup(finished), Progress::Ready(ready)] =
        &told[..]
    else {
        panic!("another order: {told:?}")
    };
    assert_eq!(started, &SetupEvent::Started(Phase::Prepare));
    assert_eq!(finished, &SetupEvent::Finished(Phase::Prepare, Duration::from_millis(1)));
    assert_eq!((&ready.id, ready.state, ready.image.as_str()), (id, State::Ready, "tiny"));
    assert_eq!(ready.creator_uid, rustix::process::geteuid().as_raw());
    assert_eq!(client.list(false).await.unwrap(), std::slice::from_ref(ready));
    let exec = client.exec(id, program().into(), PLAIN).await.unwrap();
    let (output, verdict) = heard(exec).await;
    assert_eq!(output, b"one\n\xff\0two");
    assert_eq!((verdict.outcome, verdict.usage.stdout_bytes), (Outcome::Exited { code: 3 }, 9));
    let ended = client.destroy(id, DestroyMode::Graceful).await.unwrap();
    assert_eq!(ended.verdict.as_ref().map(|verdict| &verdict.outcome), Some(&Outcome::Cancelled));
    assert_eq!(client.destroy(id, DestroyMode::Kill).await.unwrap(), ended, "idempotent");
    assert_eq!(client.list(false).await.unwrap(), []);
    assert_eq!(client.list(true).await.unwrap(), [ended]);
    assert_eq!(world.journal.entries().last().map(String::as_str), Some("destroy Graceful"));
}

#[tokio::test]
async fn a_source_archive_arrives_whole() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let mut source = anonymous_file(world.directory.path()).unwrap();
    source.write_all(&vec![7; 3_000_001]).unwrap();
    let mut creating = client.create(new_machine(DETACHED), Some(source)).await.unwrap();
    while creating.next().await.unwrap().is_some() {}
    assert_eq!(world.journal.entries(), ["setup", "source of Some(3000001) bytes"]);
}

#[tokio::test]
async fn a_source_that_can_not_be_read_makes_no_machine() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let directory = std::fs::File::open(world.directory.path()).unwrap();
    let mut creating = client.create(new_machine(DETACHED), Some(directory)).await.unwrap();
    assert!(matches!(creating.next().await, Err(ApiError::Source(_))));
    assert_eq!(world.journal.entries(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_setup_is_told_whole_and_in_its_own_status() {
    let crashed = Outcome::MachineCrashed { cause: CrashCause::QemuExited { status: 1 } };
    let table = [
        (SetupFailure::BadInput("unknown image `x`".into()), Code::InvalidArgument),
        (SetupFailure::HostCannot("no QEMU".into()), Code::FailedPrecondition),
        (SetupFailure::Ended(Outcome::TimedOut), Code::DeadlineExceeded),
        (SetupFailure::Ended(crashed), Code::Aborted),
        (SetupFailure::Ended(Outcome::Internal { detail: "x".repeat(100_000) }), Code::Internal),
    ];
    for (failure, code) in table {
        let world = World::new(ScriptedSetup::Fails(failure.clone()), []);
        let mut creating = world.client().await.create(new_machine(DETACHED), None).await.unwrap();
        let error = loop {
            if let Err(error) = creating.next().await {
                break error;
            }
        };
        assert_eq!(error, ApiError::Setup(SetupError::new(Phase::Boot, failure)));
        let start = wire::CreateStart { image: "tiny".into(), ..wire::CreateStart::default() };
        let start = wire::CreateRequest { message: Some(wire::create_request::Message::Start(start)) };
        let mut client = MachinesClient::new(raw(&world).await);
        let mut events = client.create(stream::iter([start])).await.unwrap().into_inner();
        let status = loop {
            if let Err(status) = events.message().await {
                break status;
            }
        };
        assert_eq!(status.code(), code);
    }
}

#[tokio::test]
async fn cancelling_an_exec_ends_it_and_leaves_the_machine() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs(), ScriptedExec::exits(0)]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let exec = client.exec(&id, program().into(), PLAIN).await.unwrap();
    let execs = async || client.list(false).await.unwrap()[0].execs;
    while execs().await == 0 {}
    drop(exec);
    while execs().await == 1 {}
    let exec = client.exec(&id, program().into(), PLAIN).await.unwrap();
    assert_eq!(heard(exec).await.1.outcome, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_limit_of_time_is_kept_by_the_daemon() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs(), ScriptedExec::hangs()]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let exec = client.exec(&id, limited(Duration::from_millis(20)), PLAIN).await.unwrap();
    assert_eq!(heard(exec).await.1.outcome, Outcome::TimedOut);
    // One that no clock can express is none: the exec goes on until the machine dies.
    let exec = client.exec(&id, limited(Duration::MAX), PLAIN).await.unwrap();
    let outcome = Outcome::MachineCrashed { cause: CrashCause::GuestPoweredOff };
    world.death.strike(outcome.clone());
    assert_eq!(heard(exec).await.1.outcome, outcome);
}

#[tokio::test]
async fn cancelling_a_create_leaves_nothing() {
    let world = World::new(ScriptedSetup::Hangs, []);
    let client = world.client().await;
    let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
    assert!(matches!(creating.next().await, Ok(Some(Progress::Accepted(_)))));
    world.living(1).await;
    drop(creating);
    world.living(0).await;
}

#[tokio::test]
async fn an_attached_machine_ends_with_its_clients_connection() {
    let world = World::new(ScriptedSetup::Ready, []);
    let ready = async |client: &Client| {
        let mut creating = client.create(new_machine(Lifetime::Attached), None).await.unwrap();
        while !matches!(creating.next().await.unwrap(), Some(Progress::Ready(_))) {}
        creating
    };
    // A client whose process is killed: all that it had is gone at once.
    let path = world.socket();
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let creating = process.spawn(async move {
        let client = Client::connect(&path).await.unwrap();
        let mut creating = client.create(new_machine(Lifetime::Attached), None).await.unwrap();
        while !matches!(creating.next().await.unwrap(), Some(Progress::Ready(_))) {}
        std::future::pending::<()>().await;
        drop((client, creating));
    });
    world.living(1).await;
    let mut counts = world.machines.counts();
    counts.wait_for(|counts| counts.ready == 1).await.unwrap();
    process.shutdown_background();
    world.living(0).await;
    assert!(creating.await.is_err());
    // A client that only ends the call.
    let client = world.client().await;
    let creating = ready(&client).await;
    drop(creating);
    world.living(0).await;
    assert_eq!(world.journal.entries(), ["setup", "destroy Kill", "setup", "destroy Kill"]);
}

#[tokio::test]
async fn the_end_of_an_attached_machine_ends_the_call_with_its_verdict() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let mut creating = client.create(new_machine(Lifetime::Attached), None).await.unwrap();
    while !matches!(creating.next().await.unwrap(), Some(Progress::Ready(_))) {}
    let outcome = Outcome::OutOfMemory { scope: crate::runtime::OutOfMemory::GuestProcess };
    world.death.strike(outcome.clone());
    let Ok(Some(Progress::Ended(machine))) = creating.next().await else { panic!("another end") };
    assert_eq!(machine.verdict.map(|verdict| verdict.outcome), Some(outcome));
    assert_eq!(creating.next().await, Ok(None));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_back_its_exec_and_no_other_call() {
    let taken = Arc::new(AtomicU64::new(0));
    let execs =
        [ScriptedExec::floods(Arc::clone(&taken)), ScriptedExec::exits(0).writing(Stream::Stdout, "x")];
    let world = World::new(ScriptedSetup::Ready, execs);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let mut unread = client.exec(&id, program().into(), PLAIN).await.unwrap();
    assert!(matches!(unread.next().await, Ok(Said::Output(_))));
    // Until it is held back: no more is taken while a thousand other calls are answered.
    let mut before = 0;
    while taken.load(Ordering::Relaxed) != before || before == 0 {
        before = taken.load(Ordering::Relaxed);
        for _ in 0..100 {
            client.list(false).await.unwrap();
        }
        assert!(before < 4 << 20, "{before} bytes wait for a reader");
    }
    let other = client.exec(&id, program().into(), PLAIN).await.unwrap();
    assert_eq!(heard(other).await.0, b"x", "on the same connection");
    for _ in 0..300 {
        assert!(matches!(unread.next().await, Ok(Said::Output(_))), "it goes on once it is read");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = MachineId::random().unwrap();
    assert!(matches!(client.destroy(&id, DestroyMode::Kill).await, Err(ApiError::NotFound(_))));
    assert!(matches!(client.exec(&id, program().into(), PLAIN).await, Err(ApiError::NotFound(_))));
    let error = client.inspect_image("alpine").await.unwrap_err();
    assert!(
        matches!(&error, ApiError::NotFound(text) if text.starts_with("unknown image `alpine`")),
        "{error}"
    );
    assert!(matches!(client.inspect_image("../x").await, Err(ApiError::BadInput(_))));
}

#[tokio::test]
async fn an_exec_during_setup_is_told_to_wait_and_a_full_daemon_says_so() {
    let world = World::new(ScriptedSetup::Hangs, []);
    let client = world.client().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
        let Ok(Some(Progress::Accepted(id))) = creating.next().await else { panic!("not accepted") };
        held.push((id, creating));
    }
    world.living(4).await;
    let refused = client.exec(&held[0].0, program().into(), PLAIN).await;
    assert!(matches!(refused, Err(ApiError::NotNow(_))));
    assert!(matches!(client.create(new_machine(DETACHED), None).await, Err(ApiError::Full(_))));
    world.machines.drain();
    assert!(matches!(client.create(new_machine(DETACHED), None).await, Err(ApiError::ShuttingDown(_))));
    // Destroying a setup ends its call.
    let (id, mut creating) = held.remove(0);
    client.destroy(&id, DestroyMode::Graceful).await.unwrap();
    let error = loop {
        if let Err(error) = creating.next().await {
            break error;
        }
    };
    assert!(
        matches!(error, ApiError::Setup(error) if error.failure == SetupFailure::Ended(Outcome::Cancelled))
    );
}

#[tokio::test]
async fn a_create_that_is_repeated_by_its_id_makes_one_machine() {
    use wire::{CreateRequest, CreateStart, create_event::Event, create_request};
    let world = World::new(ScriptedSetup::Ready, []);
    let client = MachinesClient::new(raw(&world).await);
    let start = |image: &str| CreateStart {
        image: image.into(),
        machine_id: Some("a1b2c3d4e5".into()),
        ..CreateStart::default()
    };
    let create = async |start: CreateStart| {
        let message = CreateRequest { message: Some(create_request::Message::Start(start)) };
        let mut events = client.clone().create(stream::iter([message])).await?.into_inner();
        loop {
            let event = events.message().await?.and_then(|event| event.event);
            if let Event::Ready(machine) = event.expect("its end is told") {
                return Ok::<_, tonic::Status>(machine.id);
            }
        }
    };
    let (one, other) = tokio::join!(create(start("tiny")), create(start("tiny")));
    assert_eq!((one.unwrap().as_str(), other.unwrap().as_str()), ("a1b2c3d4e5", "a1b2c3d4e5"));
    assert_eq!(create(start("tiny")).await.unwrap(), "a1b2c3d4e5");
    assert_eq!(create(start("other")).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(world.machines.list(true).len(), 1);
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused_by_name() {
    use wire::{CreateRequest, CreateStart, ExecRequest, ExecStart, create_request, exec_request};
    let world = World::new(ScriptedSetup::Ready, []);
    let mut client = MachinesClient::new(raw(&world).await);
    let create = |start: CreateStart| CreateRequest { message: Some(create_request::Message::Start(start)) };
    let source = || CreateRequest { message: Some(create_request::Message::Source(vec![0; 8].into())) };
    let start = || CreateStart { image: "tiny".into(), ..CreateStart::default() };
    let oversized = CreateRequest { message: Some(create_request::Message::Source(vec![0; 2 << 20].into())) };
    let with_source = || create(CreateStart { has_source: true, ..start() });
    let creates = [
        vec![],
        vec![source()],
        vec![create(CreateStart::default())],
        vec![create(CreateStart { workflow_id: Some("a\nb".into()), ..start() })],
        vec![create(CreateStart { lifetime: 9, ..start() })],
        vec![create(CreateStart { lifetime: 2, max_age_us: Some(1), ..start() })],
        vec![create(CreateStart { machine_id: Some("../../etc".into()), ..start() })],
        vec![create(CreateStart { lifetime: 2, machine_id: Some("aaaaaaaaaa".into()), ..start() })],
        vec![create(CreateStart { memory_mib: Some(0), ..start() })],
        vec![create(CreateStart { vcpus: Some(0), ..start() })],
        vec![create(CreateStart { memory_limit_mib: Some(0), ..start() })],
        vec![create(CreateStart { image: "x".repeat(20_000), ..start() })],
        vec![with_source(), create(start())],
        vec![with_source(), oversized],
    ];
    let mut told = Vec::new();
    for messages in creates {
        let status = match client.create(stream::iter(messages)).await {
            Err(status) => status,
            Ok(events) => events.into_inner().message().await.unwrap_err(),
        };
        told.push(format!("{:?}: {}", status.code(), status.message()));
    }
    let exec = |start: ExecStart| ExecRequest { message: Some(exec_request::Message::Start(start)) };
    let id = MachineId::random().unwrap().to_string();
    let execs = [
        vec![],
        vec![exec(ExecStart::default())],
        vec![exec(ExecStart { machine_id: id.clone(), ..ExecStart::default() })],
        vec![exec(ExecStart { machine_id: id, exec_id: Some(String::new()), ..ExecStart::default() })],
    ];
    for messages in execs {
        let status = client.exec(stream::iter(messages)).await.unwrap_err();
        told.push(format!("{:?}: {}", status.code(), status.message()));
    }
    assert_eq!(world.journal.entries(), Vec::<String>::new(), "none reached the runtime");
    insta::assert_snapshot!(told.join("\n"), @"
    InvalidArgument: the first message of a call must be `start`
    InvalidArgument: the first message of a call must be `start`
    InvalidArgument: `image` must be 1 to 200 bytes without control characters
    InvalidArgument: `workflow_id` must be 1 to 200 bytes without control characters
    InvalidArgument: `lifetime` has the unknown value 9
    InvalidArgument: `max_age_us` is for detached machines
    InvalidArgument: `../../etc` is not a machine's id: those have ten lower-case letters and digits
    InvalidArgument: `machine_id` is for detached machines
    InvalidArgument: `memory_mib` is 0; leave it out for what the image asks for
    InvalidArgument: `vcpus` is 0; leave it out for what the image asks for
    InvalidArgument: `memory_limit_mib` is 0; leave it out for what the image asks for
    InvalidArgument: the message has 20008 bytes, more than the 16384 that it may have
    InvalidArgument: only `source` messages may follow `start`
    OutOfRange: Error, decoded message length too large: found 2097157 bytes, the limit is: 1114112 bytes
    InvalidArgument: the first message of a call must be `start`
    InvalidArgument: `` is not a machine's id: those have ten lower-case letters and digits
    InvalidArgument: `work` is missing
    InvalidArgument: `exec_id` must be 1 to 200 bytes without control characters
    ");
}

#[tokio::test]
async fn why_there_is_no_connection_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    assert!(matches!(Client::connect(&path).await, Err(ConnectError::NoSocket { .. })));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(Client::connect(&path).await, Err(ConnectError::Refused { .. })));
}

#[tokio::test]
async fn shutting_down_closes_what_does_not_end_by_itself() {
    let mut world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let mut creating = client.create(new_machine(Lifetime::Attached), None).await.unwrap();
    while !matches!(creating.next().await.unwrap(), Some(Progress::Ready(_))) {}
    world.machines.end_all(Duration::from_secs(5)).await;
    assert!(matches!(creating.next().await, Ok(Some(Progress::Ended(_)))));
    // Says nothing, and would stay for ever.
    let _silent = tokio::net::UnixStream::connect(world.socket()).await.unwrap();
    world.shutdown.cancel();
    world.served.take().unwrap().await.unwrap().unwrap();
    assert!(matches!(client.list(false).await, Err(ApiError::Lost(_))));
}
