//! Records, and their form on disk.
//!
//! ```text
//! length u32 | kind u8 | 0 u8 x3 | sequence u64 | time, µs i64 | stored offset u64 | raw offset u64 | payload | tail u32
//! ```
//!
//! Little-endian. There is no checksum: a record is written by one pwritev(2), which only a power cut or a full disk can
//! tear, and then the inverted length at its end, or the sequence number expected, does not match what lies there.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const HEAD_BYTES: usize = 40;
const TAIL_BYTES: usize = 4;

/// What a record takes on disk beside its payload.
pub(super) const FRAME_OVERHEAD: usize = HEAD_BYTES + TAIL_BYTES;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Where it stands among a step's two.
    pub(super) fn lane(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// What a control record says of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    Start,
    End,
}

/// A mark between outputs: a step begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub step_status: StepStatus,
    /// Who asked for the step; upstream's words are `system` and `user`.
    pub step_kind: String,
    pub step_command: String,
    /// The step's name, or how it ended.
    pub content: String,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Data { stream: Stream, bytes: Bytes },
    Control(Control),
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log, from 0. Followers begin at any.
    pub sequence: u64,
    pub step: i32,
    /// When it was stored, in whole microseconds.
    pub time: Timestamp,
    /// Bytes stored of this step and stream before this record.
    pub offset: u64,
    /// The raw offset, at the source and before masking, that was acknowledged with this record.
    pub raw_offset: u64,
    pub payload: Payload,
}

impl Record {
    /// How many bytes of a step's output it holds.
    pub fn output_bytes(&self) -> u64 {
        match &self.payload {
            Payload::Data { bytes, .. } => bytes.len() as u64,
            Payload::Control(_) => 0,
        }
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
    pub(super) offset: u64,
    pub(super) raw_offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data(Stream),
    Control,
}

impl FrameKind {
    /// Never 0, which is what a hole in the file reads as.
    fn code(self) -> u8 {
        match self {
            Self::Data(Stream::Stdout) => 1,
            Self::Data(Stream::Stderr) => 2,
            Self::Control => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Data(Stream::Stdout), Self::Data(Stream::Stderr), Self::Control]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// Appends to `out` what stands before the payload of a record, and returns what stands behind it. The payload is shorter
/// than 4 GiB: the store cuts it to a fraction of a segment.
pub(super) fn encode(head: FrameHead, payload_bytes: usize, out: &mut Vec<u8>) -> [u8; TAIL_BYTES] {
    let length = u32::try_from(payload_bytes).expect("payloads are cut to a fraction of a segment");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[head.kind.code(), 0, 0, 0]);
    out.extend_from_slice(&head.sequence.to_le_bytes());
    out.extend_from_slice(&head.time.as_microsecond().to_le_bytes());
    out.extend_from_slice(&head.offset.to_le_bytes());
    out.extend_from_slice(&head.raw_offset.to_le_bytes());
    tail(length, head.sequence)
}

/// The last bytes of a record, which are those of no other in its place: slots are used again, often for records of the same
/// length, and a reader of another process must tell a record that is being written from one that is whole.
fn tail(length: u32, sequence: u64) -> [u8; TAIL_BYTES] {
    let [low, high] =
        [sequence, sequence >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
    (!length ^ low ^ high.rotate_left(16)).to_le_bytes()
}

/// Splits the record `sequence` off the front of `buffer`; None, and `buffer` as it was, if it is not there whole.
pub(super) fn decode(buffer: &mut Bytes, sequence: u64, step: i32) -> Option<Record> {
    let mut fields = Fields(buffer);
    let length = fields.u32()?;
    let [code, 0, 0, 0] = fields.array()? else { return None };
    let kind = FrameKind::from_code(code)?;
    if fields.u64()? != sequence {
        return None;
    }
    let time = Timestamp::from_microsecond(i64::from_le_bytes(fields.array()?)).ok()?;
    let (offset, raw_offset) = (fields.u64()?, fields.u64()?);
    let end = HEAD_BYTES.checked_add(usize::try_from(length).ok()?)?;
    if buffer.get(end..end + TAIL_BYTES)? != tail(length, sequence) {
        return None;
    }
    let payload = match kind {
        FrameKind::Data(stream) => Payload::Data { stream, bytes: buffer.slice(HEAD_BYTES..end) },
        FrameKind::Control => Payload::Control(serde_json::from_slice(&buffer[HEAD_BYTES..end]).ok()?),
    };
    let _ = buffer.split_to(end + TAIL_BYTES);
    Some(Record { sequence, step, time, offset, raw_offset, payload })
}

/// Reads little-endian fields from the front of a slice.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
