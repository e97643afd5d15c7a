//! A machine's life as its keeper sees it: start everything in order, watch, end everything, say so.
//!
//! ```text
//! start ──every process runs──> watch ──a process that ends the machine exits──┐
//!   └──a start fails, SIGTERM, the owner dies──────────┴──SIGTERM, the owner dies──> kill, reap, drain ──> record | remove
//! ```
//!
//! One thread, one poll: [`Supervisor::turn`] takes the signals, the owner's pipe and the output of the processes, and
//! is also what runs while a helper is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use creel_keeper::records::{CONSOLE_FILE, DONE_FILE, exit_file, log_file};
use creel_keeper::{
    DoneRecord, Ending, ExitRecord, FdSource, Output, Plan, Process, ProcessEnd, Program, Root, Usage,
    remove_directory,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::child::{Prepared, StartError, open_null, start};
use crate::inherited::Inherited;
use crate::jail::{privileges, root, seccomp};
use crate::leave_out::is_left_out;
use crate::ready::{self, Arrival, try_connect};
use crate::reap::{self, kill_all, reap_one};
use crate::recorder::{CHUNK_BYTES, Drain, now_unix_ns, write_record};
use crate::signals::Signals;

/// How long killed processes may take to die; only a hung device or file system takes this long.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);

struct Owner {
    pipe: OwnedFd,
    parent: OwnedFd,
    name: String,
    gone: bool,
}

struct Running {
    name: String,
    pid: libc::pid_t,
    started_at_unix_ns: u64,
    ends_machine: bool,
}

struct Supervisor {
    machine: String,
    directory: OwnedFd,
    owner: Option<Owner>,
    signals: Signals,
    console: Drain,
    logs: Vec<Drain>,
    running: Vec<Running>,
    buffer: Box<[u8; CHUNK_BYTES]>,
    /// Set once: the first reason wins.
    ending: Option<Ending>,
    no_children: bool,
    /// Where the keeper is, and its processes.
    root: Option<Root>,
    _held: Vec<OwnedFd>,
}

/// Runs the whole life of a machine.
///
/// An error is one of the plan; everything that goes wrong later is recorded and is part of the [`Ending`].
pub(crate) fn run(plan: Plan, mut inherited: Inherited, signals: Signals) -> Result<Ending, String> {
    let directory = inherited.remove(plan.directory)?;
    let held = plan.hold.iter().map(|fd| inherited.remove(*fd)).collect::<Result<Vec<_>, _>>()?;
    // What is to be said to the kernel about processes, wherever the root is.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())
        .map_err(|error| format!("failed to open `/proc`: {error}"))?;
    let rooted = match &plan.root {
        Some(root) if !is_left_out("root directory") => root::enter(root),
        _ => Ok(()),
    };
    rustix::process::fchdir(&directory)
        .map_err(|error| format!("failed to enter the machine's directory: {error}"))?;
    // Outside a pid namespace too, orphans of the machine come to the keeper.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let owner = match plan.owner {
        None => None,
        Some(owner) => {
            let (pipe, parent) = (inherited.remove(owner.pipe)?, inherited.remove(owner.parent)?);
            Some(Owner { pipe, parent, name: owner.name, gone: false })
        }
    };
    let (console, console_end) = Drain::create(directory.as_fd(), CONSOLE_FILE, plan.console)
        .map_err(|error| format!("failed to make the console pipe: {error}"))?;
    let mut supervisor = Supervisor {
        machine: plan.machine,
        directory,
        owner,
        signals,
        console,
        logs: Vec::new(),
        running: Vec::new(),
        buffer: Box::new([0; CHUNK_BYTES]),
        ending: None,
        no_children: false,
        root: plan.root,
        _held: held,
    };
    match (rooted, plan.processes.first()) {
        (Err(error), Some(first)) => {
            supervisor.start_failed(first, StartError { error: error.to_string(), errno: error.errno() });
        }
        _ => supervisor.start_all(&plan.processes, inherited, console_end, proc),
    }
    supervisor.confine(&plan.processes);
    drop(plan.processes);
    while supervisor.ending.is_none() {
        supervisor.turn(None, None);
    }
    Ok(supervisor.finish())
}

impl Supervisor {
    /// Starts the processes in order, and closes each descriptor as soon as nobody else needs it.
    fn start_all(
        &mut self,
        processes: &[Process],
        mut inherited: Inherited,
        console_end: OwnedFd,
        proc: OwnedFd,
    ) {
        let mut connections = BTreeMap::new();
        let proc = Rc::new(proc);
        for (index, process) in processes.iter().enumerate() {
            // An owner that died before now, or SIGTERM, is noticed here.
            self.turn(Some(Duration::ZERO), None);
            if self.ending.is_some() {
                return;
            }
            let started = self.start_one(process, &inherited, &connections, (&console_end, &proc));
            if let Err(error) =
                started.and_then(|arrival| self.await_ready(process, arrival, &mut connections))
            {
                self.start_failed(process, error);
                return;
            }
            let later = &processes[index + 1..];
            inherited.keep_only(&later.iter().flat_map(Process::fds).collect::<BTreeSet<_>>());
            connections.retain(|name, _| later.iter().any(|process| uses_connection(process, name)));
        }
    }

    fn start_one(
        &mut self,
        process: &Process,
        inherited: &Inherited,
        connections: &BTreeMap<String, OwnedFd>,
        (console_end, proc): (&OwnedFd, &Rc<OwnedFd>),
    ) -> Result<Option<Arrival>, StartError> {
        let null = open_null().map_err(|error| StartError::failed("open /dev/null", &error))?;
        let log_end = match process.stdout == Output::Log || process.stderr == Output::Log {
            false => None,
            true => {
                let (drain, end) =
                    Drain::create(self.directory.as_fd(), &log_file(&process.name), process.log)
                        .map_err(|error| StartError::failed("make the pipe of its log", &error))?;
                self.logs.push(drain);
                Some(end)
            }
        };
        let stream = |output| match (output, &log_end) {
            (Output::Console, _) => console_end.as_raw_fd(),
            (Output::Log, Some(end)) => end.as_raw_fd(),
            (Output::Log | Output::Null, _) => null.as_raw_fd(),
        };
        let mut fds = vec![(null.as_raw_fd(), 0), (stream(process.stdout), 1), (stream(process.stderr), 2)];
        let number = |fd| inherited.number(fd).ok_or_else(|| missing(format!("descriptor {fd}")));
        for grant in &process.fds {
            let from: RawFd = match &grant.from {
                FdSource::Fd(fd) => number(*fd)?,
                FdSource::Console => console_end.as_raw_fd(),
                FdSource::ReadySocketOf(name) => connections
                    .get(name)
                    .map(AsRawFd::as_raw_fd)
                    .ok_or_else(|| missing(format!("the connection to `{name}`")))?,
            };
            fds.push((from, grant.to));
        }
        if let Program::Fd(fd) = process.program {
            number(fd)?;
        }
        let cgroup = process.cgroup.map(number).transpose()?;
        let arrival = match &process.ready {
            None => None,
            Some(ready) => {
                let watched = Arrival::watch(&ready.socket);
                Some(watched.map_err(|error| StartError::failed("watch the directory", &error))?)
            }
        };
        let prepared = Prepared::new(process, fds, cgroup, Rc::clone(proc))
            .map_err(|error| StartError { error: error.to_string(), errno: None })?;
        let started_at_unix_ns = now_unix_ns();
        let pid = start(&prepared, self.root.as_ref())?;
        self.no_children = false;
        let (name, ends_machine) = (process.name.clone(), process.ends_machine);
        self.running.push(Running { name, pid, started_at_unix_ns, ends_machine });
        Ok(arrival)
    }

    /// Runs the machine's ordinary life until the process's socket accepts.
    fn await_ready(
        &mut self,
        process: &Process,
        arrival: Option<Arrival>,
        connections: &mut BTreeMap<String, OwnedFd>,
    ) -> Result<(), StartError> {
        let (Some(ready), Some(arrival)) = (&process.ready, arrival) else { return Ok(()) };
        let deadline = Instant::now() + Duration::from_millis(u64::from(ready.timeout_ms));
        let not_ready = |why: &str| {
            let error = format!("`{}` was not ready: its socket `{}` {why}", process.name, ready.socket);
            StartError { error, errno: None }
        };
        while self.ending.is_none() {
            let retry = match try_connect(&ready.socket)
                .map_err(|error| StartError::failed("connect to it", &error))?
            {
                ready::Attempt::Connected(socket) => {
                    connections.insert(process.name.clone(), socket);
                    return Ok(());
                }
                ready::Attempt::NotYet(retry) => retry,
            };
            if !self.running.iter().any(|running| running.name == process.name) {
                return Err(not_ready("never accepted, since the process has ended"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_ready(&format!("did not accept within {} ms", ready.timeout_ms)));
            }
            self.turn(Some(retry.unwrap_or(left).min(left)), Some(&arrival));
        }
        Ok(())
    }

    /// What the keeper needs no more is given up: it ends processes, reads pipes, and writes into a directory that it has
    /// open. One that can't is a machine whose jail is weaker than was asked for.
    fn confine(&mut self, processes: &[Process]) {
        if self.root.is_none() || self.ending.is_some() || is_left_out("confine the keeper") {
            return;
        }
        let seccomp = processes.iter().filter_map(|process| process.jail.as_ref()).any(|jail| jail.seccomp);
        let confined = privileges::close_the_ways_back()
            .and_then(|()| privileges::keep_only_kill())
            .and_then(|()| Ok(rustix::thread::set_no_new_privs(true)?))
            .and_then(|()| if seccomp { seccomp::install() } else { Ok(()) });
        if let (Err(error), Some(process)) = (confined, processes.last()) {
            self.start_failed(process, StartError::failed("confine the keeper", &error));
        }
    }

    /// A process that never ran has its failure as its end; one that ran but was not ready has the end that it gets.
    fn start_failed(&mut self, process: &Process, failure: StartError) {
        let StartError { error, errno } = failure;
        let recorded = exit_file(&process.name);
        let ran = self.running.iter().any(|running| running.name == process.name)
            || rustix::fs::accessat(
                &self.directory,
                &recorded,
                rustix::fs::Access::EXISTS,
                rustix::fs::AtFlags::empty(),
            )
            .is_ok();
        if !ran {
            let now = now_unix_ns();
            self.record(ExitRecord {
                name: process.name.clone(),
                end: ProcessEnd::FailedToStart { error: error.clone(), errno },
                started_at_unix_ns: now,
                ended_at_unix_ns: now,
                usage: Usage::default(),
            });
        }
        self.ending.get_or_insert(Ending::StartFailed { process: process.name.clone(), error });
    }

    /// Waits for something to happen, at most `timeout`, and deals with it.
    fn turn(&mut self, timeout: Option<Duration>, arrival: Option<&Arrival>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let owner = self.owner.as_ref().filter(|owner| !owner.gone).map(|owner| owner.pipe.as_fd());
        let drains = std::iter::once(&self.console).chain(&self.logs).filter_map(Drain::fd);
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(self.signals.fd())
            .chain(owner)
            .chain(arrival.map(Arrival::fd))
            .chain(drains)
            .collect();
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        // An interrupted or failed poll is harmless: everything below only takes what is there.
        let _ = poll(&mut polled, timeout.as_ref());
        drop((polled, fds));

        if let Some(arrival) = arrival {
            arrival.clear();
        }
        self.console.take_turn(&mut self.buffer);
        for log in &mut self.logs {
            log.take_turn(&mut self.buffer);
        }
        if self.signals.drain_saw_sigterm() {
            self.ending.get_or_insert(Ending::Terminated);
        }
        self.reap();
        self.notice_owner();
    }

    fn reap(&mut self) {
        loop {
            let reaped = match reap_one() {
                reap::Attempt::Reaped(reaped) => reaped,
                reap::Attempt::NoneEnded => return,
                reap::Attempt::NoChildren => {
                    self.no_children = true;
                    return;
                }
            };
            let Some(index) = self.running.iter().position(|running| running.pid == reaped.pid) else {
                continue;
            };
            let Running { name, started_at_unix_ns, ends_machine, .. } = self.running.remove(index);
            if ends_machine {
                self.ending.get_or_insert(Ending::ProcessEnded { process: name.clone() });
            }
            self.record(ExitRecord {
                name,
                end: reaped.end,
                started_at_unix_ns,
                ended_at_unix_ns: now_unix_ns(),
                usage: reaped.usage,
            });
        }
    }

    /// The owner never writes; whatever its pipe reports but "nothing there" is the end of it.
    fn notice_owner(&mut self) {
        if let Some(owner) = self.owner.as_mut().filter(|owner| !owner.gone) {
            let mut polled = [PollFd::new(&owner.pipe, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if matches!(poll(&mut polled, Some(&now)), Ok(1..)) {
                owner.gone = true;
                self.ending.get_or_insert(Ending::OwnerGone);
            }
        }
    }

    fn record(&self, record: ExitRecord) {
        if let Err(error) = write_record(self.directory.as_fd(), &exit_file(&record.name), &record) {
            eprintln!(
                "creel-keeper: failed to record the end of `{}` ({:?}): {error}",
                record.name, record.end
            );
        }
    }

    /// Kills, reaps, drains, and leaves either the last record or nothing at all.
    fn finish(mut self) -> Ending {
        let deadline = Instant::now() + DEATH_TIMEOUT;
        loop {
            self.reap();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.no_children || left.is_zero() {
                break;
            }
            // Anew each time: a dying process may have left orphans since.
            let pids: Vec<_> = self.running.iter().map(|running| running.pid).collect();
            kill_all(&pids);
            self.turn(Some(left), None);
        }
        self.console.take_remainder(&mut self.buffer);
        for log in &mut self.logs {
            log.take_remainder(&mut self.buffer);
        }
        self.notice_owner();
        let ending = self.ending.take().unwrap_or(Ending::Terminated);
        let done = DoneRecord {
            machine: self.machine.clone(),
            ending,
            console_total_bytes: self.console.total_bytes(),
            left_behind: self.running.iter().map(|running| running.name.clone()).collect(),
            ended_at_unix_ns: now_unix_ns(),
        };
        match self.owner.as_ref().filter(|owner| owner.gone) {
            Some(owner) => {
                if let Err(error) =
                    remove_directory(owner.parent.as_fd(), &owner.name, self.directory.as_fd())
                {
                    eprintln!("creel-keeper: failed to remove the directory of {}: {error}", done.machine);
                }
            }
            None => {
                if let Err(error) = write_record(self.directory.as_fd(), DONE_FILE, &done) {
                    eprintln!("creel-keeper: failed to write {DONE_FILE}: {error}");
                }
            }
        }
        done.ending
    }
}

fn uses_connection(process: &Process, name: &str) -> bool {
    process.fds.iter().any(|grant| matches!(&grant.from, FdSource::ReadySocketOf(other) if other == name))
}

fn missing(what: String) -> StartError {
    StartError { error: format!("{what} is not there any more"), errno: None }
}
