//! Finds the processes of machines through /proc, by what they hold open: no name or parent is asked, so
//! that what was forgotten is found as well.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::run::{pidfd, wait_for_exit};

/// A living process of a machine.
#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    pub fn kill(&self) {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).expect("a machine's process lives");
    }

    /// When it had ended.
    pub fn ended(&self) -> Instant {
        wait_for_exit(&self.pidfd, Duration::from_secs(60)).expect("the process ends")
    }
}

/// A machine's processes.
#[derive(Debug)]
pub struct Machine {
    pub keeper: Process,
    pub vsock: Process,
    pub qemu: Process,
}

/// Waits until the one machine that works below `root` has all its processes.
pub fn machine(root: &Path) -> Machine {
    let mut found = None;
    wait_until(Duration::from_secs(60), "a machine runs", || {
        let running = touching(root);
        let named =
            |is: &dyn Fn(&[String]) -> bool| running.iter().find(|user| is(&user.argv)).map(|u| u.pid);
        // The keeper gives its children their names as argv[0]; until they are executed they are its copies.
        let keeper = named(&|argv| argv.iter().any(|word| word == "--plan-fd"));
        let vsock = named(&|argv| argv.first().is_some_and(|name| name == "vsock"));
        let qemu = named(&|argv| argv.first().is_some_and(|name| name == "qemu"));
        found = keeper.zip(vsock).zip(qemu);
        found.is_some()
    });
    let ((keeper, vsock), qemu) = found.expect("found just now");
    let process = |pid| Process { pid, pidfd: pidfd(pid) };
    Machine { keeper: process(keeper), vsock: process(vsock), qemu: process(qemu) }
}

/// A process that has to do with a directory.
#[derive(Debug)]
pub struct User {
    pub pid: Pid,
    pub argv: Vec<String>,
    /// How it shows: what it works in, holds open, executes, or was told of.
    pub why: PathBuf,
}

/// All other processes that have to do with anything below `root`, deleted files too.
pub fn touching(root: &Path) -> Vec<User> {
    processes().filter_map(|pid| user(pid, root)).collect()
}

/// All processes of a user.
pub fn of_user(uid: u32) -> Vec<Pid> {
    use std::os::unix::fs::MetadataExt as _;
    processes()
        .filter(|pid| fs::metadata(directory(*pid)).is_ok_and(|found| found.uid() == uid) && !is_zombie(*pid))
        .collect()
}

/// The memory that a process holds.
pub fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(directory(pid).join("status")).expect("a process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number")
}

/// Looks until it holds: /proc tells nobody when a process comes.
pub fn wait_until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let own = rustix::process::getpid();
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(move |pid| *pid != own)
}

fn directory(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

fn is_zombie(pid: Pid) -> bool {
    let status = fs::read_to_string(directory(pid).join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// A process may end at any time while it is looked at: what can't be read is not there.
fn user(pid: Pid, root: &Path) -> Option<User> {
    let directory = directory(pid);
    let cmdline = fs::read(directory.join("cmdline")).ok()?;
    let argv: Vec<String> =
        cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let fds = fs::read_dir(directory.join("fd")).into_iter().flatten().filter_map(Result::ok);
    let links = ["cwd", "exe", "root"].into_iter().map(|name| directory.join(name));
    let held = links.chain(fds.map(|fd| fd.path())).filter_map(|link| fs::read_link(link).ok());
    let told = argv.iter().filter(|word| word.contains(&*root.to_string_lossy())).map(PathBuf::from);
    // In a jail it has nothing but what is bound into its root: proc_pid_mountinfo(5) says from where.
    let mounts = fs::read_to_string(directory.join("mountinfo")).unwrap_or_default();
    let bound = mounts.lines().filter_map(|line| line.split(' ').nth(3)).map(PathBuf::from);
    let bound: Vec<PathBuf> = bound.filter(|path| path.starts_with(root)).collect();
    let why = held.filter(|path| path.starts_with(root)).chain(told).chain(bound).next()?;
    Some(User { pid, argv, why })
}
