//! What is known of one machine, and the orders for its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::exec_ids::ExecIds;
use super::execs::{Execs, Fingerprint};
use super::inspect::SetupRecord;
use super::registry::{Asker, Creation, Lifetime};
use super::summary::{State, Summary};
use crate::runtime::{DestroyMode, Machine, MachineFacts, MachineId, MachineUsage, Verdict};

/// How one machine stands.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    SettingUp,
    Ready(Arc<dyn Machine>),
    Ending(Arc<dyn Machine>),
    /// It was destroyed, and is not gone; the text says what is known of that.
    Stuck(Arc<dyn Machine>, String),
    Ended(Arc<End>),
    /// The setup failed, and left nothing worth remembering.
    Forgotten,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    pub verdict: Verdict,
    /// `None` for one that was never ready.
    pub facts: Option<MachineFacts>,
    pub usage: Option<MachineUsage>,
    pub at: SystemTime,
    /// `Err` names what could not be freed.
    pub freed: Result<(), String>,
}

impl Stage {
    pub(super) fn state(&self) -> State {
        match self {
            Self::SettingUp => State::SettingUp,
            Self::Ready(_) => State::Ready,
            Self::Ending(_) | Self::Stuck(..) => State::Ending,
            Self::Ended(_) | Self::Forgotten => State::Ended,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state() == State::Ended
    }
}

/// One machine.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: MachineId,
    /// In the order of creation.
    pub serial: u64,
    pub workflow_id: String,
    pub creator_uid: u32,
    pub created_at: SystemTime,
    /// What was asked for, until the machine says what it is.
    pub asked: MachineFacts,
    /// Written by the machine's task alone, under the registry's lock.
    pub stage: watch::Sender<Stage>,
    pub orders: Orders,
    pub exec_ids: ExecIds,
    /// That callers hold.
    pub execs: Execs,
    pub lifetime: Lifetime,
    /// See [`Creation`].
    fingerprint: Option<Fingerprint>,
    pub setup: SetupRecord,
    running: AtomicU32,
}

/// What a machine's task is told. Orders are never taken back.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub end: CancellationToken,
    pub kill: CancellationToken,
}

impl Orders {
    pub(super) fn give(&self, mode: DestroyMode) {
        if mode == DestroyMode::Kill {
            self.kill.cancel();
        }
        self.end.cancel();
    }
}

/// Counts one exec while it lives.
#[derive(Debug)]
pub(super) struct RunningExec<'a>(&'a AtomicU32);

impl Drop for RunningExec<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entry {
    pub(super) fn new(creation: &Creation, serial: u64, asked: MachineFacts) -> Self {
        let Creation { request, creator_uid, lifetime, fingerprint } = creation;
        let (creator_uid, lifetime, fingerprint) = (*creator_uid, *lifetime, *fingerprint);
        let (id, workflow_id) = (request.id.clone(), request.workflow_id.clone());
        let (created_at, stage) = (SystemTime::now(), watch::Sender::new(Stage::SettingUp));
        let (orders, running) = (Orders::default(), AtomicU32::new(0));
        let (exec_ids, setup) = (ExecIds::default(), SetupRecord::default());
        let execs = Execs::default();
        Self {
            id,
            serial,
            workflow_id,
            creator_uid,
            created_at,
            asked,
            stage,
            orders,
            exec_ids,
            lifetime,
            fingerprint,
            setup,
            execs,
            running,
        }
    }

    /// Whether this is what is asked for, by who asked for it.
    pub(super) fn is_of(&self, asker: Asker) -> bool {
        let Asker { uid, fingerprint } = asker;
        fingerprint.is_some() && (self.fingerprint, self.creator_uid) == (fingerprint, uid)
    }

    /// Whether it is, or has been.
    pub(super) fn was_ready(&self) -> bool {
        match &*self.stage.borrow() {
            Stage::SettingUp | Stage::Forgotten => false,
            Stage::Ready(_) | Stage::Ending(_) | Stage::Stuck(..) => true,
            Stage::Ended(end) => end.facts.is_some(),
        }
    }

    pub(super) fn running_exec(&self) -> RunningExec<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        RunningExec(&self.running)
    }

    /// The stage that it has reached, to be worked with without holding it up.
    pub(super) fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Waits until it is over; `None` if there is nothing to remember.
    pub(super) async fn end(&self) -> Option<Arc<End>> {
        let mut stage = self.stage.subscribe();
        // The sender is ours, so this can't fail.
        match stage.wait_for(Stage::is_over).await.as_deref() {
            Ok(Stage::Ended(end)) => Some(Arc::clone(end)),
            _ => None,
        }
    }

    /// Waits as above, and no longer than until the machine is seen not to end: then the text says why.
    pub(super) async fn end_or_stuck(&self) -> Result<Option<Arc<End>>, String> {
        let mut stage = self.stage.subscribe();
        let settled = |stage: &Stage| stage.is_over() || matches!(stage, Stage::Stuck(..));
        match stage.wait_for(settled).await.as_deref() {
            Ok(Stage::Ended(end)) => Ok(Some(Arc::clone(end))),
            Ok(Stage::Stuck(_, what)) => Err(what.clone()),
            _ => Ok(None),
        }
    }

    /// The machine, from when it is ready until it has ended.
    pub(super) fn machine(&self) -> Option<Arc<dyn Machine>> {
        match self.stage() {
            Stage::Ready(machine) | Stage::Ending(machine) | Stage::Stuck(machine, _) => Some(machine),
            Stage::SettingUp | Stage::Ended(_) | Stage::Forgotten => None,
        }
    }

    pub(super) fn running_execs(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Reads the machine's counters where it lives.
    pub(super) fn summary(&self) -> Summary {
        let stage = self.stage();
        let (facts, usage, end) = match &stage {
            Stage::Ready(machine) | Stage::Ending(machine) | Stage::Stuck(machine, _) => {
                (machine.facts(), machine.usage(), None)
            }
            Stage::Ended(end) => {
                (end.facts.clone().unwrap_or_else(|| self.asked.clone()), end.usage.clone(), Some(end))
            }
            Stage::SettingUp | Stage::Forgotten => (self.asked.clone(), None, None),
        };
        Summary {
            id: self.id.clone(),
            state: stage.state(),
            image: self.asked.image.clone(),
            workflow_id: self.workflow_id.clone(),
            creator_uid: self.creator_uid,
            created_at: self.created_at,
            facts,
            execs: self.running.load(Ordering::Relaxed),
            usage,
            verdict: end.map(|end| end.verdict.clone()),
            ended_at: end.map(|end| end.at),
        }
    }
}
