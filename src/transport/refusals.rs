//! Says who was refused at a shared port. Any local user and any guest may dial, as often as it likes, so what is said
//! must not grow with what they do: the first few refusals are told one by one, then one line a minute with their count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// How many are told one by one after a quiet minute.
const FEW: u32 = 4;

const WINDOW: Duration = Duration::from_secs(60);

/// All that were refused by this process, by port. It listens on few.
static REFUSED: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

/// How many were refused at `port` since this process started.
pub fn refused_at(port: u32) -> u64 {
    REFUSED.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied().unwrap_or_default()
}

/// Decides which refusals are told. Pure: the clock is handed in.
#[derive(Debug, Default)]
pub struct RefusalBudget {
    /// `None`: nothing was refused lately.
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    /// How many more may be told one by one.
    left: u32,
    untold: u64,
}

impl RefusalBudget {
    /// Counts one refusal; true if it is to be told now.
    pub fn note(&mut self, now: Instant) -> bool {
        let window = self.window.get_or_insert(Window { ends: now + WINDOW, left: FEW, untold: 0 });
        if window.left > 0 {
            window.left -= 1;
            return true;
        }
        window.untold += 1;
        false
    }

    /// When [`Self::summary`] should be asked next.
    pub fn due(&self) -> Option<Instant> {
        self.window.map(|window| window.ends)
    }

    /// At the end of a minute: how many were not told, if any. A minute without any gives the few back.
    pub fn summary(&mut self, now: Instant) -> Option<u64> {
        let window = self.window.filter(|window| window.ends <= now)?;
        let going_on = window.untold > 0;
        self.window = going_on.then_some(Window { ends: now + WINDOW, left: 0, untold: 0 });
        going_on.then_some(window.untold)
    }
}

/// The refusals of one port, for one reason.
#[derive(Debug)]
pub struct Refusals {
    port: u32,
    why: &'static str,
    budget: RefusalBudget,
    /// Of those not told.
    last_cid: u32,
}

impl Refusals {
    /// `why` completes "refused a vsock connection: ".
    pub fn new(port: u32, why: &'static str) -> Self {
        Self { port, why, budget: RefusalBudget::default(), last_cid: 0 }
    }

    /// Counts and perhaps tells one.
    pub fn refused(&mut self, cid: u32) {
        let (port, why) = (self.port, self.why);
        *REFUSED.lock().unwrap_or_else(PoisonError::into_inner).entry(port).or_default() += 1;
        if self.budget.note(Instant::now()) {
            warn!(cid, port, "refused a vsock connection: {why}");
        } else {
            self.last_cid = cid;
        }
    }

    /// Returns when the rest is to be told by [`Self::tell_rest`]; never while there is nothing to wait for.
    pub async fn rest_is_due(&self) {
        match self.budget.due() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Tells how many were refused in the minute that is over.
    pub fn tell_rest(&mut self) {
        let (port, why, last_cid) = (self.port, self.why, self.last_cid);
        if let Some(count) = self.budget.summary(Instant::now()) {
            warn!(count, port, last_cid, "refused more vsock connections: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However refusals come, a minute has few lines and none is lost from the count.
        #[test]
        fn lines_are_few_and_counts_are_whole(gaps_ms in prop::collection::vec(0_u64..40_000, 1..400)) {
            let start = Instant::now();
            let mut budget = RefusalBudget::default();
            let mut now = start;
            let (mut lines, mut told, mut summed) = (Vec::new(), 0_u64, 0_u64);
            let mut summarize = |budget: &mut RefusalBudget, now, lines: &mut Vec<Instant>| {
                if let Some(count) = budget.summary(now) {
                    prop_assert!(count > 0, "an empty line");
                    lines.push(now);
                    summed += count;
                }
                Ok(())
            };
            for gap in &gaps_ms {
                let next = now + Duration::from_millis(*gap);
                while let Some(due) = budget.due().filter(|due| *due <= next) {
                    summarize(&mut budget, due, &mut lines)?;
                }
                now = next;
                if budget.note(now) {
                    lines.push(now);
                    told += 1;
                }
            }
            while let Some(due) = budget.due() {
                summarize(&mut budget, due, &mut lines)?;
            }
            prop_assert_eq!(told + summed, gaps_ms.len() as u64);
            for (index, line) in lines.iter().enumerate() {
                let within = lines[index..].iter().take_while(|other| **other < *line + WINDOW).count();
                // Few of one window and few of the next can fall into one minute.
                prop_assert!(within <= 2 * FEW as usize, "{within} lines in a minute");
            }
        }
    }

    #[test]
    fn every_refusal_of_a_port_is_counted_told_or_not() {
        const OURS: u32 = 4_000_000_001;
        let mut refusals = Refusals::new(OURS, "nobody is expected");
        for cid in 0..100 {
            refusals.refused(cid);
        }
        assert_eq!((refused_at(OURS), refused_at(OURS + 1)), (100, 0));
    }

    #[test]
    fn a_flood_costs_one_line_a_minute() {
        let mut now = Instant::now();
        let mut budget = RefusalBudget::default();
        let mut lines = 0;
        for _ in 0..600_000 {
            if budget.due().is_some_and(|due| due <= now) {
                lines += u32::from(budget.summary(now).is_some());
            }
            lines += u32::from(budget.note(now));
            now += Duration::from_millis(1);
        }
        assert_eq!(lines, FEW + 9, "ten minutes, the last of which is not over");
    }
}
