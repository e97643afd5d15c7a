//! Guest CIDs as leases of numbers.
//!
//! The kernel guards a CID by the descriptor that QEMU holds ([`vhost_vsock`](crate::host::vhost_vsock)). A lease is the
//! number alone, never a copy of that descriptor: a kept copy makes a dead machine immortal. What the lease adds is rest:
//! a number that was given back is not given out again for a while, so that nothing that still remembers it, a connection
//! of the dead machine above all, is taken for its successor.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Below are the hypervisor's, loopback's and the host's CID, the last number is `VMADDR_CID_ANY` (vsock(7)).
const GUEST_CIDS: Range<u32> = 3..u32::MAX;

/// How long a number rests.
const QUARANTINE: Duration = Duration::from_secs(10 * 60);

/// How many rest at most; the oldest leave early then. Two machines a second for the whole time stay below.
const MAX_RESTING: usize = 2048;

/// Other programs hold some numbers, not this many in a row.
const ATTEMPTS: usize = 64;

/// Which numbers are taken. Pure: the clock and the dice are handed in.
#[derive(Debug, Default)]
struct CidBook {
    /// Leased or resting.
    taken: HashSet<u32>,
    /// In the order in which they were given back.
    resting: VecDeque<(Instant, u32)>,
}

impl CidBook {
    /// The first free number from `from` on. There always is one: far fewer are ever taken than there are.
    fn lease(&mut self, from: u32, now: Instant) -> u32 {
        let rested = |(since, _): &(Instant, u32)| now.saturating_duration_since(*since) >= QUARANTINE;
        while self.resting.front().is_some_and(rested) {
            self.end_oldest_rest();
        }
        let mut cid = if GUEST_CIDS.contains(&from) { from } else { GUEST_CIDS.start };
        while !self.taken.insert(cid) {
            cid = following(cid);
        }
        cid
    }

    /// Given back without having been used.
    fn forget(&mut self, cid: u32) {
        self.taken.remove(&cid);
    }

    fn rest(&mut self, cid: u32, now: Instant) {
        if self.resting.len() == MAX_RESTING {
            self.end_oldest_rest();
        }
        self.resting.push_back((now, cid));
    }

    fn end_oldest_rest(&mut self) {
        if let Some((_, cid)) = self.resting.pop_front() {
            self.taken.remove(&cid);
        }
    }
}

fn following(cid: u32) -> u32 {
    if cid.saturating_add(1) < GUEST_CIDS.end { cid + 1 } else { GUEST_CIDS.start }
}

/// Gives out CIDs.
#[derive(Debug, Clone, Default)]
pub(super) struct Cids {
    book: Arc<Mutex<CidBook>>,
}

/// A number that no other machine of this process has. Dropped, it rests.
#[derive(Debug)]
pub(super) struct CidLease {
    cid: u32,
    book: Arc<Mutex<CidBook>>,
}

impl CidLease {
    pub(super) fn cid(&self) -> u32 {
        self.cid
    }
}

impl Drop for CidLease {
    fn drop(&mut self) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).rest(self.cid, Instant::now());
    }
}

impl Cids {
    /// A CID that `claim` could take, and what it took it by. The search starts anywhere: after a restart, which forgets
    /// who rests, a number is all but never one that was used before.
    ///
    /// # Errors
    /// Those of `claim`, except that after `EADDRINUSE` the next number is tried.
    pub(super) fn acquire(
        &self,
        claim: impl Fn(u32) -> io::Result<OwnedFd>,
    ) -> io::Result<(CidLease, OwnedFd)> {
        let mut from = random()?;
        for _ in 0..ATTEMPTS {
            let cid = self.with_book(|book| book.lease(from, Instant::now()));
            match claim(cid) {
                Ok(device) => return Ok((CidLease { cid, book: Arc::clone(&self.book) }, device)),
                Err(error) => {
                    self.with_book(|book| book.forget(cid));
                    if Errno::from_io_error(&error) != Some(Errno::ADDRINUSE) {
                        return Err(error);
                    }
                }
            }
            from = following(cid);
        }
        let text = format!("{ATTEMPTS} vsock CIDs in a row are in use by other programs");
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    }

    /// How many machines have one, and how many rest.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.with_book(|book| (book.taken.len().saturating_sub(book.resting.len()), book.resting.len()))
    }

    fn with_book<T>(&self, act: impl FnOnce(&mut CidBook) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        /// From one of few numbers, so that they meet.
        Lease(u32),
        /// One of those held.
        Rest(usize),
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            prop_oneof![0_u32..12, u32::MAX - 6..=u32::MAX].prop_map(Act::Lease),
            any::<usize>().prop_map(Act::Rest),
            (0_u64..400).prop_map(Act::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_number_is_a_guest_s_has_one_holder_and_rests(acts in prop::collection::vec(act(), 1..200)) {
            let mut now = Instant::now();
            let mut book = CidBook::default();
            let mut held: Vec<u32> = Vec::new();
            let mut given_back: Vec<(Instant, u32)> = Vec::new();
            for act in acts {
                match act {
                    Act::Lease(from) => {
                        let cid = book.lease(from, now);
                        prop_assert!(GUEST_CIDS.contains(&cid));
                        prop_assert!(!held.contains(&cid), "{cid} has two holders");
                        for (since, rested) in &given_back {
                            prop_assert!(*rested != cid || now - *since >= QUARANTINE, "{cid} did not rest");
                        }
                        held.push(cid);
                    }
                    Act::Rest(index) if !held.is_empty() => {
                        let cid = held.swap_remove(index % held.len());
                        book.rest(cid, now);
                        given_back.push((now, cid));
                    }
                    Act::Rest(_) => {}
                    Act::Wait(seconds) => now += Duration::from_secs(seconds),
                }
            }
        }
    }

    #[test]
    fn what_rests_is_bounded() {
        let (mut book, now) = (CidBook::default(), Instant::now());
        for from in 0..10_000 {
            let cid = book.lease(from, now);
            book.rest(cid, now);
        }
        assert_eq!((book.resting.len(), book.taken.len()), (MAX_RESTING, MAX_RESTING));
    }

    #[test]
    fn a_number_in_use_elsewhere_is_passed_over_and_not_kept() {
        let taken = Mutex::new(Vec::new());
        let cids = Cids::default();
        let (lease, _device) = cids
            .acquire(|cid| {
                let mut taken = taken.lock().unwrap();
                taken.push(cid);
                if taken.len() < 3 {
                    return Err(Errno::ADDRINUSE.into());
                }
                Ok(std::fs::File::open("/dev/null")?.into())
            })
            .unwrap();
        let taken = taken.into_inner().unwrap();
        assert_eq!(taken, [taken[0], following(taken[0]), lease.cid()]);
        let counts = || cids.with_book(|book| (book.taken.len(), book.resting.len()));
        assert_eq!((counts(), cids.counts()), ((1, 0), (1, 0)));
        drop(lease);
        assert_eq!((counts(), cids.counts()), ((1, 1), (0, 1)));
    }

    #[test]
    fn other_errors_of_the_device_end_the_search() {
        let cids = Cids::default();
        let error = cids.acquire(|_| Err(Errno::NOENT.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(cids.with_book(|book| book.taken.len()), 0);
    }
}
