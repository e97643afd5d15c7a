//! How many machines run at once: more than the host has CPUs would measure its scheduler.

use std::sync::{Condvar, Mutex, PoisonError};

const PERMITS: usize = 2;

static FREE: Mutex<usize> = Mutex::new(PERMITS);
static CHANGED: Condvar = Condvar::new();

/// Given back on drop.
#[derive(Debug)]
pub struct Permit(usize);

impl Permit {
    /// For a test that runs one machine at a time.
    pub fn one() -> Self {
        Self::take(1)
    }

    /// For a test beside which no other may run.
    pub fn all() -> Self {
        Self::take(PERMITS)
    }

    fn take(permits: usize) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            CHANGED.wait_while(free, |free| *free < permits).unwrap_or_else(PoisonError::into_inner);
        *free -= permits;
        Self(permits)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        CHANGED.notify_all();
    }
}
