//! Descriptors that the runtime waits for. tokio's own way of registering one is unsafe, since it also takes values that
//! could swap the descriptor inside them; an `OwnedFd` can't, so for it a safe function will do.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor of a kind that epoll takes: pipe, socket, inotify, pidfd, but no ordinary file.
///
/// # Errors
/// `EPERM` for a kind that epoll does not take, `ENOSPC` and `ENOMEM`.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` returns one and the same open descriptor for as long as it lives, and `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
