//! What a keeper is asked to run. Descriptors are given by value and get their numbers here, so that an argument
//! (`fd=3`) and the descriptor behind it can't drift apart.

use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use creel_keeper::{ConsoleSizes, FdGrant, FdSource, Jail, Output, Process, Program, Ready};

use super::KeeperError;

/// Kept of a process's own log, unless it says otherwise.
const LOG_SIZES: ConsoleSizes = ConsoleSizes { head_bytes: 16 * 1024, tail_bytes: 48 * 1024 };

/// Whether a machine outlives creel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It ends when creel does, however creel ends; its directory is then removed by the keeper.
    Embedded,
    /// It lives until it ends by itself or is told to.
    Daemon,
}

/// A process is ready when this socket in the machine's directory accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadySpec {
    /// A file name, or one below a directory there.
    pub socket: String,
    pub timeout: Duration,
}

/// One process of a machine. Its working directory is the machine's, so sockets can be named without a path.
#[derive(Debug)]
pub struct ProcessSpec {
    /// Lower-case letters, digits and `-`: it names the process's files and events.
    pub name: String,
    program: Source,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    passed: Vec<Passed>,
    pub stdout: Output,
    pub stderr: Output,
    /// Used where `stdout` or `stderr` is [`Output::Log`].
    pub log: ConsoleSizes,
    /// When it exits, the machine is over.
    pub ends_machine: bool,
    /// The next process starts when this holds.
    pub ready: Option<ReadySpec>,
    pub jail: Option<Jail>,
}

#[derive(Debug)]
enum Source {
    Path(PathBuf),
    Fd(OwnedFd),
}

#[derive(Debug)]
enum Passed {
    Fd(OwnedFd),
    Console,
    ReadySocketOf(String),
}

impl ProcessSpec {
    /// A process without arguments, environment or output, whose end is not the machine's.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self::with(name.into(), Source::Path(program.into()))
    }

    /// The same, of an open program file.
    pub fn from_fd(name: impl Into<String>, program: OwnedFd) -> Self {
        Self::with(name.into(), Source::Fd(program))
    }

    fn with(name: String, program: Source) -> Self {
        Self {
            argv: vec![name.clone()],
            name,
            program,
            env: Vec::new(),
            passed: Vec::new(),
            stdout: Output::Null,
            stderr: Output::Null,
            log: LOG_SIZES,
            ends_machine: false,
            ready: None,
            jail: None,
        }
    }

    /// Adds an argument; `argv[0]` is the process's name.
    pub fn arg(&mut self, argument: impl Into<String>) -> &mut Self {
        self.argv.push(argument.into());
        self
    }

    pub fn args<T: Into<String>>(&mut self, arguments: impl IntoIterator<Item = T>) -> &mut Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn env(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Hands a descriptor down; returns its number in the process.
    pub fn pass(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        self.push(Passed::Fd(fd.into()))
    }

    /// Hands down the writing end of the console pipe.
    pub fn pass_console(&mut self) -> RawFd {
        self.push(Passed::Console)
    }

    /// Hands down the socket that the keeper has connected to the ready socket of an earlier process.
    pub fn pass_ready_socket_of(&mut self, process: impl Into<String>) -> RawFd {
        self.push(Passed::ReadySocketOf(process.into()))
    }

    fn push(&mut self, passed: Passed) -> RawFd {
        self.passed.push(passed);
        // The first number after the standard streams is 3. A list that a number can't count is refused by the plan.
        RawFd::try_from(self.passed.len() + 2).unwrap_or(RawFd::MAX)
    }

    /// The plan's form, of a process born in `cgroup`. Descriptors go to `handed_down`, whose first has number `first` in
    /// the keeper.
    pub(super) fn into_plan(
        self,
        first: RawFd,
        cgroup: Option<RawFd>,
        handed_down: &mut Vec<OwnedFd>,
    ) -> Result<Process, KeeperError> {
        let mut hand_down = |fd| {
            handed_down.push(fd);
            first + RawFd::try_from(handed_down.len() - 1).unwrap_or(RawFd::MAX - first)
        };
        let program = match self.program {
            Source::Fd(fd) => Program::Fd(hand_down(fd)),
            Source::Path(path) => match path.into_os_string().into_string() {
                Ok(path) => Program::Path(path),
                Err(path) => return Err(KeeperError::NotUtf8 { path: path.into() }),
            },
        };
        let mut fds = Vec::with_capacity(self.passed.len());
        for (to, passed) in (3..).zip(self.passed) {
            let from = match passed {
                Passed::Fd(fd) => FdSource::Fd(hand_down(fd)),
                Passed::Console => FdSource::Console,
                Passed::ReadySocketOf(process) => FdSource::ReadySocketOf(process),
            };
            fds.push(FdGrant { from, to });
        }
        Ok(Process {
            name: self.name,
            program,
            argv: self.argv,
            env: self.env,
            fds,
            cgroup,
            stdout: self.stdout,
            stderr: self.stderr,
            log: self.log,
            ends_machine: self.ends_machine,
            jail: self.jail,
            ready: self.ready.map(|ready| Ready {
                socket: ready.socket,
                timeout_ms: u32::try_from(ready.timeout.as_millis()).unwrap_or(u32::MAX),
            }),
        })
    }
}
