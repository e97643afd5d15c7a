//! A program and all that it starts: whom signals reach.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::sleep;

use crate::cgroup::Cgroup;
use crate::reaper::{End, Exited};
use crate::sys;

/// signal(7).
const KILL: u32 = 9;
const TERM: u32 = 15;

/// Clones are of the same program. Dropping it leaves the processes alone.
#[derive(Debug, Clone)]
pub struct Family {
    /// Of the program, and of its process group.
    pid: Pid,
    end: End,
    cgroup: Option<Arc<Cgroup>>,
}

impl Family {
    pub fn new(pid: Pid, end: End, cgroup: Option<Cgroup>) -> Self {
        Self { pid, end, cgroup: cgroup.map(Arc::new) }
    }

    /// How the program itself ended; `None` if the reaper is gone.
    pub async fn end(&self) -> Option<Exited> {
        self.end.clone().wait_for(Option::is_some).await.ok().and_then(|end| *end)
    }

    /// To the process group. A number that is none of signal(7) does nothing.
    pub fn signal_group(&self, signal: u32) {
        if self.is_group() {
            sys::signal_group(self.pid, signal);
        }
    }

    pub fn kill_group(&self) {
        self.signal_group(KILL);
    }

    /// Kills all: the group, and whatever has left it.
    pub fn kill(&self) {
        self.kill_group();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// TERM to the group, and after `grace` what [`Self::kill`] does.
    pub async fn terminate(&self, grace: Duration) {
        self.signal_group(TERM);
        sleep(grace).await;
        self.kill();
    }

    /// Frees what belongs to the program once all of it has ended, which may be with the machine.
    pub async fn bury(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove_when_empty().await;
        }
    }

    /// Whether the number is the group's. As long as the program has not been reaped it is. After that it is for as long
    /// as somebody is in the group, and then the kernel may give it to a new process: if there is one of that number, it
    /// is another's.
    fn is_group(&self) -> bool {
        self.end.borrow().is_none()
            || rustix::process::test_kill_process(self.pid) == Err(rustix::io::Errno::SRCH)
    }
}
