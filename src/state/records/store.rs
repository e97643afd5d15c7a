//! All records of a state directory: beginning one, reading them.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{RunDirectory, RunsDirectory};
use super::error::{RecordError, failed};
use super::record::{Record, RecordState};
use super::retention::Retention;
use super::writer::RecordWriter;
use crate::host::inotify::{self, Events};
use crate::runtime::MachineId;
use crate::state::log::{Follower, Growth, Limits, LogError, LogStore, Mask};

/// The runs that are remembered. Clones are the same.
#[derive(Debug, Clone)]
pub struct Records {
    pub(super) state_dir: PathBuf,
    pub(super) retention: Retention,
}

/// A record that can't be read. It is left alone: nobody can tell whether it may go.
#[derive(Debug)]
pub struct Damaged {
    pub id: MachineId,
    /// Its directory.
    pub path: PathBuf,
    pub error: RecordError,
}

/// What [`Records::list_all`] finds.
#[derive(Debug, Default)]
pub struct Listed {
    /// Oldest first.
    pub records: Vec<Record>,
    pub damaged: Vec<Damaged>,
}

impl Records {
    /// Those below `state_dir`, with the default bounds. Nothing is made by this.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), retention: Retention::default() }
    }

    /// The same, with these bounds for [`Self::prune`].
    #[must_use]
    pub fn keeping(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Begins to remember a run. Blocks until that is on the disk.
    ///
    /// # Errors
    /// Then nothing of it is there.
    pub fn begin(
        &self,
        record: Record,
        limits: Limits,
        mask: Mask,
    ) -> Result<Arc<RecordWriter>, RecordError> {
        let mut record = record;
        record.hide(&mask);
        let runs = RunsDirectory::make(&self.state_dir)?;
        let (part, mut directory) = runs.begin(&record.id)?;
        let part_path = std::mem::replace(&mut directory.path, runs.path_of(&record.id));
        let begun = directory.write(&record).and_then(|()| {
            let file = directory.create_log()?;
            let log = LogStore::create_in(file, &directory.log_path(), limits, mask)?;
            runs.complete(&part, &record.id)?;
            Ok(log)
        });
        match begun {
            Ok(log) => Ok(Arc::new(RecordWriter::new(directory, log, record))),
            Err(error) => {
                if let Err(left) = runs.remove(&part, &directory) {
                    tracing::warn!(error = %left, path = %part_path.display(), "failed to remove half a record");
                }
                Err(error)
            }
        }
    }

    /// Oldest first. What can't be read is left out.
    ///
    /// # Errors
    /// When the directory can't be read; that there is none is no error.
    pub fn list(&self) -> Result<Vec<Record>, RecordError> {
        Ok(self.list_all()?.records)
    }

    /// All of them, with those that can't be read apart: one is never in the way of the others.
    ///
    /// # Errors
    /// When the directory can't be read; that there is none is no error.
    pub fn list_all(&self) -> Result<Listed, RecordError> {
        let Some(runs) = RunsDirectory::open(&self.state_dir)? else { return Ok(Listed::default()) };
        let mut listed = Listed::default();
        let (mut ids, _) = runs.names()?;
        ids.sort();
        for id in ids {
            match runs.run(&id).and_then(|directory| directory.map(|found| read(&found, &id)).transpose()) {
                Ok(Some(record)) => listed.records.push(record),
                // Removed since it was listed.
                Ok(None) => {}
                Err(error) => match runs.run(&id) {
                    Ok(None) => {}
                    _ => listed.damaged.push(Damaged { path: runs.path_of(&id), id, error }),
                },
            }
        }
        listed.records.sort_by_key(|record| record.created_at);
        Ok(listed)
    }

    /// The record of a run; `None` when nothing is remembered of it.
    pub fn get(&self, id: &MachineId) -> Option<Record> {
        let directory = RunsDirectory::open(&self.state_dir).ok()??.run(id).ok()??;
        read(&directory, id).ok()
    }

    /// The log of a run that has ended, from a record of the log on.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn log(&self, id: &MachineId, from: u64) -> Result<Follower, LogError> {
        let path = super::directory::runs_path(&self.state_dir).join(id.as_str()).join("log");
        Follower::replay(&path, from)
    }

    /// The log of a run that may go on in another process: what is there when it is read, and with `wait` also what comes,
    /// until the log is sealed or its creel is gone.
    ///
    /// # Errors
    /// When it can't be read, or not be watched.
    pub fn follow(&self, id: &MachineId, from: u64, wait: bool) -> Result<Follower, RecordError> {
        let path = super::directory::runs_path(&self.state_dir).join(id.as_str());
        let gone = || failed("open", &path)(std::io::Error::from(std::io::ErrorKind::NotFound));
        let runs = RunsDirectory::open(&self.state_dir)?.ok_or_else(gone)?;
        let directory = runs.run(id)?.ok_or_else(gone)?;
        let (path, file) = directory.open_log()?;
        let growth = if wait && directory.is_living() {
            let changes = inotify::watch(file.as_fd(), Events::MODIFY).map_err(failed("watch", &path))?;
            let ended = directory.released().map_err(failed("watch", &path))?;
            Some(Growth::new(changes, ended))
        } else {
            None
        };
        Ok(Follower::growing(file, &path, from, growth)?)
    }
}

/// The record, and whether its creel lives.
fn read(directory: &RunDirectory, id: &MachineId) -> Result<Record, RecordError> {
    let record = directory.read(id)?;
    if record.state == RecordState::Ended || directory.is_living() {
        return Ok(record);
    }
    // It may have ended between the two looks.
    let mut record = directory.read(id)?;
    if record.state == RecordState::Running {
        record.state = RecordState::Ended;
        record.lost = true;
        record.ended_at = directory.last_written().or(Some(record.created_at));
    }
    Ok(record)
}

pub(super) fn read_run(directory: &RunDirectory, id: &MachineId) -> Result<Record, RecordError> {
    read(directory, id)
}
