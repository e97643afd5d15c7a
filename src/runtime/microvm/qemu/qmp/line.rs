//! Lines of QMP, and what they say. Pure.

use bytes::{Buf, BytesMut};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::runtime::microvm::qemu::qmp::event::Event;

/// The longest line that is read; QEMU's own answers to what creel asks are below 4 KiB.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// The longest text that is taken from QEMU into an event or an error, in characters.
const MAX_TEXT_CHARS: usize = 256;

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The first line. The version is for logs: creel asked the program itself before.
    Greeting {
        version: String,
    },
    /// A command's result.
    Return {
        id: Option<u64>,
        value: Value,
    },
    /// A command's failure. Without an id: QEMU did not understand the command.
    Error {
        id: Option<u64>,
        class: String,
        description: String,
    },
    Event(Event),
}

/// A line that is no QMP; nothing after it can be trusted.
#[derive(Debug, Error)]
pub enum LineError {
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("a line is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("a line is JSON but no QMP message")]
    Shape,
}

/// Splits a stream into lines, holding no more than one that is not complete.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: BytesMut,
    /// How much of `bytes` is known to hold no line end.
    searched: usize,
}

impl LineBuffer {
    /// Where to read into.
    pub fn space(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The next message, if it has arrived whole. Blank lines are passed over.
    ///
    /// # Errors
    /// When the line is too long or is no QMP.
    pub fn next_message(&mut self) -> Result<Option<Incoming>, LineError> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return if self.searched > MAX_LINE_BYTES { Err(LineError::TooLong) } else { Ok(None) };
            };
            let line = self.bytes.split_to(self.searched + at);
            self.bytes.advance(1);
            self.searched = 0;
            if line.len() > MAX_LINE_BYTES {
                return Err(LineError::TooLong);
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                return Incoming::parse(line).map(Some);
            }
        }
    }
}

impl Incoming {
    /// Reads one line.
    ///
    /// # Errors
    /// When it is no QMP.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let Value::Object(mut object) = serde_json::from_slice(line).map_err(LineError::Json)? else {
            return Err(LineError::Shape);
        };
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(value) = object.remove("return") {
            return Ok(Self::Return { id, value });
        }
        if let Some(Value::Object(error)) = object.get("error") {
            return Ok(Self::Error { id, class: text(error, "class"), description: text(error, "desc") });
        }
        if object.contains_key("event") {
            let empty = Map::new();
            let data = object.get("data").and_then(Value::as_object).unwrap_or(&empty);
            return Ok(Self::Event(Event::from_parts(&text(&object, "event"), data)));
        }
        let greeting = object.get("QMP").ok_or(LineError::Shape)?;
        let number = |name: &str| greeting.pointer(&format!("/version/qemu/{name}")).and_then(Value::as_u64);
        let numbers = [number("major"), number("minor"), number("micro")].map(Option::unwrap_or_default);
        Ok(Self::Greeting { version: numbers.map(|number| number.to_string()).join(".") })
    }
}

/// A member as text, short and without control characters, since people will see it; empty if it is missing.
pub(super) fn text(object: &Map<String, Value>, name: &str) -> String {
    let text = object.get(name).and_then(Value::as_str).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}
