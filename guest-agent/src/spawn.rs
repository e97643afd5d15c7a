//! Starts a program: its own process group, its user, its directory, pipes for its output, nothing else
//! of the agent's.

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::sleep;

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
}

/// A started program and its output.
#[derive(Debug)]
pub struct Running {
    pub process: Process,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

/// A started program. Dropping it leaves the program alone.
#[derive(Debug)]
pub struct Process {
    /// Also its process group.
    pid: Pid,
    exited: oneshot::Receiver<Exited>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("there is no program to start: argv is empty")]
    NoProgram,
    #[error("failed to make a pipe for the program: {0}")]
    Pipe(#[source] io::Error),
    #[error("`{directory}` can't be a working directory: {source}")]
    DirectoryName { directory: PathBuf, source: NulError },
    #[error("failed to enter working directory `{directory}`: {source}")]
    EnterDirectory { directory: PathBuf, source: io::Error },
    #[error("failed to become user `{name}` (uid {uid}, gid {gid}): {source}")]
    BecomeUser { name: String, uid: u32, gid: u32, source: io::Error },
    #[error("failed to start `{program}`: {source}")]
    Start { program: String, source: io::Error },
}

/// Starts `program`. Must be called on the runtime's thread.
pub fn spawn(reaper: &Reaper, program: &Program<'_>) -> Result<Running, SpawnError> {
    let (name, arguments) = program.argv.split_first().ok_or(SpawnError::NoProgram)?;
    let directory = CString::new(program.directory.as_os_str().as_encoded_bytes())
        .map_err(|source| SpawnError::DirectoryName { directory: program.directory.to_owned(), source })?;
    let (failed_step, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| SpawnError::Pipe(errno.into()))?;

    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let credentials = program.identity.and_then(credentials);
    sys::set_up_child(&mut command, ChildSetup { credentials, directory, report });

    let mut child = command.spawn().map_err(|source| explain(program, name, &failed_step, source))?;
    let pid = Pid::from_child(&child);
    let exited = reaper.register(pid.as_raw_nonzero().get());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both streams were asked to be pipes");
    };
    let receiver = |pipe: OwnedFd| pipe::Receiver::from_owned_fd(pipe).map_err(SpawnError::Pipe);
    match (receiver(stdout.into()), receiver(stderr.into())) {
        (Ok(stdout), Ok(stderr)) => Ok(Running { process: Process { pid, exited }, stdout, stderr }),
        (Err(error), _) | (_, Err(error)) => {
            kill_group(pid);
            Err(error)
        }
    }
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
        _ => SpawnError::Start { program: name.to_owned(), source },
    }
}

impl Process {
    /// Waits for its end, or for the end of `timeout`: then its process group is killed. Whether that was
    /// needed is the second value.
    pub async fn wait(self, timeout: Option<Duration>) -> (Exited, bool) {
        let Self { pid, mut exited } = self;
        let timed_out = async {
            match timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order: once the child is reaped, its number may be another's and must not be killed.
            biased;
            end = &mut exited => (end.unwrap_or(UNKNOWN_END), false),
            () = timed_out => {
                kill_group(pid);
                (exited.await.unwrap_or(UNKNOWN_END), true)
            }
        }
    }
}

/// The reaper ends with the runtime only, so no host ever hears of this.
const UNKNOWN_END: Exited = Exited { outcome: Outcome::Signal(9), cpu_time: Duration::ZERO, max_rss_kib: 0 };

fn kill_group(pid: Pid) {
    // That the group is already gone is fine.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
}
