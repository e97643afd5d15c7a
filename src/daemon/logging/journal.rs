//! journald's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, in which every field has a length,
//! so that no value can begin another field.
//!
//! The message is the text form's, since that is all that `journalctl` shows by default; each field is beside it once, for
//! `journalctl CREEL_MACHINE=<id>` and `-o json`. (The crate tracing-journald leaves fields out of the message, repeats
//! those of nested spans, and drops what journald does not take.)

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::priority;
use super::record::{Output, Record};
use super::text::{Text, body};

/// systemd holds it, also while journald is restarted.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

const IDENTIFIER: &str = "creeld";

/// Before the names of fields, which may not collide with journald's.
const PREFIX: &str = "CREEL_";

/// systemd.journal-fields(7): longer names are dropped, and with them nothing else.
const MAX_NAME_BYTES: usize = 64;

/// A journald that takes nothing for so long is as good as none.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Below a socket's send buffer (`net.core.wmem_default`, 208 KiB) by far; fields beyond are left out.
const MAX_ENTRY_BYTES: usize = 96 << 10;

/// The journal; stderr for what it does not take.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    otherwise: Text,
}

impl Journal {
    /// # Errors
    /// When nobody listens at `path`.
    pub(super) fn open(path: &Path, otherwise: Text) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        // journald ignores an empty datagram.
        socket.send_to(&[], path)?;
        Ok(Self { socket, path: path.to_owned(), otherwise })
    }
}

impl Output for Journal {
    fn write(&self, record: &Record<'_>) {
        // By name each time: the socket is another one after systemd itself was restarted.
        if self.socket.send_to(&entry(record), &self.path).is_err() {
            self.otherwise.write(record);
        }
    }
}

/// One entry as it is sent.
pub(super) fn entry(record: &Record<'_>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "MESSAGE", body(record).as_bytes());
    put(&mut entry, "PRIORITY", priority(*record.metadata.level()).to_string().as_bytes());
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER.as_bytes());
    if let Some(file) = record.metadata.file() {
        put(&mut entry, "CODE_FILE", file.as_bytes());
    }
    if let Some(line) = record.metadata.line() {
        put(&mut entry, "CODE_LINE", line.to_string().as_bytes());
    }
    put(&mut entry, "CODE_MODULE", record.metadata.target().as_bytes());
    for (name, value) in record.all_fields().0 {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if entry.len() + value.len() <= MAX_ENTRY_BYTES {
            put(&mut entry, &field_name(name), value.as_bytes());
        }
    }
    entry
}

/// Name, line feed, length (64 bits, little-endian), value, line feed.
fn put(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// Capitals, digits and `_`, as systemd.journal-fields(7) wants them.
pub(super) fn field_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(allowed)).take(MAX_NAME_BYTES).collect()
}
