//! The machines, by id: what may be asked for, and who is told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::entry::{Entry, Stage};
use super::error::{CreateError, DestroyError};
use super::events::{EventLog, Happening};
use super::execs::Fingerprint;
use super::owner::Owner;
use super::summary::{Counts, State, Summary};
use crate::metrics::{MachineState, Metrics};
use crate::runtime::{DestroyMode, MachineFacts, MachineId, Runtime, SetupEvents, SetupRequest, Verdict};
use crate::state::machines::MachineRecords;

/// How many machines are remembered after their end.
pub const ENDED_KEPT: usize = 64;

/// How long a new machine lives, unless it is destroyed or dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the token that [`Machines::create`] was given is cancelled.
    Attached,
    /// Until it is this old; `None`: without limit.
    Detached { max_age: Option<Duration> },
}

/// A machine to be.
#[derive(Debug)]
pub struct Creation {
    pub request: SetupRequest,
    pub creator_uid: u32,
    pub lifetime: Lifetime,
    /// Of all that is asked for, where the caller has chosen the id; `None`: it is ours, and asked for once.
    pub fingerprint: Option<Fingerprint>,
}

/// Who asks for what, so that it is known when it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub uid: u32,
    /// See [`Creation`].
    pub fingerprint: Option<Fingerprint>,
}

impl Creation {
    pub fn asker(&self) -> Asker {
        Asker { uid: self.creator_uid, fingerprint: self.fingerprint }
    }
}

/// The machines that this process holds. Clones share them.
#[derive(Debug, Clone)]
pub struct Machines {
    runtime: Arc<dyn Runtime>,
    pub(super) registry: Arc<Registry>,
}

/// Who is in it.
#[derive(Debug)]
pub(super) struct Registry {
    table: Mutex<Table>,
    max_machines: AtomicUsize,
    counts: watch::Sender<Counts>,
    pub(super) metrics: Metrics,
    pub(super) events: Arc<EventLog>,
    /// Those of one `creel run`, and nobody else's to add to.
    of_a_run: bool,
    /// Where each is written down while it lives; `None`: they end with this process.
    pub(super) records: Option<MachineRecords>,
}

#[derive(Debug, Default)]
struct Table {
    living: HashMap<MachineId, Arc<Entry>>,
    /// Oldest end first.
    ended: VecDeque<Arc<Entry>>,
    next_serial: u64,
    draining: bool,
}

impl Machines {
    /// `max_machines` bounds those that live, setups included.
    pub fn new(runtime: Arc<dyn Runtime>, max_machines: usize) -> Self {
        Self::with(runtime, max_machines, false, None)
    }

    /// The same, each written down before anything of it is made, until it is gone.
    pub fn recorded(runtime: Arc<dyn Runtime>, max_machines: usize, records: MachineRecords) -> Self {
        Self::with(runtime, max_machines, false, Some(records))
    }

    /// Those of one `creel run`, as many as it makes; callers of the API create none ([`Self::check_room`]).
    pub fn of_a_run(runtime: Arc<dyn Runtime>) -> Self {
        Self::with(runtime, usize::MAX, true, None)
    }

    fn with(
        runtime: Arc<dyn Runtime>,
        max_machines: usize,
        of_a_run: bool,
        records: Option<MachineRecords>,
    ) -> Self {
        let (table, counts) = (Mutex::default(), watch::Sender::new(Counts::default()));
        let (max_machines, events) = (AtomicUsize::new(max_machines), Arc::default());
        let metrics = Metrics::default();
        Self {
            runtime,
            registry: Arc::new(Registry { table, max_machines, counts, metrics, events, of_a_run, records }),
        }
    }

    /// What is counted and measured of them, and of all that stands on them.
    pub fn metrics(&self) -> &Metrics {
        &self.registry.metrics
    }

    /// How many may live; `None`: as many as there are.
    pub fn max_machines(&self) -> Option<usize> {
        Some(self.registry.max_machines.load(Ordering::Relaxed)).filter(|max| *max != usize::MAX)
    }

    /// How many may live from now on. Those that do stay.
    pub fn set_max_machines(&self, max_machines: usize) {
        self.registry.max_machines.store(max_machines, Ordering::Relaxed);
    }

    /// What the machines are made by.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Whether a machine would be admitted now: for callers who have work to do before they create one.
    ///
    /// # Errors
    /// [`CreateError::Full`], [`CreateError::Draining`] and [`CreateError::OfARun`].
    pub fn check_room(&self) -> Result<(), CreateError> {
        if self.registry.of_a_run {
            return Err(CreateError::OfARun);
        }
        self.registry.check_room(&self.registry.lock())
    }

    /// Makes a machine, which is listed from the start under the request's id. `cancel` ends the setup, and an attached
    /// machine at any time. A caller that drops this future leaves nothing behind either: its machine is destroyed in
    /// the background.
    ///
    /// # Errors
    /// Then nothing of it is left.
    pub async fn create(
        &self,
        creation: Creation,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Summary, CreateError> {
        let entry = self.registry.admit(&creation)?;
        let Creation { request, lifetime, .. } = creation;
        let observed = Arc::clone(&entry);
        let events = events.observed(Arc::new(move |event| observed.setup.note(event)));
        let (reply, ready) = oneshot::channel();
        let owner = Owner {
            entry: Arc::clone(&entry),
            registry: Arc::clone(&self.registry),
            lifetime,
            cancel,
            record: None,
        };
        tokio::spawn(owner.own(Arc::clone(&self.runtime), request, events, reply));
        let abandoned = Abandon(&entry);
        let ready = ready.await;
        std::mem::forget(abandoned);
        match ready {
            Ok(Ok(())) => Ok(entry.summary()),
            Ok(Err(error)) => Err(CreateError::Setup(error)),
            // The task was dropped with its tokio runtime: the whole process ends.
            Err(_) => Err(CreateError::Draining),
        }
    }

    /// The machine that was asked for already, once it is ready; `None`: there is none, or it never was ready.
    ///
    /// # Errors
    /// [`CreateError::Exists`] when its id is that of a machine which is another's, was asked for otherwise, or has ended.
    pub async fn created(&self, id: &MachineId, asker: Asker) -> Result<Option<Summary>, CreateError> {
        let Some(entry) = self.registry.find(id) else { return Ok(None) };
        let exists = || CreateError::Exists(entry.id.clone());
        if !entry.is_of(asker) {
            return Err(exists());
        }
        let mut stage = entry.stage.subscribe();
        // The sender is the entry's, so this can't fail.
        let _ = stage.wait_for(|stage| !matches!(stage, Stage::SettingUp)).await;
        match entry.stage() {
            Stage::Ready(_) | Stage::Ending(_) | Stage::Stuck(..) => Ok(Some(entry.summary())),
            Stage::Ended(end) if end.facts.is_some() => Err(exists()),
            Stage::SettingUp | Stage::Ended(_) | Stage::Forgotten => Ok(None),
        }
    }

    /// Ends a machine and waits until it has. Any number of calls may wait for one end; one that kills hurries those
    /// that do not. A setup is cancelled. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// When nothing is known of such a machine, not all could be freed, or it has not ended: then it is listed as ending
    /// until it has.
    pub async fn destroy(&self, id: &MachineId, mode: DestroyMode) -> Result<Summary, DestroyError> {
        let unknown = || DestroyError::Unknown(id.clone());
        let entry = self.registry.find(id).ok_or_else(unknown)?;
        entry.orders.give(mode);
        let end = entry.end_or_stuck().await;
        let end = end.map_err(|what| DestroyError::NotEnded { id: id.clone(), what })?.ok_or_else(unknown)?;
        match &end.freed {
            Ok(()) => Ok(entry.summary()),
            Err(what) => Err(DestroyError::NotFreed { id: id.clone(), what: what.clone() }),
        }
    }

    /// Ends a machine as [`Machines::destroy`] does, and does not wait for it.
    pub fn order_end(&self, id: &MachineId, mode: DestroyMode) {
        if let Some(entry) = self.registry.find(id) {
            entry.orders.give(mode);
        }
    }

    /// Those that live, and with `ended` those that are remembered; oldest first. Reads each one's counters.
    pub fn list(&self, ended: bool) -> Vec<Summary> {
        self.registry.entries(ended).iter().map(|entry| entry.summary()).collect()
    }

    /// One machine, living or remembered.
    pub fn get(&self, id: &MachineId) -> Option<Summary> {
        self.registry.find(id).map(|entry| entry.summary())
    }

    /// Waits for the end of a machine, whoever ends it and however long that takes; `None` when nothing is known of it.
    pub async fn ended(&self, id: &MachineId) -> Option<Summary> {
        let entry = self.registry.find(id)?;
        entry.end().await.map(|_| entry.summary())
    }

    /// Admits no machine from now on.
    pub fn drain(&self) {
        self.registry.lock().draining = true;
    }

    /// Admits no machine from now on and ends all that live, side by side: kindly for half of `bound`, then at once.
    /// Returns those that had not ended by then; their tasks go on.
    pub async fn end_all(&self, bound: Duration) -> Vec<MachineId> {
        self.drain();
        let now = Instant::now();
        let entries = self.registry.entries(false);
        if !entries.is_empty() {
            info!(machines = entries.len(), "ending all machines");
        }
        for (mode, deadline) in [(DestroyMode::Graceful, now + bound / 2), (DestroyMode::Kill, now + bound)] {
            for entry in &entries {
                entry.orders.give(mode);
            }
            for entry in &entries {
                // They end side by side; looking at one after the other takes as long as the slowest.
                let _ = timeout_at(deadline, entry.end()).await;
            }
        }
        entries.iter().filter(|entry| !entry.stage().is_over()).map(|entry| entry.id.clone()).collect()
    }

    /// How many live, for as long as anybody asks.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.registry.counts.subscribe()
    }
}

/// Orders the end of a machine whose creator has gone away.
struct Abandon<'a>(&'a Entry);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        info!(machine = %self.0.id, "the creator is gone, ending its machine");
        self.0.orders.give(DestroyMode::Kill);
    }
}

impl Registry {
    /// Locked for moments: nothing is awaited, and no file read, under it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room(&self, table: &Table) -> Result<(), CreateError> {
        if table.draining {
            return Err(CreateError::Draining);
        }
        let max = self.max_machines.load(Ordering::Relaxed);
        if table.living.len() >= max {
            return Err(CreateError::Full { max });
        }
        Ok(())
    }

    fn admit(&self, creation: &Creation) -> Result<Arc<Entry>, CreateError> {
        let request = &creation.request;
        let mut table = self.lock();
        table
            .ended
            .retain(|entry| !(entry.id == request.id && entry.is_of(creation.asker()) && !entry.was_ready()));
        if table.find(&request.id).is_some() {
            return Err(CreateError::Exists(request.id.clone()));
        }
        self.check_room(&table)?;
        let asked = MachineFacts {
            image: request.image.clone(),
            memory_mib: request.memory_mib.unwrap_or(0),
            vcpus: request.vcpus.unwrap_or(0),
            memory_limit_mib: request.memory_limit_mib.map(u64::from),
            ..MachineFacts::default()
        };
        let id = request.id.clone();
        let entry = Arc::new(Entry::new(creation, table.next_serial, asked));
        table.next_serial += 1;
        self.happened(&entry, Happening::Created { image: request.image.clone() });
        table.living.insert(id, Arc::clone(&entry));
        self.count(|counts| counts.setting_up += 1);
        Ok(entry)
    }

    /// Moves a machine to another stage; by its own task only.
    pub(super) fn advance(&self, entry: &Arc<Entry>, stage: Stage) {
        let mut table = self.lock();
        let (before, after) = (entry.stage.borrow().state(), stage.state());
        if before == State::Ended {
            return;
        }
        if after == State::Ended {
            table.living.remove(&entry.id);
            entry.exec_ids.forget();
            entry.execs.release();
            if let Stage::Ended(end) = &stage {
                self.metrics.machine_ended(&end.verdict.outcome);
                if table.ended.len() == ENDED_KEPT {
                    table.ended.pop_front();
                }
                table.ended.push_back(Arc::clone(entry));
            }
        }
        // Under the lock, so that they are told in the order in which they happen.
        match &stage {
            Stage::Ready(_) => self.happened(entry, Happening::Ready),
            Stage::Ending(_) => self.happened(entry, Happening::Ending),
            Stage::Ended(end) => {
                let verdict = Verdict { console_tail: None, ..end.verdict.clone() };
                self.happened(entry, Happening::Ended { verdict });
            }
            Stage::SettingUp | Stage::Stuck(..) | Stage::Forgotten => {}
        }
        entry.stage.send_replace(stage);
        self.count(|counts| {
            for (state, step) in [(before, -1), (after, 1)] {
                let count = match state {
                    State::SettingUp => &mut counts.setting_up,
                    State::Ready => &mut counts.ready,
                    State::Ending => &mut counts.ending,
                    State::Ended => continue,
                };
                *count = count.saturating_add_signed(step);
            }
        });
    }

    pub(super) fn happened(&self, entry: &Entry, what: Happening) {
        self.events.record(&entry.id, &entry.workflow_id, entry.creator_uid, what);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
        let Counts { setting_up, ready, ending } = *self.counts.borrow();
        let states = [
            (MachineState::SettingUp, setting_up),
            (MachineState::Ready, ready),
            (MachineState::Ending, ending),
        ];
        self.metrics.set_machines(states);
    }

    pub(super) fn find(&self, id: &MachineId) -> Option<Arc<Entry>> {
        self.lock().find(id)
    }

    pub(super) fn entries(&self, ended: bool) -> Vec<Arc<Entry>> {
        let table = self.lock();
        let mut entries: Vec<_> = table.living.values().cloned().collect();
        if ended {
            entries.extend(table.ended.iter().cloned());
        }
        drop(table);
        entries.sort_by_key(|entry| entry.serial);
        entries
    }
}

impl Table {
    fn find(&self, id: &MachineId) -> Option<Arc<Entry>> {
        let ended = || self.ended.iter().find(|entry| entry.id == *id);
        self.living.get(id).or_else(ended).cloned()
    }
}
