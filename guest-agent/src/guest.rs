//! What all sessions with the host work with: they come and go, and programs outlive them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::Cgroups;
use crate::connect::Endpoint;
use crate::exec::Execs;
use crate::reaper::Reaper;
use crate::resume::MachineKey;
use crate::ring::Buffers;
use crate::session::Answers;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct Guest {
    pub reaper: Reaper,
    pub cgroups: Cgroups,
    /// The host.
    pub host: Endpoint,
    /// Of `creel.exec.2`.
    pub execs: Execs,
    pub buffers: Buffers,
    pub answers: Answers,
    key: Arc<Mutex<Option<MachineKey>>>,
}

impl Guest {
    pub fn new(reaper: Reaper, host: Endpoint) -> Self {
        Self {
            reaper,
            cgroups: Cgroups::find(),
            host,
            execs: Execs::default(),
            buffers: Buffers::default(),
            answers: Answers::default(),
            key: Arc::default(),
        }
    }

    /// A host has greeted the guest as if for the first time: nobody will ask for what was before.
    pub fn begin_anew(&self, key: Option<MachineKey>) {
        self.execs.abandon_all();
        self.answers.forget_all();
        *self.key() = key;
    }

    /// Whether a host that loses its connection may come back.
    pub fn can_resume(&self) -> bool {
        self.key().is_some()
    }

    /// The proof that this is whom the host has greeted first; `None` if it gave no key.
    pub fn prove(&self, nonce: &[u8], boot_id: &str) -> Option<Vec<u8>> {
        self.key().as_ref().map(|key| key.prove(nonce, boot_id))
    }

    /// Execs wait for the host to come back, if it can.
    pub fn connection_lost(&self) {
        if self.can_resume() {
            self.execs.detach_all();
        } else {
            self.execs.abandon_all();
        }
    }

    fn key(&self) -> MutexGuard<'_, Option<MachineKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
