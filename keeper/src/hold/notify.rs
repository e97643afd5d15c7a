//! What systemd is told: one datagram a message (`sd_notify(3)`).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use thiserror::Error;

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Why systemd can't be told.
#[derive(Debug, Error)]
pub(crate) enum NotifyError {
    #[error("{VARIABLE} is `{value}`, which is no path and no `@name`")]
    Address {
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to notify systemd")]
    Send(#[source] io::Error),
}

/// The way to systemd, if it started this process.
#[derive(Debug)]
pub(crate) struct Notify(Option<SocketAddr>);

impl Notify {
    pub(crate) fn from_environment() -> Result<Self, NotifyError> {
        let Some(value) = std::env::var_os(VARIABLE) else { return Ok(Self(None)) };
        match address(&value) {
            Ok(address) => Ok(Self(Some(address))),
            Err(source) => Err(NotifyError::Address { value: value.to_string_lossy().into_owned(), source }),
        }
    }

    /// Sends assignments, one a line.
    pub(crate) fn send(&self, message: &str) -> Result<(), NotifyError> {
        let Some(address) = &self.0 else { return Ok(()) };
        let socket = UnixDatagram::unbound().map_err(NotifyError::Send)?;
        socket.send_to_addr(message.as_bytes(), address).map_err(NotifyError::Send)?;
        Ok(())
    }
}

/// A path, or `@` before a name of the abstract namespace.
fn address(value: &OsStr) -> io::Result<SocketAddr> {
    match value.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(value),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let parse = |text: &str| address(OsStr::new(text));
        let path = parse("/run/systemd/notify").expect("a path");
        assert_eq!(path.as_pathname().expect("a path").as_os_str(), "/run/systemd/notify");
        let name = parse("@/org/freedesktop/systemd1/notify").expect("a name");
        assert_eq!(name.as_abstract_name(), Some(&b"/org/freedesktop/systemd1/notify"[..]));
        let too_long = format!("/{}", "x".repeat(200));
        for wrong in ["", "@", "relative", "vsock:2:9", &too_long] {
            assert!(parse(wrong).is_err(), "`{wrong}`");
        }
    }

    #[test]
    fn without_systemd_nothing_is_sent_and_nothing_fails() {
        Notify(None).send("READY=1").expect("nobody to tell");
    }
}
