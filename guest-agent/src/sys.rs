//! What neither std nor rustix offers safely. All `unsafe` of the agent stands here.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reaper::{Exited, Outcome};

/// What wait4(2) had to say.
#[derive(Debug)]
pub enum Waited {
    Child(i32, Exited),
    /// There are children, and all of them run.
    NoneExited,
    NoChildren,
}

/// Reaps one child, whichever has exited. Does not block.
pub fn wait_any() -> io::Result<Waited> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which all zeroes are valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to live, writable values of the types that wait4 fills.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match pid {
        0 => Ok(Waited::NoneExited),
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(Waited::NoChildren),
            error => Err(error),
        },
        pid => {
            let outcome = if libc::WIFSIGNALED(status) {
                Outcome::Signal(libc::WTERMSIG(status))
            } else {
                Outcome::Code(libc::WEXITSTATUS(status))
            };
            let cpu_time = duration(usage.ru_utime) + duration(usage.ru_stime);
            let max_rss_kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
            Ok(Waited::Child(pid, Exited { outcome, cpu_time, max_rss_kib }))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Who a child becomes.
#[derive(Debug)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What a child does to itself between fork and exec.
#[derive(Debug)]
pub struct ChildSetup {
    /// `None`: it stays who its parent is.
    pub credentials: Option<Credentials>,
    /// Entered as the new user, who may see less than root.
    pub directory: CString,
    /// `cgroup.procs` of the cgroup that it joins.
    pub cgroup: Option<OwnedFd>,
    /// Its standard input is a terminal, which it takes into a session of its own.
    pub terminal: bool,
    /// A pipe's write end: takes the number of the step that failed, if one does.
    pub report: OwnedFd,
}

/// The steps of [`ChildSetup`] that can fail, as written to its `report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStep {
    BecomeUser = 1,
    EnterDirectory = 2,
    TakeTerminal = 3,
}

/// Makes `command` go through `setup` in the child. Signals are reset to their defaults there, and no
/// descriptor but the standard ones survives the exec.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let groups: Vec<Gid> =
        setup.credentials.iter().flat_map(|who| &who.groups).map(|&gid| Gid::from_raw(gid)).collect();
    let become_user = move |who: &Credentials| -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    };
    let hook = move || {
        reset_signals();
        close_on_exec();
        let failed = |step: ChildStep, error: rustix::io::Errno| {
            // Nobody is left to hear of a failure to report the failure.
            let _ = rustix::io::write(&setup.report, &[step as u8]);
            Err(error.into())
        };
        if let Some(cgroup) = &setup.cgroup {
            // "0" is the writer itself (cgroups(7)). A program that can't be put where it is easily ended is still
            // one that was asked for.
            let _ = rustix::io::write(cgroup, b"0");
        }
        if setup.terminal
            && let Err(error) = rustix::process::setsid()
                .and_then(|_| rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()))
        {
            return failed(ChildStep::TakeTerminal, error);
        }
        if let Some(Err(error)) = setup.credentials.as_ref().map(&become_user) {
            return failed(ChildStep::BecomeUser, error);
        }
        match rustix::process::chdir(setup.directory.as_c_str()) {
            Ok(()) => Ok(()),
            Err(error) => failed(ChildStep::EnterDirectory, error),
        }
    };
    // SAFETY: the hook runs in a forked child of a process that may have other threads, so it must not
    // allocate, lock or panic: it makes only system calls on values made before the fork.
    unsafe { command.pre_exec(hook) };
}

/// An ignored signal stays ignored across exec (signal(7)): a program must not inherit what the agent's
/// own starter chose to ignore.
fn reset_signals() {
    const SIGNALS: libc::c_int = 64;
    const MASK_BYTES: usize = 8;
    // The kernel's own `struct sigaction`, at most four words on any 64-bit machine. All zeroes is SIG_DFL
    // without flags.
    let default = [0u64; 4];
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads no more than `default` from the first pointer and writes nothing through
        // the second. Not through libc, which hides the two signals that it keeps for itself. KILL and
        // STOP can't be set, and need not be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                MASK_BYTES,
            )
        };
    }
}

/// The agent opens all its descriptors close-on-exec; this covers what it inherited itself.
fn close_on_exec() {
    // SAFETY: the call touches no memory. Kernels before 5.11 don't know it, and nothing is lost then.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Makes the calling thread act on files as `who` (credentials(7): file-system ids are the thread's own
/// on Linux). New files belong to `who`, and nothing can be opened that `who` could not open, yet `who`
/// can't signal the thread. There is no way back that this program uses: let the thread end.
pub fn act_on_files_as(who: &Credentials) -> io::Result<()> {
    let groups: Vec<Gid> = who.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    // SAFETY: setfsgid and setfsuid touch no memory. They return the previous id and never an error, so
    // an id that can't be set asks for the present one.
    let (gid, uid) = unsafe {
        libc::setfsgid(who.gid);
        libc::setfsuid(who.uid);
        (libc::setfsgid(libc::gid_t::MAX), libc::setfsuid(libc::uid_t::MAX))
    };
    let became = |id: libc::c_int, wanted: u32| id.cast_unsigned() == wanted;
    if became(gid, who.gid) && became(uid, who.uid) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Signals every process of the machine but the caller, which must be PID 1: for anybody else this does
/// nothing, since it would end a machine that is not its own.
pub fn signal_all_others(signal: Signal) {
    if rustix::process::getpid().is_init() {
        // SAFETY: kill touches no memory. That there may be nobody left is fine.
        unsafe { libc::kill(-1, signal.as_raw()) };
    }
}

/// A file whose events the runtime waits for.
pub fn watched(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` returns the same descriptor as long as it lives, and closes it only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(file, interest) }?)
}

/// Signals a process group, by a number of signal(7): the C library's own signals too, which rustix does not send.
/// Another number does nothing; that nobody is left in the group is fine.
pub fn signal_group(group: Pid, signal: u32) {
    if let Ok(signal @ 1..) = libc::c_int::try_from(signal) {
        // SAFETY: kill touches no memory. A `Pid` is above 0; 1, of which the negative would mean everybody, leads no
        // group but PID 1's own, which no caller of this has started.
        unsafe { libc::kill(-group.as_raw_nonzero().get(), signal) };
    }
}

/// Lets no process but one with CAP_SYS_PTRACE read this one's memory (`PR_SET_DUMPABLE` of prctl(2)), and the kernel write
/// none of it into a core file. Children that have exec'd are as others.
pub fn hide_memory() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Brings the loopback interface up; the kernel then gives it its addresses.
pub fn loopback_up() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain bytes and numbers, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "flags of an `ifreq` are 16 bits wide, these among them"
    )]
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = up;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a name and flags (netdevice(7)), which `request` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
