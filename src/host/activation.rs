//! Sockets that a service manager opened for us before we were started: systemd's socket activation (sd_listen_fds(3)).
//!
//! Such a socket outlives the daemon: who connects while it is away waits in the backlog and is served by the next one.
//! What a socket is for is told by its own address (getsockname(2)), not by its place in a list or a name that an
//! operator can change.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getsockname, sockopt};

const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";

/// All that systemd sets for activation; the last one since version 258.
const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", LISTEN_FDNAMES, "LISTEN_PIDFDID"];

/// What a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// As a person writes it: a name in the abstract namespace begins with `@`, an unbound socket has none.
    Unix(PathBuf),
    Vsock {
        cid: u32,
        port: u32,
    },
    /// Any other family, for messages.
    Other(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: u32::MAX, port } => write!(f, "vsock::{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// One descriptor that was handed to this process, now its own and close-on-exec.
#[derive(Debug)]
pub struct Inherited {
    pub fd: OwnedFd,
    /// Its number, for messages: that is how the operator's unit counts them.
    pub number: RawFd,
    /// `FileDescriptorName=` of the socket unit, for messages.
    pub name: String,
    pub address: Address,
    /// Whether it is a stream socket that listens, and so can be accepted from.
    pub listens: bool,
}

/// Why inherited sockets can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error("sockets were inherited but other threads run already: take them before anything else")]
    Threads,
    #[error("failed to take the inherited sockets: LISTEN_PID, LISTEN_FDS and the descriptors do not agree")]
    Environment(#[source] io::Error),
    #[error("failed to inspect inherited descriptor {number} (`{name}`): it must be a socket")]
    Inspect {
        number: RawFd,
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Takes the sockets that were handed to this process, and removes every trace of them from its environment, so that no
/// child takes them for its own. Once: a second call finds none.
///
/// # Errors
/// When other threads run (the environment can't be changed safely then), when descriptors are missing, or one is no
/// socket.
pub fn take() -> Result<Vec<Inherited>, ActivationError> {
    if VARIABLES.iter().all(|variable| std::env::var_os(variable).is_none()) {
        return Ok(Vec::new());
    }
    let threads = std::fs::read_dir("/proc/self/task").map_err(ActivationError::Environment)?.count();
    if threads != 1 {
        return Err(ActivationError::Threads);
    }
    let names = std::env::var(LISTEN_FDNAMES).unwrap_or_default();
    // SAFETY: this is the only thread (checked above), so nobody reads the environment meanwhile.
    let numbers = unsafe { sd_notify::listen_fds_and_unset_env() };
    for variable in VARIABLES {
        // SAFETY: as above; nothing since has started a thread.
        unsafe { std::env::remove_var(variable) };
    }
    let mut names = names.split(':');
    let mut inherited = Vec::new();
    for number in numbers.map_err(ActivationError::Environment)? {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
        // SAFETY: LISTEN_PID named this process, so the descriptor was opened for us (it is open: its flags were just
        // set); with the variables gone nobody takes it again, and nothing else of this process owns 3 and up yet.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let (address, listens) =
            inspect(&fd).map_err(|source| ActivationError::Inspect { number, name: name.clone(), source })?;
        inherited.push(Inherited { fd, number, name, address, listens });
    }
    Ok(inherited)
}

/// A socket's address, and whether it is a listening stream socket.
fn inspect(fd: impl AsFd) -> io::Result<(Address, bool)> {
    let listens =
        sockopt::socket_type(&fd)? == SocketType::STREAM && sockopt::socket_acceptconn(&fd).unwrap_or(false);
    Ok((address(&getsockname(&fd)?), listens))
}

fn address(address: &SocketAddrAny) -> Address {
    if let Some((cid, port)) = vsock_address(address) {
        return Address::Vsock { cid, port };
    }
    if let Ok(unix) = SocketAddrUnix::try_from(address.clone()) {
        let abstract_name = || unix.abstract_name().filter(|name| !name.is_empty());
        let bytes = match (unix.path_bytes(), abstract_name()) {
            (Some(path), _) => path.to_vec(),
            (None, Some(name)) => [b"@", name].concat(),
            (None, None) => Vec::new(),
        };
        return Address::Unix(Path::new(std::ffi::OsStr::from_bytes(&bytes)).to_owned());
    }
    match core::net::SocketAddr::try_from(address.clone()) {
        Ok(ip) => Address::Other(ip.to_string()),
        Err(_) => Address::Other(format!("address family {}", address.address_family().as_raw())),
    }
}

fn vsock_address(address: &SocketAddrAny) -> Option<(u32, u32)> {
    let whole = usize::try_from(address.addr_len()).ok()? >= size_of::<libc::sockaddr_vm>();
    if address.address_family() != AddressFamily::VSOCK || !whole {
        return None;
    }
    // SAFETY: the storage holds `addr_len` initialized bytes, at least as many as are read; of integers any bytes are a
    // value.
    let vm = unsafe { address.as_ptr().cast::<libc::sockaddr_vm>().read_unaligned() };
    Some((vm.svm_cid, vm.svm_port))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_unix_listener_is_told_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(inspect(&listener).unwrap(), (Address::Unix(path.clone()), true));

        let (connected, _other) = UnixStream::pair().unwrap();
        assert_eq!(inspect(&connected).unwrap(), (Address::Unix(PathBuf::new()), false));
    }

    #[test]
    fn other_families_are_named() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = tcp.local_addr().unwrap().to_string();
        assert_eq!(inspect(&tcp).unwrap(), (Address::Other(expected), true));
        let file = std::fs::File::open("/dev/null").unwrap();
        inspect(&file).unwrap_err();
    }

    #[test]
    fn a_vsock_address_is_its_cid_and_port() {
        let vm = libc::sockaddr_vm {
            svm_family: AddressFamily::VSOCK.as_raw(),
            svm_reserved1: 0,
            svm_port: 824,
            svm_cid: u32::MAX,
            svm_zero: [0; 4],
        };
        let mut storage = std::mem::MaybeUninit::<rustix::net::addr::SocketAddrStorage>::zeroed();
        // SAFETY: the storage is larger than a vsock address, and ours.
        unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_vm>().write_unaligned(vm) };
        let length = u32::try_from(size_of::<libc::sockaddr_vm>()).unwrap();
        // SAFETY: `length` bytes were just written and are a valid address.
        let any = unsafe { SocketAddrAny::new(storage, length) };
        let found = address(&any);
        assert_eq!(found, Address::Vsock { cid: u32::MAX, port: 824 });
        assert_eq!(found.to_string(), "vsock::824");
    }

    #[test]
    fn nothing_is_taken_from_an_environment_that_hands_nothing() {
        assert!(take().unwrap().is_empty());
    }
}
