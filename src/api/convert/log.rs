//! Logs, as they are stored and as they are shown.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use creel_proto::v1 as wire;
use creel_proto::v1::log_record;

use super::since_epoch_us;
use crate::state::log::{ExpiredRange, LineKind, LogLine, Payload, Record, StepStatus, Stream};

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
        }
    }
}

impl From<ExpiredRange> for wire::LogExpired {
    fn from(range: ExpiredRange) -> Self {
        Self { from: range.from, to: range.to, bytes: range.bytes }
    }
}
