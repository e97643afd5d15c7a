//! The execs that ended lately: what is said of them is a lie, and the guest may not have heard that it can forget them.

use std::collections::{HashSet, VecDeque};

/// How many are remembered. Later lies about older ones are taken for talk of ids that never were.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Past {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Past {
    pub(super) fn add(&mut self, id: String) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Another exec takes the id.
    pub(super) fn remove(&mut self, id: &str) {
        if self.ids.remove(id) {
            self.order.retain(|past| past != id);
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.order.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_a_name_can_be_taken_again() {
        let mut past = Past::default();
        for number in 0..=REMEMBERED {
            past.add(number.to_string());
            past.add(number.to_string());
        }
        assert!(!past.has("0") && past.has("1") && past.ids().count() == REMEMBERED);
        past.remove("1");
        assert!(!past.has("1") && past.ids().next().unwrap() == "2");
    }
}
