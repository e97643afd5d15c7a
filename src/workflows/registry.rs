//! Who has which workflow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::entry::{Entry, Made};
use super::error::{InitError, Refusal};
use super::key::{Asker, Key, Name};
use super::owner::Owner;
use super::progress::{Progress, State, StepProgress};
use super::request::{NewWorkflow, planned};
use super::slots::{SlotCounts, Slots};
use super::table::{Known, Table};
use super::view::{View, key_of};
use super::workflow::Workflow;
use crate::engine::Plan;
use crate::image::ImageStore;
use crate::machines::Machines;
use crate::runtime::{MachineId, Tenant};
use crate::state::log::LogError;
use crate::state::records::{Record, Records};

/// What may change while workflows run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many workflows hold a slot at once.
    pub slots: usize,
    /// Of a workflow whose request names none.
    pub workflow_timeout: Duration,
    /// Of a file that names none.
    pub default_image: String,
    /// Kept of one step's output.
    pub step_log_bytes: u64,
}

/// How many workflows there may be that have not ended. Each may hold a few MiB: its plan, its verdicts, its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub all: usize,
    pub per_uid: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { all: 512, per_uid: 256 }
    }
}

/// The workflows that this process holds. Clones share them.
#[derive(Debug, Clone)]
pub struct Workflows {
    pub(super) shared: Arc<Shared>,
}

/// What calls and tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub machines: Machines,
    pub records: Records,
    pruning: Arc<Pruning>,
    pub slots: Slots,
    /// Cancelled once no more are taken.
    pub draining: CancellationToken,
    images: ImageStore,
    bounds: Bounds,
    settings: Mutex<Settings>,
    table: Mutex<Table>,
    living: watch::Sender<usize>,
}

/// Removing old records: at most one goes on and one waits.
#[derive(Debug, Default)]
struct Pruning {
    wanted: AtomicBool,
    busy: Mutex<()>,
}

/// What a name leads to.
#[derive(Debug)]
pub enum Found {
    Here(Workflow),
    /// Its record is left.
    Past(Box<View>),
}

impl Found {
    /// Its record's name.
    pub fn machine_id(&self) -> &MachineId {
        match self {
            Self::Here(workflow) => workflow.machine_id(),
            Self::Past(view) => &view.machine_id,
        }
    }
}

impl Shared {
    /// Removes old records, in the background.
    pub(super) fn prune(&self) {
        // One that waits looks at all that has ended by then.
        if self.pruning.wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        let (records, pruning) = (self.records.clone(), Arc::clone(&self.pruning));
        tokio::task::spawn_blocking(move || {
            let _busy = pruning.busy.lock().unwrap_or_else(PoisonError::into_inner);
            pruning.wanted.store(false, Ordering::Release);
            prune(&records);
        });
    }
}

/// Blocking.
fn prune(records: &Records) {
    match records.prune() {
        Ok(pruned) => {
            for error in pruned.failed {
                warn!(error = %crate::error::with_causes(&error), "failed to remove an old run");
            }
        }
        Err(error) => warn!(error = %crate::error::with_causes(&error), "failed to look for old runs"),
    }
}

impl Workflows {
    /// Finds what records there are of earlier workflows. Blocking.
    pub fn new(
        machines: Machines,
        images: ImageStore,
        records: Records,
        settings: Settings,
        bounds: Bounds,
    ) -> Self {
        let mut table = Table::default();
        prune(&records);
        match records.list() {
            Ok(past) => past.iter().filter(|record| is_of_the_api(record)).for_each(|record| {
                table.remember_past(
                    key_of(record.tenant.clone(), record.workflow_id.clone(), record.creator_uid),
                    record.id.clone(),
                );
            }),
            Err(error) => {
                warn!(error = %crate::error::with_causes(&error), "workflows that have ended are not known");
            }
        }
        let (slots, draining) = (Slots::new(settings.slots), CancellationToken::new());
        let (settings, table, living) = (Mutex::new(settings), Mutex::new(table), watch::Sender::new(0));
        let pruning = Arc::default();
        let shared =
            Shared { machines, records, pruning, slots, draining, images, bounds, settings, table, living };
        Self { shared: Arc::new(shared) }
    }

    /// For what is made from now on, and for the queue.
    pub fn reload(&self, settings: Settings) {
        if !self.shared.draining.is_cancelled() {
            self.shared.slots.resize(settings.slots);
        }
        *self.shared.settings() = settings;
    }

    /// How long a workflow may take whose request does not say.
    pub fn timeout(&self) -> Duration {
        self.shared.settings().workflow_timeout
    }

    pub fn slots(&self) -> SlotCounts {
        self.shared.slots.counts()
    }

    /// How many have not ended, for as long as anybody asks.
    pub fn living(&self) -> watch::Receiver<usize> {
        self.shared.living.subscribe()
    }

    /// Plans a workflow and takes it in. The same request again finds the same workflow.
    ///
    /// # Errors
    /// Then there is none, or one that another request made.
    pub async fn init(&self, request: NewWorkflow) -> Result<View, InitError> {
        if self.shared.draining.is_cancelled() {
            return Err(InitError::Draining);
        }
        // A repeat is answered without planning; what has changed on this host meanwhile does not concern it.
        let known = self.shared.lock().known.get(&request.key).cloned();
        if let Some(Known::Here(entry)) = known {
            return self.known_again(&entry, &request).await;
        }
        self.shared.check_room(&request.key)?;
        let shared = Arc::clone(&self.shared);
        let planning = move || {
            let default_image = shared.settings().default_image.clone();
            let plan = planned(&request, &shared.images, &default_image);
            (request, plan)
        };
        let planning = tokio::task::spawn_blocking(planning).await;
        let (request, plan) = planning.map_err(|error| InitError::NotRecorded(error.to_string()))?;
        let plan = plan?;
        if let Some(past) = self.past_of(&request.key).await {
            return if has_plan(&past, &plan) { Ok(past) } else { Err(exists(&request)) };
        }
        match self.shared.admit(&request, plan)? {
            Admitted::Known(entry) => self.known_again(&entry, &request).await,
            Admitted::New(entry, owner, plan) => {
                tokio::spawn(owner.own(*plan));
                self.made(&entry).await
            }
        }
    }

    async fn known_again(&self, entry: &Entry, request: &NewWorkflow) -> Result<View, InitError> {
        if entry.digest != request.digest {
            return Err(exists(request));
        }
        self.made(entry).await
    }

    async fn made(&self, entry: &Entry) -> Result<View, InitError> {
        let mut made = entry.made.subscribe();
        // The sender is the entry's.
        match made.wait_for(|made| *made != Made::NotYet).await.as_deref() {
            Ok(Made::Failed(why)) => Err(InitError::NotRecorded(why.clone())),
            _ => Ok(View::of(entry, &self.shared.slots)),
        }
    }

    /// # Errors
    /// When there is none of that name, as far as the asker may see.
    pub async fn find(&self, asker: Asker, name: &Name) -> Result<Found, Refusal> {
        let unknown = || Refusal::Unknown { workflow_id: name.workflow_id.clone() };
        let found = self.shared.lock().find(asker, name)?;
        match found {
            Some((_, Known::Here(entry))) => {
                Ok(Found::Here(Workflow { shared: Arc::clone(&self.shared), entry }))
            }
            Some((key, Known::Past(_))) => {
                self.past_of(&key).await.map(|view| Found::Past(Box::new(view))).ok_or_else(unknown)
            }
            None => Err(unknown()),
        }
    }

    /// What the asker may see, oldest first; with `ended` those that have ended too.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn list(
        &self,
        asker: Asker,
        tenant: Option<&Tenant>,
        ended: bool,
    ) -> Result<Vec<View>, Refusal> {
        let wanted =
            |key: &Key| asker.sees(key.creator_uid) && tenant.is_none_or(|tenant| key.name.tenant == *tenant);
        let entries: Vec<_> = {
            let table = self.shared.lock();
            let here = table.known.iter().filter(|(key, _)| wanted(key));
            here.filter_map(|(_, known)| match known {
                Known::Here(entry) if entry.is_made() => Some(Arc::clone(entry)),
                _ => None,
            })
            .collect()
        };
        let mut views: Vec<_> = entries.iter().map(|entry| View::of(entry, &self.shared.slots)).collect();
        if ended {
            let records = self.shared.records.clone();
            let past = tokio::task::spawn_blocking(move || records.list()).await;
            let past = past.map_err(|error| Refusal::Unreadable(error.to_string()))?;
            let past = past.map_err(|error| Refusal::Unreadable(crate::error::with_causes(&error)))?;
            let past = past.into_iter().filter(is_of_the_api).map(View::past);
            let new = past.filter(|view| wanted(&view.key) && !self.shared.lock().is_here(&view.key));
            views.extend(new);
        } else {
            views.retain(|view| view.state != State::Ended);
        }
        views.sort_by_key(|view| view.created_at);
        Ok(views)
    }

    /// The log of a workflow of which the record is left.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn past_log(&self, id: &MachineId, from: u64) -> Result<crate::state::log::Follower, Refusal> {
        let (records, id) = (self.shared.records.clone(), id.clone());
        let log = tokio::task::spawn_blocking(move || records.log(&id, from)).await;
        let log = log.map_err(|error| Refusal::Unreadable(error.to_string()))?;
        log.map_err(|error| match &error {
            LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Refusal::LogGone,
            _ => Refusal::Unreadable(crate::error::with_causes(&error)),
        })
    }

    async fn past_of(&self, key: &Key) -> Option<View> {
        let known = self.shared.lock().known.get(key).cloned();
        let Some(Known::Past(id)) = known else { return None };
        let (records, wanted) = (self.shared.records.clone(), id.clone());
        let record = tokio::task::spawn_blocking(move || records.get(&wanted)).await.ok().flatten();
        // What a record says must be what it was found by.
        let view = record.map(View::past).filter(|view| view.key == *key);
        if view.is_none() {
            self.shared.lock().forget_past(key, &id);
        }
        view
    }

    /// Takes no more, and ends those that there are. Those that wait for a slot hear of it.
    pub fn drain(&self) {
        // What is given back from now on goes to nobody.
        self.shared.slots.resize(0);
        self.shared.draining.cancel();
    }

    /// Drains, and waits until all have ended. Returns how many had not by then; their tasks go on.
    pub async fn end_all(&self, bound: Duration) -> usize {
        self.drain();
        let mut living = self.living();
        if *living.borrow() > 0 {
            info!(workflows = *living.borrow(), "ending all workflows");
        }
        let _ = timeout(bound, living.wait_for(|living| *living == 0)).await;
        *self.shared.living.borrow()
    }
}

pub(super) enum Admitted {
    Known(Arc<Entry>),
    New(Arc<Entry>, Owner, Box<Plan>),
}

impl Shared {
    /// Locked for moments: nothing is awaited, and no file read, under it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before work is done for a request that would be refused.
    fn check_room(&self, key: &Key) -> Result<(), InitError> {
        self.room_in(&self.lock(), key.creator_uid)
    }

    fn room_in(&self, table: &Table, uid: u32) -> Result<(), InitError> {
        if table.living_of.get(&uid).copied().unwrap_or(0) >= self.bounds.per_uid {
            return Err(InitError::FullOfThisUser { max: self.bounds.per_uid });
        }
        if *self.living.borrow() >= self.bounds.all {
            return Err(InitError::Full { max: self.bounds.all });
        }
        Ok(())
    }

    fn admit(self: &Arc<Self>, request: &NewWorkflow, plan: Plan) -> Result<Admitted, InitError> {
        let limit = request.timeout.unwrap_or(self.settings().workflow_timeout);
        let machine_id = MachineId::random().map_err(|error| InitError::NotRecorded(error.to_string()))?;
        let mut table = self.lock();
        if let Some(Known::Here(entry)) = table.known.get(&request.key) {
            return Ok(Admitted::Known(Arc::clone(entry)));
        }
        // Under the lock, so that draining counts all that there are.
        if self.draining.is_cancelled() {
            return Err(InitError::Draining);
        }
        let uid = request.key.creator_uid;
        self.room_in(&table, uid)?;
        let steps = plan.steps.iter().map(|step| StepProgress {
            name: step.name.clone(),
            kind: step.kind.as_str().to_owned(),
            command: step.command.clone(),
            verdict: None,
        });
        let (orders, inbox) = mpsc::unbounded_channel();
        let entry = Arc::new(Entry {
            key: request.key.clone(),
            serial: table.next_serial,
            machine_id,
            digest: request.digest,
            name: plan.name.clone(),
            engine: plan.engine.as_str(),
            image: plan.image.clone().unwrap_or_default(),
            created_at: SystemTime::now(),
            deadline: Instant::now() + limit,
            deadline_at: SystemTime::now() + limit,
            progress: watch::Sender::new(Progress::new(steps.collect())),
            setup_events: watch::Sender::new(Vec::new()),
            made: watch::Sender::new(Made::NotYet),
            writer: Mutex::new(None),
            orders,
            cancel: CancellationToken::new(),
            destroy: CancellationToken::new(),
            waiters: Mutex::new(0),
            known_secrets: Mutex::default(),
        });
        table.next_serial += 1;
        *table.living_of.entry(uid).or_default() += 1;
        table.known.insert(request.key.clone(), Known::Here(Arc::clone(&entry)));
        self.living.send_modify(|living| *living += 1);
        let owner = Owner { shared: Arc::clone(self), entry: Arc::clone(&entry), inbox };
        Ok(Admitted::New(entry, owner, Box::new(plan)))
    }

    /// By its own task, as the last thing it does.
    pub(super) fn ended(&self, entry: &Arc<Entry>) {
        let mut table = self.lock();
        table.ended(entry);
        drop(table);
        self.living.send_modify(|living| *living -= 1);
    }
}

/// Runs that were started at a prompt lie in the same directory when root did; they have owners of their own.
fn is_of_the_api(record: &Record) -> bool {
    record.tenant != Tenant::local(record.creator_uid)
}

/// Whether a workflow of which the record is left could have been made by a request with this plan: the record does not
/// have the request itself.
fn has_plan(past: &View, plan: &Plan) -> bool {
    let same = past.steps.iter().zip(&plan.steps).all(|(past, step)| {
        (&past.name, &past.command, past.kind.as_str()) == (&step.name, &step.command, step.kind.as_str())
    });
    same && past.steps.len() == plan.steps.len()
        && past.name == plan.name
        && past.engine == plan.engine.as_str()
        && past.image == plan.image.as_deref().unwrap_or_default()
}

fn exists(request: &NewWorkflow) -> InitError {
    let name = &request.key.name;
    InitError::Exists { owner: name.tenant.owner.clone(), workflow_id: name.workflow_id.clone() }
}
