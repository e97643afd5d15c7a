//! A cgroup for each program that the host asks for, so that all that it starts can be found and ended: a process leaves
//! its group and its session when it likes, and its cgroup never.
//!
//! They are children of the agent's own cgroup, without controllers: nothing is limited or counted by them, and where a
//! service manager ends the agent's cgroup it ends them too. Where there is no cgroup v2, or it may not be written to,
//! programs have none.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal};
use tokio::io::Interest;

use crate::sys;

/// Where cgroup v2 is mounted: alone, or beside version 1 as systemd has it.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Of `statfs(2)`: CGROUP2_SUPER_MAGIC of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// How often processes are killed one by one, where the kernel can't kill a cgroup (before Linux 5.14). One that forks
/// may be missed once.
const PASSES: usize = 16;

/// Makes cgroups.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    /// The agent's own; `None`: there are none to be had.
    parent: Option<Arc<Parent>>,
}

#[derive(Debug)]
struct Parent {
    path: PathBuf,
    next: AtomicU64,
}

impl Cgroups {
    /// Those of this machine. Where none can be made, [`Self::make`] makes none.
    pub fn find() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let parent = MOUNTS.into_iter().find_map(|mount| {
            let path = Path::new(mount);
            let file_system = rustix::fs::statfs(path).ok()?.f_type;
            // Its type differs between architectures; the magic number is 32 bits of it.
            (u64::try_from(file_system).ok()? == CGROUP2_MAGIC).then(|| own_cgroup(path, &own))?
        });
        let parent = parent.map(|path| Arc::new(Parent { path, next: AtomicU64::new(0) }));
        Self { parent }
    }

    /// A new, empty one; `None` where none can be had.
    pub fn make(&self) -> Option<Cgroup> {
        let parent = self.parent.as_ref()?;
        loop {
            let number = parent.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("creel-{}-{number}", rustix::process::getpid().as_raw_nonzero());
            let path = parent.path.join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Some(Cgroup { path }),
                // Left by an agent before this one, of the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return None,
            }
        }
    }
}

/// The cgroup that /proc/self/cgroup names, below the mount.
fn own_cgroup(mount: &Path, proc_self_cgroup: &str) -> Option<PathBuf> {
    let path = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A process outside of its namespace's root (cgroup_namespaces(7)).
    (!path.split('/').any(|part| part == "..")).then(|| mount.join(path))
}

/// A program's cgroup. Dropped it is removed if nothing lives in it: that of a program that could not be started.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Takes a process that writes "0".
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        File::options().write(true).open(self.path.join("cgroup.procs")).map(OwnedFd::from)
    }

    /// Kills everything in it, whatever groups and sessions that is in.
    pub fn kill(&self) {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => self.kill_each(),
            // It was removed, since it was empty.
            _ => {}
        }
    }

    fn kill_each(&self) {
        for _ in 0..PASSES {
            let processes = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
            let mut found = false;
            for process in processes.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
                found = true;
                // It may have ended by itself.
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
            if !found {
                return;
            }
        }
    }

    /// Removes it once the last process in it has ended, which may be with the machine.
    pub async fn remove_when_empty(&self) {
        loop {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                // Removed; or by somebody else; or something with rights in here has made cgroups of its own.
                _ => return,
            }
            if self.emptied().await.is_err() {
                return;
            }
        }
    }

    /// Returns once nothing lives in it.
    async fn emptied(&self) -> io::Result<()> {
        // To be read through the descriptor that is waited on: what was read last is what it compares with
        // (Documentation/admin-guide/cgroup-v2.rst, "Populated Notification"; `kernfs_generic_poll` in fs/kernfs/file.c).
        let events = sys::watched(File::open(self.path.join("cgroup.events"))?, Interest::PRIORITY)?;
        loop {
            let mut text = [0; 128];
            let length = rustix::io::pread(events.get_ref(), &mut text, 0)?;
            if !populated(&String::from_utf8_lossy(&text[..length])) {
                return Ok(());
            }
            events.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Most often it has been removed already.
        let _ = fs::remove_dir(&self.path);
    }
}

fn populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_s_own_cgroup_is_found_under_the_mount() {
        let own = |text| own_cgroup(Path::new("/c"), text);
        assert_eq!(own("0::/\n"), Some("/c/".into()));
        assert_eq!(
            own("4:memory:/x\n0::/system.slice/a.service\n"),
            Some("/c/system.slice/a.service".into())
        );
        assert_eq!(own("0::/../elsewhere\n"), None);
        assert_eq!(own("1:name=systemd:/\n"), None);
    }

    #[test]
    fn only_the_kernel_s_word_says_that_something_lives_in_it() {
        assert!(populated("populated 1\nfrozen 0\n"));
        assert!(!populated("populated 0\nfrozen 1\n"));
    }
}
