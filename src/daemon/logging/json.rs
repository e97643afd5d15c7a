//! An object a line, for programs: the fields of all spans beside the event's own.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::record::{Output, Record};
use super::{priority, write_to_stderr};

/// What every object has. A field that is named like one of them is written with a `_` behind its name.
const OWN: [&str; 5] = ["time", "level", "message", "target", "spans"];

/// Objects on stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json {
    /// Each behind its level, which journald takes off again.
    priority: bool,
}

impl Json {
    pub(super) fn new(priority: bool) -> Self {
        Self { priority }
    }

    pub(super) fn line(self, record: &Record<'_>) -> Vec<u8> {
        let mut line = match self.priority {
            true => format!("<{}>", priority(*record.metadata.level())).into_bytes(),
            false => Vec::with_capacity(256),
        };
        // Nothing in it can fail: names are text, and the buffer takes everything.
        let _ = serde_json::to_writer(&mut line, &Object(record));
        line.push(b'\n');
        line
    }
}

impl Output for Json {
    fn write(&self, record: &Record<'_>) {
        write_to_stderr(&self.line(record));
    }
}

struct Object<'a>(&'a Record<'a>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(record) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &format!("{:.6}", record.time))?;
        map.serialize_entry("level", &record.metadata.level().as_str().to_lowercase())?;
        map.serialize_entry("message", &record.message)?;
        map.serialize_entry("target", record.metadata.target())?;
        if !record.spans.is_empty() {
            let names: Vec<&str> = record.spans.iter().map(|(name, _)| *name).collect();
            map.serialize_entry("spans", &names)?;
        }
        for (name, value) in record.all_fields().0 {
            if OWN.contains(&name) {
                map.serialize_entry(&format!("{name}_"), &value)?;
            } else {
                map.serialize_entry(name, &value)?;
            }
        }
        map.end()
    }
}
