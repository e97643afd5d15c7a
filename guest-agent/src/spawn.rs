//! Starts a program: its own process group and cgroup, its user, its directory, pipes for its output, nothing
//! else of the agent's.

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::cgroup::Cgroup;
use crate::family::Family;
use crate::reaper::{Exited, Outcome, Reaper};
use crate::sys::{self, ChildSetup, ChildStep, Credentials};
use crate::user::Identity;

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    pub argv: &'a [String],
    /// All of the environment: nothing of the agent's own is added.
    pub env: &'a [(String, String)],
    pub directory: &'a Path,
    /// `None`: whoever the agent is.
    pub identity: Option<&'a Identity>,
    /// `None`: the agent's.
    pub cgroup: Option<Cgroup>,
}

/// How much a pipe to or from a program holds, where the kernel allows it (pipe(7), /proc/sys/fs/pipe-max-size): a reader
/// finds more at once, and the program waits less often.
const PIPE_BYTES: usize = 256 << 10;

/// A started program and its output.
#[derive(Debug)]
pub struct Running {
    pub process: Process,
    /// If it was asked for.
    pub stdin: Option<pipe::Sender>,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

/// A started program. Dropping it leaves the program alone.
#[derive(Debug)]
pub struct Process {
    family: Family,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("there is no program to start: argv is empty")]
    NoProgram,
    #[error("failed to make a pipe for the program: {0}")]
    Pipe(#[source] io::Error),
    #[error("failed to give the program its terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error("`{directory}` can't be a working directory: {source}")]
    DirectoryName { directory: PathBuf, source: NulError },
    #[error("failed to enter working directory `{directory}`: {source}")]
    EnterDirectory { directory: PathBuf, source: io::Error },
    #[error("failed to become user `{name}` (uid {uid}, gid {gid}): {source}")]
    BecomeUser { name: String, uid: u32, gid: u32, source: io::Error },
    #[error("failed to start `{program}`: {source}")]
    Start { program: String, source: io::Error },
}

/// Starts `program` with pipes for its output and, if it has `input`, for that; without, it finds its input empty. Must be
/// called on the runtime's thread.
pub fn spawn(reaper: &Reaper, program: Program<'_>, input: bool) -> Result<Running, SpawnError> {
    let streams = |command: &mut Command| {
        let stdin = if input { Stdio::piped() } else { Stdio::null() };
        command.process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    };
    let (process, mut child) = start(reaper, program, false, streams)?;
    let running = pipes(&mut child).map_err(SpawnError::Pipe);
    match running {
        Ok((stdin, stdout, stderr)) => Ok(Running { process, stdin, stdout, stderr }),
        Err(error) => {
            process.family.kill();
            Err(error)
        }
    }
}

type Pipes = (Option<pipe::Sender>, pipe::Receiver, pipe::Receiver);

fn pipes(child: &mut Child) -> io::Result<Pipes> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both streams were asked to be pipes");
    };
    let large = |pipe: OwnedFd| {
        // A smaller one carries as much.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        pipe
    };
    let receiver = |pipe| pipe::Receiver::from_owned_fd(large(pipe));
    let sender = |pipe: ChildStdin| pipe::Sender::from_owned_fd(large(pipe.into()));
    Ok((child.stdin.take().map(sender).transpose()?, receiver(stdout.into())?, receiver(stderr.into())?))
}

/// Starts `program` as the leader of a session of its own, on this terminal. Must be called on the runtime's thread.
pub fn spawn_on_terminal(
    reaper: &Reaper,
    program: Program<'_>,
    terminal: OwnedFd,
) -> Result<Process, SpawnError> {
    let copy = || terminal.try_clone().map_err(SpawnError::Terminal);
    let streams = [copy()?, copy()?];
    let [stdout, stderr] = streams.map(Stdio::from);
    let streams = |command: &mut Command| {
        command.stdin(terminal).stdout(stdout).stderr(stderr);
    };
    start(reaper, program, true, streams).map(|(process, _)| process)
}

/// The child's own descriptors are in the second value; what the reaper does with it is in the first.
fn start(
    reaper: &Reaper,
    mut program: Program<'_>,
    terminal: bool,
    streams: impl FnOnce(&mut Command),
) -> Result<(Process, Child), SpawnError> {
    let (name, arguments) = program.argv.split_first().ok_or(SpawnError::NoProgram)?;
    let directory = CString::new(program.directory.as_os_str().as_encoded_bytes())
        .map_err(|source| SpawnError::DirectoryName { directory: program.directory.to_owned(), source })?;
    let (failed_step, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| SpawnError::Pipe(errno.into()))?;

    let mut command = Command::new(name);
    command.args(arguments).env_clear().envs(program.env.iter().map(|(name, value)| (name, value)));
    streams(&mut command);
    let credentials = program.identity.and_then(credentials);
    // Without it the program still has its group.
    let cgroup = program.cgroup.take();
    let entrance = cgroup.as_ref().and_then(|cgroup| cgroup.entrance().ok());
    let setup = ChildSetup { credentials, directory, cgroup: entrance, terminal, report };
    sys::set_up_child(&mut command, setup);

    let child = command.spawn().map_err(|source| explain(&program, name, &failed_step, source))?;
    let pid = Pid::from_child(&child);
    let end = reaper.register(pid.as_raw_nonzero().get());
    Ok((Process { family: Family::new(pid, end, cgroup) }, child))
}

/// `None` when the agent already is that user and could not become another: a plain process in tests.
pub fn credentials(identity: &Identity) -> Option<Credentials> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() && uid.as_raw() == identity.uid && gid.as_raw() == identity.gid {
        return None;
    }
    Some(Credentials { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() })
}

fn explain(program: &Program<'_>, name: &str, failed_step: &OwnedFd, source: io::Error) -> SpawnError {
    let mut step = [0];
    // The child is gone, so what it had to say is in the pipe. Silence (the read fails) means that exec
    // itself failed, or the fork.
    let step = rustix::io::read(failed_step, &mut step).map(|_| step[0]).unwrap_or(0);
    match (step, program.identity) {
        (step, Some(identity)) if step == ChildStep::BecomeUser as u8 => SpawnError::BecomeUser {
            name: identity.name.clone(),
            uid: identity.uid,
            gid: identity.gid,
            source,
        },
        (step, _) if step == ChildStep::EnterDirectory as u8 => {
            SpawnError::EnterDirectory { directory: program.directory.to_owned(), source }
        }
        (step, _) if step == ChildStep::TakeTerminal as u8 => SpawnError::Terminal(source),
        _ => SpawnError::Start { program: name.to_owned(), source },
    }
}

impl Process {
    /// The program and what it starts, to be signalled.
    pub fn family(&self) -> Family {
        self.family.clone()
    }

    /// Waits for its end, or for the end of `timeout`: then its process group is killed. Whether that was
    /// needed is the second value.
    pub async fn wait(self, timeout: Option<Duration>) -> (Exited, bool) {
        let timed_out = async {
            match timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            end = self.end() => (end, false),
            () = timed_out => {
                self.family.kill_group();
                (self.end().await, true)
            }
        }
    }

    async fn end(&self) -> Exited {
        /// The reaper ends with the runtime only, so no host ever hears of this.
        const UNKNOWN: Exited =
            Exited { outcome: Outcome::Signal(9), cpu_time: Duration::ZERO, max_rss_kib: 0 };
        self.family.end().await.unwrap_or(UNKNOWN)
    }
}
