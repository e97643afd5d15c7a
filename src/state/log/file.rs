//! The log's file: making it, its headers, and reading it back.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;

use super::frame::{Fields, Payload, Stream, decode};
use super::segments::{FILE_HEADER_BYTES, Limits, SEGMENT_HEADER_BYTES, Segment, Segments};

const MAGIC: &[u8; 8] = b"creellog";
const VERSION: u32 = 1;
/// Magic, version, bytes of a slot, and whether the log is sealed.
const HEADER_BYTES: usize = 8 + 4 + 4 + 1;
const SEALED_AT: u64 = 16;
const SEGMENT_MAGIC: &[u8; 4] = b"segm";

/// How far a stream of a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offsets {
    pub(super) stored: u64,
    pub(super) raw: u64,
}

pub(super) type StreamOffsets = HashMap<(i32, Stream), Offsets>;

/// A new file, readable by its owner alone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn write_header(file: &File, segment_bytes: u64) -> io::Result<()> {
    let segment_bytes = u32::try_from(segment_bytes).map_err(io::Error::other)?;
    let header = [&MAGIC[..], &VERSION.to_le_bytes(), &segment_bytes.to_le_bytes(), &[0]].concat();
    file.write_all_at(&header, 0)
}

pub(super) fn write_seal(file: &File) -> io::Result<()> {
    file.write_all_at(&[1], SEALED_AT)
}

/// Appends the header of `segment`. It carries the offsets of its step's streams, so that they are known as long as
/// the step's last segment is.
pub(super) fn encode_segment(segment: &Segment, offsets: &StreamOffsets, out: &mut Vec<u8>) {
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&segment.step.to_le_bytes());
    out.extend_from_slice(&segment.first.to_le_bytes());
    out.extend_from_slice(&segment.bytes_before.to_le_bytes());
    out.extend_from_slice(&u64::from(segment.head).to_le_bytes());
    for stream in [Stream::Stdout, Stream::Stderr] {
        let at = offsets.get(&(segment.step, stream)).copied().unwrap_or_default();
        out.extend_from_slice(&at.stored.to_le_bytes());
        out.extend_from_slice(&at.raw.to_le_bytes());
    }
}

/// Reads a log back: every segment up to its first record that is not there whole. None if it is no log of ours.
pub(super) fn recover(file: &File, limits: Limits) -> io::Result<Option<(Segments, StreamOffsets)>> {
    let mut header = [0; HEADER_BYTES];
    read_up_to(file, &mut header, 0)?;
    let mut fields = Fields(&header);
    if fields.array() != Some(*MAGIC) || fields.u32() != Some(VERSION) {
        return Ok(None);
    }
    let Some(slot_bytes) = fields.u32().filter(|bytes| u64::from(*bytes) > SEGMENT_HEADER_BYTES) else {
        return Ok(None);
    };
    let segment_bytes = u64::from(slot_bytes);
    let sealed = fields.0.first() == Some(&1);

    let in_slots = file.metadata()?.len().saturating_sub(FILE_HEADER_BYTES);
    let slots = u32::try_from(in_slots.div_ceil(segment_bytes)).map_err(io::Error::other)?;
    let mut found = Vec::new();
    for slot in 0..slots {
        let mut bytes = vec![0; slot_bytes as usize];
        let read = read_up_to(file, &mut bytes, FILE_HEADER_BYTES + u64::from(slot) * segment_bytes)?;
        bytes.truncate(read);
        found.extend(recover_segment(slot, bytes.into()));
    }
    found.sort_unstable_by_key(|(segment, _)| segment.first);

    let mut offsets = StreamOffsets::new();
    for (_, of_segment) in &found {
        offsets.extend(of_segment);
    }
    let found = found.into_iter().map(|(segment, _)| segment).collect();
    let mut segments = Segments::recovered(limits, segment_bytes, slots, found);
    segments.sealed = sealed;
    Ok(Some((segments, offsets)))
}

fn recover_segment(slot: u32, mut bytes: Bytes) -> Option<(Segment, StreamOffsets)> {
    let whole = bytes.len();
    let mut fields = Fields(&bytes);
    if fields.array() != Some(*SEGMENT_MAGIC) {
        return None;
    }
    let step = i32::from_le_bytes(fields.array()?);
    let (first, bytes_before, head) = (fields.u64()?, fields.u64()?, fields.u64()? == 1);
    let mut offsets = StreamOffsets::new();
    for stream in [Stream::Stdout, Stream::Stderr] {
        offsets.insert((step, stream), Offsets { stored: fields.u64()?, raw: fields.u64()? });
    }
    let _ = bytes.split_to(usize::try_from(SEGMENT_HEADER_BYTES).ok()?);

    let (mut records, mut output_bytes) = (0, 0);
    while let Some(record) = decode(&mut bytes, first + records, step) {
        records += 1;
        output_bytes += record.output_bytes();
        if let Payload::Data { stream, bytes } = record.payload {
            let stored = record.offset + bytes.len() as u64;
            offsets.insert((step, stream), Offsets { stored, raw: record.raw_offset });
        }
    }
    let used = (whole - bytes.len()) as u64;
    Some((Segment { first, records, step, head, slot, used, bytes_before, bytes: output_bytes }, offsets))
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
