//! The log's file: making it, its headers, and reading it back.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::buffer::spare_capacity;

use super::frame::{Fields, Payload, Stream, decode};
use super::segments::{
    FILE_HEADER_BYTES, Limits, Offsets, SEGMENT_BYTES, SEGMENT_HEADER_BYTES, Segment, Segments,
};

const MAGIC: &[u8; 8] = b"creellog";
const VERSION: u32 = 2;
/// Magic, version, bytes of a slot, and whether the log is sealed.
const HEADER_BYTES: usize = 8 + 4 + 4 + 1;
const SEALED_AT: u64 = 16;
const SEGMENT_MAGIC: &[u8; 4] = b"segm";

/// No number or offset in a log comes near; one beyond is damage, and would not be safe to count on from.
const MOST: u64 = 1 << 62;

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
pub(super) fn encode_segment(segment: &Segment, out: &mut Vec<u8>) {
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&segment.step.to_le_bytes());
    out.extend_from_slice(&segment.first.to_le_bytes());
    out.extend_from_slice(&segment.bytes_before.to_le_bytes());
    out.extend_from_slice(&u64::from(segment.head).to_le_bytes());
    for at in segment.begins {
        out.extend_from_slice(&at.stored.to_le_bytes());
        out.extend_from_slice(&at.raw.to_le_bytes());
    }
}

/// What the file's header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) segment_bytes: u64,
    pub(super) sealed: bool,
}

/// None if it is no log of ours.
pub(super) fn read_header(file: &File) -> io::Result<Option<Header>> {
    let mut header = [0; HEADER_BYTES];
    read_up_to(file, &mut header, 0)?;
    let mut fields = Fields(&header);
    if fields.array() != Some(*MAGIC) || fields.u32() != Some(VERSION) {
        return Ok(None);
    }
    let Some(slot_bytes) = fields.u32().filter(|bytes| SEGMENT_BYTES.contains(&u64::from(*bytes))) else {
        return Ok(None);
    };
    Ok(Some(Header { segment_bytes: u64::from(slot_bytes), sealed: fields.0.first() == Some(&1) }))
}

/// How many slots the file has, the last perhaps in part.
pub(super) fn count_slots(file: &File, segment_bytes: u64) -> io::Result<u32> {
    let in_slots = file.metadata()?.len().saturating_sub(FILE_HEADER_BYTES);
    u32::try_from(in_slots.div_ceil(segment_bytes)).map_err(io::Error::other)
}

/// The number of the first record of the segment in the slot at `offset`; None if there is no segment.
pub(super) fn first_in_slot(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut head = [0; SEGMENT_MAGIC.len() + 4 + 8];
    let read = read_up_to(file, &mut head, offset)?;
    let mut fields = Fields(&head[..read]);
    if fields.array() != Some(*SEGMENT_MAGIC) || fields.u32().is_none() {
        return Ok(None);
    }
    Ok(fields.u64())
}

/// Reads the segment in a slot, up to its first record that is not there whole.
pub(super) fn read_segment(
    file: &File,
    segment_bytes: u64,
    slot: u32,
) -> io::Result<Option<(Segment, StreamOffsets)>> {
    let mut bytes = vec![0; usize::try_from(segment_bytes).map_err(io::Error::other)?];
    let read = read_up_to(file, &mut bytes, FILE_HEADER_BYTES + u64::from(slot) * segment_bytes)?;
    bytes.truncate(read);
    Ok(recover_segment(slot, bytes.into()))
}

/// Reads a log back: every segment up to its first record that is not there whole. None if it is no log of ours.
pub(super) fn recover(file: &File, limits: Limits) -> io::Result<Option<(Segments, StreamOffsets)>> {
    let Some(Header { segment_bytes, sealed }) = read_header(file)? else { return Ok(None) };
    let slots = count_slots(file, segment_bytes)?;
    let mut found = Vec::new();
    for slot in 0..slots {
        found.extend(read_segment(file, segment_bytes, slot)?);
    }
    // A write that failed may have left the beginning of a segment which then went to another slot, and a damaged file may
    // name a record twice: the segment that has more counts.
    found.sort_by_key(|(segment, _)| (segment.first, Reverse(segment.records)));
    let mut end = 0;
    found.retain(|(segment, _)| {
        let behind = segment.first >= end;
        end = end.max(segment.end().max(segment.first + 1));
        behind
    });

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
    let mut begins = [Offsets::default(); 2];
    for at in &mut begins {
        *at = Offsets { stored: fields.u64()?, raw: fields.u64()? };
    }
    let named = begins.iter().flat_map(|at| [at.stored, at.raw]).chain([first, bytes_before]);
    if named.max() > Some(MOST) {
        return None;
    }
    let mut offsets = StreamOffsets::from([
        ((step, Stream::Stdout), begins[Stream::Stdout.lane()]),
        ((step, Stream::Stderr), begins[Stream::Stderr.lane()]),
    ]);
    let _ = bytes.split_to(usize::try_from(SEGMENT_HEADER_BYTES).ok()?);

    let (mut records, mut output_bytes, mut used) = (0, 0, SEGMENT_HEADER_BYTES);
    while let Some(record) = decode(&mut bytes, first + records, step) {
        if record.offset.max(record.raw_offset) > MOST {
            break;
        }
        used = (whole - bytes.len()) as u64;
        records += 1;
        output_bytes += record.output_bytes();
        if let Payload::Data { stream, bytes } = record.payload {
            let stored = record.offset + bytes.len() as u64;
            offsets.insert((step, stream), Offsets { stored, raw: record.raw_offset });
        }
    }
    let segment =
        Segment { first, records, step, head, slot, used, bytes_before, bytes: output_bytes, begins };
    Some((segment, offsets))
}

/// Writes one part behind the other: with one pwritev(2), unless a signal or a full disk cuts that short.
pub(super) fn write_parts(file: &File, parts: [&[u8]; 3], mut offset: u64) -> io::Result<()> {
    let mut slices = parts.map(IoSlice::new);
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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

/// The same into memory of its own, which is not written before it is read into.
pub(super) fn read_most(file: &File, length: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more than was asked for.
    bytes.truncate(length);
    Ok(bytes)
}
