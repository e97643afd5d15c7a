//! A daemon that is killed, and another that goes on with its log.

use std::fs::OpenOptions;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::mask_tests::{model, squeezed};
use super::*;

/// Slots of 16 KiB, and so records of 4 KiB at most.
const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 2 << 20 };

const STEP: i32 = 3;

/// How one daemon ends.
#[derive(Debug, Clone)]
struct Life {
    /// It is given the stream in pieces of so many bytes...
    appends: Vec<usize>,
    /// ...and when it is killed, so much of what it wrote last is not in the file: as much as that is a write that it never
    /// made, or one that a power cut tore.
    unwritten: u64,
}

fn life() -> impl Strategy<Value = Life> {
    let size = prop_oneof![0_usize..20, 0_usize..9000];
    let unwritten = prop_oneof![Just(0), 0_u64..100, 0_u64..9000];
    (vec(size, 0..5), unwritten).prop_map(|(appends, unwritten)| Life { appends, unwritten })
}

fn secrets_and_text() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let secret = prop_oneof![vec(prop::sample::select(b"abc".to_vec()), 3..7), vec(b'a'..=b'z', 20..30)];
    vec(secret, 0..4).prop_flat_map(|secrets| {
        let forms: Vec<Vec<u8>> = forms(&secrets).into_iter().chain([vec![]]).collect();
        let filler = vec(prop::sample::select(b"abcYWJj \n".to_vec()), 0..30);
        let piece = prop_oneof![
            filler,
            prop::sample::select(forms),
            (0_usize..6000).prop_map(|count| b"far from it. ".repeat(count / 13)),
        ];
        (Just(secrets), vec(piece, 0..9).prop_map(|pieces| pieces.concat()))
    })
}

/// Whether all is in the log that `text` says, once: masked, in ascending offsets, with its last byte acknowledged.
fn assert_whole(path: &Path, secrets: &[Vec<u8>], text: &[u8]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut follower = Follower::replay(path, 0).unwrap();
    let (mut stored, mut raw) = (Vec::new(), 0);
    while let Some(record) = runtime.block_on(follower.next()) {
        let record = record.unwrap();
        prop_assert_eq!((record.offset, record.step), (stored.len() as u64, STEP));
        prop_assert!(record.raw_offset > raw, "{} behind {}", record.raw_offset, raw);
        raw = record.raw_offset;
        let Payload::Data { stream: Stream::Stdout, bytes } = record.payload else { panic!() };
        stored.extend_from_slice(&bytes);
    }
    prop_assert_eq!(raw, text.len() as u64);
    // Where a run of overlapping secrets was cut it may show two masks for one. Nothing else may differ.
    prop_assert_eq!(squeezed(&stored), squeezed(&model(secrets, text)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The agent sends again from what was acknowledged, whatever the daemon that it talked to had read.
    #[test]
    fn a_log_that_daemons_died_over_is_complete_undoubled_and_masked(
        (secrets, text) in secrets_and_text(),
        lives in vec(life(), 0..6),
        chunk in 1_usize..9000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mask = Mask::new(&secrets).unwrap();
        drop(LogStore::create(&path, LIMITS, mask.clone()).unwrap());
        for life in lives {
            let store = LogStore::open(&path, LIMITS, mask.clone()).unwrap();
            let mut stdout = store.appender(STEP, Stream::Stdout);
            for size in life.appends {
                let from = usize::try_from(stdout.next()).unwrap();
                let size = size.min(text.len() - from);
                let acknowledged = stdout.append(from as u64, &text[from..from + size]).unwrap();
                prop_assert_eq!(acknowledged, store.acknowledged(STEP, Stream::Stdout));
            }
            drop((stdout, store));
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            // The file's header is written and known to be before any of this.
            file.set_len(length.saturating_sub(life.unwritten).max(4096.min(length))).unwrap();
        }

        let store = LogStore::open(&path, LIMITS, mask).unwrap();
        let mut stdout = store.appender(STEP, Stream::Stdout);
        let acknowledged = usize::try_from(store.acknowledged(STEP, Stream::Stdout).raw).unwrap();
        for part in text[acknowledged..].chunks(chunk) {
            stdout.append(stdout.next(), part).unwrap();
        }
        prop_assert_eq!(stdout.finish().unwrap().raw, text.len() as u64);
        store.seal().unwrap();
        drop((stdout, store));
        assert_whole(&path, &secrets, &text)?;
    }
}

/// Cut after each byte in turn, so that every place within a secret is one.
#[test]
fn a_secret_that_straddles_the_death_of_a_daemon_is_masked() {
    let secret = "correct horse battery staple";
    let text = format!("before {secret} {secret}{secret} behind");
    let mask = || Mask::new(&[secret]).unwrap();
    for cut in 0..=text.len() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let store = LogStore::create(&path, LIMITS, mask()).unwrap();
        store.appender(STEP, Stream::Stdout).append(0, &text.as_bytes()[..cut]).unwrap();
        drop(store);

        let store = LogStore::open(&path, LIMITS, mask()).unwrap();
        let mut stdout = store.appender(STEP, Stream::Stdout);
        let from = usize::try_from(store.acknowledged(STEP, Stream::Stdout).raw).unwrap();
        assert!(from <= cut && cut - from <= secret.len(), "{from} is acknowledged of {cut}");
        stdout.append(from as u64, &text.as_bytes()[from..]).unwrap();
        stdout.finish().unwrap();
        drop((stdout, store));

        let log = std::fs::read(&path).unwrap();
        let shows = |part: &str| log.windows(part.len()).any(|window| window == part.as_bytes());
        assert!(!shows("correct") && !shows("staple") && !shows("horse"), "cut at {cut}");
        assert_whole(&path, &[secret.as_bytes().to_vec()], text.as_bytes()).unwrap();
    }
}

/// The disk was full for a moment: a slot has the beginning of a segment that was then written to another one.
#[test]
fn the_remains_of_a_write_that_failed_stand_in_nothings_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, LIMITS, Mask::none()).unwrap();
    let mut stdout = store.appender(STEP, Stream::Stdout);
    stdout.append(0, b"one").unwrap();
    stdout.append(3, b"two").unwrap();
    drop((stdout, store));

    let sound = std::fs::read(&path).unwrap();
    let (header, segment) = sound.split_at(4096);
    let mut remains = segment[..64].to_vec();
    remains.resize(16 << 10, 0);
    std::fs::write(&path, [header, &remains, segment].concat()).unwrap();
    let store = LogStore::open(&path, LIMITS, Mask::none()).unwrap();
    assert_eq!(store.acknowledged(STEP, Stream::Stdout), Acknowledged { raw: 6, stored: 6 });
    assert_eq!(store.next_sequence(), 2);
    drop(store);
    assert_whole(&path, &[], b"onetwo").unwrap();
}
