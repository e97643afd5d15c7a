//! How many of something there may be at a time: connections, calls.
//!
//! Nobody's share reaches that of others: each user has a bound of its own, those who may do nothing here share few, and
//! some places are kept for root and the daemon's own user, who can thus always come in and look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// Root, and the user that the daemon runs as.
    Foremost,
    Operator,
    /// Who has the workflow level.
    Spindle,
    /// Who has no call here but health.
    Guest,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// Of all together.
    pub all: usize,
    /// Of these, for [`Standing::Foremost`] alone.
    pub reserved: usize,
    /// Of one operator.
    pub per_uid: usize,
    /// Of all spindles together.
    pub spindles: usize,
    /// Of one spindle.
    pub per_spindle: usize,
    /// Of all guests together.
    pub guests: usize,
    /// Of one guest.
    pub per_guest: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("there are as many as there may be")]
    Full,
    #[error("your user has as many as one may have")]
    OfThisUser,
}

#[derive(Debug)]
pub(super) struct Places {
    quota: Quota,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    guests: usize,
    spindles: usize,
    ordinary: usize,
    by_user: HashMap<(u32, Standing), usize>,
}

/// Taken for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    user: (u32, Standing),
}

impl Places {
    pub(super) fn new(quota: Quota) -> Arc<Self> {
        Arc::new(Self { quota, taken: Mutex::default() })
    }

    pub(super) fn take(self: &Arc<Self>, uid: u32, standing: Standing) -> Result<Place, NoPlace> {
        let (mut taken, quota) = (self.lock(), &self.quota);
        let user = (uid, standing);
        let own = taken.by_user.get(&user).copied().unwrap_or(0);
        let (own_bound, room) = match standing {
            Standing::Foremost => (usize::MAX, true),
            Standing::Operator => (quota.per_uid, true),
            Standing::Spindle => (quota.per_spindle, taken.spindles < quota.spindles),
            Standing::Guest => (quota.per_guest, taken.guests < quota.guests),
        };
        if own >= own_bound {
            return Err(NoPlace::OfThisUser);
        }
        let ordinary = standing != Standing::Foremost;
        if !room || taken.all >= quota.all || (ordinary && taken.ordinary >= quota.all - quota.reserved) {
            return Err(NoPlace::Full);
        }
        taken.all += 1;
        taken.ordinary += usize::from(ordinary);
        taken.guests += usize::from(standing == Standing::Guest);
        taken.spindles += usize::from(standing == Standing::Spindle);
        *taken.by_user.entry(user).or_default() += 1;
        Ok(Place { places: Arc::clone(self), user })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let (_, standing) = self.user;
        taken.all -= 1;
        taken.ordinary -= usize::from(standing != Standing::Foremost);
        taken.guests -= usize::from(standing == Standing::Guest);
        taken.spindles -= usize::from(standing == Standing::Spindle);
        if let Some(own) = taken.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Foremost, Guest, Operator, Spindle};
    use super::*;

    const QUOTA: Quota =
        Quota { all: 14, reserved: 2, per_uid: 4, spindles: 4, per_spindle: 3, guests: 3, per_guest: 2 };

    /// Takes as many as there are.
    fn fill(places: &Arc<Places>, uid: u32, standing: Standing) -> (Vec<Place>, NoPlace) {
        let mut held = Vec::new();
        loop {
            match places.take(uid, standing) {
                Ok(place) => held.push(place),
                Err(why) => return (held, why),
            }
        }
    }

    #[test]
    fn no_user_takes_the_places_of_others() {
        let places = Places::new(QUOTA);
        let (one, why) = fill(&places, 1000, Operator);
        assert_eq!((one.len(), why), (4, NoPlace::OfThisUser));
        let (guest, why) = fill(&places, 1001, Guest);
        assert_eq!((guest.len(), why), (2, NoPlace::OfThisUser));
        let (other_guest, why) = fill(&places, 1002, Guest);
        assert_eq!((other_guest.len(), why), (1, NoPlace::Full), "guests have few together");
        let (spindle, why) = fill(&places, 1004, Spindle);
        assert_eq!((spindle.len(), why), (3, NoPlace::OfThisUser));
        let (other_spindle, why) = fill(&places, 1005, Spindle);
        assert_eq!((other_spindle.len(), why), (1, NoPlace::Full), "spindles have a share together");
        let (other, why) = fill(&places, 1003, Operator);
        assert_eq!((other.len(), why), (1, NoPlace::Full), "some places are kept");
        let (root, why) = fill(&places, 0, Foremost);
        assert_eq!((root.len(), why), (2, NoPlace::Full), "for root");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let places = Places::new(QUOTA);
        for _ in 0..100 {
            assert_eq!(fill(&places, 0, Foremost).0.len(), 14);
            assert_eq!(fill(&places, 1002, Spindle).0.len(), 3);
            assert_eq!(fill(&places, 1000, Guest).0.len(), 2);
            assert_eq!(fill(&places, 1000, Operator).0.len(), 4);
        }
        assert!(places.lock().by_user.is_empty(), "users who have gone are forgotten");
    }
}
