//! Where the host is, and how to reach it.

use std::env::{self, VarError};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use creel_proto::names::DEFAULT_AGENT_PORT;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::cmdline::{Cmdline, CmdlineError};

/// The host, as seen from any guest (vsock(7)).
const HOST_CID: u32 = 2;

/// Longer than the kernel's own limit for vsock (2 s).
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// An address to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Vsock {
        cid: u32,
        port: u32,
    },
    /// For agents that run as a plain process beside their host.
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an address; known are unix:PATH and vsock:CID:PORT")]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let vsock = |address: &str| {
            let (cid, port) = address.split_once(':')?;
            Some(Self::Vsock { cid: cid.parse().ok()?, port: port.parse().ok()? })
        };
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("vsock", address)) => vsock(address).ok_or_else(|| InvalidEndpoint(text.to_owned())),
            _ => Err(InvalidEndpoint(text.to_owned())),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("environment variable `{name}` is `{value}`; a number below 2^32 - 1 is needed")]
    Variable { name: &'static str, value: String },
    #[error("failed to read /proc/cmdline: {0}")]
    ReadCmdline(#[source] io::Error),
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
}

impl Endpoint {
    /// The host of this machine: the environment goes before the kernel command line, and that before the
    /// contract's default.
    pub fn of_this_machine() -> Result<Self, EndpointError> {
        let cid = variable("SHUTTLE_HOST_CID")?.unwrap_or(HOST_CID);
        let port = match variable("SHUTTLE_VSOCK_PORT")? {
            Some(port) => port,
            None => {
                let line = fs::read_to_string("/proc/cmdline").map_err(EndpointError::ReadCmdline)?;
                Cmdline::parse(&line).vsock_port()?.unwrap_or(DEFAULT_AGENT_PORT)
            }
        };
        Ok(Self::Vsock { cid, port })
    }
}

fn variable(name: &'static str) -> Result<Option<u32>, EndpointError> {
    let value = match env::var(name) {
        Ok(value) => value,
        Err(VarError::NotPresent) => return Ok(None),
        Err(VarError::NotUnicode(value)) => value.to_string_lossy().into_owned(),
    };
    match value.parse() {
        // All ones means "any" in vsock(7).
        Ok(number) if number != u32::MAX => Ok(Some(number)),
        _ => Err(EndpointError::Variable { name, value }),
    }
}

/// A connection to the host.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Dials once.
pub async fn dial(endpoint: &Endpoint) -> io::Result<Box<dyn Connection>> {
    let connection = async {
        Ok(match endpoint {
            Endpoint::Vsock { cid, port } => {
                Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?) as Box<dyn Connection>
            }
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    timeout(DIAL_LIMIT, connection).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!("unix:/run/a:b".parse::<Endpoint>().unwrap(), Endpoint::Unix("/run/a:b".into()));
        assert_eq!("vsock:2:824".parse::<Endpoint>().unwrap(), Endpoint::Vsock { cid: 2, port: 824 });
        for wrong in ["", "unix:", "vsock:2", "vsock:2:x", "vsock::824", "/run/x", "tcp:1:2"] {
            let error = wrong.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{wrong}`")), "{error}");
        }
    }
}
