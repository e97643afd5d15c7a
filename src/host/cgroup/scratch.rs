//! For tests: a place on the host's own cgroup2, and a plain directory that stands in for one with controllers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Cgroup;
use crate::host::{Child, Spawn, spawn};

/// A cgroup of one test, ended and removed with all in it when the test ends.
#[derive(Debug)]
pub(crate) struct Scratch {
    parent: Cgroup,
    name: String,
    pub(crate) cgroup: Cgroup,
}

impl Scratch {
    /// `None`, said loudly, for a user who may not make cgroups. As root a missing cgroup2 fails the test.
    pub(crate) fn make(test: &str) -> Option<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("creel-test-{}-{serial}", std::process::id());
        let made = mount()
            .ok_or_else(|| "no cgroup2 is mounted".to_owned())
            .and_then(|path| Cgroup::open(&path).map_err(|error| format!("{error:?}")))
            .and_then(|parent| {
                let cgroup = parent.create_child(&name).map_err(|error| format!("{error:?}"))?;
                Ok(Self { parent, name, cgroup })
            });
        match made {
            Ok(scratch) => Some(scratch),
            Err(reason) if rustix::process::geteuid().is_root() => {
                panic!("test `{test}` needs a cgroup2 file system to write to, and finds none: {reason}")
            }
            Err(reason) => {
                eprintln!("NOT TESTED: `{test}` needs root to make cgroups: {reason}");
                None
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let end = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    let end = self.parent.end_child(&self.name, Duration::from_secs(20));
                    runtime.expect("a runtime").block_on(end)
                })
                .join()
        });
        if !std::thread::panicking() {
            end.expect("no panic").expect("the test's cgroup can be removed");
        }
    }
}

/// Where the first cgroup2 is mounted (proc_pid_mountinfo(5)).
fn mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs is mounted");
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let path = mount.split(' ').nth(4)?;
        source.starts_with("cgroup2 ").then(|| path.into())
    })
}

/// Starts a shell script whose process is born in the cgroup.
pub(crate) fn born_in(cgroup: &Cgroup, script: &str) -> Child {
    use std::os::fd::AsFd;
    let spec = Spawn::new(Path::new("/bin/sh")).expect("no NUL");
    let spec = spec.env("PATH", "/usr/bin:/bin").expect("no NUL");
    let spec = spec.arg("-c").expect("no NUL").arg(script).expect("no NUL");
    spawn(&spec.cgroup(cgroup.as_fd())).expect("it starts")
}
