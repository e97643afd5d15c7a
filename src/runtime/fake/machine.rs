//! The fake runtime and its machines.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::script::{ScriptedExec, ScriptedSetup};
use crate::runtime::{
    DestroyMode, ExecRequest, Machine, MachineId, Mode, Outcome, OutputChunk, Phase, Runtime, RuntimeInfo,
    SetupError, SetupEvents, SetupFailure, SetupRequest, Usage, Verdict,
};

/// What was done to a fake machine, in order.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, entry: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry.into());
    }
}

/// Follows a script: one setup, then the execs in the order in which they are asked for.
#[derive(Debug)]
pub struct FakeRuntime {
    setup: ScriptedSetup,
    execs: Arc<Mutex<VecDeque<ScriptedExec>>>,
    journal: Journal,
}

impl FakeRuntime {
    pub fn new(setup: ScriptedSetup, execs: impl IntoIterator<Item = ScriptedExec>) -> Self {
        let execs = Arc::new(Mutex::new(execs.into_iter().collect()));
        Self { setup, execs, journal: Journal::default() }
    }

    /// What has been done to it so far.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "fake", mode: Mode::Exec, source_disk: true, usable: Ok(()) }
    }

    async fn setup(
        &self,
        request: SetupRequest,
        _events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        self.journal.note("setup");
        let failure = match &self.setup {
            ScriptedSetup::Ready => {
                let id = MachineId::random().map_err(|error| {
                    SetupError::new(Phase::Prepare, SetupFailure::Ended(Outcome::internal(error)))
                })?;
                let (execs, journal) = (Arc::clone(&self.execs), self.journal.clone());
                return Ok(Box::new(FakeMachine { id, execs, journal }));
            }
            ScriptedSetup::Fails(failure) => failure.clone(),
            ScriptedSetup::Hangs => SetupFailure::Ended(interrupted(request.deadline, &cancel).await),
        };
        Err(SetupError::new(Phase::Boot, failure))
    }
}

#[derive(Debug)]
struct FakeMachine {
    id: MachineId,
    execs: Arc<Mutex<VecDeque<ScriptedExec>>>,
    journal: Journal,
}

#[async_trait]
impl Machine for FakeMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    async fn exec(
        &self,
        request: ExecRequest,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Verdict {
        self.journal.note(format!("exec {}", request.id));
        let started = Instant::now();
        let script = self.execs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(script) = script else {
            return Verdict::of(Outcome::internal("the script has no such exec"));
        };
        let mut usage = Usage::default();
        for (stream, bytes) in script.output {
            let count = match stream {
                crate::runtime::Stream::Stdout => &mut usage.stdout_bytes,
                crate::runtime::Stream::Stderr => &mut usage.stderr_bytes,
            };
            let chunk = OutputChunk { stream, raw_offset: *count, bytes: bytes.into() };
            *count += chunk.bytes.len() as u64;
            let _ = output.send(chunk).await;
        }
        let ending = async {
            tokio::time::sleep(script.takes).await;
            match script.outcome {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = ending => outcome,
            outcome = interrupted(request.deadline, &cancel) => outcome,
        };
        usage.wall = started.elapsed();
        Verdict { usage, ..Verdict::of(outcome) }
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        self.journal.note(format!("destroy {mode:?}"));
        Ok(())
    }
}

/// Waits for the deadline or the cancel, whichever comes first.
async fn interrupted(deadline: Option<Instant>, cancel: &CancellationToken) -> Outcome {
    let deadline = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = deadline => Outcome::TimedOut,
        () = cancel.cancelled() => Outcome::Cancelled,
    }
}
