//! The record of a run that goes on, and its log.

use std::sync::{Mutex, PoisonError};

use super::directory::RunDirectory;
use super::error::RecordError;
use super::record::Record;
use crate::state::log::LogStore;

/// The record of a run that goes on, and its log. As long as this lives, the run does: its directory is locked.
#[derive(Debug)]
pub struct RecordWriter {
    directory: RunDirectory,
    log: LogStore,
    record: Mutex<Record>,
}

impl RecordWriter {
    pub(super) fn new(directory: RunDirectory, log: LogStore, record: Record) -> Self {
        Self { directory, log, record: Mutex::new(record) }
    }

    pub fn log(&self) -> &LogStore {
        &self.log
    }

    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Changes the record, in memory in any case, hiding what the log's mask hides. Blocks until it is on the disk:
    /// what is written survives a power cut.
    ///
    /// # Errors
    /// When it can't be written; what was written before stands.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), RecordError> {
        let mut record = self.lock();
        change(&mut record);
        record.hide(&self.log.mask());
        self.directory.write(&record)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        self.directory.release();
    }
}
