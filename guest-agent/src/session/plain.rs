//! The execs of a host without `creel.exec.2`: they belong to the session, and the next one knows nothing of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exec::{Exec, Order};

/// Ids of finished execs that are remembered.
const REMEMBERED_IDS: usize = 1024;

/// All that run, and the ids of the last that have ended. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct PlainExecs(Arc<Mutex<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    running: BTreeMap<String, Arc<Exec>>,
    finished: VecDeque<String>,
}

impl PlainExecs {
    /// Whether `id` was not used in this session, as far as that is remembered.
    pub fn is_new(&self, id: &str) -> bool {
        let ids = self.ids();
        !ids.running.contains_key(id) && !ids.finished.iter().any(|finished| finished == id)
    }

    pub fn insert(&self, exec: Arc<Exec>) {
        self.ids().running.insert(exec.id().to_owned(), exec);
    }

    /// To one that runs; of others nothing is heard, as the contract has it.
    pub fn order(&self, id: &str, order: Order) {
        if let Some(exec) = self.ids().running.get(id) {
            exec.order(order);
        }
    }

    pub fn finish(&self, id: &str) {
        let mut ids = self.ids();
        ids.running.remove(id);
        if ids.finished.len() == REMEMBERED_IDS {
            ids.finished.pop_front();
        }
        ids.finished.push_back(id.to_owned());
    }

    /// The session is over: they run on, and their output is dropped.
    pub fn abandon_all(&self) {
        for exec in self.ids().running.values() {
            exec.abandon();
        }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_finished_is_bounded() {
        let ids = PlainExecs::default();
        assert!(ids.is_new("0"));
        for number in 0..2 * REMEMBERED_IDS {
            ids.finish(&number.to_string());
        }
        assert_eq!(ids.ids().finished.len(), REMEMBERED_IDS);
        assert!(!ids.is_new(&(2 * REMEMBERED_IDS - 1).to_string()));
        assert!(ids.is_new("0"));
    }
}
