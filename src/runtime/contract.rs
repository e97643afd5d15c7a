//! The runtime contract: Setup -> Exec* -> Destroy.
//!
//! Which calls may run at once: any number of setups on one runtime; any number of execs on one
//! machine; destroy at any time, also twice, also while execs run (they end as the machine does).
//! A setup that fails has already freed everything. A [`Machine`] that is dropped without destroy is
//! destroyed in the background.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Phase, SetupEvents};
use super::exec::ExecRequest;
use super::id::{MachineId, Tenant};
use super::ledger::Ledger;
use super::observe::{Console, MachineDetails, MachineLoad, RuntimeStatus};
use super::shell::{Shell, ShellError, ShellRequest};
use super::streams::ExecStreams;
use super::verdict::{MachineUsage, Outcome, Usage, Verdict};

/// How a runtime executes steps (the proposal's two modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Steps go one at a time into a living machine.
    Exec,
    /// All steps are handed over at setup; an exec follows one of them.
    Batch,
}

/// What a runtime is, and whether it can work here.
#[derive(Debug, Clone)]
pub struct RuntimeInfo {
    pub name: &'static str,
    pub mode: Mode,
    /// Takes a source tree as a disk.
    pub source_disk: bool,
    /// `Err` says why it can't run on this host, as a sentence with the remedy.
    pub usable: Result<(), String>,
}

/// Everything a machine needs.
#[derive(Debug)]
pub struct SetupRequest {
    /// The machine's name, and what everything that it holds is named after.
    pub id: MachineId,
    pub tenant: Tenant,
    /// Unique among the workflows of this host; names logs and labels.
    pub workflow_id: String,
    /// By name; the runtime's own store resolves it.
    pub image: String,
    /// Where steps run.
    pub work_dir: String,
    /// A tar archive of the source tree, for runtimes with `source_disk`.
    pub source: Option<File>,
    /// Informational: a runtime that has labels sets them.
    pub labels: BTreeMap<String, String>,
    /// `None`: the image's own. A runtime that can't provide it refuses.
    pub architecture: Option<String>,
    /// `None`: the image's own.
    pub memory_mib: Option<u32>,
    pub vcpus: Option<u32>,
    /// What the whole machine may take of the host's memory. `None`: the guest's memory and what running it costs.
    pub memory_limit_mib: Option<u32>,
    /// For [`Mode::Batch`]: the steps. Others ignore it.
    pub batch: Vec<ExecRequest>,
    /// When setup ends as timed out, whatever it is doing.
    pub deadline: Option<Instant>,
    /// Told what is made, each before the next is. `None`: nobody will look for the machine.
    pub ledger: Option<Arc<dyn Ledger>>,
}

/// Why there is no machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupFailure {
    /// What was asked for does not exist or makes no sense.
    BadInput(String),
    /// This host lacks something; the text names it and the remedy.
    HostCannot(String),
    /// The machine was under way and ended like this.
    Ended(Outcome),
}

impl fmt::Display for SetupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadInput(text) | Self::HostCannot(text) => f.write_str(text),
            Self::Ended(outcome) => outcome.fmt(f),
        }
    }
}

/// A setup that failed. Nothing is left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct SetupError {
    pub phase: Phase,
    pub failure: SetupFailure,
    pub console_tail: Option<Vec<u8>>,
    /// What the machine had used by then; `None` where nothing of it ran, or nobody counts.
    pub usage: Option<Box<MachineUsage>>,
}

impl SetupError {
    pub fn new(phase: Phase, failure: SetupFailure) -> Self {
        Self { phase, failure, console_tail: None, usage: None }
    }

    /// What is known of the machine's end, which this was.
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        let usage = Usage { machine: self.usage.clone(), ..Usage::default() };
        Verdict { usage, console_tail: self.console_tail.clone(), ..Verdict::of(outcome) }
    }
}

/// How much time a machine's end may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestroyMode {
    /// The guest is asked to power off first, and given a bounded time to.
    Graceful,
    /// At once.
    Kill,
}

/// Provides machines.
#[async_trait]
pub trait Runtime: Send + Sync + fmt::Debug {
    async fn info(&self) -> RuntimeInfo;

    /// What is known now, without waiting as [`Self::info`] may.
    fn status(&self) -> RuntimeStatus {
        RuntimeStatus::default()
    }

    /// Creates a machine that is ready for execs, reporting progress on `events`.
    ///
    /// # Errors
    /// Then nothing of the machine is left. An option that this runtime does not support is an error
    /// that names it.
    async fn setup(
        &self,
        request: SetupRequest,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError>;
}

/// What a machine is, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineFacts {
    pub image: String,
    pub memory_mib: u32,
    pub vcpus: u32,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// `kernel` or `hybrid`.
    pub transport: String,
    /// The guest's vsock address on this host; the hybrid transport has none.
    pub cid: Option<u32>,
    /// The keeper, as this process sees it.
    pub keeper_pid: Option<u32>,
    /// The machine's cgroup; `None` where it has none, and then no limits but QEMU's own.
    pub cgroup: Option<PathBuf>,
    /// The limit of `cgroup`.
    pub memory_limit_mib: Option<u64>,
}

/// Why no signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Also one that has ended or was given up.
    #[error("no exec `{0}` runs in the machine")]
    NoExec(String),
    #[error(
        "the image's agent can't signal programs (it lacks extension `{extension}`); use an image with creel's agent"
    )]
    Unsupported { extension: &'static str },
    #[error("the machine has ended")]
    Ended,
    /// The machine is another process's, and that could not be asked.
    #[error("{0}")]
    Unreachable(String),
}

/// A machine that is ready for execs.
#[async_trait]
pub trait Machine: Send + Sync + fmt::Debug {
    fn id(&self) -> &MachineId;

    fn facts(&self) -> MachineFacts;

    /// What the machine has used until now; `None` where nothing counts it.
    fn usage(&self) -> Option<MachineUsage>;

    /// What the machine takes of its host at this moment; `None` where nothing counts it. Reads a few files.
    fn load(&self) -> Option<MachineLoad> {
        None
    }

    /// What else is known of how it runs. Reads a few files.
    fn details(&self) -> MachineDetails {
        MachineDetails::default()
    }

    /// Opens the guest's console for reading. What is open stays readable after the machine's end.
    ///
    /// # Errors
    /// When there is none, or it can't be opened or watched.
    fn console(&self) -> io::Result<Box<dyn Console>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this machine has no console that could be read here"))
    }

    /// Waits until the machine is gone, whoever ended it, and says why. One that was destroyed was
    /// [`Outcome::Cancelled`].
    async fn ended(&self) -> Verdict;

    /// Does a piece of work, most often runs a program, on `streams`; output that nobody acknowledges holds it back.
    /// Returns once it has ended and all its output is in its stream, or the machine has ended, or the
    /// deadline has passed, or `cancel` was triggered. In the last two cases, and when the future is dropped, the
    /// program is ended in the machine as well, where that can be done; nobody waits for it. A step that can't be
    /// started is a verdict too.
    async fn exec(&self, request: ExecRequest, streams: ExecStreams, cancel: CancellationToken) -> Verdict;

    /// Sends a signal (by its number in signal(7), 1 to 64) to the process group of a program that runs. It was sent
    /// when this returns; whether the program heeds it is the program's business.
    ///
    /// # Errors
    /// When no such exec runs, or its machine can't be told.
    async fn signal(&self, exec_id: &str, signal: i32) -> Result<(), SignalError>;

    /// Opens a login shell of the workflow user on a terminal of its own, within a bounded time.
    ///
    /// # Errors
    /// When there is none.
    async fn shell(&self, request: ShellRequest) -> Result<Shell, ShellError>;

    /// Ends the machine and frees all it holds. Idempotent, bounded in time.
    ///
    /// # Errors
    /// Names what could not be freed; everything else was.
    async fn destroy(&self, mode: DestroyMode) -> Result<(), String>;
}
