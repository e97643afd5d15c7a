//! A log whose file is damaged anywhere: it opens or it does not, its reader comes to an end, and what is appended to it is
//! read back.

use std::fs;
use std::path::Path;

use creel::state::log::{
    FollowError, Follower, Limits, LineSplitter, LogStore, Mask, Payload, Record, Stream,
};
use futures_util::FutureExt as _;

use super::input::Input;

const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 1 << 20 };

const SLOT_BYTES: usize = 16 << 10;

const HEADER_BYTES: usize = 4096;

/// Where numbers in a log begin to be beyond belief, and to write on is of no use.
const MOST: u64 = 1 << 60;

const APPENDED: &[u8] = b"what was appended\n";

pub fn run(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("log");
    fs::write(&path, file(Input(data))).expect("a file can be written");
    read(&path, 0);
    read(&path, u64::MAX);

    let Ok(store) = LogStore::open(&path, LIMITS, Mask::none()) else { return };
    let from = store.next_sequence();
    let mut stdout = store.appender(0, Stream::Stdout);
    let before = store.acknowledged(0, Stream::Stdout);
    if from.max(before.raw).max(before.stored) > MOST {
        return;
    }
    if stdout.append(stdout.next(), APPENDED).is_err() {
        // Only a sealed log takes nothing.
        store.seal().expect("the file can be written");
        return;
    }
    drop((stdout, store));
    let appended = read(&path, from);
    let [record] = &appended[..] else { panic!("{appended:?}") };
    assert_eq!((record.sequence, record.offset), (from, before.stored));
    assert_eq!(record.raw_offset, before.raw + APPENDED.len() as u64);
    let expected = Payload::Data { stream: Stream::Stdout, bytes: APPENDED.into() };
    assert_eq!(record.payload, expected);
}

/// The input's first byte says how it becomes a file: as it is, or slot by slot behind a sound header.
fn file(mut input: Input<'_>) -> Vec<u8> {
    let form = input.byte();
    if form & 1 == 1 {
        return input.0.to_vec();
    }
    let slot_bytes = u32::try_from(SLOT_BYTES).expect("a slot is small");
    let mut file =
        [&b"creellog"[..], &2_u32.to_le_bytes(), &slot_bytes.to_le_bytes(), &[form >> 1 & 1]].concat();
    let mut slots = 0;
    while !input.0.is_empty() && slots < 8 {
        file.resize(HEADER_BYTES + slots * SLOT_BYTES, 0);
        let length = usize::from(input.u16()) % SLOT_BYTES;
        file.extend_from_slice(input.bytes(length));
        slots += 1;
    }
    file
}

/// Every record from `from` on that can be read.
fn read(path: &Path, from: u64) -> Vec<Record> {
    let Ok(mut follower) = Follower::replay(path, from) else { return Vec::new() };
    let (mut records, mut lines) = (Vec::new(), LineSplitter::default());
    let mut position = from;
    while let Some(item) =
        follower.next().now_or_never().expect("nobody writes, so there is nothing to wait for")
    {
        match item {
            Ok(record) => {
                assert_eq!(record.sequence, position);
                position += 1;
                lines.push(&record, |line| assert!(line.to_json_line().ends_with('\n')));
                records.push(record);
            }
            Err(FollowError::Expired(range)) => {
                assert!(range.from == position && range.to > range.from, "{range:?}");
                position = range.to;
            }
            Err(FollowError::Log(_)) => break,
        }
    }
    lines.finish(|line| assert!(line.to_json_line().ends_with('\n')));
    records
}
