//! The held execs of one machine, by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::owner::Attach;

/// How many execs of a machine wait for a caller at most; of more, the one that has waited longest is given up, those
/// first whose verdict was handed out. Calls are counted elsewhere, and these have none.
pub const MAX_WAITING_EXECS: usize = 32;

/// Shared by a machine and the owners of its execs.
#[derive(Debug, Clone, Default)]
pub(in crate::machines) struct Execs(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    held: HashMap<String, mpsc::Sender<Attach>>,
    /// Who has waited longest comes first.
    waiting: Vec<Waits>,
    next_serial: u64,
    /// The machine has ended.
    released: CancellationToken,
}

#[derive(Debug)]
struct Waits {
    serial: u64,
    told: bool,
    given_up: CancellationToken,
}

/// An exec's place among those that are held; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    execs: Execs,
    exec_id: String,
}

/// An exec's place among those that wait; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    execs: Execs,
    serial: u64,
    /// It is given up.
    pub given_up: CancellationToken,
}

impl Execs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to an exec's owner.
    pub(super) fn find(&self, exec_id: &str) -> Option<mpsc::Sender<Attach>> {
        self.table().held.get(exec_id).cloned()
    }

    pub(super) fn hold(&self, exec_id: String, owner: mpsc::Sender<Attach>) -> Place {
        self.table().held.insert(exec_id.clone(), owner);
        Place { execs: self.clone(), exec_id }
    }

    /// Somebody may attach, until it is given up: one who was not `told` the verdict has more need of that.
    pub(super) fn wait(&self, told: bool) -> Waiting {
        let mut table = self.table();
        let (serial, given_up) = (table.next_serial, table.released.child_token());
        table.next_serial += 1;
        if table.waiting.len() == MAX_WAITING_EXECS {
            match table.waiting.iter().position(|waits| waits.told) {
                Some(dispensable) => table.waiting.remove(dispensable).given_up.cancel(),
                // Nobody who waits has heard what the newcomer has.
                None if told => given_up.cancel(),
                None => table.waiting.remove(0).given_up.cancel(),
            }
        }
        table.waiting.push(Waits { serial, told, given_up: given_up.clone() });
        Waiting { execs: self.clone(), serial, given_up }
    }

    /// The machine has ended: nobody is waited for any more.
    pub(in crate::machines) fn release(&self) {
        self.table().released.cancel();
    }

    #[cfg(test)]
    pub(in crate::machines) fn held(&self) -> usize {
        self.table().held.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.execs.table().held.remove(&self.exec_id);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.execs.table().waiting.retain(|waits| waits.serial != self.serial);
    }
}
