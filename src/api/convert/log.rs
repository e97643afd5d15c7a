//! Logs, as they are stored and as they are shown.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use creel_proto::v1 as wire;
use creel_proto::v1::{log_record, stream_place};

use super::{Malformed, required, since_epoch_us};
use crate::state::log::{
    ExpiredRange, LineKind, LogLine, Payload, Record, StepStatus, Stream, StreamOffset, StreamPiece,
};

fn stream(stream: Stream) -> wire::Stream {
    match stream {
        Stream::Stdout => wire::Stream::Stdout,
        Stream::Stderr => wire::Stream::Stderr,
    }
}

fn status(status: StepStatus) -> String {
    match status {
        StepStatus::Start => "start".to_owned(),
        StepStatus::End => "end".to_owned(),
    }
}

impl From<Record> for wire::LogRecord {
    fn from(record: Record) -> Self {
        let payload = match record.payload {
            Payload::Data { stream: of, bytes } => log_record::Payload::Data(wire::LogData {
                stream: stream(of).into(),
                offset: record.offset,
                raw_offset: record.raw_offset,
                data: bytes,
            }),
            Payload::Control(control) => log_record::Payload::Control(wire::LogControl {
                step_status: status(control.step_status),
                step_kind: control.step_kind,
                step_command: control.step_command,
                content: control.content,
            }),
        };
        Self {
            sequence: record.sequence,
            time_us: since_epoch_us(SystemTime::from(record.time)),
            step: record.step,
            payload: Some(payload),
        }
    }
}

impl From<LogLine> for wire::LogLine {
    fn from(line: LogLine) -> Self {
        let kind = match line.kind {
            LineKind::Data => "data",
            LineKind::Control => "control",
        };
        Self {
            kind: kind.to_owned(),
            content: line.content,
            // Ours, so it decodes.
            content_bytes: line.content_base64.and_then(|text| STANDARD.decode(text).ok()).map(Into::into),
            time_us: since_epoch_us(SystemTime::from(line.time)),
            step_id: line.step_id,
            stream: line.stream.map_or(wire::Stream::Unspecified, stream).into(),
            step_status: line.step_status.map(status).unwrap_or_default(),
            step_kind: line.step_kind.unwrap_or_default(),
            step_command: line.step_command.unwrap_or_default(),
            continued: line.continued,
            record: line.record,
            raw_offset: line.raw_offset,
        }
    }
}

impl From<ExpiredRange> for wire::LogExpired {
    fn from(range: ExpiredRange) -> Self {
        Self { from: range.from, to: range.to, bytes: range.bytes, step: range.step }
    }
}

impl From<StreamPiece> for wire::LogPiece {
    fn from(piece: StreamPiece) -> Self {
        Self {
            offset: piece.offset,
            raw_offset: piece.raw_offset,
            time_us: since_epoch_us(SystemTime::from(piece.time)),
            data: piece.bytes,
        }
    }
}

/// A stream of one step, and from where on.
pub(in crate::api) fn stream_place(
    place: &wire::StreamPlace,
) -> Result<(i32, Stream, StreamOffset), Malformed> {
    let stream = match wire::Stream::try_from(place.stream) {
        Ok(wire::Stream::Stdout) => Stream::Stdout,
        Ok(wire::Stream::Stderr) => Stream::Stderr,
        Ok(wire::Stream::Unspecified) | Err(_) => {
            return Err(Malformed::unknown("stream.stream", place.stream));
        }
    };
    let from = match required(place.from, "stream.from")? {
        stream_place::From::Offset(offset) => StreamOffset::Stored(offset),
        stream_place::From::RawOffset(offset) => StreamOffset::Raw(offset),
    };
    Ok((place.step, stream, from))
}
