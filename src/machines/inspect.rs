//! All that is known of one machine, and what machines take of their host now.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::registry::Lifetime;
use super::summary::{State, Summary};
use crate::runtime::{MachineDetails, MachineId, MachineLoad, Phase, SetupEvent};

/// Of notices of one setup; a runtime sends a handful.
const NOTICES_KEPT: usize = 32;

/// A phase of a machine's setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseRecord {
    pub phase: Phase,
    pub started_at: SystemTime,
    /// `None`: it goes on, or the setup ended in it.
    pub took: Option<Duration>,
}

/// All that is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub summary: Summary,
    pub lifetime: Lifetime,
    pub setup: Vec<PhaseRecord>,
    /// What its setup had to say.
    pub notices: Vec<String>,
    /// Empty once it has ended.
    pub details: MachineDetails,
    /// The end of the guest's console, if it was asked for and is to be had. The guest wrote it.
    pub console_tail: Option<Vec<u8>>,
}

/// What a machine takes of its host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineStats {
    pub id: MachineId,
    pub state: State,
    pub execs: u32,
    /// The limit of its cgroup.
    pub memory_limit_mib: Option<u64>,
    /// `None` while it is being set up, once it has ended, and where nothing counts it.
    pub load: Option<MachineLoad>,
}

/// What a setup has said so far.
#[derive(Debug, Default)]
pub(super) struct SetupRecord(Mutex<(Vec<PhaseRecord>, Vec<String>)>);

impl SetupRecord {
    pub(super) fn note(&self, event: &SetupEvent) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (phases, notices) = &mut *record;
        match event {
            // A setup that begins again (a guest that is started anew) repeats phases; each is there once.
            SetupEvent::Started(phase) => {
                phases.retain(|record| record.phase != *phase);
                phases.push(PhaseRecord { phase: *phase, started_at: SystemTime::now(), took: None });
            }
            SetupEvent::Finished(phase, took) => {
                if let Some(record) = phases.iter_mut().find(|record| record.phase == *phase) {
                    record.took = Some(*took);
                }
            }
            SetupEvent::Notice(text) if notices.len() < NOTICES_KEPT => notices.push(text.clone()),
            SetupEvent::Notice(_) => {}
        }
    }

    pub(super) fn so_far(&self) -> (Vec<PhaseRecord>, Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
