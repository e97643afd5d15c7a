//! The unit's cgroup: who is in it, and what it passes on. The files are those of the kernel's cgroup-v2.rst.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::HoldError;

/// Where the holder itself is.
pub(super) const KEEP: &str = "keep";

/// creel's names of machines begin with it.
const MACHINE_PREFIX: &[u8] = b"m-";

const EVENTS: &str = "cgroup.events";

#[derive(Debug)]
pub(super) struct Subtree(PathBuf);

impl Subtree {
    pub(super) fn new(unit: PathBuf) -> Self {
        Self(unit)
    }

    pub(super) fn unit(&self) -> &Path {
        &self.0
    }

    /// Those of `wanted` that the unit has not got.
    pub(super) fn missing(&self, wanted: &[&str]) -> Result<Vec<String>, HoldError> {
        let path = self.0.join("cgroup.controllers");
        let there = fs::read_to_string(&path).map_err(|source| HoldError::Io {
            action: "read the controllers from",
            path,
            source,
        })?;
        let is_missing = |controller: &&&str| !there.split_whitespace().any(|other| other == **controller);
        Ok(wanted.iter().filter(is_missing).map(|controller| String::from(*controller)).collect())
    }

    /// Moves this process out of the unit's own cgroup.
    pub(super) fn enter_keep(&self) -> Result<(), HoldError> {
        let path = self.0.join(KEEP);
        match fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(HoldError::Io { action: "make the cgroup", path, source });
            }
            _ => {}
        }
        let path = path.join("cgroup.procs");
        // 0 is the process that writes.
        fs::write(&path, "0").map_err(|source| HoldError::Io { action: "move the holder by", path, source })
    }

    /// Lets the cgroups below have these controllers: all in one write, or none.
    pub(super) fn enable(&self, controllers: &[&str]) -> Result<(), HoldError> {
        let value =
            controllers.iter().map(|controller| format!("+{controller}")).collect::<Vec<_>>().join(" ");
        let path = self.0.join("cgroup.subtree_control");
        fs::write(&path, &value).map_err(|source| HoldError::Enable { controllers: value, path, source })
    }

    /// Waits until no machine has a process; returns the names of those that have when the time is over.
    pub(super) fn await_machines(&self, timeout: Duration) -> Result<Vec<String>, HoldError> {
        let deadline = Instant::now() + timeout;
        let failed = |error: Errno| HoldError::Io {
            action: "watch the machines of",
            path: self.0.clone(),
            source: error.into(),
        };
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        loop {
            let mut left = self.machines()?;
            for name in &left {
                // Watched before it is read, so that no change is missed.
                match inotify::add_watch(&watch, self.0.join(name).join(EVENTS), inotify::WatchFlags::MODIFY)
                {
                    Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            left.retain(|name| self.is_populated(name));
            if left.is_empty() {
                return Ok(left);
            }
            while !left.is_empty() {
                let remaining = deadline.saturating_duration_since(Instant::now());
                if remaining.is_zero() {
                    return Ok(left);
                }
                await_change(&watch, remaining);
                left.retain(|name| self.is_populated(name));
            }
            // Once more from the start: creeld may have made another one meanwhile.
        }
    }

    fn machines(&self) -> Result<Vec<String>, HoldError> {
        let entries = fs::read_dir(&self.0).map_err(|source| HoldError::Io {
            action: "list the machines of",
            path: self.0.clone(),
            source,
        })?;
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(MACHINE_PREFIX))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// A cgroup that is gone has no process.
    fn is_populated(&self, name: &str) -> bool {
        let events = fs::read_to_string(self.0.join(name).join(EVENTS)).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }
}

fn await_change(watch: &OwnedFd, timeout: Duration) {
    let timeout = Timespec::try_from(timeout).ok();
    // An interrupted or failed poll is harmless: the state is looked at again.
    let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], timeout.as_ref());
    let mut events = [0; 4096];
    while matches!(rustix::io::read(watch, &mut events), Ok(1..)) {}
}
