//! Records as spindle shows them: one JSON object for each line of output.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::follow::ExpiredRange;
use super::frame::{Payload, Record, StepStatus, Stream};

/// The step under which what happens before the first step is logged.
pub const SETUP_STEP: i32 = -1;

/// Longer lines come as several objects of about this size, all but the last marked `continued`.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// Whether a line is output, or a mark beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    Data,
    Control,
}

/// One line. Field names are upstream's but for `content_base64`, `continued`, `record` and `raw_offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub kind: LineKind,
    /// Without its line end. Bytes that are no UTF-8 read as U+FFFD.
    pub content: String,
    /// The exact bytes, where `content` could not carry them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// RFC 3339.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// From 0; setup is [`SETUP_STEP`].
    pub step_id: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_status: Option<StepStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_command: Option<String>,
    /// The line has no end of its own: it goes on in the next object of its stream, or its stream stopped there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
    /// The record that the line was completed by: where to follow from.
    pub record: u64,
    /// The raw offset of its stream that was acknowledged with that record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_offset: Option<u64>,
}

impl LogLine {
    /// Marks the place where output is missing.
    pub fn expired(range: &ExpiredRange, time: Timestamp) -> Self {
        let content = format!("{} bytes of output are cut here", range.bytes);
        Self { content, ..Self::empty(LineKind::Control, range.step, time, range.from) }
    }

    /// One line of JSON, with its newline.
    pub fn to_json_line(&self) -> String {
        // Strings, numbers and a Display that can't fail.
        let mut line = serde_json::to_string(self).expect("a LogLine has nothing that JSON lacks");
        line.push('\n');
        line
    }

    fn empty(kind: LineKind, step_id: i32, time: Timestamp, record: u64) -> Self {
        Self {
            kind,
            content: String::new(),
            content_base64: None,
            time,
            step_id,
            stream: None,
            step_status: None,
            step_kind: None,
            step_command: None,
            continued: false,
            record,
            raw_offset: None,
        }
    }
}

/// Cuts records into lines: a record ends wherever the guest's write did, in the midst of a line or of a character.
#[derive(Default)]
pub struct LineSplitter {
    begun: HashMap<(i32, Stream), Begun>,
}

impl fmt::Debug for LineSplitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSplitter").field("begun", &self.begun.len()).finish()
    }
}

struct Begun {
    bytes: Vec<u8>,
    time: Timestamp,
    record: u64,
    raw_offset: u64,
}

impl LineSplitter {
    /// The lines that `record` completes. A mark first ends the unfinished lines of its step.
    pub fn push(&mut self, record: &Record, mut emit: impl FnMut(LogLine)) {
        let (stream, bytes) = match &record.payload {
            Payload::Data { stream, bytes } => (*stream, bytes),
            Payload::Control(control) => {
                self.end(|step| step == record.step, &mut emit);
                emit(LogLine {
                    content: control.content.clone(),
                    step_status: Some(control.step_status),
                    step_kind: Some(control.step_kind.clone()),
                    step_command: Some(control.step_command.clone()),
                    ..LogLine::empty(LineKind::Control, record.step, record.time, record.sequence)
                });
                return;
            }
        };
        let begun = self.begun.remove(&(record.step, stream));
        let mut begun = begun.map(|begun| begun.bytes).unwrap_or_default();
        let at = (record.time, record.sequence, record.raw_offset);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(MAX_LINE_BYTES) {
                if begun.len() + piece.len() > MAX_LINE_BYTES {
                    let rest = begun.split_off(last_character_end(&begun));
                    if !begun.is_empty() {
                        emit(data(record.step, stream, &begun, true, at));
                    }
                    begun = rest;
                }
                begun.extend_from_slice(piece);
            }
            if let Some(line) = begun.strip_suffix(b"\n") {
                emit(data(record.step, stream, line.strip_suffix(b"\r").unwrap_or(line), false, at));
                begun.clear();
            }
        }
        if !begun.is_empty() {
            let (time, record_sequence, raw_offset) = at;
            let begun = Begun { bytes: begun, time, record: record_sequence, raw_offset };
            self.begun.insert((record.step, stream), begun);
        }
    }

    /// The lines that never ended: of all steps, at the end of the log or before a gap.
    pub fn finish(&mut self, mut emit: impl FnMut(LogLine)) {
        self.end(|_| true, &mut emit);
    }

    fn end(&mut self, of: impl Fn(i32) -> bool, emit: &mut impl FnMut(LogLine)) {
        let mut ended: Vec<_> = self.begun.extract_if(|(step, _), _| of(*step)).collect();
        ended.sort_by_key(|(_, begun)| begun.record);
        for ((step, stream), begun) in ended {
            emit(data(step, stream, &begun.bytes, true, (begun.time, begun.record, begun.raw_offset)));
        }
    }
}

fn data(step: i32, stream: Stream, line: &[u8], continued: bool, at: (Timestamp, u64, u64)) -> LogLine {
    let (time, record, raw_offset) = at;
    let (content, content_base64) = match std::str::from_utf8(line) {
        Ok(content) => (content.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(line).into_owned(), Some(STANDARD.encode(line))),
    };
    LogLine {
        content,
        content_base64,
        stream: Some(stream),
        continued,
        raw_offset: Some(raw_offset),
        ..LogLine::empty(LineKind::Data, step, time, record)
    }
}

/// Where to cut so that no UTF-8 character is: before its first bytes if it is incomplete at the end.
fn last_character_end(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// jiff's serde feature is one dependency edge for six lines.
mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
