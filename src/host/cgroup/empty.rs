//! From a cgroup full of processes to none: kill, wait for the kernel's word, remove.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::time::Instant;

use super::{Cgroup, CgroupFsError};
use crate::host::inotify;

/// A process may be born into a cgroup after the others were killed, when its parent lives elsewhere; one that goes on
/// doing so is not waited for.
const ATTEMPTS: u32 = 3;

/// How often a cgroup is looked at that can't be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A machine has two levels; nothing should nest deeper, and nothing we start can.
const MAX_DEPTH: u32 = 8;

/// How many of the living an error names.
const MAX_NAMED: usize = 8;

impl Cgroup {
    /// Sends SIGKILL to every process in it and below it, those being forked included (`cgroup.kill`, Linux 5.14).
    ///
    /// # Errors
    /// See [`CgroupFsError`].
    pub fn kill(&self) -> Result<(), CgroupFsError> {
        self.write("cgroup.kill", "1")
    }

    /// Waits until no process lives in it or below it; the kernel tells by a change of `cgroup.events`.
    ///
    /// # Errors
    /// [`CgroupFsError::StillPopulated`] after `bound`; and when the file can't be read.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn wait_empty(&self, bound: Duration) -> Result<(), CgroupFsError> {
        // Watched before it is read, or a change between the two would be lost.
        let watch = match self.watch("cgroup.events") {
            Ok(watch) => Some(watch),
            // It is empty, or it is gone: nothing to watch for.
            Err(_) if !self.populated()? => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "failed to watch a cgroup that is being ended; looking again and again");
                None
            }
        };
        self.wait_empty_by(watch, bound).await
    }

    pub(super) async fn wait_empty_by(
        &self,
        mut watch: Option<inotify::Watch>,
        bound: Duration,
    ) -> Result<(), CgroupFsError> {
        let deadline = Instant::now() + bound;
        while self.populated()? {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    // Only where the user has no inotify watch left: a cgroup that is never removed would be worse.
                    None => tokio::time::sleep(LOOK_AGAIN).await,
                }
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                // The kernel holds back changes that come fast (10 ms), and the bound may be shorter.
                if !self.populated()? {
                    break;
                }
                return Err(CgroupFsError::StillPopulated {
                    path: self.path().to_owned(),
                    bound,
                    processes: self.living(),
                });
            }
        }
        Ok(())
    }

    /// Watches a file that the kernel says it changes: `cgroup.events`, `memory.events`, `pids.events`.
    ///
    /// # Errors
    /// When it is not there, or the user has no inotify watch left.
    pub fn watch(&self, file: &str) -> Result<inotify::Watch, CgroupFsError> {
        let fd = self.open_file(file, OFlags::RDONLY)?;
        inotify::watch(fd.as_fd(), inotify::Events::MODIFY).map_err(|source| CgroupFsError::Io {
            action: "watch",
            path: self.path().join(file),
            source,
        })
    }

    /// Kills all in the child `name`, waits until it is empty and removes it with every cgroup below it. One that is not
    /// there is no error, so that this may be repeated.
    ///
    /// # Errors
    /// [`CgroupFsError::StillPopulated`] after `bound`: a process in uninterruptible sleep can't be killed. Then, and
    /// after any other error, it can be tried again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn end_child(&self, name: &str, bound: Duration) -> Result<(), CgroupFsError> {
        let deadline = Instant::now() + bound;
        let mut attempt = 1;
        loop {
            match self.try_end(name, deadline, bound).await {
                // Not only its `cgroup.kill`, which old kernels lack.
                Err(error) if is_gone(&error) && !self.has(name) => return Ok(()),
                Err(error) if error.errno() == Some(Errno::BUSY) && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_end(&self, name: &str, deadline: Instant, bound: Duration) -> Result<(), CgroupFsError> {
        let child = self.open_child(name)?;
        child.kill()?;
        child.wait_empty(deadline.saturating_duration_since(Instant::now())).await.map_err(|error| {
            match error {
                CgroupFsError::StillPopulated { path, processes, .. } => {
                    CgroupFsError::StillPopulated { path, bound, processes }
                }
                error => error,
            }
        })?;
        self.remove_tree(name)
    }

    /// Removes the child `name` and the cgroups below it; none of them may have processes.
    ///
    /// # Errors
    /// `EBUSY`; see [`CgroupFsError`].
    pub fn remove_tree(&self, name: &str) -> Result<(), CgroupFsError> {
        self.remove_levels(name, MAX_DEPTH)
    }

    fn remove_levels(&self, name: &str, depth: u32) -> Result<(), CgroupFsError> {
        if depth > 0 {
            match self.open_child(name) {
                Ok(child) => {
                    for grandchild in child.children()? {
                        child.remove_levels(&grandchild, depth - 1)?;
                    }
                }
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.remove_child(name)
    }

    /// Who is left, for a person to read: pid, name and state.
    fn living(&self) -> String {
        let mut pids = Vec::new();
        self.collect_pids(&mut pids, MAX_DEPTH);
        let named: Vec<String> = pids.iter().take(MAX_NAMED).map(|pid| describe(*pid)).collect();
        match pids.len().saturating_sub(MAX_NAMED) {
            _ if pids.is_empty() => "none that this process can see".into(),
            0 => named.join(", "),
            more => format!("{}, and {more} more", named.join(", ")),
        }
    }

    fn collect_pids(&self, pids: &mut Vec<u32>, depth: u32) {
        let text = self.read("cgroup.procs").unwrap_or_default();
        pids.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        if depth > 0 {
            for name in self.children().unwrap_or_default() {
                if let Ok(child) = self.open_child(&name) {
                    child.collect_pids(pids, depth - 1);
                }
            }
        }
    }
}

/// ENODEV comes from a file of a removed cgroup that was open before, ENOENT from one that was not.
fn is_gone(error: &CgroupFsError) -> bool {
    matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV))
}

/// `1234 (qemu-system-x86, state D)`, by proc_pid_stat(5).
fn describe(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
    match parts {
        Some((name, rest)) => format!("{pid} ({name}, state {})", rest.chars().next().unwrap_or('?')),
        None => pid.to_string(),
    }
}
