//! What happens to machines, as a numbered sequence of which the last thousand are kept.
//!
//! Whoever follows reads from the ring at its own pace: nobody waits for it, and it is told how many it has missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::runtime::{MachineId, Verdict};

/// How many are kept.
pub const EVENTS_KEPT: usize = 1024;

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEvent {
    /// From 1 on, without gaps, as long as this process lives.
    pub sequence: u64,
    pub at: SystemTime,
    pub machine: MachineId,
    pub workflow_id: String,
    /// The machine's creator.
    pub creator_uid: u32,
    pub what: Happening,
}

/// What it was. Verdicts come without console text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Its setup has begun.
    Created {
        image: String,
    },
    Ready,
    ExecStarted {
        exec_id: String,
    },
    ExecEnded {
        exec_id: String,
        verdict: Verdict,
    },
    /// It is being destroyed.
    Ending,
    Ended {
        verdict: Verdict,
    },
    /// There never was one, and it is not listed as ended: its input was bad, or this host can't.
    SetupFailed {
        why: String,
    },
}

/// The ring.
#[derive(Debug)]
pub(super) struct EventLog {
    ring: Mutex<Ring>,
    /// The last sequence number.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<MachineEvent>>,
    last: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { ring: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl EventLog {
    pub(super) fn record(&self, machine: &MachineId, workflow_id: &str, creator_uid: u32, what: Happening) {
        let mut ring = self.lock();
        ring.last += 1;
        if ring.kept.len() == EVENTS_KEPT {
            ring.kept.pop_front();
        }
        let event = MachineEvent {
            sequence: ring.last,
            // Under the lock, so that times are in the order of the numbers.
            at: SystemTime::now(),
            machine: machine.clone(),
            workflow_id: workflow_id.to_owned(),
            creator_uid,
            what,
        };
        ring.kept.push_back(Arc::new(event));
        self.last.send_replace(ring.last);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, seen: u64) -> Next {
        let ring = self.lock();
        let first_kept = ring.last + 1 - ring.kept.len() as u64;
        if seen >= ring.last {
            return Next::Nothing;
        }
        if seen + 1 < first_kept {
            return Next::Missed(first_kept - (seen + 1));
        }
        let index = usize::try_from(seen + 1 - first_kept).unwrap_or(usize::MAX);
        ring.kept.get(index).map_or(Next::Nothing, |event| Next::Event(Arc::clone(event)))
    }
}

enum Next {
    Event(Arc<MachineEvent>),
    Missed(u64),
    Nothing,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    Event(Arc<MachineEvent>),
    /// So many are not kept any more.
    Missed(u64),
}

/// A number that no event has had yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no event {since} yet, the last one is {last}: creeld numbers them anew when it starts; leave `since` out to \
     get all that are kept"
)]
pub struct UnknownSequence {
    pub since: u64,
    pub last: u64,
}

/// Reads events from some point on.
#[derive(Debug)]
pub struct EventReader {
    log: Arc<EventLog>,
    last: watch::Receiver<u64>,
    /// The number of the last one that was read or is known to be missed.
    seen: u64,
}

impl EventReader {
    /// Begins after number `since`; `None`: with the oldest that is kept, without a word of those before it.
    pub(super) fn new(log: Arc<EventLog>, since: Option<u64>) -> Result<Self, UnknownSequence> {
        let (first, last) = {
            let ring = log.lock();
            (ring.last - ring.kept.len() as u64, ring.last)
        };
        let seen = since.unwrap_or(first);
        if seen > last {
            return Err(UnknownSequence { since: seen, last });
        }
        Ok(Self { last: log.last.subscribe(), log, seen })
    }

    /// What there is now.
    pub fn now(&mut self) -> Option<Followed> {
        match self.log.after(self.seen) {
            Next::Event(event) => {
                self.seen = event.sequence;
                Some(Followed::Event(event))
            }
            Next::Missed(count) => {
                self.seen += count;
                Some(Followed::Missed(count))
            }
            Next::Nothing => None,
        }
    }

    /// The next one, whenever it comes. Safe to cancel.
    pub async fn next(&mut self) -> Followed {
        loop {
            if let Some(followed) = self.now() {
                return followed;
            }
            let seen = self.seen;
            // The log is ours, so its sender lives.
            let _ = self.last.wait_for(|last| *last > seen).await.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn log_of(count: u64) -> Arc<EventLog> {
        let log = Arc::new(EventLog::default());
        record(&log, count);
        log
    }

    fn record(log: &EventLog, count: u64) {
        let id = MachineId::parse("k3v9w0x2ma").unwrap();
        for _ in 0..count {
            log.record(&id, "w", 0, Happening::Ready);
        }
    }

    fn numbers(reader: &mut EventReader) -> Vec<Result<u64, u64>> {
        std::iter::from_fn(|| reader.now())
            .map(|followed| match followed {
                Followed::Event(event) => Ok(event.sequence),
                Followed::Missed(count) => Err(count),
            })
            .collect()
    }

    #[test]
    fn events_are_replayed_from_any_number_and_from_the_oldest_kept() {
        let log = log_of(5);
        let mut all = EventReader::new(Arc::clone(&log), None).unwrap();
        assert_eq!(numbers(&mut all), [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]);
        let mut some = EventReader::new(Arc::clone(&log), Some(3)).unwrap();
        assert_eq!(numbers(&mut some), [Ok(4), Ok(5)]);
        assert_eq!(numbers(&mut some), []);
        record(&log, 1);
        assert_eq!((numbers(&mut all), numbers(&mut some)), (vec![Ok(6)], vec![Ok(6)]));
        let error = EventReader::new(log, Some(7)).unwrap_err();
        assert_eq!(error, UnknownSequence { since: 7, last: 6 });
    }

    #[test]
    fn who_lags_is_told_how_many_were_missed_and_goes_on() {
        let log = log_of(3);
        let mut slow = EventReader::new(Arc::clone(&log), Some(1)).unwrap();
        record(&log, EVENTS_KEPT as u64);
        let seen = numbers(&mut slow);
        assert_eq!(seen[..2], [Err(2), Ok(4)]);
        assert_eq!((seen.len(), seen.last()), (EVENTS_KEPT + 1, Some(&Ok(3 + EVENTS_KEPT as u64))));
        let mut late = EventReader::new(log, None).unwrap();
        assert_eq!(numbers(&mut late)[0], Ok(4), "nothing was promised of those before");
    }

    #[tokio::test]
    async fn who_follows_waits_for_the_next_one() {
        let log = log_of(0);
        let mut reader = EventReader::new(Arc::clone(&log), Some(0)).unwrap();
        let mut next = Box::pin(reader.next());
        assert!(next.as_mut().now_or_never().is_none());
        record(&log, 1);
        assert!(matches!(next.await, Followed::Event(event) if event.sequence == 1));
    }
}
