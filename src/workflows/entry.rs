//! What is known of one workflow, and the orders for its task.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::key::Key;
use super::progress::Progress;
use super::request::Digest;
use super::slots::{Place, Slots};
use crate::engine::Secret;
use crate::runtime::{MachineId, SetupEvent};
use crate::state::records::RecordWriter;

/// Progress of a setup that is kept for those who attach late. A setup has a handful.
const MAX_SETUP_EVENTS: usize = 64;

/// Of all secrets of one workflow. What masks them takes four hundred times that: each is
/// looked for in base64 and its cuts, too.
pub(super) const MAX_SECRETS_BYTES: usize = 128 << 10;

/// What of secrets is known outside of the session: that they are the same.
#[derive(Debug, Default)]
pub(super) struct KnownSecrets {
    digests: HashSet<[u8; 32]>,
    bytes: usize,
}

impl KnownSecrets {
    /// Whether there is room for these too. The same again take none.
    pub(super) fn add(&mut self, secrets: &[(String, Secret)]) -> bool {
        let mut new = HashSet::new();
        let mut bytes = self.bytes;
        for (name, secret) in secrets {
            let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(secret.expose());
            let digest: [u8; 32] = digest.finalize().into();
            if !self.digests.contains(&digest) && new.insert(digest) {
                bytes += name.len() + secret.expose().len() + SECRET_COST_BYTES;
            }
        }
        if bytes > MAX_SECRETS_BYTES {
            return false;
        }
        self.digests.extend(new);
        self.bytes = bytes;
        true
    }
}

/// What one takes beside its text.
const SECRET_COST_BYTES: usize = 64;

/// Whether its record is begun. Nobody but its maker finds a workflow before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    NotYet,
    Yes,
    Failed(String),
}

/// A piece of work that somebody has claimed.
#[derive(Debug)]
pub(super) enum Order {
    Setup,
    /// The claimed step, and what is to be known from it on.
    Step(Vec<(String, Secret)>),
}

/// One workflow.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    /// In the order of creation; its name in the queue for slots.
    pub serial: u64,
    pub machine_id: MachineId,
    pub digest: Digest,
    pub name: String,
    pub engine: &'static str,
    pub image: String,
    pub created_at: SystemTime,
    pub deadline: Instant,
    pub deadline_at: SystemTime,
    pub progress: watch::Sender<Progress>,
    pub setup_events: watch::Sender<Vec<SetupEvent>>,
    pub made: watch::Sender<Made>,
    /// From when it is made to its end. Its record and its log are locked as long.
    pub writer: Mutex<Option<Arc<RecordWriter>>>,
    /// At most one order is under way: what is claimed is claimed once.
    pub orders: mpsc::UnboundedSender<Order>,
    pub cancel: CancellationToken,
    pub destroy: CancellationToken,
    /// Calls that wait for its slot: the last one to go gives its place up.
    pub waiters: Mutex<usize>,
    pub known_secrets: Mutex<KnownSecrets>,
}

impl Entry {
    pub(super) fn is_made(&self) -> bool {
        *self.made.borrow() == Made::Yes
    }

    /// Changes the progress, and says so to those who watch.
    pub(super) fn advance<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let mut result = None;
        self.progress.send_modify(|progress| result = Some(change(progress)));
        result.expect("the closure is called once")
    }

    /// Keeps the first ones: what comes after so many is no progress.
    pub(super) fn say(&self, event: SetupEvent) {
        self.setup_events.send_if_modified(|events| {
            let room = events.len() < MAX_SETUP_EVENTS;
            if room {
                events.push(event);
            }
            room
        });
    }

    /// Asks for a slot as one of those who wait.
    pub(super) fn ask_for_slot(self: &Arc<Self>, slots: &Slots, may_wait: bool) -> Option<Place> {
        slots.ask(self.serial, may_wait, || !self.progress.borrow().is_over())
    }

    pub(super) fn writer(&self) -> std::sync::MutexGuard<'_, Option<Arc<RecordWriter>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_secrets(&self) -> std::sync::MutexGuard<'_, KnownSecrets> {
        self.known_secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiters(&self) -> std::sync::MutexGuard<'_, usize> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
