//! Looking at machines: nothing here changes one.

use std::sync::Arc;

use super::console::ConsoleReader;
use super::entry::{Entry, Stage};
use super::error::ConsoleError;
use super::events::{EventReader, UnknownSequence};
use super::inspect::{Inspection, MachineStats};
use super::registry::Machines;
use crate::runtime::{Machine, MachineId};

impl Machines {
    /// All that is known of a machine, living or remembered, with the last `console_bytes` of its console if there are
    /// any. Reads a few files.
    pub fn inspect(&self, id: &MachineId, console_bytes: Option<usize>) -> Option<Inspection> {
        let entry = self.registry.find(id)?;
        let summary = entry.summary();
        let machine = entry.machine();
        let details = machine.as_ref().map(|machine| machine.details()).unwrap_or_default();
        let console_tail = console_bytes.and_then(|bytes| {
            let mut tail = match &machine {
                Some(machine) => machine.console().and_then(|console| console.read()).ok()?.last(bytes),
                None => summary.verdict.as_ref()?.console_tail.clone()?,
            };
            tail.drain(..tail.len().saturating_sub(bytes));
            Some(tail)
        });
        let (setup, notices) = entry.setup.so_far();
        Some(Inspection { summary, lifetime: entry.lifetime, setup, notices, details, console_tail })
    }

    /// What these machines take of the host now; of those that are not known nothing is said. Reads a few files a
    /// machine.
    pub fn stats_of(&self, ids: &[MachineId]) -> Vec<MachineStats> {
        ids.iter().filter_map(|id| self.registry.find(id)).map(|entry| stats(&entry)).collect()
    }

    /// What all that live take of the host now, oldest first. Reads a few files a machine.
    pub fn stats(&self) -> Vec<MachineStats> {
        self.registry.entries(false).iter().map(|entry| stats(entry)).collect()
    }

    /// Whether there is such a machine, living or remembered.
    pub fn knows(&self, id: &MachineId) -> bool {
        self.registry.find(id).is_some()
    }

    /// Opens a machine's console from its first kept byte: what there is, or with `follow` until its end. Of a machine
    /// that has ended it is the end that is remembered. Following waits for a machine that is being set up.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub async fn console(&self, id: &MachineId, follow: bool) -> Result<ConsoleReader, ConsoleError> {
        let entry = self.registry.find(id).ok_or_else(|| ConsoleError::Unknown(id.clone()))?;
        if follow {
            let mut stage = entry.stage.subscribe();
            // The sender is the entry's, so this can't fail.
            let _ = stage.wait_for(|stage| !matches!(stage, Stage::SettingUp)).await.map(drop);
        }
        match entry.stage() {
            Stage::SettingUp => Err(ConsoleError::SettingUp(id.clone())),
            Stage::Ready(machine) | Stage::Ending(machine) | Stage::Stuck(machine, _) => {
                let opened = open(machine.as_ref(), &entry, follow);
                opened.map_err(|source| ConsoleError::Unreadable { id: id.clone(), source })
            }
            Stage::Ended(end) => Ok(ConsoleReader::remembered(end.verdict.console_tail.clone())),
            Stage::Forgotten => Err(ConsoleError::Unknown(id.clone())),
        }
    }

    /// What happens to machines, from event number `since` on, or from the oldest that is kept.
    ///
    /// # Errors
    /// When no event has had that number.
    pub fn events(&self, since: Option<u64>) -> Result<EventReader, UnknownSequence> {
        EventReader::new(Arc::clone(&self.registry.events), since)
    }
}

fn open(machine: &dyn Machine, entry: &Arc<Entry>, follow: bool) -> std::io::Result<ConsoleReader> {
    let end = follow.then(|| Arc::clone(entry));
    machine.console().map(|console| ConsoleReader::living(console, end))
}

fn stats(entry: &Entry) -> MachineStats {
    let machine = entry.machine();
    MachineStats {
        id: entry.id.clone(),
        state: entry.stage().state(),
        execs: entry.running_execs(),
        memory_limit_mib: machine.as_ref().and_then(|machine| machine.facts().memory_limit_mib),
        load: machine.and_then(|machine| machine.load()),
    }
}
