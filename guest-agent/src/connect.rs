//! Where the host is, and how to reach it.

use std::env::{self, VarError};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use creel_proto::names::DEFAULT_AGENT_PORT;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::cmdline::{Cmdline, CmdlineError};
use crate::sys;

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

impl Endpoint {
    /// The same host at another port. Beside a unix socket the ports are sockets too, named as hybrid vsock names them
    /// (`<path>_<port>`, Firecracker's docs/vsock.md).
    #[must_use]
    pub fn at_port(&self, port: u32) -> Self {
        match self {
            Self::Vsock { cid, .. } => Self::Vsock { cid: *cid, port },
            Self::Unix(path) => {
                let mut path = path.as_os_str().to_owned();
                path.push(format!("_{port}"));
                Self::Unix(path.into())
            }
        }
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

/// A connection to the host, closed when both halves are dropped.
#[derive(Debug)]
pub struct Connection {
    pub reader: Reader,
    pub writer: Writer,
}

/// What the host says.
#[derive(Debug)]
pub enum Reader {
    Vsock(VsockStream),
    Unix(UnixStream),
}

/// What is said to the host. A descriptor of its own, since tokio-vsock does not write several parts at once (writev(2)),
/// and a copy of all output would be the price.
#[derive(Debug)]
pub struct Writer(AsyncFd<File>);

impl Connection {
    fn new(reader: Reader) -> io::Result<Self> {
        let descriptor = match &reader {
            Reader::Vsock(stream) => stream.as_fd(),
            Reader::Unix(stream) => stream.as_fd(),
        };
        let descriptor = descriptor.try_clone_to_owned()?;
        let writer = Writer(sys::watched(descriptor.into(), Interest::WRITABLE)?);
        Ok(Self { reader, writer })
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|socket| Ok(rustix::io::writev(socket.get_ref(), parts)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Write)?))
    }
}

/// Dials once.
pub async fn dial(endpoint: &Endpoint) -> io::Result<Connection> {
    let connection = async {
        Connection::new(match endpoint {
            Endpoint::Vsock { cid, port } => {
                Reader::Vsock(VsockStream::connect(VsockAddr::new(*cid, *port)).await?)
            }
            Endpoint::Unix(path) => Reader::Unix(UnixStream::connect(path).await?),
        })
    };
    timeout(DIAL_LIMIT, connection).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_the_same_host_s() {
        let vsock = Endpoint::Vsock { cid: 2, port: 824 };
        assert_eq!(vsock.at_port(9), Endpoint::Vsock { cid: 2, port: 9 });
        assert_eq!(Endpoint::Unix("/run/x".into()).at_port(9), Endpoint::Unix("/run/x_9".into()));
    }

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
