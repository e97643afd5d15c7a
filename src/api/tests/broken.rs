//! Execs over connections that break, through a socket between that cuts them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{named, program};
use crate::api::testing::World;
use crate::api::{ApiError, Client, Holding, Said};
use crate::runtime::fake::{ScriptedExec, ScriptedSetup};
use crate::runtime::streams::{input, output};
use crate::runtime::{ExecStreams, MachineId, Outcome, OutputOffsets, Stream, TerminalSize};

const SOON: Duration = Duration::from_secs(10);

/// Passes connections on, and cuts those that there are each time it is told to.
struct Cutter {
    directory: tempfile::TempDir,
    cut: watch::Sender<u32>,
    passing: tokio::task::JoinHandle<()>,
}

impl Cutter {
    fn new(world: &World) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (target, (cut, cuts)) = (world.socket(), watch::channel(0));
        let passing = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (target, mut cuts) = (target.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = UnixStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { directory, cut, passing }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn machine(world: &World) -> MachineId {
    world.machine(&world.client().await).await.id
}

#[tokio::test]
async fn input_and_output_are_whole_and_undoubled_however_often_it_breaks() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::echoes()]);
    let id = machine(&world).await;
    let cutter = Cutter::new(&world);
    let client = Client::connect(&cutter.socket()).await.unwrap();
    let sent: Vec<u8> = (0..4_u32 << 20).map(|number| number.wrapping_mul(number).to_le_bytes()[1]).collect();
    let ((output, mut reader), (writer, reading)) = (output(), input());
    let cancel = CancellationToken::new();
    let streams = ExecStreams { input: Some(reading), output };
    let run = client.run(&id, named("mine"), streams, &cancel);
    let send = async {
        for piece in sent.chunks(10_007) {
            writer.send(piece).await.unwrap();
        }
        writer.resize(TerminalSize { rows: 1, columns: 2 });
        writer.end();
    };
    let read = async {
        let (mut read, mut cuts) = (Vec::new(), 0);
        while let Some(chunk) = reader.take().await {
            assert_eq!((chunk.stream, chunk.raw_offset), (Stream::Stdout, read.len() as u64));
            read.extend_from_slice(&chunk.bytes);
            if read.len() / 300_000 > cuts {
                cuts += 1;
                cutter.cut();
            }
        }
        (read, cuts)
    };
    let (verdict, (), (read, cuts)) =
        timeout(3 * SOON, async { tokio::join!(run, send, read) }).await.unwrap();
    assert_eq!(verdict.unwrap().outcome, Outcome::Exited { code: 0 });
    assert!(cuts > 10, "{cuts}");
    assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
    assert_eq!(world.journal.entries().iter().filter(|entry| entry.starts_with("exec")).count(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_end_of_the_input() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::echoes()]);
    let id = machine(&world).await;
    let cutter = Cutter::new(&world);
    let held = Holding { input: true, linger: Some(SOON), acknowledges: true };
    let client = Client::connect(&cutter.socket()).await.unwrap();
    let mut broken = client.exec(&id, named("mine"), held).await.unwrap();
    cutter.cut();
    while timeout(SOON, broken.next()).await.unwrap().is_ok() {}
    let exec = world.client().await.attach(&id, "mine", OutputOffsets::default(), held).await.unwrap();
    let (mut sender, mut receiver) = exec.split();
    assert!(matches!(timeout(SOON, receiver.next()).await.unwrap(), Ok(Said::InputWritten(_))));
    sender.input("still there".into()).await.unwrap();
    sender.close_input().await;
    let mut read = Vec::new();
    loop {
        match timeout(SOON, receiver.next()).await.unwrap().unwrap() {
            Said::Output(chunk) => read.extend_from_slice(&chunk.bytes),
            Said::InputWritten(_) => {}
            Said::Verdict(verdict) => break assert_eq!(verdict.outcome, Outcome::Exited { code: 0 }),
        }
    }
    assert_eq!(read, b"still there");
}

#[tokio::test]
async fn a_verdict_is_heard_over_the_next_connection() {
    let slow = ScriptedExec { takes: Duration::from_millis(300), ..ScriptedExec::exits(5) };
    let world = World::new(ScriptedSetup::Ready, [slow.writing(Stream::Stdout, "said")]);
    let id = machine(&world).await;
    let cutter = Cutter::new(&world);
    let client = Client::connect(&cutter.socket()).await.unwrap();
    let (output, mut reader) = output();
    let cancel = CancellationToken::new();
    let run = client.run(&id, program().into(), ExecStreams { input: None, output }, &cancel);
    let cut = async {
        assert_eq!(reader.next().await.unwrap().bytes, "said");
        cutter.cut();
        assert_eq!(reader.next().await, None);
    };
    let (verdict, ()) = timeout(SOON, async { tokio::join!(run, cut) }).await.unwrap();
    assert_eq!(verdict.unwrap().outcome, Outcome::Exited { code: 5 });
}

#[tokio::test]
async fn a_daemon_that_does_not_come_back_is_lost_within_a_bound() {
    let mut world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs().writing(Stream::Stdout, "x")]);
    let id = machine(&world).await;
    let client = world.client().await;
    let (output, mut reader) = output();
    let cancel = CancellationToken::new();
    let run = client.run(&id, program().into(), ExecStreams { input: None, output }, &cancel);
    let kill = async {
        reader.next().await.unwrap();
        world.kill_daemon();
    };
    let (ended, ()) = timeout(SOON, async { tokio::join!(run, kill) }).await.unwrap();
    assert!(matches!(ended, Err(ApiError::Lost(_))), "{ended:?}");
}

#[tokio::test]
async fn a_cancel_and_a_dropped_future_end_the_exec_at_once_though_it_would_linger() {
    let hanging = || ScriptedExec::hangs().writing(Stream::Stdout, "x");
    let world = World::new(ScriptedSetup::Ready, [hanging(), hanging()]);
    let id = machine(&world).await;
    let client = world.client().await;
    let gone = async || {
        let counted = async {
            while world.machines.list(false)[0].execs > 0 {
                tokio::task::yield_now().await;
            }
        };
        // Far less than it would linger.
        timeout(Duration::from_secs(3), counted).await.unwrap();
    };
    for dropped in [false, true] {
        let (output, mut reader) = output();
        let cancel = CancellationToken::new();
        let run = client.run(&id, program().into(), ExecStreams { input: None, output }, &cancel);
        let mut run = Box::pin(run);
        tokio::select! {
            ended = &mut run => panic!("{ended:?}"),
            chunk = reader.next() => assert_eq!(chunk.unwrap().bytes, "x"),
        }
        if dropped {
            drop(run);
        } else {
            cancel.cancel();
            assert_eq!(run.await.unwrap().outcome, Outcome::Cancelled);
        }
        gone().await;
    }
}
