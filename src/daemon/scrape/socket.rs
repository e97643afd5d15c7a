//! Where metrics are served: a port of this host's loopback, or a unix socket for a group.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::api::RolePolicy;
use crate::config::MetricsAddress;
use crate::daemon::failure::Failure;
use crate::daemon::sockets::{OwnSocket, SocketError, bind};

const KEY: &str = "daemon.metrics";

/// Its owner and a group.
const GROUP_MODE: u32 = 0o660;
const OWNER_MODE: u32 = 0o600;

/// A directory whose group its files get (inode(7)).
const SET_GID: u32 = 0o2000;

/// A stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Bound, and not served yet.
#[derive(Debug)]
pub(in crate::daemon) enum Scrape {
    Loopback(std::net::TcpListener),
    Unix { listener: std::os::unix::net::UnixListener, path: PathBuf, own: Option<OwnSocket> },
}

/// To be kept for as long as the metrics are served.
#[derive(Debug)]
pub(in crate::daemon) struct Kept {
    _own: Option<OwnSocket>,
}

/// Where scrapers connect.
#[derive(Debug)]
pub(in crate::daemon) enum Listener {
    Loopback(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => f.write_str("loopback"),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Loopback(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Scrape {
    /// Binds `address`; `None` when metrics are not to be served.
    ///
    /// # Errors
    /// When it can't be had. What is asked for and missing is an error, not a line in a log that nobody reads.
    pub(in crate::daemon) fn open(address: &MetricsAddress) -> Result<Option<Self>, Failure> {
        match address {
            MetricsAddress::Off => Ok(None),
            MetricsAddress::Loopback(address) => Ok(Some(Self::Loopback(listen(*address)?))),
            MetricsAddress::Unix(path) => {
                let control = bind(path, OWNER_MODE, KEY)?;
                let failed = |source| SocketError::Bind { path: path.clone(), key: KEY, source };
                open_to_group(path).map_err(failed)?;
                let (listener, own) = control.split();
                Ok(Some(Self::Unix { listener, path: path.clone(), own }))
            }
        }
    }

    pub(super) fn listen(self) -> io::Result<(Listener, Kept)> {
        match self {
            Self::Loopback(listener) => {
                listener.set_nonblocking(true)?;
                Ok((Listener::Loopback(TcpListener::from_std(listener)?), Kept { _own: None }))
            }
            Self::Unix { listener, path, own } => {
                listener.set_nonblocking(true)?;
                Ok((Listener::Unix(UnixListener::from_std(listener)?, path), Kept { _own: own }))
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, SocketError> {
    // Sets SO_REUSEADDR, so that connections of the creeld before this one do not keep the port.
    std::net::TcpListener::bind(address).map_err(|source| {
        let why = match source.kind() {
            io::ErrorKind::AddrInUse => "another program has the port",
            _ if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                "creeld.service allows no IP sockets; see `Metrics` in docs/operations.md, or take a unix socket"
            }
            _ => "the address must be one of this host's loopback",
        };
        SocketError::Loopback { address, why, source }
    })
}

/// Who may scrape: the group of the socket's directory if the directory gives it to its files, else the operators.
fn open_to_group(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/")).metadata()?;
    if directory.mode() & SET_GID == 0 {
        let operators = RolePolicy::of_this_host().map_err(io::Error::other)?.operator_gid;
        let is_root = rustix::process::geteuid().is_root();
        let Some(group) = operators.filter(|_| is_root) else { return Ok(()) };
        chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(GROUP_MODE))
}
