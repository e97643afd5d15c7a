//! The runtime contract: Setup -> Exec* -> Destroy.
//!
//! Which calls may run at once: any number of setups on one runtime; any number of execs on one
//! machine; destroy at any time, also twice, also while execs run (they end as the machine does).
//! A setup that fails has already freed everything. A [`Machine`] that is dropped without destroy is
//! destroyed in the background.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Phase, SetupEvents};
use super::exec::{ExecRequest, OutputChunk};
use super::id::{MachineId, Tenant};
use super::verdict::{Outcome, Verdict};

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
    /// For [`Mode::Batch`]: the steps. Others ignore it.
    pub batch: Vec<ExecRequest>,
    /// When setup ends as timed out, whatever it is doing.
    pub deadline: Option<Instant>,
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
}

impl SetupError {
    pub fn new(phase: Phase, failure: SetupFailure) -> Self {
        Self { phase, failure, console_tail: None }
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

/// A machine that is ready for execs.
#[async_trait]
pub trait Machine: Send + Sync + fmt::Debug {
    fn id(&self) -> &MachineId;

    /// Does a piece of work, most often runs a program. Its output goes to `output` as it comes; a full queue holds the program back.
    /// Returns once it has ended and all its output was sent, or the machine has ended, or the
    /// deadline has passed, or `cancel` was triggered. A step that can't be started is a verdict too.
    async fn exec(
        &self,
        request: ExecRequest,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Verdict;

    /// Ends the machine and frees all it holds. Idempotent, bounded in time.
    ///
    /// # Errors
    /// Names what could not be freed; everything else was.
    async fn destroy(&self, mode: DestroyMode) -> Result<(), String>;
}
