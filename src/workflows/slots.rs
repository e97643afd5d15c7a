//! Slots: how many workflows run at once, and in which order the others come.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::watch;

/// Where a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has a slot.
    Held,
    /// So many come before it.
    Waiting { ahead: usize },
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    pub held: usize,
    pub waiting: usize,
    pub slots: usize,
}

/// First come, first served. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    slots: usize,
    held: BTreeSet<u64>,
    waiting: VecDeque<u64>,
}

impl Queue {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, held: BTreeSet::new(), waiting: VecDeque::new() }
    }

    pub(super) fn place(&self, id: u64) -> Option<Place> {
        if self.held.contains(&id) {
            return Some(Place::Held);
        }
        self.waiting.iter().position(|waiting| *waiting == id).map(|ahead| Place::Waiting { ahead })
    }

    /// Takes a slot or, if it `may_wait`, a place in the queue; `None` when it would have to wait and may not. One that
    /// has either keeps it.
    pub(super) fn ask(&mut self, id: u64, may_wait: bool) -> Option<Place> {
        if self.place(id).is_none() {
            self.waiting.push_back(id);
            self.grant();
            if !may_wait && self.place(id) != Some(Place::Held) {
                self.withdraw(id);
                return None;
            }
        }
        match self.place(id) {
            Some(Place::Waiting { .. }) if !may_wait => None,
            place => place,
        }
    }

    /// Gives up a place in the queue, but not a slot.
    pub(super) fn withdraw(&mut self, id: u64) {
        self.waiting.retain(|waiting| *waiting != id);
    }

    /// Gives up both.
    pub(super) fn leave(&mut self, id: u64) {
        self.withdraw(id);
        self.held.remove(&id);
        self.grant();
    }

    /// Fewer take nothing from those who have one.
    pub(super) fn resize(&mut self, slots: usize) {
        self.slots = slots;
        self.grant();
    }

    pub(super) fn counts(&self) -> SlotCounts {
        SlotCounts { held: self.held.len(), waiting: self.waiting.len(), slots: self.slots }
    }

    fn grant(&mut self) {
        while self.held.len() < self.slots
            && let Some(next) = self.waiting.pop_front()
        {
            self.held.insert(next);
        }
    }
}

/// The queue, watched by those who wait in it.
#[derive(Debug)]
pub(super) struct Slots(watch::Sender<Queue>);

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        Self(watch::Sender::new(Queue::new(slots)))
    }

    pub(super) fn place(&self, id: u64) -> Option<Place> {
        self.0.borrow().place(id)
    }

    /// See [`Queue::ask`]; `None` also when it is not `allowed`, which is asked under the queue's lock: one that has
    /// stopped before it left can't come back after.
    pub(super) fn ask(&self, id: u64, may_wait: bool, allowed: impl FnOnce() -> bool) -> Option<Place> {
        self.change(|queue| if allowed() { queue.ask(id, may_wait) } else { None })
    }

    pub(super) fn withdraw(&self, id: u64) {
        self.change(|queue| queue.withdraw(id));
    }

    pub(super) fn leave(&self, id: u64) {
        self.change(|queue| queue.leave(id));
    }

    pub(super) fn resize(&self, slots: usize) {
        self.change(|queue| queue.resize(slots));
    }

    pub(super) fn counts(&self) -> SlotCounts {
        self.0.borrow().counts()
    }

    /// Changes with every place in it.
    pub(super) fn watch(&self) -> watch::Receiver<Queue> {
        self.0.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut result = None;
        self.0.send_modify(|queue| result = Some(change(queue)));
        result.expect("the closure is called once")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Ask(u64, bool),
        Withdraw(u64),
        Leave(u64),
        Resize(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let id = 0_u64..6;
        prop_oneof![
            4 => (id.clone(), any::<bool>()).prop_map(|(id, may_wait)| Act::Ask(id, may_wait)),
            1 => id.clone().prop_map(Act::Withdraw),
            2 => id.prop_map(Act::Leave),
            1 => (0_usize..4).prop_map(Act::Resize),
        ]
    }

    proptest! {
        #[test]
        fn nobody_overtakes_waits_needlessly_or_loses_a_slot(acts in prop::collection::vec(act(), 0..60)) {
            let mut queue = Queue::new(2);
            for act in acts {
                let before = queue.clone();
                match act {
                    Act::Ask(id, may_wait) => {
                        let place = queue.ask(id, may_wait);
                        prop_assert_eq!(place.is_none(), !may_wait && queue.place(id) != Some(Place::Held));
                        if before.place(id).is_some() {
                            prop_assert_eq!(&before, &queue, "asking again changes nothing");
                        }
                    }
                    Act::Withdraw(id) => {
                        queue.withdraw(id);
                        prop_assert_eq!(&before.held, &queue.held);
                    }
                    Act::Leave(id) => {
                        queue.leave(id);
                        prop_assert_eq!(queue.place(id), None);
                    }
                    Act::Resize(slots) => {
                        queue.resize(slots);
                        prop_assert!(before.held.is_subset(&queue.held), "nobody loses a slot");
                    }
                }
                let counts = queue.counts();
                prop_assert!(counts.waiting == 0 || counts.held >= counts.slots, "a slot is free and somebody waits");
                let all: HashSet<_> = queue.held.iter().chain(&queue.waiting).collect();
                prop_assert_eq!(all.len(), counts.held + counts.waiting, "nobody is there twice");
                // Those who waited and still wait do so in their order; who got a slot came before them.
                let still: Vec<_> = before.waiting.iter().filter(|id| queue.waiting.contains(id)).collect();
                let now: Vec<_> = queue.waiting.iter().filter(|id| before.waiting.contains(id)).collect();
                prop_assert_eq!(&still, &now);
                let last_granted = before.waiting.iter().rposition(|id| queue.held.contains(id));
                let first_waiting = before.waiting.iter().position(|id| queue.waiting.contains(id));
                if let (Some(granted), Some(waiting)) = (last_granted, first_waiting) {
                    prop_assert!(granted < waiting, "somebody overtook");
                }
            }
        }
    }
}
