//! Lines for people: `time LEVEL span{field=value}: message field=value`.
//!
//! Under systemd stderr is a stream of journald, which has the time itself and takes each line's level from a prefix
//! (sd-daemon(3)). Without that prefix a warning and a debug line look the same to `journalctl -p`.

use std::fmt::Write as _;

use serde_json::Value;
use tracing::Level;

use super::record::{Fields, Output, Record};
use super::{priority, write_to_stderr};

/// How lines look, and that they go to stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// With time and level; in colour or not.
    People { colour: bool },
    /// With the level as journald reads it.
    Journal,
}

impl Text {
    pub(super) fn for_people(colour: bool) -> Self {
        Self { look: Look::People { colour } }
    }

    pub(super) fn for_journal() -> Self {
        Self { look: Look::Journal }
    }

    /// One line, or several: those behind the first are indented, so that what a message quotes is never taken for a line
    /// of the log.
    pub(super) fn lines(self, record: &Record<'_>) -> String {
        let level = *record.metadata.level();
        let (mut text, prefix) = match self.look {
            Look::People { colour } => (head(record, level, colour), String::new()),
            Look::Journal => (String::new(), format!("<{}>", priority(level))),
        };
        text += &body(record);
        let mut lines = String::with_capacity(text.len() + 8);
        for (index, line) in text.trim_end_matches('\n').split('\n').enumerate() {
            let indent = if index == 0 { "" } else { "  " };
            // A String takes everything, here and below.
            let _ = writeln!(lines, "{prefix}{indent}{line}");
        }
        lines
    }
}

impl Output for Text {
    fn write(&self, record: &Record<'_>) {
        write_to_stderr(self.lines(record).as_bytes());
    }
}

fn head(record: &Record<'_>, level: Level, colour: bool) -> String {
    let time = format!("{:.6}", record.time);
    if !colour {
        return format!("{time} {level:>5} ");
    }
    let hue = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        _ => 35,
    };
    format!("\x1b[2m{time}\x1b[0m \x1b[{hue}m{level:>5}\x1b[0m ")
}

/// Spans, message and fields, without time and level.
pub(super) fn body(record: &Record<'_>) -> String {
    let mut text = String::new();
    for (name, fields) in &record.spans {
        text += name;
        if !fields.0.is_empty() {
            text.push('{');
            put_fields(&mut text, fields);
            text.push('}');
        }
        text.push(':');
    }
    if !text.is_empty() {
        text.push(' ');
    }
    put_message(&mut text, &record.message);
    if !record.fields.0.is_empty() {
        if !record.message.is_empty() {
            text.push(' ');
        }
        put_fields(&mut text, &record.fields);
    }
    text
}

fn put_fields(text: &mut String, fields: &Fields) {
    for (index, (name, value)) in fields.0.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let _ = match value {
            // In quotes what could be taken for more than one value.
            Value::String(value) if !is_plain(value) => write!(text, "{space}{name}={value:?}"),
            Value::String(value) => write!(text, "{space}{name}={value}"),
            value => write!(text, "{space}{name}={value}"),
        };
    }
}

fn is_plain(value: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || (c.is_ascii_graphic() && !r#""'\={}"#.contains(c));
    !value.is_empty() && value.chars().all(is_plain)
}

/// As it is, line breaks too, without what a terminal would take for an order.
fn put_message(text: &mut String, message: &str) {
    for c in message.chars() {
        match c {
            '\n' | '\'' | '"' | '\\' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
}
