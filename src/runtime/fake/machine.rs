//! The fake runtime and its machines.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::script::{ScriptedExec, ScriptedSetup};
use crate::runtime::{
    Console, ConsoleHistory, DestroyMode, ExecRequest, ExecStreams, HostProcess, InputEvent, InputReader,
    Machine, MachineDetails, MachineFacts, MachineId, MachineLoad, MachineUsage, Mode, Outcome, OutputWriter,
    Phase, Runtime, RuntimeInfo, SetupError, SetupEvent, SetupEvents, SetupFailure, SetupRequest, Shell,
    ShellError, ShellRequest, SignalError, Stream, TerminalSize, Usage, Verdict,
};

/// What was done to a fake machine, in order.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, entry: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry.into());
    }
}

/// Ends a fake runtime's machines as if by themselves.
#[derive(Debug, Clone)]
pub struct Death(watch::Sender<Option<Outcome>>);

impl Death {
    /// Ends those that live and those that are yet to come.
    pub fn strike(&self, outcome: Outcome) {
        self.0.send_replace(Some(outcome));
    }

    async fn struck(&self) -> Outcome {
        let mut struck = self.0.subscribe();
        // The sender is `self`.
        let outcome = struck.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        match outcome {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

/// What a fake runtime's guests write on their console, all of them the same.
#[derive(Debug, Clone)]
pub struct FakeConsole(watch::Sender<Vec<u8>>);

impl FakeConsole {
    pub fn write(&self, bytes: &[u8]) {
        self.0.send_modify(|written| written.extend_from_slice(bytes));
    }
}

#[derive(Debug)]
struct OpenConsole(watch::Receiver<Vec<u8>>);

#[async_trait]
impl Console for OpenConsole {
    fn read(&self) -> io::Result<ConsoleHistory> {
        let tail = self.0.borrow().clone();
        Ok(ConsoleHistory { head: Vec::new(), total: tail.len() as u64, tail })
    }

    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Follows a script: one setup, then the execs in the order in which they are asked for.
#[derive(Debug)]
pub struct FakeRuntime {
    setup: ScriptedSetup,
    execs: Arc<Mutex<VecDeque<ScriptedExec>>>,
    journal: Journal,
    death: Death,
    console: FakeConsole,
}

impl FakeRuntime {
    pub fn new(setup: ScriptedSetup, execs: impl IntoIterator<Item = ScriptedExec>) -> Self {
        let execs = Arc::new(Mutex::new(execs.into_iter().collect()));
        let console = FakeConsole(watch::Sender::new(Vec::new()));
        Self { setup, execs, journal: Journal::default(), death: Death(watch::Sender::new(None)), console }
    }

    /// Writes for its guests.
    pub fn console(&self) -> FakeConsole {
        self.console.clone()
    }

    /// Ends its machines when told to.
    pub fn death(&self) -> Death {
        self.death.clone()
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
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        self.journal.note("setup");
        if let Some(source) = &request.source {
            self.journal.note(format!("source of {:?} bytes", source.metadata().map(|file| file.len()).ok()));
        }
        events.send(SetupEvent::Started(Phase::Prepare));
        events.send(SetupEvent::Finished(Phase::Prepare, Duration::from_millis(1)));
        let failure = match &self.setup {
            ScriptedSetup::Ready => {
                let (execs, journal, death) =
                    (Arc::clone(&self.execs), self.journal.clone(), self.death.clone());
                let facts = MachineFacts { image: request.image, ..MachineFacts::default() };
                let (destroyed, console) = (CancellationToken::new(), self.console.clone());
                let (id, running) = (request.id, Mutex::default());
                let machine = FakeMachine { id, facts, destroyed, running, execs, journal, death, console };
                return Ok(Box::new(machine));
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
    facts: MachineFacts,
    destroyed: CancellationToken,
    running: Mutex<BTreeSet<String>>,
    execs: Arc<Mutex<VecDeque<ScriptedExec>>>,
    journal: Journal,
    death: Death,
    console: FakeConsole,
}

impl FakeMachine {
    fn running(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn gone(&self) -> Outcome {
        gone(self.death.clone(), self.destroyed.clone()).await
    }
}

/// Waits for a machine's end, by whomever.
async fn gone(death: Death, destroyed: CancellationToken) -> Outcome {
    tokio::select! {
        biased;
        outcome = death.struck() => outcome,
        // What is dead can still be destroyed, and stays what it died of: also where both came since the line above looked.
        () = destroyed.cancelled() => death.0.borrow().clone().unwrap_or(Outcome::Cancelled),
    }
}

#[async_trait]
impl Machine for FakeMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    fn facts(&self) -> MachineFacts {
        self.facts.clone()
    }

    fn usage(&self) -> Option<MachineUsage> {
        None
    }

    fn load(&self) -> Option<MachineLoad> {
        Some(MachineLoad { memory_bytes: Some(64 << 20), pids: Some(3), ..MachineLoad::default() })
    }

    fn details(&self) -> MachineDetails {
        let process = HostProcess { pid: 7, name: "fake".into(), threads: 3, resident_bytes: 64 << 20 };
        MachineDetails { processes: vec![process], ..MachineDetails::default() }
    }

    fn console(&self) -> io::Result<Box<dyn Console>> {
        Ok(Box::new(OpenConsole(self.console.0.subscribe())))
    }

    async fn ended(&self) -> Verdict {
        Verdict::of(self.gone().await)
    }

    async fn exec(&self, request: ExecRequest, streams: ExecStreams, cancel: CancellationToken) -> Verdict {
        self.journal.note(format!("exec {}", request.id));
        let started = Instant::now();
        let script = self.execs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(script) = script else {
            return Verdict::of(Outcome::internal("the script has no such exec"));
        };
        self.running().insert(request.id.clone());
        let mut usage = Usage::default();
        let ExecStreams { mut input, output } = streams;
        let run = async {
            for (stream, bytes) in script.output {
                let count = match stream {
                    Stream::Stdout => &mut usage.stdout_bytes,
                    Stream::Stderr => &mut usage.stderr_bytes,
                };
                *count += bytes.len() as u64;
                let _ = output.send(stream, &bytes).await;
            }
            if let (true, Some(input)) = (script.echoes, &mut input) {
                usage.stdout_bytes += echo(input, &output, &self.journal).await;
            }
            if let Some(taken) = script.flood {
                flood(&output, &taken).await;
            }
            tokio::time::sleep(script.takes).await;
            match script.outcome {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = run => outcome,
            outcome = interrupted(request.deadline, &cancel) => outcome,
            outcome = self.gone() => outcome,
        };
        self.running().remove(&request.id);
        usage.wall = started.elapsed();
        Verdict { usage, ..Verdict::of(outcome) }
    }

    async fn signal(&self, exec_id: &str, signal: i32) -> Result<(), SignalError> {
        if !self.running().contains(exec_id) {
            return Err(SignalError::NoExec(exec_id.to_owned()));
        }
        self.journal.note(format!("signal {signal} to {exec_id}"));
        Ok(())
    }

    async fn shell(&self, request: ShellRequest) -> Result<Shell, ShellError> {
        let TerminalSize { rows, columns } = request.size;
        self.journal.note(format!("shell {} {rows}x{columns}", request.term));
        let gone = gone(self.death.clone(), self.destroyed.clone());
        Ok(super::shell::open(self.journal.clone(), gone))
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        self.journal.note(format!("destroy {mode:?}"));
        self.destroyed.cancel();
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

/// Returns how much was read.
async fn echo(input: &mut InputReader, output: &OutputWriter, journal: &Journal) -> u64 {
    loop {
        match input.next(u64::MAX).await {
            InputEvent::Bytes { offset, bytes } => {
                let _ = output.send(Stream::Stdout, &bytes).await;
                // It was read, so it exists.
                let _ = input.written(offset + bytes.len() as u64);
            }
            InputEvent::Resize(TerminalSize { rows, columns }) => {
                journal.note(format!("resize {rows}x{columns}"));
            }
            InputEvent::End { offset } => return offset,
        }
    }
}

/// Writes as fast as it is read, until nobody reads any more.
async fn flood(output: &OutputWriter, taken_bytes: &AtomicU64) {
    const CHUNK_BYTES: usize = 32 << 10;
    let bytes = vec![b'x'; CHUNK_BYTES];
    let mut raw_offset = 0;
    while output.send(Stream::Stdout, &bytes).await.is_ok() {
        raw_offset += bytes.len() as u64;
        taken_bytes.store(raw_offset, Ordering::Relaxed);
    }
}
