//! A started process, until its end.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};

use crate::host::pidfd::{Exit, PidFd, Unawaited};

/// A running child. Dropping it does not end it; it is waited for all the same.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Present until it is dropped.
    pidfd: Option<PidFd>,
    exit: Option<Exit>,
}

impl Child {
    pub(super) fn new(pid: Pid, pidfd: PidFd) -> Self {
        Self { pid, pidfd: Some(pidfd), exit: None }
    }

    /// Its pid, in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// # Errors
    /// `ESRCH` if it has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.pidfd.as_ref().map_or(Err(rustix::io::Errno::SRCH.into()), |pidfd| pidfd.signal(signal))
    }

    /// A copy of its pidfd, with which it can be signalled while another task waits for it.
    ///
    /// # Errors
    /// `EMFILE`, or `ESRCH` after its end.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let pidfd = self.pidfd.as_ref().ok_or(rustix::io::Errno::SRCH)?;
        Ok(rustix::io::fcntl_dupfd_cloexec(pidfd, 3)?)
    }

    /// Waits for its end and reaps it. Safe to cancel, and to repeat.
    ///
    /// # Errors
    /// `ECHILD` if something else in this process waits for all children.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.exit {
                return Ok(exit);
            }
            let Some(pidfd) = &self.pidfd else { return Err(rustix::io::Errno::CHILD.into()) };
            pidfd.ended().await?;
            self.exit = pidfd.reap()?;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let (None, Some(pidfd)) = (self.exit, self.pidfd.take()) {
            Unawaited::hand_over(pidfd);
        }
    }
}
