//! creel's side of the keeper: starts it, watches what it records, ends it.
//!
//! The keeper is told everything at its start and nothing after. What creel learns comes from the machine's directory
//! (an exit record a process, the console history) and from the keeper's pidfd. The order is guaranteed: every recorded
//! [`KeeperEvent::ProcessEnded`] comes before [`KeeperEvent::Gone`], which is the last event.
//!
//! `process` says what a keeper is asked to run, `watch` turns files into events.

mod process;
mod watch;

pub use process::{Ownership, ProcessSpec, ReadySpec};

use std::ffi::NulError;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use creel_keeper::records::{CONSOLE_FILE, log_file};
use creel_keeper::{
    ConsoleError, ConsoleHistory, DoneRecord, ExitRecord, Owner, PLAN_VERSION, Plan, PlanError, Root,
};
pub use creel_keeper::{ConsoleSizes, Ending, Output, ProcessEnd, Usage};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use thiserror::Error;
use tokio::sync::{mpsc, watch as state};

use crate::host::{self, Exit, Namespaces, Spawn, SpawnError, SpawnStep, memfd};
use crate::runtime::microvm::directory::MachineDirectory;

/// How long a keeper may take to end its machine in order before it is killed.
const ORDERLY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a killed keeper may take to die; as PID 1 it does so after everything in its namespace.
const DEATH_TIMEOUT: Duration = Duration::from_secs(2);

/// The keeper's own descriptors; those of the processes follow.
const STDERR_FD: RawFd = 2;
const PLAN_FD: RawFd = 3;
const DIRECTORY_FD: RawFd = 4;
const PARENT_FD: RawFd = 5;
const OWNER_FD: RawFd = 6;
const CGROUP_FD: RawFd = 7;
const FIRST_PASSED_FD: RawFd = 8;

/// What to start.
#[derive(Debug)]
pub struct KeeperSpec<'a> {
    /// The creel-keeper binary.
    pub program: PathBuf,
    /// What to try first; where it is forbidden, [`Namespaces::None`] is used instead. Those of a jail are had, or there is
    /// no keeper.
    pub namespaces: Namespaces,
    /// The root directory of all of them; with the namespaces of a jail.
    pub root: Option<Root>,
    /// What the keeper is to hold until its end: leases.
    pub held: Vec<BorrowedFd<'a>>,
    pub ownership: Ownership,
    pub directory: &'a MachineDirectory,
    /// In start order. At least one must end the machine.
    pub processes: Vec<ProcessSpec>,
    pub console: ConsoleSizes,
    /// Where keeper and processes are born; without it, in creel's own cgroup.
    pub cgroups: Option<KeeperCgroups<'a>>,
}

/// Two directories of cgroup v2, siblings, so that what limits and kills the machine's processes spares the keeper, who
/// records it.
#[derive(Debug, Clone, Copy)]
pub struct KeeperCgroups<'a> {
    /// The keeper's own.
    pub keeper: BorrowedFd<'a>,
    /// That of all its processes. The keeper has a copy of this descriptor until the last of them has started.
    pub machine: BorrowedFd<'a>,
}

/// Why a keeper could not be started.
#[derive(Debug, Error)]
pub enum KeeperError {
    #[error("the plan of the machine can't be carried out")]
    Plan(#[source] PlanError),
    #[error("`{path}` is not valid UTF-8: programs of a machine need a path that is")]
    NotUtf8 { path: PathBuf },
    #[error("the path of the keeper holds a NUL byte")]
    Nul(#[from] NulError),
    #[error("failed to {action}")]
    Io {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// What happens to a machine's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperEvent {
    /// Recorded by the keeper; in the order of the ends.
    ProcessEnded(ExitRecord),
    /// The keeper has ended, and all its processes with it. The last event.
    Gone(KeeperEnd),
}

/// How a keeper ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperEnd {
    /// `None` if it could not be waited for.
    pub exit: Option<Exit>,
    /// Its last record; absent when it was killed, or the disk was full.
    pub done: Option<DoneRecord>,
    /// What it said on standard error: nothing, unless something went wrong.
    pub message: String,
}

/// A running keeper, and through it a machine's processes.
///
/// Dropping an embedded one ends everything; a daemon's lives on.
#[derive(Debug)]
pub struct Keeper {
    pid: Pid,
    pidfd: OwnedFd,
    namespaces: Namespaces,
    /// Embedded: closing it is the end of the machine.
    _owner: Option<OwnedFd>,
    directory: OwnedFd,
    events: Option<mpsc::Receiver<KeeperEvent>>,
    gone: state::Receiver<Option<KeeperEnd>>,
}

impl Keeper {
    /// Starts the keeper and returns when its program runs, in about a millisecond. Every descriptor of the processes
    /// is closed in creel by then, also after an error.
    ///
    /// # Errors
    /// See [`KeeperError`]. What goes wrong after this, a missing QEMU among it, comes as an event.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start(spec: KeeperSpec<'_>) -> Result<Self, KeeperError> {
        let failed = |action| move |source: Errno| KeeperError::Io { action, source: source.into() };
        let names: Vec<String> = spec.processes.iter().map(|process| process.name.clone()).collect();
        let owner = match spec.ownership {
            Ownership::Daemon => None,
            Ownership::Embedded => {
                Some(pipe_with(PipeFlags::CLOEXEC).map_err(failed("make the owner's pipe"))?)
            }
        };
        let machine_cgroup = spec.cgroups.map(|_| CGROUP_FD);
        let mut passed = Vec::new();
        let processes = spec
            .processes
            .into_iter()
            .map(|process| process.into_plan(FIRST_PASSED_FD, machine_cgroup, &mut passed))
            .collect::<Result<Vec<_>, _>>()?;
        let first_held =
            FIRST_PASSED_FD + RawFd::try_from(passed.len()).unwrap_or(RawFd::MAX - FIRST_PASSED_FD);
        let plan = Plan {
            version: PLAN_VERSION,
            machine: spec.directory.id().to_owned(),
            directory: DIRECTORY_FD,
            owner: owner.as_ref().map(|_| Owner {
                pipe: OWNER_FD,
                parent: PARENT_FD,
                name: spec.directory.name(),
            }),
            root: spec.root,
            hold: (first_held..).take(spec.held.len()).collect(),
            console: spec.console,
            processes,
        };
        plan.validate().map_err(KeeperError::Plan)?;
        let json = plan.to_json().map_err(KeeperError::Plan)?;
        let io_failed = |action| move |source| KeeperError::Io { action, source };
        let plan = memfd::sealed("creel-plan", &json).map_err(io_failed("write the keeper's plan"))?;
        let stderr =
            memfd::empty("creel-keeper-stderr").map_err(io_failed("make the keeper's standard error"))?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(io_failed("open `/dev/null`"))?;

        let mut spawn = Spawn::new(&spec.program)?
            .arg("--plan-fd")?
            .arg(PLAN_FD.to_string())?
            // Without these a PID 1 would lose a SIGTERM that comes before it listens.
            .blocked(Signal::TERM)
            .blocked(Signal::CHILD)
            .fd(null.as_fd(), 0)
            .fd(null.as_fd(), 1)
            .fd(stderr.as_fd(), STDERR_FD)
            .fd(plan.as_fd(), PLAN_FD)
            .fd(spec.directory.fd(), DIRECTORY_FD);
        if let Some((read, _)) = &owner {
            spawn = spawn.fd(spec.directory.parent_fd(), PARENT_FD).fd(read.as_fd(), OWNER_FD);
        }
        if let Some(cgroups) = spec.cgroups {
            spawn = spawn.cgroup(cgroups.keeper).fd(cgroups.machine, CGROUP_FD);
        }
        for (number, fd) in (FIRST_PASSED_FD..).zip(&passed) {
            spawn = spawn.fd(fd.as_fd(), number);
        }
        for (number, fd) in (first_held..).zip(&spec.held) {
            spawn = spawn.fd(*fd, number);
        }
        let directory =
            rustix::io::fcntl_dupfd_cloexec(spec.directory.fd(), 3).map_err(failed("copy a descriptor"))?;
        let watched = rustix::io::fcntl_dupfd_cloexec(&directory, 3).map_err(failed("copy a descriptor"))?;
        // Before the start, so that no record is missed.
        let watch = watch::Watch::new(watched, names);
        let (child, namespaces) = spawn_in(spawn, spec.namespaces)?;
        let pidfd = child.pidfd().map_err(io_failed("copy a descriptor"))?;
        let pid = child.pid();
        let (events, gone) = watch.run(child, stderr);
        tracing::debug!(machine = spec.directory.id(), pid = %pid, ?namespaces, "keeper started");
        Ok(Self {
            pid,
            pidfd,
            namespaces,
            _owner: owner.map(|(_, write)| write),
            directory,
            events: Some(events),
            gone,
        })
    }

    /// The keeper's pid, as creel sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The namespaces that the keeper really has.
    pub fn namespaces(&self) -> Namespaces {
        self.namespaces
    }

    /// The events, to be taken once. They wait in the channel until read; there is room for all that can come.
    pub fn events(&mut self) -> Option<mpsc::Receiver<KeeperEvent>> {
        self.events.take()
    }

    /// The console as it is now. It can be read until the machine's directory is removed.
    ///
    /// # Errors
    /// See [`ConsoleError`].
    pub fn console(&self) -> Result<ConsoleHistory, ConsoleError> {
        self.history(CONSOLE_FILE)
    }

    /// The log of a process whose output goes to [`Output::Log`].
    ///
    /// # Errors
    /// See [`ConsoleError`].
    pub fn log(&self, process: &str) -> Result<ConsoleHistory, ConsoleError> {
        self.history(&log_file(process))
    }

    /// The console's last bytes, for a person to read beside an error; empty if there are none to be had.
    pub fn console_tail(&self, max_bytes: usize) -> Vec<u8> {
        self.console().map(|console| console.last(max_bytes)).unwrap_or_default()
    }

    fn history(&self, name: &str) -> Result<ConsoleHistory, ConsoleError> {
        // A taken-over QEMU may have put a FIFO in its place, which must not be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(&self.directory, name, flags, Mode::empty());
        ConsoleHistory::read(file.map_err(|error| ConsoleError::Read(error.into()))?)
    }

    /// Ends the machine: asks the keeper to, which records how each process ended; then, if it does not within 2 s, by
    /// SIGKILL. Returns when the keeper is gone, `None` if even that failed within another 2 s.
    pub async fn kill(&self) -> Option<KeeperEnd> {
        for (signal, bound) in [(Signal::TERM, ORDERLY_TIMEOUT), (Signal::KILL, DEATH_TIMEOUT)] {
            // The only failure is ESRCH: it has ended already.
            let _ = pidfd_send_signal(&self.pidfd, signal);
            if let Some(end) = self.wait_gone(bound).await {
                return Some(end);
            }
        }
        None
    }

    /// Waits for the keeper's end, whether or not the events are read.
    pub async fn wait_gone(&self, bound: Duration) -> Option<KeeperEnd> {
        let mut gone = self.gone.clone();
        let end = tokio::time::timeout(bound, gone.wait_for(Option::is_some)).await.ok()?.ok()?;
        end.clone()
    }
}

/// Starts in the wanted namespaces, or in none where the kernel or its administrator forbids them. The cgroup is kept: a
/// machine without its limits is not started, but refused.
fn spawn_in(spawn: Spawn<'_>, wanted: Namespaces) -> Result<(host::Child, Namespaces), KeeperError> {
    let spawn = spawn.namespaces(wanted);
    match host::spawn(&spawn) {
        Err(error) if wanted != Namespaces::None && !wanted.are_a_jail_s() && is_forbidden(&error) => {
            // First the attempt: where the cgroup was at fault, it fails alike, and the namespaces are not to blame.
            let child = host::spawn(&spawn.namespaces(Namespaces::None))?;
            tracing::warn!(?wanted, error = %error.source, "no pid namespace for the machine: using none");
            Ok((child, Namespaces::None))
        }
        outcome => Ok((outcome?, wanted)),
    }
}

/// clone(2) and user_namespaces(7): forbidden, over a limit, or not built in; EACCES comes from security modules.
fn is_forbidden(error: &SpawnError) -> bool {
    let forbidden = [Errno::PERM, Errno::NOSPC, Errno::INVAL, Errno::ACCESS, Errno::USERS];
    matches!(error.step, SpawnStep::Clone | SpawnStep::MapIds)
        && Errno::from_io_error(&error.source).is_some_and(|errno| forbidden.contains(&errno))
}

#[cfg(test)]
mod tests;
