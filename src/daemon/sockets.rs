//! Where creeld is reached: sockets inherited from systemd, or bound here.
//!
//! An inherited socket is told apart by its own address: a unix socket is for control, a vsock one by its port is for one
//! of the services that guests dial. Anything else is a mistake in a unit, and named.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tracing::info;

use super::failure::Failure;
use super::lock::{Lock, LockError};
use crate::config::{Config, VsockPorts};
use crate::host::activation::{Address, Inherited};

/// Who may connect: everybody. What he may do then is decided by his credentials.
const CONTROL_MODE: u32 = 0o666;

/// Why a socket can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("inherited descriptor {number} (`{name}`, {address}) is no socket that creeld serves: {why}")]
    Unexpected { number: i32, name: String, address: Address, why: String },
    #[error("`{}` is in the way and no socket: remove it, or set `{key}`", path.display())]
    InTheWay { path: PathBuf, key: &'static str },
    #[error(
        "another program serves `{}`: end it (for systemd: systemctl stop creeld.socket creeld.service), or set \
         `{key}`", path.display()
    )]
    Served { path: PathBuf, key: &'static str },
    #[error("failed to serve metrics at `{address}`: {why}; set `daemon.metrics`")]
    Loopback {
        address: std::net::SocketAddr,
        why: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("failed to serve `{}`: its directory must exist and be writable, or set `{key}`", path.display())]
    Bind {
        path: PathBuf,
        key: &'static str,
        #[source]
        source: io::Error,
    },
}

/// What a vsock port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortUse {
    Agent,
    NixRead,
    NixUpload,
    Dns,
}

impl PortUse {
    fn of(port: u32, ports: &VsockPorts) -> Option<Self> {
        match port {
            _ if port == ports.agent => Some(Self::Agent),
            _ if port == ports.nix_read => Some(Self::NixRead),
            _ if port == ports.nix_upload => Some(Self::NixUpload),
            _ if port == ports.dns => Some(Self::Dns),
            _ => None,
        }
    }
}

impl fmt::Display for PortUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agents",
            Self::NixRead => "Nix cache, reading",
            Self::NixUpload => "Nix cache, uploads",
            Self::Dns => "DNS",
        })
    }
}

/// The control socket, listening.
#[derive(Debug)]
pub(super) struct Control {
    pub listener: UnixListener,
    /// `None` when inherited: then its file is the service manager's.
    own: Option<OwnSocket>,
}

impl Control {
    /// What remains of it once the listener is taken: to be dropped at the end.
    pub(super) fn split(self) -> (UnixListener, Option<OwnSocket>) {
        (self.listener, self.own)
    }
}

/// A socket file of ours; removed on drop, while its lock is still held.
#[derive(Debug)]
pub(super) struct OwnSocket {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        // One that is left is stale, and replaced by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// All sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    pub control: Control,
    /// Those inherited; ports of guests are never bound for services that do not exist.
    pub vsock: Vec<(PortUse, OwnedFd)>,
}

impl Sockets {
    /// Sorts what was inherited, and binds the control socket if none was.
    ///
    /// # Errors
    /// On an inherited socket that has no use, and when the control socket can't be bound.
    pub(super) fn open(config: &Config, inherited: Vec<Inherited>) -> Result<Self, Failure> {
        let mut control = None;
        let mut vsock: Vec<(PortUse, OwnedFd)> = Vec::new();
        for Inherited { fd, number, name, address, listens } in inherited {
            let unexpected = |why: &str| {
                let (name, address) = (name.clone(), address.clone());
                Failure::Socket(SocketError::Unexpected { number, name, address, why: why.to_owned() })
            };
            if !listens {
                return Err(unexpected("it is no listening stream socket (use ListenStream= and Accept=no)"));
            }
            match &address {
                Address::Unix(_) if control.is_some() => {
                    return Err(unexpected("there is another control socket already"));
                }
                Address::Unix(_) => {
                    info!(fd = number, name, "control socket {address}, inherited");
                    control = Some(Control { listener: UnixListener::from(fd), own: None });
                }
                Address::Vsock { port, .. } => {
                    let port_use = PortUse::of(*port, &config.vsock_ports)
                        .ok_or_else(|| unexpected("no key of `[vsock_ports]` has this port"))?;
                    if vsock.iter().any(|(other, _)| *other == port_use) {
                        return Err(unexpected("there is another socket for this port already"));
                    }
                    info!(fd = number, name, "{address} for {port_use}, inherited");
                    vsock.push((port_use, fd));
                }
                Address::Other(_) => {
                    return Err(unexpected(
                        "control comes by a unix socket, guests by AF_VSOCK (ListenStream=vsock::<port>)",
                    ));
                }
            }
        }
        let control = match control {
            Some(control) => control,
            None => bind(&config.daemon.socket, CONTROL_MODE, "daemon.socket")?,
        };
        Ok(Self { control, vsock })
    }
}

/// Binds the socket that `key` names. A stale one is replaced, a living one never: its server holds the lock, or answers.
pub(super) fn bind(path: &Path, mode: u32, key: &'static str) -> Result<Control, Failure> {
    let failed = |source: io::Error| SocketError::Bind { path: path.to_owned(), key, source };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = match Lock::acquire(lock_path.as_ref(), path) {
        Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(failed(source).into());
        }
        locked => locked?,
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error).into()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::InTheWay { path: path.into(), key }.into());
        }
        Ok(_) if is_served(path).map_err(failed)? => {
            return Err(SocketError::Served { path: path.into(), key }.into());
        }
        Ok(_) => {
            info!(path = %path.display(), "replacing the socket of a creeld that is gone");
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let own = OwnSocket { path: path.to_owned(), _lock: lock };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    info!("`{key}` unix:{}, bound here", path.display());
    Ok(Control { listener, own: Some(own) })
}

/// Whether somebody listens there. Does not wait: a full backlog is a sign of life too.
fn is_served(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
