//! The holder: the main process of `creel-machines.service`, in whose delegated cgroup the machines live.
//!
//! Machines can't live in creeld's own unit, which could not be entered again after a restart, nor in a directory that
//! systemd knows nothing of, which loses its controllers at the next daemon-reload. So this unit has one idle process. At
//! its start that makes room (a cgroup that has processes can't pass controllers on: "no internal processes" in the
//! kernel's cgroup-v2.rst), then it only waits, and leaves last, so that `systemctl stop` returns when all is gone.
//!
//! `place` finds the unit's cgroup, `subtree` changes it, `notify` talks to systemd.

mod notify;
mod place;
mod subtree;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use thiserror::Error;

use crate::signals::Signals;
use notify::{Notify, NotifyError};
use place::PlaceError;
use subtree::Subtree;

/// What the machines' limits are made of.
pub(crate) const WANTED: [&str; 4] = ["cpu", "memory", "io", "pids"];

/// Machines run without it: they compete for the disk unweighted, and their use of it is not known.
const DISPENSABLE: &str = "io";

/// How long the machines may take to end after systemd has told all of them to.
const MACHINES_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the machines' cgroup can't be held.
#[derive(Debug, Error)]
pub(crate) enum HoldError {
    #[error("failed to take over signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Notify(#[from] NotifyError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("failed to {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the cgroup `{unit}` has no controller {}: creel-machines.service needs Delegate=yes and a host that boots with \
         cgroup v2 alone (kernel argument `systemd.unified_cgroup_hierarchy=1`)",
        missing.join(", ")
    )]
    Missing { unit: PathBuf, missing: Vec<String> },
    #[error(
        "failed to enable `{controllers}` in `{path}`; if it is busy, a process other than the holder is in the unit"
    )]
    Enable {
        controllers: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Holds the cgroup that this process was started in, with the controllers `wanted`, until SIGTERM.
pub(crate) fn run(wanted: &[&str]) -> Result<(), HoldError> {
    let signals = Signals::take_over().map_err(HoldError::Signals)?;
    let notify = Notify::from_environment()?;
    let subtree = match hold(wanted, &notify) {
        Ok(subtree) => subtree,
        Err(error) => {
            // What failed is the error; a systemd that can't be told either changes nothing about it.
            let _ = notify.send(&format!("STATUS={}", crate::with_causes(&error)));
            return Err(error);
        }
    };
    while !signals.drain_saw_sigterm() {
        // An interrupted or failed poll is harmless: the signals are looked at again.
        let _ = poll(&mut [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)], None);
    }
    // systemd sends SIGTERM to every process of the unit, so by now each keeper is ending its machine.
    let _ = notify.send("STOPPING=1\nSTATUS=waiting for the machines to end");
    let left = subtree.await_machines(MACHINES_TIMEOUT)?;
    if !left.is_empty() {
        let seconds = MACHINES_TIMEOUT.as_secs();
        eprintln!("creel-keeper: not ended within {seconds} s: {}; systemd will kill them", left.join(", "));
    }
    Ok(())
}

fn hold(wanted: &[&str], notify: &Notify) -> Result<Subtree, HoldError> {
    let subtree = Subtree::new(place::own_unit()?);
    let missing = subtree.missing(wanted)?;
    if missing.iter().any(|controller| controller != DISPENSABLE) {
        return Err(HoldError::Missing { unit: subtree.unit().to_owned(), missing });
    }
    let enabled: Vec<&str> =
        wanted.iter().copied().filter(|controller| missing.iter().all(|other| other != controller)).collect();
    subtree.enter_keep()?;
    subtree.enable(&enabled)?;
    let mut status = format!("holding the machines' cgroup, with {}", enabled.join(", "));
    if !missing.is_empty() {
        status += "; without io: disk use of machines is neither weighted nor counted";
        eprintln!("creel-keeper: {status}");
    }
    notify.send(&format!("READY=1\nSTATUS={status}"))?;
    Ok(subtree)
}

#[cfg(test)]
mod tests;
