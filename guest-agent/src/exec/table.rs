//! The execs of `creel.exec.2` by their ids: from their start until they are forgotten, across connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::run::Order;
use super::state::Exec;

/// How many execs may be known at once, those among them that have ended and were not forgotten.
const MOST_EXECS: usize = 1024;

/// Why an id can't be begun or attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "the guest knows {MOST_EXECS} execs; one that has ended must be forgotten before another is started"
    )]
    Full,
    #[error("it was forgotten and still runs")]
    Forgotten,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Execs(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    exec: Arc<Exec>,
    /// As soon as it has ended it is not known any more.
    forgotten: bool,
}

impl Execs {
    /// One that was not forgotten.
    pub fn find(&self, id: &str) -> Option<Arc<Exec>> {
        self.execs().get(id).filter(|entry| !entry.forgotten).map(|entry| Arc::clone(&entry.exec))
    }

    /// The one to attach to; `None` if another may be begun.
    ///
    /// # Errors
    /// When neither is possible.
    pub fn known(&self, id: &str) -> Result<Option<Arc<Exec>>, Refused> {
        let execs = self.execs();
        match execs.get(id) {
            Some(Entry { forgotten: true, .. }) => Err(Refused::Forgotten),
            Some(Entry { exec, .. }) => Ok(Some(Arc::clone(exec))),
            None if execs.len() >= MOST_EXECS => Err(Refused::Full),
            None => Ok(None),
        }
    }

    /// To one that runs, forgotten or not.
    pub fn order(&self, id: &str, order: Order) {
        if let Some(entry) = self.execs().get(id) {
            entry.exec.order(order);
        }
    }

    pub fn insert(&self, exec: Arc<Exec>) {
        self.execs().insert(exec.id().to_owned(), Entry { exec, forgotten: false });
    }

    /// One that runs keeps its id until it ends, and nothing is heard of it.
    pub fn forget(&self, id: &str) {
        let mut execs = self.execs();
        let Some(entry) = execs.get_mut(id) else { return };
        entry.exec.abandon();
        entry.forgotten = true;
        if entry.exec.has_ended() {
            execs.remove(id);
        }
    }

    /// It has ended: if it was forgotten, it is gone.
    pub fn ended(&self, exec: &Arc<Exec>) {
        let mut execs = self.execs();
        if execs.get(exec.id()).is_some_and(|entry| entry.forgotten && Arc::ptr_eq(&entry.exec, exec)) {
            execs.remove(exec.id());
        }
    }

    /// The connection is lost, and another may come.
    pub fn detach_all(&self) {
        for entry in self.execs().values().filter(|entry| !entry.forgotten) {
            entry.exec.detach();
        }
    }

    /// Who knew them is gone: they run on, and nothing is heard of them.
    pub fn abandon_all(&self) {
        let execs = std::mem::take(&mut *self.execs());
        for entry in execs.into_values() {
            entry.exec.abandon();
        }
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
