//! Input, and attaching to what goes on, through the daemon.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::exec_event::Event;
use creel_proto::v1::exec_request::Message;
use creel_proto::v1::exec_start::Work as Wanted;
use creel_proto::v1::machines_client::MachinesClient;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use tonic::Code;

use super::{PLAIN, named, program, raw};
use crate::api::testing::World;
use crate::api::{ApiError, ExecReceiver, ExecSender, Executing, Holding, Said};
use crate::runtime::fake::{ScriptedExec, ScriptedSetup};
use crate::runtime::{InputProgress, Outcome, OutputOffsets, STREAM_WINDOW_BYTES, Stream, TerminalSize};

const SOON: Duration = Duration::from_secs(10);
const READING: Holding = Holding { input: true, linger: None, acknowledges: false };
const LINGERING: Holding = Holding { input: true, linger: Some(SOON), acknowledges: true };

fn at(stdout: u64) -> OutputOffsets {
    OutputOffsets { stdout, stderr: 0 }
}

/// The next thing that is not about input.
async fn next(exec: &mut ExecReceiver) -> Result<Said, ApiError> {
    loop {
        match timeout(SOON, exec.next()).await.unwrap() {
            Ok(Said::InputWritten(_)) => {}
            other => return other,
        }
    }
}

async fn reads(exec: &mut ExecReceiver, offset: u64, expected: &str) {
    let mut read = Vec::new();
    while read.len() < expected.len() {
        let Ok(Said::Output(chunk)) = next(exec).await else { panic!("no output") };
        assert_eq!(chunk.raw_offset, offset + read.len() as u64);
        read.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(String::from_utf8(read).unwrap(), expected);
}

async fn outcome(exec: &mut ExecReceiver) -> Outcome {
    let Ok(Said::Verdict(verdict)) = next(exec).await else { panic!("another end") };
    verdict.outcome
}

/// Both halves, once it is told how far may be sent.
async fn open(mut exec: Executing) -> (ExecSender, ExecReceiver) {
    assert!(matches!(timeout(SOON, exec.next()).await.unwrap(), Ok(Said::InputWritten(_))));
    exec.split()
}

async fn runs(world: &World, count: u32) {
    let counted = async {
        while world.machines.list(false)[0].execs != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, counted).await.unwrap();
}

#[tokio::test]
async fn what_is_sent_is_read_and_whoever_closes_its_side_closes_the_input() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::echoes()]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let exec = client.exec(&id, named("mine"), READING).await.unwrap();
    assert_eq!((exec.exec_id(), exec.input_offset()), ("mine", 0));
    let (mut sender, mut receiver) = open(exec).await;
    sender.input("one\n".into()).await.unwrap();
    reads(&mut receiver, 0, "one\n").await;
    sender.resize(TerminalSize { rows: 5, columns: 6 }).await;
    sender.input(vec![b'x'; 3].into()).await.unwrap();
    drop(sender);
    reads(&mut receiver, 4, "xxx").await;
    assert_eq!(outcome(&mut receiver).await, Outcome::Exited { code: 0 });
    assert_eq!(world.journal.entries(), ["setup", "exec mine", "resize 5x6"]);
}

#[tokio::test]
async fn another_call_goes_on_where_it_wants_and_the_former_is_aborted() {
    let talking = ScriptedExec::hangs().writing(Stream::Stdout, "abcdef");
    let world = World::new(ScriptedSetup::Ready, [talking]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let (_sender, mut former) = open(client.exec(&id, named("mine"), LINGERING).await.unwrap()).await;
    reads(&mut former, 0, "abcdef").await;
    let (mut sender, mut latter) = open(client.attach(&id, "mine", at(2), LINGERING).await.unwrap()).await;
    let aborted = next(&mut former).await;
    assert!(matches!(&aborted, Err(ApiError::Replaced(text)) if text.contains("`mine`")), "{aborted:?}");
    reads(&mut latter, 2, "cdef").await;
    let beyond = client.attach(&id, "mine", at(7), LINGERING).await;
    assert!(matches!(&beyond, Err(ApiError::BadInput(text)) if text.contains("offset 7")), "{beyond:?}");
    let forgotten = loop {
        sender.acknowledge(at(4)).await;
        // Until it is heeded, which nothing tells.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match client.attach(&id, "mine", at(3), LINGERING).await {
            Ok(another) => {
                (sender, latter) = open(another).await;
                reads(&mut latter, 3, "def").await;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(&forgotten, ApiError::BadInput(text) if text.contains("offset 3")), "{forgotten:?}");
    sender.cancel().await;
    assert_eq!(outcome(&mut latter).await, Outcome::Cancelled, "it is still attached");
}

#[tokio::test]
async fn a_verdict_waits_for_a_call_that_was_given_up() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::exits(9).writing(Stream::Stdout, "rest")]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    drop(client.exec(&id, named("mine"), LINGERING).await.unwrap());
    runs(&world, 0).await;
    let (_sender, mut receiver) = client.attach(&id, "mine", at(0), LINGERING).await.unwrap().split();
    reads(&mut receiver, 0, "rest").await;
    assert_eq!(outcome(&mut receiver).await, Outcome::Exited { code: 9 });
    let unknown = client.attach(&id, "other", at(0), PLAIN).await;
    assert!(matches!(&unknown, Err(ApiError::NotFound(text)) if text.contains("`other`")), "{unknown:?}");
}

#[tokio::test]
async fn input_that_the_program_does_not_read_stays_with_its_caller() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let client = MachinesClient::new(raw(&world).await);
    let id = world.machine(&world.client().await).await.id;
    let start = wire::ExecStart {
        machine_id: id.to_string(),
        work: Some(program().into()),
        input: true,
        ..wire::ExecStart::default()
    };
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&taken);
    // One that does not care for what it is told.
    let flood = stream::iter(0_u64..).map(move |number| {
        counter.store(number << 16, std::sync::atomic::Ordering::Relaxed);
        message(Message::Input(wire::ExecInput { offset: number << 16, data: vec![7; 64 << 10].into() }))
    });
    let messages = stream::iter([message(Message::Start(start))]).chain(flood);
    let _events = client.clone().exec(messages).await.unwrap();
    let mut before = u64::MAX;
    while before != taken.load(std::sync::atomic::Ordering::Relaxed) {
        before = taken.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!((STREAM_WINDOW_BYTES..1 << 20).contains(&before), "{before} bytes are under way");
    assert_eq!(timeout(SOON, world.client().await.list(false)).await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn our_own_client_sends_no_more_than_its_acknowledgements_can_overtake() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs().writing(Stream::Stdout, "abc")]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let (mut sender, mut receiver) = open(client.exec(&id, named("mine"), LINGERING).await.unwrap()).await;
    reads(&mut receiver, 0, "abc").await;
    let endless = sender.input(vec![7; 1 << 20].into());
    assert!(timeout(Duration::from_millis(300), endless).await.is_err());
    sender.acknowledge(at(3)).await;
    sender.cancel().await;
    assert_eq!(outcome(&mut receiver).await, Outcome::Cancelled);
}

#[tokio::test]
async fn who_is_told_that_nobody_reads_sends_no_more() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::exits(0)]);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let (mut sender, mut receiver) = client.exec(&id, named("mine"), LINGERING).await.unwrap().split();
    while !matches!(
        timeout(SOON, receiver.next()).await.unwrap().unwrap(),
        Said::InputWritten(InputProgress { closed: true, .. }) | Said::Verdict(_)
    ) {}
    let _ = timeout(SOON, sender.input(vec![7; 8 << 20].into())).await.unwrap();
}

fn message(message: Message) -> wire::ExecRequest {
    wire::ExecRequest { message: Some(message) }
}

#[tokio::test]
async fn messages_that_make_no_sense_end_the_call_by_name() {
    let world = World::new(ScriptedSetup::Ready, vec![ScriptedExec::hangs(); 8]);
    let id = world.machine(&world.client().await).await.id.to_string();
    let client = MachinesClient::new(raw(&world).await);
    let start = || wire::ExecStart {
        machine_id: id.clone(),
        work: Some(program().into()),
        input: true,
        ..wire::ExecStart::default()
    };
    let attach = || Wanted::Attach(wire::Attach { stdout_offset: 0, stderr_offset: 0 });
    let input = |offset, length| Message::Input(wire::ExecInput { offset, data: vec![7; length].into() });
    let calls = [
        vec![input(0, 1)],
        vec![Message::Start(wire::ExecStart { work: Some(attach()), ..start() })],
        vec![Message::Start(wire::ExecStart { linger_us: Some(600_000_001), ..start() })],
        vec![Message::Start(wire::ExecStart { exec_id: Some("x".into()), work: Some(attach()), ..start() })],
        vec![Message::Start(start()), Message::Start(start())],
        vec![Message::Start(start()), input(0, (64 << 10) + 1)],
        vec![Message::Start(start()), input(0, 128 << 10)],
        vec![Message::Start(start()), input(5, 1)],
        vec![Message::Start(start()), Message::Resize(wire::TerminalSize { rows: 0, columns: 80 })],
        vec![Message::Start(start()), Message::Acknowledge(wire::Acknowledge::default())],
        vec![
            Message::Start(wire::ExecStart { acknowledges: true, ..start() }),
            Message::Acknowledge(wire::Acknowledge { stdout_offset: 0, stderr_offset: 1 }),
        ],
        vec![Message::Start(wire::ExecStart { input: false, ..start() }), input(0, 1)],
    ];
    let mut told = Vec::new();
    for messages in calls {
        let messages = stream::iter(messages.into_iter().map(message)).chain(stream::pending());
        let call = async {
            match client.clone().exec(messages).await {
                Err(status) => status,
                Ok(events) => {
                    let mut events = events.into_inner();
                    loop {
                        match events.message().await {
                            Err(status) => return status,
                            Ok(Some(wire::ExecEvent { event: Some(Event::Verdict(_)) }) | None) => {
                                panic!("it was heeded")
                            }
                            Ok(Some(_)) => {}
                        }
                    }
                }
            }
        };
        let status = timeout(SOON, call).await.unwrap();
        assert_ne!(status.code(), Code::Internal, "{}", status.message());
        told.push(format!("{:?}: {}", status.code(), status.message().replace(&id, "ID")));
    }
    insta::assert_snapshot!(told.join("\n"), @"
    InvalidArgument: the first message of a call must be `start`
    InvalidArgument: `exec_id` has to name the exec to attach to
    InvalidArgument: `linger_us` is 600.000001s, more than the 600s that it may be
    NotFound: machine ID has no exec `x` that could be attached to
    InvalidArgument: `start` may only be the first message of a call
    InvalidArgument: `input.data` has 65537 bytes, more than the 65536 that it may have
    InvalidArgument: the message has 131080 bytes, more than the 66560 that it may have
    OutOfRange: input comes from offset 5, and the next byte is that of 0
    InvalidArgument: `resize.rows` is 0; a terminal has 1 to 65535 of them
    InvalidArgument: the call did not say that it acknowledges
    OutOfRange: offset 1 is acknowledged, and nothing behind 0 was sent
    InvalidArgument: the exec was not started with `input`
    ");
    runs(&world, 0).await;
}
