//! Processes as descriptors: a pid may be reused between two looks, a pidfd never means another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
};
use tokio::io::unix::AsyncFd;

use crate::host::readiness::readable;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// A process, one's own child or not, whose end can be awaited.
#[derive(Debug)]
pub struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// # Errors
    /// `ESRCH` if there is no such process.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Self::new(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Takes a descriptor from `clone3` or `pidfd_open`.
    ///
    /// # Errors
    /// When it can't be registered with the runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        readable(fd).map(Self)
    }

    /// # Errors
    /// `ESRCH` if the process has ended and was waited for, `EPERM`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.0.get_ref(), signal)?)
    }

    /// Returns when the process has ended, as a zombie or for good. Safe to cancel.
    ///
    /// # Errors
    /// Those of the runtime's poller.
    pub async fn ended(&self) -> io::Result<()> {
        // Once ended it stays readable, so the readiness is never cleared.
        self.0.readable().await.map(drop)
    }

    /// Waits for one's own child without blocking; `None` while it lives.
    ///
    /// # Errors
    /// `ECHILD` if it is no child, or was waited for before.
    pub fn reap(&self) -> io::Result<Option<Exit>> {
        reap(self.0.get_ref(), WaitIdOptions::NOHANG)
    }

    pub(crate) fn into_inner(self) -> OwnedFd {
        self.0.into_inner()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

pub(crate) fn reap(pidfd: &OwnedFd, options: WaitIdOptions) -> io::Result<Option<Exit>> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | options)
    })?;
    Ok(status.as_ref().and_then(exit_of))
}

fn exit_of(status: &WaitIdStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// A child that nobody awaits any more. It is waited for all the same, or it would stay a zombie as long as this
/// process lives: by a task where a runtime runs, else by a thread.
#[derive(Debug)]
pub(crate) struct Unawaited(Option<OwnedFd>);

impl Unawaited {
    pub(crate) fn hand_over(pidfd: PidFd) {
        // Made before the task, so that a runtime which drops the task unpolled reaps as well.
        let guard = Guard(Some(pidfd));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                if let Guard(Some(pidfd)) = &guard {
                    let _ = pidfd.ended().await;
                }
            }));
        }
    }
}

/// Reaps when dropped: after the end of the child, or when there is no runtime to wait in, or no more.
struct Guard(Option<PidFd>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            drop(Unawaited(Some(pidfd.into_inner())));
        }
    }
}

impl Drop for Unawaited {
    fn drop(&mut self) {
        let Some(pidfd) = self.0.take() else { return };
        if let Ok(None) = reap(&pidfd, WaitIdOptions::NOHANG) {
            // Should no thread be had, the process's own parent inherits the child in the end.
            let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || {
                let _ = reap(&pidfd, WaitIdOptions::empty());
            });
        }
    }
}
