//! Waits until a helper's unix socket accepts, and keeps the connection for the process that needs it.
//!
//! The helper binds its socket by itself. Its creation comes as an inotify event; between its `bind` and its `listen`
//! a connection is refused, for which the kernel has no event, so that short gap is retried.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Between two attempts in the gap between `bind` and `listen`.
const REFUSED_RETRY: Duration = Duration::from_millis(2);

/// A watch on the directory that the socket will be in, below the working directory, which is the machine's.
#[derive(Debug)]
pub(crate) struct Arrival(OwnedFd);

/// What one attempt to connect came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    Connected(OwnedFd),
    /// Try again after this time, or when the watch reports something.
    NotYet(Option<Duration>),
}

impl Arrival {
    /// To be made before the helper starts, so that no creation is missed.
    pub(crate) fn watch(socket: &str) -> io::Result<Self> {
        let directory = socket.rsplit_once('/').map_or(".", |(directory, _)| directory);
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
        Ok(Self(fd))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn clear(&self) {
        let mut events = [0; 4096];
        while matches!(rustix::io::read(&self.0, &mut events), Ok(1..)) {}
    }
}

/// Tries once. `name` is relative to the working directory, so its length is no concern.
pub(crate) fn try_connect(name: &str) -> io::Result<Attempt> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match connect(&socket, &SocketAddrUnix::new(name)?) {
        Ok(()) => {
            // Whoever gets it expects an ordinary socket.
            rustix::io::ioctl_fionbio(&socket, false)?;
            Ok(Attempt::Connected(socket))
        }
        Err(Errno::NOENT) => Ok(Attempt::NotYet(None)),
        Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => Ok(Attempt::NotYet(Some(REFUSED_RETRY))),
        Err(error) => Err(error.into()),
    }
}
