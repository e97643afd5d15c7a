//! Starts a program by `clone3`, so that it is born where it belongs: in its namespaces and its cgroup, with a pidfd,
//! and with exactly the descriptors that are named.
//!
//! std's `Command` can do none of that. It is also not what is wanted for a process with threads: between clone and
//! exec the child may only use what is async-signal-safe (fork(2), signal-safety(7)), so everything it touches is laid
//! out before, and `child` below makes raw system calls only.

use std::ffi::{CStr, CString, NulError, OsStr};
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitIdOptions};
use thiserror::Error;

use crate::host::child::Child;
use crate::host::namespaces::Namespaces;
use crate::host::pidfd::{PidFd, reap};

/// What to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    fds: Vec<(BorrowedFd<'a>, RawFd)>,
    blocked: u64,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'a>>,
}

impl<'a> Spawn<'a> {
    /// A program with no arguments but its name, an empty environment, and no descriptors: not even standard streams.
    ///
    /// # Errors
    /// When the path holds a NUL byte.
    pub fn new(program: &Path) -> Result<Self, NulError> {
        let program = CString::new(program.as_os_str().as_bytes())?;
        Ok(Self {
            argv: vec![program.clone()],
            program,
            env: Vec::new(),
            fds: Vec::new(),
            blocked: 0,
            namespaces: Namespaces::None,
            cgroup: None,
        })
    }

    /// # Errors
    /// When it holds a NUL byte.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Result<Self, NulError> {
        self.argv.push(CString::new(argument.as_ref().as_bytes())?);
        Ok(self)
    }

    /// # Errors
    /// When one of them holds a NUL byte.
    pub fn env(mut self, key: &str, value: &str) -> Result<Self, NulError> {
        self.env.push(CString::new(format!("{key}={value}"))?);
        Ok(self)
    }

    /// Gives the program a copy of `fd` under `number`; standard streams are given so, too.
    #[must_use]
    pub fn fd(mut self, fd: BorrowedFd<'a>, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Starts the program with `signal` blocked. A PID 1 that has not yet said how it takes a signal loses it, unless
    /// it is blocked.
    #[must_use]
    pub fn blocked(mut self, signal: Signal) -> Self {
        self.blocked |= 1 << (signal.as_raw() - 1);
        self
    }

    #[must_use]
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// The cgroup v2 directory to be born in.
    #[must_use]
    pub fn cgroup(mut self, cgroup: BorrowedFd<'a>) -> Self {
        self.cgroup = Some(cgroup);
        self
    }
}

/// The step at which a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SpawnStep {
    Pipe,
    Clone,
    /// Writing `setgroups`, `uid_map` or `gid_map` of the new user namespace.
    MapIds,
    Session,
    Capabilities,
    /// Those of a mount namespace of its own.
    Mounts,
    Descriptors,
    Signals,
    Exec,
    /// Registering the child with the runtime.
    Register,
}

impl SpawnStep {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Session, Self::Capabilities, Self::Mounts, Self::Descriptors, Self::Signals, Self::Exec]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Pipe => "make a pipe",
            Self::Clone => "clone",
            Self::MapIds => "map uid and gid into the user namespace",
            Self::Session => "start a session",
            Self::Capabilities => "keep capabilities in its user namespace",
            Self::Mounts => "change mounts in a namespace of its own",
            Self::Descriptors => "arrange the descriptors",
            Self::Signals => "reset the signals",
            Self::Exec => "execute it",
            Self::Register => "watch it",
        }
    }
}

/// A program that was not started; nothing of it is left.
#[derive(Debug, Error)]
#[error("failed to start `{program}`: could not {}", step.words())]
pub struct SpawnError {
    pub program: String,
    pub step: SpawnStep,
    #[source]
    pub source: io::Error,
}

/// Starts a program and returns when it has been executed, in about a millisecond. It leads a session of its own.
///
/// # Errors
/// See [`SpawnStep`]. After an error nothing is left of the child.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn spawn(spec: &Spawn<'_>) -> Result<Child, SpawnError> {
    let started = start(spec, Then::Exec)?;
    match PidFd::new(started.pidfd) {
        Ok(pidfd) => Ok(Child::new(started.pid, pidfd)),
        Err(source) => {
            let _ = rustix::process::kill_process(started.pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(started.pid), rustix::process::WaitOptions::empty());
            Err(spec.error(SpawnStep::Register, source))
        }
    }
}

/// Makes the namespaces around a child that exits at once.
pub(crate) fn try_namespaces(namespaces: Namespaces) -> Result<(), SpawnError> {
    let spec = Spawn::new(Path::new("/")).map_err(|source| SpawnError {
        program: "/".into(),
        step: SpawnStep::Clone,
        source: source.into(),
    })?;
    let started = start(&spec.namespaces(namespaces), Then::Exit)?;
    let _ = reap(&started.pidfd, WaitIdOptions::empty());
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Exec,
    Exit,
}

struct Started {
    pid: Pid,
    pidfd: OwnedFd,
}

/// All that the child reads, laid out before the clone. Pointers stay valid: the child has a copy of the memory.
struct Layout<'a> {
    program: &'a CStr,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// (source, a free slot for the raised source, target).
    fds: Vec<(RawFd, RawFd, RawFd)>,
    above: RawFd,
    blocked: u64,
    /// It is not root in its user namespace, and would lose with exec what it can do there.
    keeps_capabilities: bool,
    /// It has mounts of its own.
    mounts: bool,
    report: RawFd,
    go: RawFd,
    go_write: RawFd,
    then: Then,
}

fn start(spec: &Spawn<'_>, then: Then) -> Result<Started, SpawnError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| spec.error(SpawnStep::Pipe, error.into()));
    let (report_read, report_write) = pipe()?;
    let (go_read, go_write) = pipe()?;
    let pointers =
        |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
    let mut layout = Layout {
        program: &spec.program,
        argv: pointers(&spec.argv),
        env: pointers(&spec.env),
        fds: spec.fds.iter().map(|(fd, number)| (fd.as_raw_fd(), -1, *number)).collect(),
        above: spec.fds.iter().map(|(_, number)| number + 1).max().unwrap_or(0).max(3),
        blocked: spec.blocked,
        keeps_capabilities: spec.namespaces == Namespaces::UserJail,
        mounts: spec.namespaces.are_a_jail_s(),
        report: report_write.as_raw_fd(),
        go: go_read.as_raw_fd(),
        go_write: go_write.as_raw_fd(),
        then,
    };
    let (pid, pidfd) = clone_child(spec, &mut layout).map_err(|error| spec.error(SpawnStep::Clone, error))?;
    drop((report_write, go_read));

    let abandon = |step, source| {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = reap(&pidfd, WaitIdOptions::empty());
        spec.error(step, source)
    };
    if spec.namespaces.has_users() {
        map_ids(pid).map_err(|error| abandon(SpawnStep::MapIds, error))?;
    }
    // The child waits for one byte. Should it be dead already, the report says so.
    let _ = rustix::io::write(&go_write, b"g");
    drop(go_write);
    let mut message = [0; 5];
    match rustix::io::retry_on_intr(|| rustix::io::read(&report_read, &mut message)) {
        Ok(0) => Ok(Started { pid, pidfd }),
        Ok(5) => {
            let [step, a, b, c, d] = message;
            let source = io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
            Err(abandon(SpawnStep::from_byte(step).unwrap_or(SpawnStep::Exec), source))
        }
        Ok(_) => Err(abandon(SpawnStep::Exec, io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(abandon(SpawnStep::Exec, error.into())),
    }
}

fn clone_child(spec: &Spawn<'_>, layout: &mut Layout<'_>) -> io::Result<(Pid, OwnedFd)> {
    /// clone3(2); libc has the constant only for some targets.
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let namespace_flags = spec.namespaces.flags();
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is the documented default of every member of clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((namespace_flags | libc::CLONE_PIDFD).cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = spec.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // A handler of this process must not run in the child, on a copy of its state: all signals stay blocked from
    // before the clone until the child sets the mask that its program begins with.
    let all = !0u64;
    let mut previous = 0u64;
    set_mask(&all, Some(&mut previous))?;
    // SAFETY: without CLONE_VM the child is a copy, like that of fork, on its own copy of this stack. It runs `child`,
    // which makes raw system calls only and never returns. The arguments are valid for their size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        child(layout);
    }
    let error = io::Error::last_os_error();
    set_mask(&previous, None)?;
    let pid = i32::try_from(pid)
        .ok()
        .and_then(|pid| if pid > 0 { Pid::from_raw(pid) } else { None })
        .ok_or(error)?;
    // SAFETY: the kernel has stored a new descriptor, close-on-exec by definition (clone(2)).
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// `rt_sigprocmask` with the kernel's own 8-byte set: libc's wrapper leaves out the signals it keeps for itself.
fn set_mask(mask: &u64, previous: Option<&mut u64>) -> io::Result<()> {
    let previous = previous.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: `mask` is valid for reading, `previous` null or valid for writing, of the 8 bytes stated.
    let status = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask, previous, 8) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// uid and gid keep their numbers: files made in the namespace belong to the same user outside.
fn map_ids(pid: Pid) -> io::Result<()> {
    let write = |file: &str, text: &str| {
        // One write each: the kernel takes a map in a single one only (user_namespaces(7)).
        std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))?
            .write_all(text.as_bytes())
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("setgroups", "deny")?;
    write("uid_map", &format!("{uid} {uid} 1"))?;
    write("gid_map", &format!("{gid} {gid} 1"))
}

/// The child, from clone to exec. Raw system calls only: no allocation, no lock, no panic.
fn child(layout: &mut Layout<'_>) -> ! {
    let step = match prepare(layout) {
        Err(step) => step as u8,
        Ok(()) if layout.then == Then::Exit => {
            // SAFETY: ends the child, touching nothing.
            unsafe { libc::_exit(0) }
        }
        Ok(()) => {
            // SAFETY: the path is a C string and both arrays end in null.
            unsafe { libc::execve(layout.program.as_ptr(), layout.argv.as_ptr(), layout.env.as_ptr()) };
            SpawnStep::Exec as u8
        }
    };
    // SAFETY: the location of this thread's errno is always valid.
    let [a, b, c, d] = unsafe { *libc::__errno_location() }.to_ne_bytes();
    let message = [step, a, b, c, d];
    // SAFETY: the message is valid for its length; `_exit` runs no handler of the parent's.
    unsafe {
        libc::write(layout.report, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

/// Those that a keeper makes a jail with, through exec (capabilities(7), "Ambient"). Raw system calls only.
fn keep_capabilities() -> Result<(), SpawnStep> {
    const CAP_KILL: u32 = 5;
    const CAP_SETPCAP: u32 = 8;
    const CAP_SYS_ADMIN: u32 = 21;
    const SET: u32 = 1 << CAP_KILL | 1 << CAP_SETPCAP | 1 << CAP_SYS_ADMIN;
    /// `_LINUX_CAPABILITY_VERSION_3`, and this process.
    static HEADER: [u32; 2] = [0x2008_0522, 0];
    /// Effective, permitted and inheritable, of the first 32 and of those behind.
    static DATA: [u32; 6] = [SET, SET, SET, 0, 0, 0];
    // SAFETY: both are valid for reading, and laid out as the kernel has them.
    if unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), DATA.as_ptr()) } < 0 {
        return Err(SpawnStep::Capabilities);
    }
    for capability in [CAP_KILL, CAP_SETPCAP, CAP_SYS_ADMIN] {
        // SAFETY: takes no pointer.
        let raised =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
        if raised < 0 {
            return Err(SpawnStep::Capabilities);
        }
    }
    Ok(())
}

/// The steps before exec, in order. On an error `errno` says why.
fn prepare(layout: &mut Layout<'_>) -> Result<(), SpawnStep> {
    let check = |status: i32, step| if status < 0 { Err(step) } else { Ok(()) };
    let mut byte = 0u8;
    // SAFETY: closing the child's copies of the parent's ends touches no memory; the byte is valid for writing. A
    // parent that died writes none, and the child ends.
    unsafe {
        libc::close(layout.go_write);
        if libc::read(layout.go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(127);
        }
    }
    if layout.then == Then::Exit {
        // What a user namespace grants may be taken back by a security module (AppArmor's
        // `apparmor_restrict_unprivileged_userns`): a mount tells.
        if layout.mounts {
            // SAFETY: the path is a C string, and the others may be null with these flags. The mounts are this child's own.
            let private = unsafe {
                let flags = libc::MS_REC | libc::MS_PRIVATE;
                libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null())
            };
            check(private, SpawnStep::Mounts)?;
        }
        return Ok(());
    }
    // SAFETY: setsid touches no memory.
    check(unsafe { libc::setsid() }, SpawnStep::Session)?;
    if layout.keeps_capabilities {
        keep_capabilities()?;
    }

    // Sources move above all targets first, so that none is overwritten before it is copied.
    // SAFETY: these calls touch no memory. The numbers are the child's own, and no owner lives in the child to close
    // them again. The copies made by dup2 are not close-on-exec; all else above is made so.
    unsafe {
        for (from, raised, _) in &mut layout.fds {
            *raised = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, layout.above);
            check(*raised, SpawnStep::Descriptors)?;
        }
        let report = libc::fcntl(layout.report, libc::F_DUPFD_CLOEXEC, layout.above);
        check(report, SpawnStep::Descriptors)?;
        layout.report = report;
        for fd in 0..layout.above {
            libc::close(fd);
        }
        for (_, raised, to) in &layout.fds {
            check(libc::dup2(*raised, *to), SpawnStep::Descriptors)?;
        }
        let all_above =
            libc::syscall(libc::SYS_close_range, layout.above, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if all_above < 0 {
            return Err(SpawnStep::Descriptors);
        }
    }

    /// The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is SIG_DFL.
    static DEFAULT: [u64; 4] = [0; 4];
    // CLONE_CLEAR_SIGHAND leaves ignored signals ignored, and Rust programs ignore SIGPIPE.
    for signal in 1..=64 {
        // SAFETY: the action is valid for reading and at least as long as the kernel's; the mask is 8 bytes. Signals
        // whose disposition can't be set are refused without harm.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, std::ptr::null::<u8>(), 8)
        };
    }
    // SAFETY: the mask is valid for reading of the 8 bytes stated.
    let masked = unsafe {
        let mask = &raw const layout.blocked;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask, std::ptr::null_mut::<u64>(), 8)
    };
    if masked < 0 { Err(SpawnStep::Signals) } else { Ok(()) }
}

impl Spawn<'_> {
    fn error(&self, step: SpawnStep, source: io::Error) -> SpawnError {
        SpawnError { program: self.program.to_string_lossy().into_owned(), step, source }
    }
}

#[cfg(test)]
mod tests;
