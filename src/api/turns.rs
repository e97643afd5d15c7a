//! Turns at what only a few may do at a time, and others wait for: receiving something large.
//!
//! One user has few of them, so that one who lingers holds up itself first; some are kept for root and the daemon's own
//! user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::places::Standing;

#[derive(Debug)]
pub(super) struct Turns {
    ordinary: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    per_uid: usize,
    /// Of those who have or want one.
    by_uid: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

/// Had for as long as it lives.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// `reserved` come on top of those that everybody may have.
    pub(super) fn new(ordinary: usize, reserved: usize, per_uid: usize) -> Arc<Self> {
        let (ordinary, reserved) = (Semaphore::new(ordinary), Semaphore::new(reserved));
        let (ordinary, reserved) = (Arc::new(ordinary), Arc::new(reserved));
        Arc::new(Self { ordinary, reserved, per_uid, by_uid: Mutex::default() })
    }

    /// Waits for one; first come, first served.
    ///
    /// # Errors
    /// None: the semaphores are never closed.
    pub(super) async fn take(&self, uid: u32, standing: Standing) -> Result<Turn, AcquireError> {
        let ordinary = Arc::clone(&self.ordinary).acquire_owned();
        if standing == Standing::Foremost {
            let permit = tokio::select! {
                biased;
                permit = Arc::clone(&self.reserved).acquire_owned() => permit?,
                permit = ordinary => permit?,
            };
            return Ok(Turn { _permit: permit, _own: None });
        }
        // Its own first: who waits for that must not keep others waiting.
        let own = self.of(uid).acquire_owned().await?;
        Ok(Turn { _permit: ordinary.await?, _own: Some(own) })
    }

    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        by_uid.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = by_uid.get(&uid).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(self.per_uid));
        by_uid.insert(uid, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::Standing::{Foremost, Operator};
    use super::*;

    #[tokio::test]
    async fn one_user_waits_for_itself_and_root_for_nobody_else() {
        let turns = Turns::new(3, 1, 2);
        let now = |uid, standing| turns.take(uid, standing).now_or_never().map(Result::unwrap);
        let held = [now(1000, Operator).unwrap(), now(1000, Operator).unwrap()];
        assert!(now(1000, Operator).is_none(), "its own are taken");
        let other = now(1001, Operator).unwrap();
        assert!(now(1002, Operator).is_none(), "all are taken");
        let root = now(0, Foremost).unwrap();
        assert!(now(0, Foremost).is_none());
        drop(other);
        assert!(now(0, Foremost).is_some(), "root may have any");
        drop((held, root));
        drop(now(1000, Operator).unwrap());
        assert!(now(1001, Operator).is_some());
        assert_eq!(turns.by_uid.lock().unwrap().len(), 1, "users who have gone are forgotten");
    }
}
