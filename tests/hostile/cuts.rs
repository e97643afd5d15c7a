//! Connections that break, and what comes of the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use creel::agent::{Patience, SessionEvent};
use creel::runtime::{Outcome, OutputReader};
use creel::state::log::{Limits, LogStore, Mask, Payload, Stream};
use creel::transport::memory;
use creel::workflow::recorder::Recorder;
use tokio::time::timeout;

use crate::guest::{Breaks, Program, ScriptedGuest, pattern};
use crate::host::{Host, SOON};

const OUTPUT: u64 = 100 << 20;
const CUTS: u32 = 200;

/// Dials again and again; the first `cuts` connections break within `every` bytes.
async fn live(
    mut guest: ScriptedGuest,
    dialer: memory::MemoryDialer,
    cuts: u32,
    every: u64,
    dialled: Arc<AtomicU32>,
) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % most).unwrap()
    };
    for connection in 0.. {
        let stream = dialer.dial().unwrap();
        dialled.store(connection, Ordering::Relaxed);
        // The first one lives until the host has heard of it.
        let (written_left, read_left) = match connection {
            0 => (1000 + bytes(every), usize::MAX),
            _ if connection >= cuts => (usize::MAX, usize::MAX),
            // What is read on it is credit, so much more is written meanwhile: all cuts together stay within the output.
            _ if connection % 8 == 0 => (usize::MAX, 200 + bytes(300)),
            _ => (bytes(every), usize::MAX),
        };
        let _ = guest.serve(Breaks { stream, written_left, read_left }).await;
    }
}

async fn ended(host: &mut Host) -> (String, Outcome) {
    loop {
        match host.event().await {
            SessionEvent::WorkEnded { id, end } => return (id, end.outcome),
            SessionEvent::Away { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_complete_and_undoubled_whenever_its_connection_breaks() {
    let (dialer, listener) = memory::pair();
    let dialled = Arc::<AtomicU32>::default();
    let guest = ScriptedGuest::new(|_| Program { writes: OUTPUT, reads: false });
    let living = tokio::spawn(live(guest, dialer, CUTS, OUTPUT / u64::from(4 * CUTS), Arc::clone(&dialled)));
    let mut host = Host::greet(listener, Patience::default()).await;

    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { max_step_bytes: 4 * OUTPUT, max_total_bytes: 4 * OUTPUT };
    let log = LogStore::create(&directory.path().join("log"), limits, Mask::none()).unwrap();
    let recorder = Recorder::new(log.appender(1, Stream::Stdout), log.appender(1, Stream::Stderr));
    let recording = tokio::spawn(recorder.record(host.run("big")));
    assert_eq!(ended(&mut host).await, ("big".into(), Outcome::Exited { code: 0 }));
    timeout(SOON, recording).await.unwrap().unwrap().unwrap();
    log.seal().unwrap();

    let mut follower = log.follow(0);
    let mut length = 0;
    while let Some(record) = follower.next().await {
        let record = record.unwrap();
        if let Payload::Data { bytes, .. } = record.payload {
            assert!(bytes == pattern(length, bytes.len() as u64), "other bytes at offset {length}");
            length += bytes.len() as u64;
        }
    }
    assert_eq!(length, OUTPUT);
    assert!(dialled.load(Ordering::Relaxed) >= CUTS);
    living.abort();
}

#[tokio::test]
async fn input_arrives_once_whenever_its_connection_breaks() {
    const INPUT: u64 = 4 << 20;
    let (dialer, listener) = memory::pair();
    let dialled = Arc::<AtomicU32>::default();
    let guest = ScriptedGuest::new(|_| Program { writes: INPUT / 2, reads: true });
    let living = tokio::spawn(live(guest, dialer, 100, 20_000, Arc::clone(&dialled)));
    let mut host = Host::greet(listener, Patience::default()).await;
    let (writer, reader) = host.run_with_input("cat");
    let feeding = tokio::spawn(async move {
        let mut sent = 0;
        while sent < INPUT {
            let length = (INPUT - sent).min(50_000);
            writer.send(&pattern(sent, length)).await.unwrap();
            sent += length;
        }
    });
    let reading = tokio::spawn(read_all(reader));
    assert_eq!(ended(&mut host).await.1, Outcome::Exited { code: 0 });
    assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), INPUT / 2);
    feeding.await.unwrap();
    let breaks = dialled.load(Ordering::Relaxed);
    assert!(breaks >= 10, "{breaks}");
    living.abort();
}

/// How much of the pattern was read.
pub(crate) async fn read_all(mut reader: OutputReader) -> u64 {
    let mut length = 0;
    while let Some(chunk) = reader.take().await {
        assert_eq!(chunk.raw_offset, length);
        assert!(chunk.bytes == pattern(length, chunk.bytes.len() as u64));
        length += chunk.bytes.len() as u64;
    }
    length
}
