//! Workflows by their keys: those that are known whole, and those of which the record is left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::entry::Entry;
use super::error::Refusal;
use super::key::{Asker, Key, Name};
use crate::runtime::MachineId;

/// Workflows that are remembered whole after their end; of older ones their records tell.
const ENDED_KEPT: usize = 64;

/// Keys of ended workflows that lead to their records, oldest forgotten first: 10 MiB at the most.
const PAST_KEPT: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub known: BTreeMap<Key, Known>,
    /// Ended ones that are known whole, oldest end first.
    ended: VecDeque<Key>,
    /// Those of which the record is left, oldest first.
    past: VecDeque<Key>,
    /// How many have not ended, of each user.
    pub living_of: HashMap<u32, usize>,
    pub next_serial: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Known {
    Here(Arc<Entry>),
    Past(MachineId),
}

impl Table {
    /// It has ended: it is remembered whole for a while, unless it never began.
    pub(super) fn ended(&mut self, entry: &Entry) {
        if let Some(own) = self.living_of.get_mut(&entry.key.creator_uid) {
            *own -= 1;
            if *own == 0 {
                self.living_of.remove(&entry.key.creator_uid);
            }
        }
        if !entry.is_made() {
            self.known.remove(&entry.key);
            return;
        }
        self.ended.push_back(entry.key.clone());
        if self.ended.len() > ENDED_KEPT
            && let Some(oldest) = self.ended.pop_front()
            && let Some(Known::Here(entry)) = self.known.get(&oldest)
        {
            let id = entry.machine_id.clone();
            self.remember_past(oldest, id);
        }
    }

    /// The asker's own first; of others' there must be one only.
    pub(super) fn find(&self, asker: Asker, name: &Name) -> Result<Option<(Key, Known)>, Refusal> {
        let of_name = self.known.range(Key::range(name));
        let made = of_name.filter(|(_, known)| match known {
            Known::Here(entry) => entry.is_made(),
            Known::Past(_) => true,
        });
        let mut seen: Vec<_> = made.filter(|(key, _)| asker.sees(key.creator_uid)).collect();
        if let Some(own) = seen.iter().position(|(key, _)| key.creator_uid == asker.uid) {
            seen = vec![seen.swap_remove(own)];
        }
        match seen[..] {
            [] => Ok(None),
            [(key, known)] => Ok(Some((key.clone(), known.clone()))),
            _ => Err(Refusal::Ambiguous { workflow_id: name.workflow_id.clone(), count: seen.len() }),
        }
    }

    pub(super) fn is_here(&self, key: &Key) -> bool {
        matches!(self.known.get(key), Some(Known::Here(_)))
    }

    pub(super) fn remember_past(&mut self, key: Key, id: MachineId) {
        self.known.insert(key.clone(), Known::Past(id));
        self.past.push_back(key);
        if self.past.len() > PAST_KEPT
            && let Some(oldest) = self.past.pop_front()
            && matches!(self.known.get(&oldest), Some(Known::Past(_)))
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn forget_past(&mut self, key: &Key, id: &MachineId) {
        if matches!(self.known.get(key), Some(Known::Past(known)) if known == id) {
            self.known.remove(key);
        }
    }
}
