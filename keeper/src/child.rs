//! From fork to exec: what a process of a machine is, as a list of steps in order.
//!
//! The process is in its cgroup, its namespaces and its root before it takes any of them, so what it does on the way is
//! charged and seen there. [`STEPS`] is the one place to read. Each comes where it does for a reason that stands beside it,
//! and one that fails ends the start: nothing runs in less than was asked for.

use std::ffi::{CString, NulError};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use creel_keeper::{Jail, JailUser, Process, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::jail::{landlock, privileges, seccomp};
use crate::leave_out::is_left_out;

/// How long a program may take from fork to exec. Only a dead network file system takes this long.
const EXEC_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Everything a child needs, made before the fork.
#[derive(Debug)]
pub(crate) struct Prepared {
    program: Program,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// (number in the keeper, number in the child), the standard streams included.
    fds: Vec<(RawFd, RawFd)>,
    /// The cgroup v2 directory that it is born in; `None` is the keeper's own.
    cgroup: Option<RawFd>,
    /// The host's /proc, which its root lacks.
    proc: Rc<OwnedFd>,
    jail: Option<Jail>,
}

#[derive(Debug)]
enum Program {
    Path(CString),
    Fd(RawFd),
}

/// A process that did not start.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) error: String,
    pub(crate) errno: Option<i32>,
}

impl StartError {
    pub(crate) fn failed(what: &str, error: &io::Error) -> Self {
        Self { error: format!("failed to {what}: {error}"), errno: error.raw_os_error() }
    }
}

impl Prepared {
    /// With these descriptors, and the host's /proc.
    pub(crate) fn new(
        process: &Process,
        fds: Vec<(RawFd, RawFd)>,
        cgroup: Option<RawFd>,
        proc: Rc<OwnedFd>,
    ) -> Result<Self, NulError> {
        let Process { program, argv, env, jail, .. } = process;
        let jail = jail.clone();
        Ok(Self {
            program: match program {
                creel_keeper::Program::Path(path) => Program::Path(CString::new(path.as_str())?),
                creel_keeper::Program::Fd(fd) => Program::Fd(*fd),
            },
            argv: argv.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>()?,
            env: env
                .iter()
                .map(|(key, value)| CString::new(format!("{key}={value}")))
                .collect::<Result<_, _>>()?,
            fds,
            cgroup,
            proc,
            jail,
        })
    }
}

type Step = fn(&mut Context<'_>) -> io::Result<()>;

/// The steps of a child, with the words that an error is reported in, and what helps.
const STEPS: [(&str, Step, &str); 17] = [
    ("start a session", start_session, ""),
    ("tie it to the keeper's life", die_with_keeper, ""),
    // By a descriptor from before the root was entered, which the next but four closes.
    ("reset its OOM score", reset_oom_score, ""),
    ("forbid core dumps", forbid_core_dumps, ""),
    ("bound its processes", bound_processes, ""),
    ("bound its files", bound_files, ""),
    ("arrange its descriptors", arrange_fds, ""),
    // The keeper's is on the host's side of the root, from where `..` leads everywhere.
    ("leave the machine's directory", leave_directory, ""),
    ("let others use what it makes", open_umask, ""),
    // Takes CAP_SETPCAP, so before the user goes.
    ("close the ways back to capabilities", close_the_ways_back, "creeld's unit has to keep CAP_SETPCAP"),
    ("become its own user", become_user, "creeld's unit has to keep CAP_SETUID and CAP_SETGID"),
    ("drop its capabilities", drop_capabilities, ""),
    // Landlock and seccomp ask for it of whoever has no capability.
    ("give up new privileges", give_up_new_privileges, ""),
    // After it has become who it is: rules are about what is opened, and so is this.
    (
        "restrict its files by Landlock",
        restrict_files,
        "the kernel has to have Landlock; or set `jail.mode` to \"auto\"",
    ),
    // After all that makes calls which it denies.
    (
        "deny system calls",
        deny_calls,
        "the kernel has to have CONFIG_SECCOMP_FILTER; or set `jail.mode` to \"auto\"",
    ),
    ("reset its signals", reset_signals, ""),
    ("execute the program", execute, ""),
];

struct Context<'a> {
    prepared: &'a Prepared,
    root: Option<&'a Root>,
    keeper: libc::pid_t,
    report: RawFd,
    /// The program's descriptor, where [`arrange_fds`] has put it.
    program: RawFd,
}

impl Context<'_> {
    fn user(&self) -> Option<&JailUser> {
        self.prepared.jail.as_ref()?.user.as_ref()
    }
}

/// Starts a process, in `root` if the keeper is there, and returns its pid once it has executed its program.
pub(crate) fn start(prepared: &Prepared, root: Option<&Root>) -> Result<libc::pid_t, StartError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| StartError::failed("make a pipe", &error.into()))?;
    let keeper = std::process::id().cast_signed();
    match fork_into(prepared.cgroup)? {
        0 => become_process(Context { prepared, root, keeper, report: write.as_raw_fd(), program: -1 }),
        pid => {
            drop(write);
            let outcome = await_exec(&read);
            if outcome.is_err() {
                // SAFETY: the child is ours and not waited for yet, so the pid is its own.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, std::ptr::null_mut(), 0);
                }
            }
            outcome.map(|()| pid)
        }
    }
}

/// fork(2), into a cgroup where one is given. Both return 0 in the child.
fn fork_into(cgroup: Option<RawFd>) -> Result<libc::pid_t, StartError> {
    /// clone3(2); libc has the constant only for some targets.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let Some(cgroup) = cgroup else {
        // SAFETY: the keeper has one thread, so the child may use anything that the keeper may.
        return match unsafe { libc::fork() } {
            -1 => Err(StartError::failed("fork", &io::Error::last_os_error())),
            pid => Ok(pid),
        };
    };
    // SAFETY: all-zero is the documented default of every member of clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = u64::from(cgroup.cast_unsigned());
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: the arguments are valid for their size. Without CLONE_VM the child is a copy on a copy of this stack, as
    // after fork; what fork does beyond that concerns other threads and handlers, and the keeper has neither.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match libc::pid_t::try_from(pid) {
        Ok(pid @ 0..) => Ok(pid),
        _ => Err(StartError::failed("clone into its cgroup", &io::Error::last_os_error())),
    }
}

/// The pipe closes at exec; before that it carries the step that failed and its error number.
fn await_exec(report: &OwnedFd) -> Result<(), StartError> {
    let mut fds = [PollFd::new(report, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&EXEC_TIMEOUT)) {
            Ok(0) => {
                return Err(StartError::failed(
                    "execute the program in 10 s",
                    &io::ErrorKind::TimedOut.into(),
                ));
            }
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(StartError::failed("wait for the program", &error.into())),
        }
    }
    let mut message = [0; 8];
    match rustix::io::read(report, &mut message) {
        Ok(0) => Ok(()),
        Ok(8) => {
            let [a, b, c, d, e, f, g, h] = message;
            let step = STEPS.get(u32::from_ne_bytes([a, b, c, d]) as usize);
            let (name, hint) = step.map_or(("start", ""), |(name, _, hint)| (*name, *hint));
            let failed =
                StartError::failed(name, &io::Error::from_raw_os_error(i32::from_ne_bytes([e, f, g, h])));
            let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            Err(StartError { error: failed.error + &hint, ..failed })
        }
        Ok(_) => Err(StartError { error: "the new process died before its program ran".into(), errno: None }),
        Err(error) => Err(StartError::failed("hear from the new process", &error.into())),
    }
}

fn become_process(mut context: Context<'_>) -> ! {
    for (index, (name, step, _)) in (0u32..).zip(STEPS) {
        if is_left_out(name) {
            continue;
        }
        if let Err(error) = step(&mut context) {
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            let [a, b, c, d] = index.to_ne_bytes();
            let [e, f, g, h] = errno.to_ne_bytes();
            let message = [a, b, c, d, e, f, g, h];
            // SAFETY: the buffer is valid for its length. If the keeper is gone there is nobody to tell.
            unsafe { libc::write(context.report, message.as_ptr().cast(), message.len()) };
            break;
        }
    }
    // SAFETY: ends this process without running the keeper's exit handlers.
    unsafe { libc::_exit(127) }
}

/// Its own session and process group: no terminal reaches it, and the group can be killed as one.
fn start_session(_: &mut Context<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// The keeper's death is the child's, even by SIGKILL and without a pid namespace.
fn die_with_keeper(context: &mut Context<'_>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // A keeper that died before the line above will never send the signal.
    // SAFETY: getppid has no failure and touches no memory.
    if unsafe { libc::getppid() } == context.keeper {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// The keeper may be shielded from the OOM killer; its children hold the memory and must not be. Lowering a score may
/// be forbidden, and then there was nothing to reset.
fn reset_oom_score(context: &mut Context<'_>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened =
        rustix::fs::openat(context.prepared.proc.as_fd(), "self/oom_score_adj", flags, Mode::empty());
    let _ = opened.and_then(|file| rustix::io::write(&file, b"0"));
    Ok(())
}

/// QEMU's memory is the guest's. (The dumpable flag would not do: exec sets it again.) A limit of 1 stops core dumps
/// into files and into pipes, 0 only those into files: core(5), and `do_coredump` in the kernel's fs/coredump.c.
fn forbid_core_dumps(_: &mut Context<'_>) -> io::Result<()> {
    let core = rustix::process::Resource::Core;
    let limit = |bytes| rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match rustix::process::setrlimit(core, limit(1)) {
        // Somebody above has forbidden them already, as far as 0 does, and it can't be raised again.
        Err(rustix::io::Errno::PERM) => Ok(rustix::process::setrlimit(core, limit(0))?),
        outcome => Ok(outcome?),
    }
}

/// Of a user that nobody else is. The machine's cgroup bounds them too, where there is one.
fn bound_processes(context: &mut Context<'_>) -> io::Result<()> {
    let Some(user) = context.user() else { return Ok(()) };
    let most = Some(u64::from(user.max_processes));
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nproc, limit)?)
}

/// No file becomes longer than the longest that it has to write: disks that are written past their ends would fill the host's. Who
/// tries is ended by SIGXFSZ (getrlimit(2), RLIMIT_FSIZE).
fn bound_files(context: &mut Context<'_>) -> io::Result<()> {
    let Some(jail) = &context.prepared.jail else { return Ok(()) };
    let most = Some(jail.max_file_bytes);
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?)
}

fn leave_directory(context: &mut Context<'_>) -> io::Result<()> {
    if context.root.is_some() { Ok(rustix::process::chdir("/")?) } else { Ok(()) }
}

/// creel and the keeper connect to the helper's sockets as another user. The directory that these are in keeps others out.
fn open_umask(context: &mut Context<'_>) -> io::Result<()> {
    if context.user().is_some() {
        rustix::process::umask(Mode::empty());
    }
    Ok(())
}

fn close_the_ways_back(context: &mut Context<'_>) -> io::Result<()> {
    if context.prepared.jail.is_some() { privileges::close_the_ways_back() } else { Ok(()) }
}

fn become_user(context: &mut Context<'_>) -> io::Result<()> {
    context.user().map_or(Ok(()), privileges::become_user)
}

fn drop_capabilities(context: &mut Context<'_>) -> io::Result<()> {
    if context.prepared.jail.is_some() { privileges::drop_capabilities() } else { Ok(()) }
}

fn restrict_files(context: &mut Context<'_>) -> io::Result<()> {
    let (Some(jail), Some(root)) = (&context.prepared.jail, context.root) else { return Ok(()) };
    if jail.landlock { landlock::restrict(&root.entries, jail.sockets) } else { Ok(()) }
}

fn deny_calls(context: &mut Context<'_>) -> io::Result<()> {
    match &context.prepared.jail {
        Some(jail) if jail.seccomp => seccomp::install(),
        _ => Ok(()),
    }
}

fn give_up_new_privileges(_: &mut Context<'_>) -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Exactly the planned descriptors survive the exec.
fn arrange_fds(context: &mut Context<'_>) -> io::Result<()> {
    let fds = &context.prepared.fds;
    let above = fds.iter().map(|(_, to)| to + 1).max().unwrap_or(3).max(3);
    // Everything moves above the targets first, so that no target overwrites a source.
    let mut raised = Vec::with_capacity(fds.len());
    for (from, to) in fds {
        raised.push((raise(*from, above)?, *to));
    }
    context.report = raise(context.report, above)?;
    if let Program::Fd(fd) = context.prepared.program {
        context.program = raise(fd, above)?;
    }
    for fd in 3..above {
        // SAFETY: closing touches no memory; nothing below `above` is used from here on, and this process ends in exec
        // or `_exit`, so no owner of such a number will close it again.
        unsafe { libc::close(fd) };
    }
    for (from, to) in raised {
        // SAFETY: dup2 touches no memory; the copy is not close-on-exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Whatever the keeper opened is close-on-exec already; this also covers a future mistake.
    // SAFETY: touches no memory. The kernel may lack the flag (before 5.11), hence no error.
    unsafe { libc::syscall(libc::SYS_close_range, above, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

fn raise(fd: RawFd, above: RawFd) -> io::Result<RawFd> {
    // SAFETY: touches no memory; the new number is owned by nobody and lives until exec.
    let raised = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above) };
    if raised < 0 { Err(io::Error::last_os_error()) } else { Ok(raised) }
}

/// Default dispositions and an empty mask: both outlive exec.
fn reset_signals(_: &mut Context<'_>) -> io::Result<()> {
    /// The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is SIG_DFL.
    static DEFAULT: [u64; 4] = [0; 4];
    // Not signal(3): glibc refuses its own signals 32 and 33, which a careless ancestor may have set to ignored.
    for signal in 1..=64 {
        // SAFETY: the action is valid for reading and at least as long as the kernel's; the mask is 8 bytes. Signals
        // whose disposition can't be set are refused without harm.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, std::ptr::null::<u8>(), 8)
        };
    }
    let mut empty = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that sigprocmask reads.
    let status = unsafe {
        libc::sigemptyset(empty.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut())
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn execute(context: &mut Context<'_>) -> io::Result<()> {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(&context.prepared.argv), pointers(&context.prepared.env));
    // SAFETY: both arrays end in null and point to strings that live until exec replaces this process.
    unsafe {
        match &context.prepared.program {
            Program::Path(path) => {
                libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
            }
            Program::Fd(_) => {
                let (argv, env) = (argv.as_ptr(), env.as_ptr());
                libc::syscall(
                    libc::SYS_execveat,
                    context.program,
                    c"".as_ptr(),
                    argv,
                    env,
                    libc::AT_EMPTY_PATH,
                );
            }
        }
    }
    Err(io::Error::last_os_error())
}

/// `/dev/null`, opened once by the keeper for its children's streams.
pub(crate) fn open_null() -> io::Result<OwnedFd> {
    // SAFETY: the path is a constant string; the result is checked.
    let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
