//! Following a log from its file alone, as another process does.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::host::inotify::{self, Events};

const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 1 << 20 };

/// As another process would open it; the sender stands for its writer's life.
fn follow(path: &Path, from: u64) -> (Follower, oneshot::Sender<()>) {
    let file = File::open(path).unwrap();
    let changes = inotify::watch(file.as_fd(), Events::MODIFY).unwrap();
    let (living, ended) = oneshot::channel();
    let growth = Growth::new(changes, ended);
    (Follower::growing(file, path, from, Some(growth)).unwrap(), living)
}

/// Output with the gaps that were told, in bytes.
async fn read_all(mut follower: Follower) -> (Vec<u8>, u64) {
    let (mut output, mut gone) = (Vec::new(), 0);
    while let Some(next) = follower.next().await {
        match next {
            Ok(Record { payload: Payload::Data { bytes, .. }, .. }) => output.extend_from_slice(&bytes),
            Ok(_) => {}
            Err(FollowError::Expired(range)) => {
                gone += range.bytes;
                output.extend(std::iter::repeat_n(0, usize::try_from(range.bytes).unwrap()));
            }
            Err(FollowError::Log(error)) => panic!("{error}"),
        }
    }
    (output, gone)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_another_writes_is_seen_to_the_seal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, Limits::of_step(64 << 20), Mask::none()).unwrap();
    let (follower, _living) = follow(&path, 0);
    let reader = tokio::spawn(read_all(follower));
    let writer = tokio::task::spawn_blocking(move || {
        let mut written = Vec::new();
        for step in 0..3 {
            let mut appender = store.appender(step, Stream::Stdout);
            for round in 0..700_u32 {
                let line: Vec<u8> =
                    format!("{step} {round} ").repeat(1 + (round as usize % 290)).into_bytes();
                appender.append(appender.next(), &line).unwrap();
                written.extend_from_slice(&line);
            }
            appender.finish().unwrap();
        }
        store.seal().unwrap();
        written
    });
    let written = writer.await.unwrap();
    assert!(written.len() > 1 << 20, "several segments");
    assert_eq!(reader.await.unwrap(), (written, 0));
}

#[tokio::test]
async fn a_writer_that_is_gone_without_a_seal_ends_it_after_its_last_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, LIMITS, Mask::none()).unwrap();
    let (follower, living) = follow(&path, 0);
    let reader = tokio::spawn(read_all(follower));
    let mut appender = store.appender(0, Stream::Stdout);
    appender.append(0, b"first ").unwrap();
    tokio::task::yield_now().await;
    appender.append(6, b"last").unwrap();
    appender.finish().unwrap();
    drop(living);
    assert_eq!(reader.await.unwrap(), (b"first last".to_vec(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_that_turns_under_its_reader_gives_true_bytes_and_told_gaps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, LIMITS, Mask::none()).unwrap();
    let (follower, _living) = follow(&path, 0);
    let reader = tokio::spawn(read_all(follower));
    let writer = tokio::task::spawn_blocking(move || {
        let mut appender = store.appender(0, Stream::Stdout);
        let mut written = Vec::new();
        for round in 0..60_000_u64 {
            // Every byte is telling: eight of them name their own place.
            let chunk: Vec<u8> = (0..8).flat_map(|word| (1 + round * 8 + word).to_be_bytes()).collect();
            appender.append(appender.next(), &chunk).unwrap();
            written.extend_from_slice(&chunk);
        }
        appender.finish().unwrap();
        store.seal().unwrap();
        written
    });
    let written = writer.await.unwrap();
    let (read, gone) = reader.await.unwrap();
    assert_eq!(read.len(), written.len(), "{gone} bytes are told as gone");
    for (at, (read, written)) in read.chunks(8).zip(written.chunks(8)).enumerate() {
        assert!(read == written || read == [0; 8], "word {at} reads {read:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Looked at from time to time, from anywhere, it is what the live follower sees.
    #[test]
    fn looks_at_any_time_find_what_is_there(
        chunks in proptest::collection::vec((0..3_i32, 0..6000_usize, any::<bool>()), 1..200),
        from in 0..50_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let store = LogStore::create(&path, LIMITS, Mask::none()).unwrap();
            let file = File::open(&path).unwrap();
            let mut growing = Follower::growing(file, &path, from, None).unwrap();
            let mut live = store.follow(from);
            let mut seen = Vec::new();
            for (step, length, look) in chunks {
                let mut appender = store.appender(step, Stream::Stderr);
                appender.append(appender.next(), &vec![b'a'; length]).unwrap();
                appender.finish().unwrap();
                // Without a way to be told, it ends at the end of what is there, and can be asked again.
                while look && let Some(next) = growing.next().await {
                    seen.push(next.unwrap());
                }
            }
            store.seal().unwrap();
            let mut expected = Vec::new();
            // Both kept up or both are behind by the same: nothing is given up at these lengths but at the ring's turn.
            while let Some(next) = live.next().await {
                if let Ok(record) = next { expected.push(record) }
            }
            while let Some(next) = growing.next().await {
                if let Ok(record) = next { seen.push(record) }
            }
            let last = expected.last().map(|record| record.sequence);
            assert_eq!(seen.last().map(|record| record.sequence), last);
            let by_sequence: std::collections::HashMap<_, _> = seen.iter().map(|record| (record.sequence, record)).collect();
            for record in &expected {
                assert_eq!(by_sequence.get(&record.sequence), Some(&record));
            }
        });
    }
}
