//! The one place that waits for children.
//!
//! PID 1 inherits every orphan of the machine and has to reap it, so nobody else may wait: two waiters
//! would steal each other's children. Whoever starts a program registers it here; what nobody registered
//! is an orphan, reaped and forgotten.
//!
//! A child can't be reaped between its start and its registration: both happen without an `await`, on
//! the runtime's only thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::log;
use crate::sys::{self, Waited};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Code(i32),
    Signal(i32),
}

/// A child's end and what it used, its own reaped children included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    pub outcome: Outcome,
    pub cpu_time: Duration,
    /// The largest resident set of one process.
    pub max_rss_kib: u64,
}

/// Where a child's end is told. What it says is said in the moment in which the child is reaped: while it says nothing, the
/// child's number is the child's.
pub type End = watch::Receiver<Option<Exited>>;

/// A handle on the reaper.
#[derive(Debug, Clone)]
pub struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// By process id.
    registered: Mutex<BTreeMap<i32, watch::Sender<Option<Exited>>>>,
    reaped: Notify,
}

impl Reaper {
    /// Starts reaping, for as long as the runtime lives.
    pub fn start() -> io::Result<Self> {
        let mut child_exits = signal(SignalKind::child())?;
        let shared = Shared { registered: Mutex::default(), reaped: Notify::new() };
        let reaper = Self { shared: Arc::new(shared) };
        let background = reaper.clone();
        tokio::spawn(async move {
            while child_exits.recv().await.is_some() {
                background.reap();
                background.shared.reaped.notify_waiters();
            }
        });
        Ok(reaper)
    }

    /// Asks for the end of a child just started.
    pub fn register(&self, pid: i32) -> End {
        let (sender, receiver) = watch::channel(None);
        self.registered().insert(pid, sender);
        receiver
    }

    /// Waits until this process has no children. For PID 1: until it is alone in the machine.
    pub async fn no_children(&self) {
        loop {
            let reaped = self.shared.reaped.notified();
            if self.reap() {
                return;
            }
            reaped.await;
        }
    }

    /// Reaps all that have exited; whether no children are left.
    fn reap(&self) -> bool {
        loop {
            match sys::wait_any() {
                Ok(Waited::Child(pid, exited)) => {
                    if let Some(waiting) = self.registered().remove(&pid) {
                        waiting.send_replace(Some(exited));
                    }
                }
                Ok(Waited::NoneExited) => return false,
                Ok(Waited::NoChildren) => return true,
                Err(error) => {
                    log::error(format_args!("failed to wait for children: {error}"));
                    return false;
                }
            }
        }
    }

    fn registered(&self) -> MutexGuard<'_, BTreeMap<i32, watch::Sender<Option<Exited>>>> {
        self.shared.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
