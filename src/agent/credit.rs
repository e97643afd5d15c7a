//! How much a machine's execs may have under way to their host, all together. Pure.
//!
//! Whoever gives a window must be able to hold that many bytes until a reader takes them, and that reader may have
//! stopped. So every stream that could be is sure of a small window, and the rest of the pool is shared by those that
//! are: each takes a fair share, and never so much of what is free that nothing is left for who comes later, and gives back
//! what is above that as its bytes are acknowledged.

use crate::runtime::STREAM_WINDOW_BYTES;

/// How many execs may run in a machine at once.
pub const MAX_EXECS: usize = 128;

/// And how many that have no credit, in a machine whose agent knows none: each may hold two whole windows, and one that is
/// not read stops the others, so that many are of no use.
pub const MAX_PLAIN_EXECS: usize = 8;

/// What one kind of stream may cost a machine's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// All windows together, in bytes.
    pub total: u64,
    /// What each stream is sure of.
    pub least: u64,
    /// What no window exceeds.
    pub most: u64,
    /// How many streams there can be.
    pub streams: u64,
}

/// Output: two streams an exec.
pub const OUTPUT: Budget =
    Budget { total: 4 << 20, least: 8 << 10, most: STREAM_WINDOW_BYTES, streams: 2 * MAX_EXECS as u64 };

/// Input: what waits for a program, in copies that are kept until it has read them.
pub const INPUT: Budget =
    Budget { total: 2 << 20, least: 4 << 10, most: STREAM_WINDOW_BYTES, streams: MAX_EXECS as u64 };

/// As many fair shares are kept free for streams that come later.
const LATER: u64 = 3;

/// What is left of a budget.
#[derive(Debug)]
pub struct Pool {
    budget: Budget,
    /// Above what every stream is sure of.
    free: u64,
    places: u64,
}

/// One stream's part of a pool. It has to be given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    extra: u64,
    least: u64,
}

impl Window {
    pub fn bytes(&self) -> u64 {
        self.least + self.extra
    }
}

impl Pool {
    pub fn new(budget: Budget) -> Self {
        let pool = Self { budget, free: 0, places: budget.streams };
        Self { free: pool.shared(), ..pool }
    }

    /// What there is above what every stream is sure of.
    fn shared(&self) -> u64 {
        self.budget.total.saturating_sub(self.budget.least * self.budget.streams)
    }

    /// A window for one more stream; `None` when there are as many as there can be.
    pub fn take(&mut self) -> Option<Window> {
        self.places = self.places.checked_sub(1)?;
        let mut window = Window { extra: 0, least: self.budget.least };
        self.fit(&mut window, 0);
        Some(window)
    }

    /// Makes a window as large as is fair now, and no smaller than what its stream may have under way already.
    pub fn fit(&mut self, window: &mut Window, outstanding: u64) {
        let all = self.free + window.extra;
        let most = all.min(self.budget.most - self.budget.least);
        let used = self.budget.streams - self.places;
        let fair = self.shared() / (used + LATER);
        window.extra = fair.min(all / 4).max(outstanding.saturating_sub(window.least)).min(most);
        self.free = all - window.extra;
    }

    /// Takes a window back.
    pub fn give_back(&mut self, window: Window) {
        self.free += window.extra;
        self.places += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Take,
        GiveBack(proptest::sample::Index),
        /// With this share of its window under way, in percent.
        Fit(proptest::sample::Index, u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let index = any::<proptest::sample::Index>;
        let act = prop_oneof![
            4 => Just(Act::Take),
            1 => index().prop_map(Act::GiveBack),
            3 => (index(), 0..=100u64).prop_map(|(index, percent)| Act::Fit(index, percent)),
        ];
        proptest::collection::vec(act, 0..600)
    }

    proptest! {
        #[test]
        fn windows_stay_within_their_bounds_and_all_comes_back(acts in acts(), input in any::<bool>()) {
            let budget = if input { INPUT } else { OUTPUT };
            let mut pool = Pool::new(budget);
            let mut windows: Vec<Window> = Vec::new();
            for act in acts {
                match act {
                    Act::Take => match pool.take() {
                        Some(window) => windows.push(window),
                        None => prop_assert_eq!(windows.len() as u64, budget.streams),
                    },
                    Act::GiveBack(index) if !windows.is_empty() => {
                        let window = windows.swap_remove(index.index(windows.len()));
                        pool.give_back(window);
                    }
                    Act::Fit(index, percent) if !windows.is_empty() => {
                        let count = windows.len();
                        let window = &mut windows[index.index(count)];
                        let outstanding = window.bytes() * percent / 100;
                        pool.fit(window, outstanding);
                        prop_assert!(window.bytes() >= outstanding);
                    }
                    Act::GiveBack(_) | Act::Fit(..) => {}
                }
                let sum: u64 = windows.iter().map(Window::bytes).sum();
                let unused = (budget.streams - windows.len() as u64) * budget.least;
                prop_assert_eq!(sum + unused + pool.free, budget.total);
                prop_assert!(windows.iter().all(|window| (budget.least..=budget.most).contains(&window.bytes())));
            }
            windows.into_iter().for_each(|window| pool.give_back(window));
            prop_assert_eq!(pool.free, budget.total - budget.least * budget.streams);
        }
    }

    #[test]
    fn one_exec_has_whole_windows_and_many_share_what_there_is() {
        let mut pool = Pool::new(OUTPUT);
        let mut windows: Vec<Window> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(windows[0].bytes(), STREAM_WINDOW_BYTES);
        assert_eq!(windows.len(), 2 * MAX_EXECS);
        // The first ones give back as they go on.
        for _ in 0..100 {
            windows.iter_mut().for_each(|window| pool.fit(window, 0));
        }
        let sizes: Vec<u64> = windows.iter().map(Window::bytes).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(most - least < 1 << 10, "{least} to {most}");
        assert!(*least > OUTPUT.least, "{least}");
    }
}
