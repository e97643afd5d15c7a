//! Which runs are remembered for how long.

use std::time::Duration;

use jiff::Timestamp;

use super::directory::RunsDirectory;
use super::error::RecordError;
use super::record::RecordState;
use super::store::{Records, read_run};
use crate::runtime::MachineId;

/// Bounds on the records of one state directory. The oldest of the ended go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// From the end of a run.
    pub keep_for: Duration,
    /// Of all records and logs, those of runs that go on included, as the disk counts them.
    pub max_total_bytes: u64,
    /// Runs that go on included.
    pub max_runs: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_for: Duration::from_secs(30 * 24 * 3600), max_total_bytes: 2 << 30, max_runs: 1000 }
    }
}

/// What [`Records::prune`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    pub removed: Vec<MachineId>,
    /// What should have gone and could not.
    pub failed: Vec<RecordError>,
}

/// A run as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) id: MachineId,
    /// `None` while it goes on.
    pub(super) ended_at: Option<Timestamp>,
    pub(super) bytes: u64,
}

/// Those that have to go, oldest end first.
pub(super) fn beyond(mut runs: Vec<Kept>, retention: &Retention, now: Timestamp) -> Vec<Kept> {
    let mut bytes: u64 = runs.iter().map(|run| run.bytes).sum();
    let mut count = runs.len() as u64;
    runs.retain(|run| run.ended_at.is_some());
    runs.sort_by(|one, other| (one.ended_at, &one.id).cmp(&(other.ended_at, &other.id)));
    let is_old = |run: &Kept| {
        // A clock that was set back makes an end lie in the future: not old.
        let age = run.ended_at.and_then(|ended| Duration::try_from(now.duration_since(ended)).ok());
        age.is_some_and(|age| age > retention.keep_for)
    };
    runs.into_iter()
        .take_while(|run| {
            let goes = is_old(run) || count > retention.max_runs || bytes > retention.max_total_bytes;
            if goes {
                count -= 1;
                bytes -= run.bytes;
            }
            goes
        })
        .collect()
}

impl Records {
    /// Removes the records and logs of ended runs that are beyond the bounds, oldest first, and what was left half made or
    /// half removed. Never one whose creel lives, nor what can't be read as a record of ours. One that comes
    /// while another process is at it leaves it to that. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// When the directory can't be read; that there is none is no error. Single failures are in [`Pruned::failed`].
    pub fn prune(&self) -> Result<Pruned, RecordError> {
        let mut pruned = Pruned::default();
        let Some(runs) = RunsDirectory::open(&self.state_dir)? else { return Ok(pruned) };
        let Some(_lock) = runs.lock_for_pruning() else { return Ok(pruned) };
        let (ids, parts) = runs.names()?;
        pruned.failed.extend(parts.iter().filter_map(|part| runs.remove_part(part).err()));
        let mut kept = Vec::new();
        for id in ids {
            // A damaged one, a newer creel's or somebody else's is told by `list_all`, and is nothing to judge here.
            let Ok(Some(directory)) = runs.run(&id) else { continue };
            let Ok(record) = read_run(&directory, &id) else { continue };
            let ended_at = match record.state {
                RecordState::Running => None,
                RecordState::Ended => Some(record.ended_at.unwrap_or(record.created_at)),
            };
            kept.push(Kept { id, ended_at, bytes: directory.size() });
        }
        for run in beyond(kept, &self.retention, Timestamp::now()) {
            // Opened again: hundreds of runs are not held open, and what is locked is what is removed.
            let directory = match runs.run(&run.id) {
                Ok(Some(directory)) => directory,
                Ok(None) => continue,
                Err(error) => {
                    pruned.failed.push(error);
                    continue;
                }
            };
            // Its creel has not gone yet, or somebody looks whether it has.
            if !directory.lock() {
                continue;
            }
            match runs.remove_run(&run.id, &directory) {
                Ok(()) => pruned.removed.push(run.id),
                Err(error) => pruned.failed.push(error),
            }
        }
        Ok(pruned)
    }
}
