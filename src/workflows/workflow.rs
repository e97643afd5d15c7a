//! What a call may do with one workflow. Nothing here owns its work: every value may be dropped at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::entry::{Entry, MAX_SECRETS_BYTES, Order};
use super::error::Refusal;
use super::progress::{Progress, SetupClaim, State, StepClaim};
use super::registry::Shared;
use super::slots::{Place, Queue};
use super::view::View;
use crate::engine::{Secret, check_secrets};
use crate::runtime::{MachineId, Outcome, SetupError, SetupEvent, SetupFailure, Verdict};
use crate::state::log::Follower;

/// Of all that a workflow's end may take.
const END_BOUND: Duration = Duration::from_secs(60);

/// One workflow of this process.
#[derive(Debug)]
pub struct Workflow {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
}

/// What those who wait for a slot are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSaid {
    /// So many come before it; 0: it is the next.
    Ahead(usize),
    /// The last one.
    Acquired,
}

/// A call that waits for a slot. Dropped, it does not wait any more; the last one to go gives the place up.
#[derive(Debug)]
pub struct WaitingForSlot {
    workflow: Workflow,
    queue: watch::Receiver<Queue>,
    progress: watch::Receiver<Progress>,
    said: Option<SlotSaid>,
}

/// What those who wait for a setup are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupSaid {
    Progress(SetupEvent),
    /// The last one.
    Ready(Box<View>),
}

/// A call that waits for a setup.
#[derive(Debug)]
pub struct SettingUp {
    workflow: Workflow,
    events: watch::Receiver<Vec<SetupEvent>>,
    progress: watch::Receiver<Progress>,
    told: usize,
    over: bool,
}

impl Workflow {
    fn shared_clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), entry: Arc::clone(&self.entry) }
    }

    /// Of the run and of its machine.
    pub fn machine_id(&self) -> &MachineId {
        &self.entry.machine_id
    }

    pub fn view(&self) -> View {
        View::of(&self.entry, &self.shared.slots)
    }

    /// Takes a slot, or a place in the queue for one.
    ///
    /// # Errors
    /// When there is none and it may not wait, or the workflow has stopped.
    pub fn acquire_slot(&self, may_wait: bool) -> Result<WaitingForSlot, Refusal> {
        let workflow = self.shared_clone();
        let (queue, progress) = (self.shared.slots.watch(), self.entry.progress.subscribe());
        {
            let mut waiters = self.entry.waiters();
            *waiters += 1;
            let place = self.entry.ask_for_slot(&self.shared.slots, may_wait);
            if place.is_none() {
                *waiters -= 1;
                return Err(self.no_slot());
            }
        }
        Ok(WaitingForSlot { workflow, queue, progress, said: None })
    }

    /// Begins the setup, or attaches to it.
    ///
    /// # Errors
    /// When it has no slot and would have to wait for one, has stopped, or its setup has failed.
    pub fn set_up(&self) -> Result<SettingUp, Refusal> {
        let seen = self.entry.progress.borrow().setup_seen();
        if seen == SetupClaim::Begin && self.entry.ask_for_slot(&self.shared.slots, false).is_none() {
            return Err(self.no_slot());
        }
        match self.entry.advance(Progress::claim_setup) {
            SetupClaim::Begin => {
                info!("the setup begins");
                // Its task lives as long as it has not ended; what it does not read any more has ended.
                let _ = self.entry.orders.send(Order::Setup);
            }
            SetupClaim::Attach | SetupClaim::Ready => {}
            SetupClaim::Failed(error) => return Err(self.setup_failed(error)),
            SetupClaim::Over(verdict) => return Err(self.over(verdict)),
        }
        let (events, progress) = (self.entry.setup_events.subscribe(), self.entry.progress.subscribe());
        Ok(SettingUp { workflow: self.shared_clone(), events, progress, told: 0, over: false })
    }

    /// Has a step run, unless it runs or has run, and waits for its verdict.
    ///
    /// # Errors
    /// When it is not the next one, or the workflow has stopped.
    pub async fn run_step(&self, index: usize, secrets: Vec<(String, Secret)>) -> Result<Verdict, Refusal> {
        check_secrets(&secrets).map_err(|error| Refusal::Secrets(error.to_string()))?;
        // Those of a call that attaches are those of the step that runs, or come too late for it.
        let seen = self.entry.progress.borrow().step_seen(index);
        if seen == StepClaim::Begin && !self.entry.known_secrets().add(&secrets) {
            return Err(Refusal::Secrets(format!(
                "the workflow's secrets have more than the {} KiB that they may have together; make them smaller or fewer",
                MAX_SECRETS_BYTES >> 10
            )));
        }
        match self.entry.advance(|progress| progress.claim_step(index)) {
            StepClaim::Begin => {
                info!(step = index, "a step begins");
                let _ = self.entry.orders.send(Order::Step(secrets));
            }
            StepClaim::Attach => drop(secrets),
            StepClaim::Ended(verdict) => return Ok(verdict),
            StepClaim::Over(verdict) => return Err(self.over(verdict)),
            StepClaim::Refused(order) => return Err(order.into()),
        }
        let mut progress = self.entry.progress.subscribe();
        let ended = |progress: &Progress| progress.steps().get(index).and_then(|step| step.verdict.clone());
        // The sender is the entry's; what is claimed gets a verdict in every case.
        let seen = progress.wait_for(|progress| ended(progress).is_some()).await;
        let verdict = seen.ok().and_then(|progress| ended(&progress));
        verdict.ok_or_else(|| self.over(Verdict::of(Outcome::internal("the step has no verdict"))))
    }

    /// Ends what goes on. One that has stopped stays as it is. Returns once it has stopped, which is soon.
    pub async fn cancel(&self) -> View {
        // One that has stopped keeps its way to end: a guest that powers off is left to do so.
        if !self.entry.progress.borrow().is_over() {
            info!("the workflow is cancelled");
            self.entry.cancel.cancel();
        }
        let mut progress = self.entry.progress.subscribe();
        let _ = timeout(END_BOUND, progress.wait_for(Progress::is_over)).await;
        self.view()
    }

    /// Ends it, and waits until nothing of it is left.
    ///
    /// # Errors
    /// When it has not ended in time, or something could not be freed.
    pub async fn destroy(&self) -> Result<View, Refusal> {
        self.entry.destroy.cancel();
        let mut progress = self.entry.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.state() == State::Ended);
        if timeout(END_BOUND, ended).await.is_err() {
            return Err(Refusal::NotEnded { seconds: END_BOUND.as_secs() });
        }
        let unfreed = self.entry.progress.borrow().unfreed().map(str::to_owned);
        unfreed.map_or_else(|| Ok(self.view()), |what| Err(Refusal::NotFreed(what)))
    }

    /// Its log, live; `None` once it has ended, when its record has it.
    pub fn log(&self, from: u64) -> Option<Follower> {
        Some(self.entry.writer().as_ref()?.log().follow(from))
    }

    /// Why it is not in the queue.
    fn no_slot(&self) -> Refusal {
        let verdict = self.entry.progress.borrow().verdict().cloned();
        match verdict {
            Some(verdict) => self.over(verdict),
            None if self.shared.draining.is_cancelled() => Refusal::Draining,
            None => Refusal::NoSlot,
        }
    }

    /// One that a shutdown ended says so.
    fn setup_failed(&self, error: SetupError) -> Refusal {
        let ended =
            matches!(error.failure, SetupFailure::Ended(Outcome::Cancelled) | SetupFailure::HostCannot(_));
        if ended && self.shared.draining.is_cancelled() {
            Refusal::Draining
        } else {
            Refusal::Setup(Box::new(error))
        }
    }

    fn over(&self, verdict: Verdict) -> Refusal {
        let ended = verdict.outcome == Outcome::Cancelled && !self.entry.cancel.is_cancelled();
        if ended && self.shared.draining.is_cancelled() {
            Refusal::Draining
        } else {
            Refusal::Over(Box::new(verdict))
        }
    }
}

impl WaitingForSlot {
    /// What is new; `None` after the last one.
    ///
    /// # Errors
    /// When the workflow has stopped: there is no slot for it any more.
    pub async fn next(&mut self) -> Result<Option<SlotSaid>, Refusal> {
        if self.said == Some(SlotSaid::Acquired) {
            return Ok(None);
        }
        loop {
            let place = self.queue.borrow_and_update().place(self.workflow.entry.serial);
            let stopped = self.progress.borrow_and_update().is_over();
            let now = match place {
                Some(Place::Held) => SlotSaid::Acquired,
                Some(Place::Waiting { ahead }) if !stopped => SlotSaid::Ahead(ahead),
                _ => return Err(self.workflow.no_slot()),
            };
            if self.said != Some(now) {
                self.said = Some(now);
                return Ok(Some(now));
            }
            // Both senders live as long as this does.
            tokio::select! {
                _ = self.queue.changed() => {}
                _ = self.progress.changed() => {}
            }
        }
    }
}

impl Drop for WaitingForSlot {
    fn drop(&mut self) {
        let Workflow { shared, entry } = &self.workflow;
        let mut waiters = entry.waiters();
        *waiters -= 1;
        if *waiters == 0 {
            shared.slots.withdraw(entry.serial);
        }
    }
}

impl SettingUp {
    /// What is new; `None` after the last one.
    ///
    /// # Errors
    /// When the setup has failed.
    pub async fn next(&mut self) -> Result<Option<SetupSaid>, Refusal> {
        if self.over {
            return Ok(None);
        }
        loop {
            // Looked at before the events: those of a setup that has ended are all there.
            let seen = self.progress.borrow_and_update().setup_seen();
            let next = self.events.borrow_and_update().get(self.told).cloned();
            if let Some(event) = next {
                self.told += 1;
                return Ok(Some(SetupSaid::Progress(event)));
            }
            match seen {
                SetupClaim::Begin | SetupClaim::Attach => {}
                SetupClaim::Ready => {
                    self.over = true;
                    return Ok(Some(SetupSaid::Ready(Box::new(self.workflow.view()))));
                }
                SetupClaim::Failed(error) => return Err(self.workflow.setup_failed(error)),
                SetupClaim::Over(verdict) => return Err(self.workflow.over(verdict)),
            }
            tokio::select! {
                _ = self.events.changed() => {}
                _ = self.progress.changed() => {}
            }
        }
    }
}
