//! The task that owns one machine.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

use super::entry::{End, Entry, Stage};
use super::events::Happening;
use super::registry::{Lifetime, Registry};
use crate::error::with_causes;
use crate::failpoint;
use crate::host::boot_id;
use crate::runtime::{
    DestroyMode, HeldLeases, Ledger, Machine, MachineUsage, Outcome, Phase, Runtime, SetupError, SetupEvents,
    SetupFailure, SetupRequest, Verdict,
};
use crate::spans;
use crate::state::machines::{MachineLedger, MachineRecord, MachineStage};
use crate::state::records::RecordError;

/// A machine that was destroyed says how it ended within this time, or is said not to: a fault of the runtime's, or a
/// process that the kernel does not let go.
const VERDICT_BOUND: Duration = Duration::from_secs(10);

/// How long a machine that is ready, or ends, waits for its record to say so.
const RECORD_BOUND: Duration = Duration::from_secs(1);

/// How much of the console is remembered of each machine that has ended.
const CONSOLE_KEPT_BYTES: usize = 16 << 10;

/// What the task works with.
#[derive(Debug)]
pub(super) struct Owner {
    pub entry: Arc<Entry>,
    pub registry: Arc<Registry>,
    pub lifetime: Lifetime,
    /// Of the setup; of an attached machine, at any time.
    pub cancel: CancellationToken,
    /// From before there is anything of the machine until it is gone; `None`: it is not written down.
    pub record: Option<Arc<MachineLedger>>,
}

/// Why a machine ends.
enum Reason {
    /// By itself, with this verdict.
    Died(Box<Verdict>),
    Ordered,
    TooOld(Duration),
}

impl Owner {
    /// Lives as long as the machine.
    pub(super) async fn own(
        self,
        runtime: Arc<dyn Runtime>,
        request: SetupRequest,
        events: SetupEvents,
        reply: oneshot::Sender<Result<(), SetupError>>,
    ) {
        let span = spans::owned_machine(&request, self.entry.creator_uid);
        let events = events.observed(self.registry.metrics.phases());
        self.live(runtime, request, events, reply).instrument(span).await;
    }

    async fn live(
        mut self,
        runtime: Arc<dyn Runtime>,
        mut request: SetupRequest,
        events: SetupEvents,
        reply: oneshot::Sender<Result<(), SetupError>>,
    ) {
        info!(image = %request.image, "creating a machine");
        match self.begin_record(&request).await {
            Ok(record) => self.record = record,
            Err(failure) => {
                let error = SetupError::new(Phase::Prepare, failure);
                self.failed(&error);
                let _ = reply.send(Err(error));
                return;
            }
        }
        request.ledger = self.record.clone().map(|record| record as Arc<dyn Ledger>);
        let setup = self.registry.metrics.setup(self.set_up(runtime, request, events));
        let machine: Arc<dyn Machine> = match setup.await {
            Ok(machine) => Arc::from(machine),
            Err(error) => {
                self.remove_record_of_the_gone().await;
                self.failed(&error);
                let _ = reply.send(Err(error));
                return;
            }
        };
        self.write_record(MachineStage::Ready).await;
        if self.entry.orders.end.is_cancelled() || self.cancel.is_cancelled() {
            // The cancel came too late for the setup, but before anybody was told of a machine.
            self.entry.orders.give(DestroyMode::Kill);
            let cancelled = SetupError::new(Phase::Handshake, SetupFailure::Ended(Outcome::Cancelled));
            return self.end(machine, Reason::Ordered, || drop(reply.send(Err(cancelled)))).await;
        }
        self.registry.advance(&self.entry, Stage::Ready(Arc::clone(&machine)));
        info!("the machine is ready");
        // A creator that has gone away has ordered the end already.
        let _ = reply.send(Ok(()));
        let reason = self.wait(&*machine).await;
        self.end(machine, reason, || {}).await;
    }

    /// Writes down that there will be this machine, before there is.
    async fn begin_record(&self, request: &SetupRequest) -> Result<Option<Arc<MachineLedger>>, SetupFailure> {
        let Some(records) = self.registry.records.clone() else { return Ok(None) };
        let internal = |error: &dyn std::fmt::Display| SetupFailure::Ended(Outcome::internal(error));
        let max_age = match self.lifetime {
            Lifetime::Attached => None,
            Lifetime::Detached { max_age } => max_age,
        };
        let record = MachineRecord {
            version: MachineRecord::VERSION,
            id: self.entry.id.clone(),
            stage: MachineStage::Preparing,
            workflow_id: request.workflow_id.clone(),
            tenant: request.tenant.clone(),
            image: request.image.clone(),
            creator_uid: self.entry.creator_uid,
            created_at: Timestamp::try_from(self.entry.created_at).unwrap_or_default(),
            max_age_us: max_age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
            attached: self.lifetime == Lifetime::Attached,
            boot_id: boot_id().map_err(|error| internal(&error))?,
            leases: HeldLeases::default(),
            keeper: None,
        };
        let begun = spawn_blocking(move || records.begin(record)).await.map_err(|error| internal(&error))?;
        failpoint::pass("setup.recorded");
        begun.map(|ledger| Some(Arc::new(ledger))).map_err(|error| {
            let text = with_causes(&error);
            match error {
                RecordError::DiskFull { .. } => SetupFailure::Ended(Outcome::HostDiskFull { detail: text }),
                _ => SetupFailure::HostCannot(text),
            }
        })
    }

    /// One that can't be written says less than is so, which whoever reads it can see for himself.
    async fn write_record(&self, stage: MachineStage) {
        self.with_record(move |record| record.reach(stage)).await;
    }

    /// Not of a machine whose setup failed, and whose keeper did not end: its record is the last that is known of it.
    async fn remove_record_of_the_gone(&self) {
        let remove = |record: &MachineLedger| if record.keeper_lives() { Ok(()) } else { record.remove() };
        self.with_record(remove).await;
        failpoint::pass("destroy.unrecorded");
    }

    async fn remove_record(&self) {
        self.with_record(MachineLedger::remove).await;
        failpoint::pass("destroy.unrecorded");
    }

    /// A disk that hangs holds up no verdict: what is done to the record is done later then.
    async fn with_record(
        &self,
        act: impl FnOnce(&MachineLedger) -> Result<(), RecordError> + Send + 'static,
    ) {
        let Some(record) = self.record.clone() else { return };
        let error = match timeout(RECORD_BOUND, spawn_blocking(move || act(&record))).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => with_causes(&error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the disk has taken more than {RECORD_BOUND:?}"),
        };
        warn!(%error, "the machine's record is not up to date");
    }

    async fn set_up(
        &self,
        runtime: Arc<dyn Runtime>,
        request: SetupRequest,
        events: SetupEvents,
    ) -> Result<Box<dyn Machine>, SetupError> {
        let stop = self.entry.orders.end.child_token();
        let setup = runtime.setup(request, events, stop.clone());
        let cancelled = async {
            self.cancel.cancelled().await;
            stop.cancel();
            std::future::pending().await
        };
        tokio::select! {
            result = setup => result,
            never = cancelled => never,
        }
    }

    /// A setup that has an outcome, or that somebody waits to see destroyed, is remembered like a machine.
    fn failed(&self, error: &SetupError) {
        let outcome = match &error.failure {
            SetupFailure::Ended(outcome) => Some(outcome.clone()),
            _ if self.entry.orders.end.is_cancelled() => Some(Outcome::Cancelled),
            SetupFailure::BadInput(_) | SetupFailure::HostCannot(_) => None,
        };
        info!(phase = error.phase.label(), %error, "the machine's setup failed");
        let stage = match outcome {
            Some(outcome) => {
                let usage = error.usage.as_deref().cloned();
                let verdict = remembered(error.verdict(outcome));
                Stage::Ended(Arc::new(End {
                    verdict,
                    facts: None,
                    usage,
                    at: SystemTime::now(),
                    freed: Ok(()),
                }))
            }
            None => {
                self.registry.happened(&self.entry, Happening::SetupFailed { why: error.to_string() });
                Stage::Forgotten
            }
        };
        self.registry.advance(&self.entry, stage);
    }

    async fn wait(&self, machine: &dyn Machine) -> Reason {
        let too_old = async {
            match self.lifetime {
                Lifetime::Detached { max_age: Some(max_age) } => {
                    sleep(max_age).await;
                    max_age
                }
                Lifetime::Attached | Lifetime::Detached { max_age: None } => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            verdict = machine.ended() => Reason::Died(Box::new(verdict)),
            () = self.entry.orders.end.cancelled() => Reason::Ordered,
            () = self.cancel.cancelled(), if self.lifetime == Lifetime::Attached => {
                self.entry.orders.give(DestroyMode::Kill);
                Reason::Ordered
            }
            max_age = too_old => Reason::TooOld(max_age),
        }
    }

    /// Destroys also what has died: that frees what it held. `told` is called once it has ended, or is known not to; in
    /// either case this returns when it has.
    async fn end(&self, machine: Arc<dyn Machine>, reason: Reason, told: impl FnOnce()) {
        self.registry.advance(&self.entry, Stage::Ending(Arc::clone(&machine)));
        let usage = machine.usage();
        self.write_record(MachineStage::Ending).await;
        failpoint::pass("destroy.recorded");
        let freed = self.destroy(&*machine, &reason).await;
        if freed.is_ok() {
            self.remove_record().await;
        }
        let (gone, max_age) = match reason {
            Reason::Died(verdict) => (Ok(*verdict), None),
            Reason::Ordered => (gone(&*machine, &freed).await, None),
            Reason::TooOld(max_age) => (gone(&*machine, &freed).await, Some(max_age)),
        };
        let ended = |verdict: Verdict, freed| {
            let verdict = match max_age {
                Some(max_age) => too_old(max_age, verdict),
                None => verdict,
            };
            info!(%verdict, "the machine has ended");
            let facts = Some(machine.facts());
            let usage: Option<MachineUsage> = verdict.usage.machine.as_deref().cloned().or(usage);
            let end = End { verdict: remembered(verdict), facts, usage, at: SystemTime::now(), freed };
            self.registry.advance(&self.entry, Stage::Ended(Arc::new(end)));
        };
        match gone {
            Ok(verdict) => {
                ended(verdict, freed);
                told();
            }
            Err(what) => {
                warn!(%what, "the machine does not end");
                self.registry.advance(&self.entry, Stage::Stuck(Arc::clone(&machine), what));
                told();
                // As long as it takes: what still runs must be seen.
                let verdict = machine.ended().await;
                let freed = machine.destroy(DestroyMode::Kill).await;
                if freed.is_ok() {
                    self.remove_record().await;
                }
                ended(verdict, freed);
            }
        }
    }

    async fn destroy(&self, machine: &dyn Machine, reason: &Reason) -> Result<(), String> {
        let kill = &self.entry.orders.kill;
        let kindly = matches!(reason, Reason::Ordered | Reason::TooOld(_)) && !kill.is_cancelled();
        let mode = if kindly { DestroyMode::Graceful } else { DestroyMode::Kill };
        let freed = tokio::select! {
            freed = machine.destroy(mode) => freed,
            () = kill.cancelled(), if kindly => machine.destroy(DestroyMode::Kill).await,
        };
        if let Err(error) = &freed {
            warn!(%error, "failed to free all that the machine held");
        }
        freed
    }
}

impl Drop for Owner {
    /// The task ends in an orderly way by [`Owner::live`]; this is for a runtime that panics under it.
    fn drop(&mut self) {
        let verdict =
            Verdict::of(Outcome::internal("the task that owned the machine ended without a verdict"));
        let end = End { verdict, facts: None, usage: None, at: SystemTime::now(), freed: Ok(()) };
        // Changes nothing where the machine has ended.
        self.registry.advance(&self.entry, Stage::Ended(Arc::new(end)));
    }
}

/// How a machine that was destroyed ended; `Err` says why it is not known to have.
async fn gone(machine: &dyn Machine, freed: &Result<(), String>) -> Result<Verdict, String> {
    // The destroy that failed has waited already.
    let bound = if freed.is_ok() { VERDICT_BOUND } else { Duration::ZERO };
    timeout(bound, machine.ended()).await.map_err(|_| match freed {
        Ok(()) => format!("it did not say within {VERDICT_BOUND:?} that it ended"),
        Err(what) => what.clone(),
    })
}

fn too_old(max_age: Duration, verdict: Verdict) -> Verdict {
    let detail = Some(format!("it was {} s old, which is its limit", max_age.as_secs_f64()));
    Verdict { outcome: Outcome::TimedOut, detail, ..verdict }
}

/// A verdict as it is kept: the console's end only.
fn remembered(mut verdict: Verdict) -> Verdict {
    if let Some(console) = &mut verdict.console_tail {
        console.drain(..console.len().saturating_sub(CONSOLE_KEPT_BYTES));
        console.shrink_to_fit();
    }
    verdict
}
