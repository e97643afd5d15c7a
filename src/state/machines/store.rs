//! The directory of all machines' records, and the record of one machine that lives.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, unlinkat};
use rustix::io::Errno;

use super::record::{MachineRecord, MachineStage};
use crate::host::ProcessIdentity;
use crate::runtime::{Ledger, MachineId, Made};
use crate::state::durable::{self, Failed, sync_directory};
use crate::state::own;
use crate::state::records::{RecordError, failed};

const MACHINES: &str = "machines";
const RECORD: &str = ".json";
const NEW: &str = ".new";

/// A record, or what is wrong with it.
pub type Found = (MachineId, Result<MachineRecord, RecordError>);

/// The records of the machines of one state directory.
#[derive(Debug, Clone)]
pub struct MachineRecords(Arc<Directory>);

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl MachineRecords {
    /// Makes `<state dir>/machines` where it is missing, and opens it.
    ///
    /// # Errors
    /// When it can't be made, or is not ours alone.
    pub fn make(state_dir: &Path) -> Result<Self, RecordError> {
        let (path, fd) = own::make(state_dir, MACHINES)?;
        Ok(Self(Arc::new(Directory { path, fd })))
    }

    /// Opens it; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be opened, or is not ours alone.
    pub fn open(state_dir: &Path) -> Result<Option<Self>, RecordError> {
        Ok(own::open(state_dir, MACHINES)?.map(|(path, fd)| Self(Arc::new(Directory { path, fd }))))
    }

    /// Every record, or what is wrong with it, by id.
    ///
    /// # Errors
    /// When the directory can't be listed.
    pub fn list(&self) -> Result<Vec<Found>, RecordError> {
        let mut ids = self.0.names()?.into_iter().filter_map(|name| id_of(&name, RECORD)).collect::<Vec<_>>();
        ids.sort_unstable();
        Ok(ids
            .into_iter()
            .filter_map(|id| match self.read(&id) {
                // It was removed since it was listed.
                Err(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
                read => Some((id, read)),
            })
            .collect())
    }

    /// One record.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn read(&self, id: &MachineId) -> Result<MachineRecord, RecordError> {
        let (path, file) = own::open_file(self.0.fd.as_fd(), &self.0.path, &format!("{id}{RECORD}"))?;
        let record: MachineRecord = own::read_versioned(&path, file, MachineRecord::VERSION)?;
        if record.id != *id {
            return Err(RecordError::WrongId { path, found: record.id.to_string() });
        }
        Ok(record)
    }

    /// Writes the first record of a machine, before there is anything else of it. Blocks.
    ///
    /// # Errors
    /// When it can't be written; nothing is left then. [`RecordError::Exists`]: another machine had this id, and its record may
    /// be the last that is known of it.
    pub fn begin(&self, record: MachineRecord) -> Result<MachineLedger, RecordError> {
        match rustix::fs::statat(&self.0.fd, format!("{}{RECORD}", record.id), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            _ => return Err(RecordError::Exists { id: format!("machine {}", record.id) }),
        }
        self.0.write(&record).inspect_err(|_| {
            // It may have its name, though not for certain after a power cut.
            let _ = self.0.remove(&record.id);
        })?;
        Ok(MachineLedger { directory: Arc::clone(&self.0), record: Mutex::new(Some(record)) })
    }

    /// Removes the record of a machine that is gone. Of what is not there it says nothing.
    ///
    /// # Errors
    /// When it is there and can't be removed.
    pub fn remove(&self, id: &MachineId) -> Result<(), RecordError> {
        self.0.remove(id)
    }

    /// Removes what was left half written. To be called while nothing is being written.
    ///
    /// # Errors
    /// When the directory can't be listed, or a file can't be removed.
    pub fn remove_half_written(&self) -> Result<usize, RecordError> {
        let left: Vec<String> =
            self.0.names()?.into_iter().filter(|name| id_of(name, NEW).is_some()).collect();
        for name in &left {
            unlinkat(&self.0.fd, name, AtFlags::empty())
                .map_err(failed("remove", &self.0.path.join(name)))?;
        }
        Ok(left.len())
    }
}

fn id_of(name: &str, ending: &str) -> Option<MachineId> {
    MachineId::parse(name.strip_suffix(ending)?)
}

impl Directory {
    fn names(&self) -> Result<Vec<String>, RecordError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed("list", &self.path))? {
            let entry = entry.map_err(failed("list", &self.path))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn write(&self, record: &MachineRecord) -> Result<(), RecordError> {
        let (name, new) = (format!("{}{RECORD}", record.id), format!("{}{NEW}", record.id));
        let path = self.path.join(&name);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| RecordError::Unreadable { path: path.clone(), source })?;
        durable::replace(self.fd.as_fd(), &name, &new, &text).map_err(|error| {
            // What could be written of it is of no use, and takes room.
            let _ = unlinkat(&self.fd, &new, AtFlags::empty());
            match error {
                Failed::Write(error) => failed("write", &self.path.join(&new))(error),
                Failed::Replace(error) => failed("replace", &path)(error),
                Failed::Sync(error) => failed("sync", &self.path)(error),
            }
        })
    }

    fn remove(&self, id: &MachineId) -> Result<(), RecordError> {
        let name = format!("{id}{RECORD}");
        match unlinkat(&self.fd, &name, AtFlags::empty()) {
            Ok(()) => sync_directory(self.fd.as_fd()).map_err(failed("sync", &self.path)),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.path.join(name))(error)),
        }
    }
}

/// The record of a machine that lives. It stays until it is removed, whatever becomes of this process.
pub struct MachineLedger {
    directory: Arc<Directory>,
    /// `None`: it was removed, and nothing is written any more.
    record: Mutex<Option<MachineRecord>>,
}

impl fmt::Debug for MachineLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineLedger").field("directory", &self.directory.path).finish_non_exhaustive()
    }
}

impl MachineLedger {
    /// Writes how far it has come. Blocks.
    ///
    /// # Errors
    /// When it can't be written; what was written before stands.
    pub fn reach(&self, stage: MachineStage) -> Result<(), RecordError> {
        self.write(|record| record.stage = stage)
    }

    /// Whether the keeper that was noted lives.
    pub fn keeper_lives(&self) -> bool {
        self.record().as_ref().and_then(|record| record.keeper).is_some_and(ProcessIdentity::lives)
    }

    /// The machine is gone, with all that it held. Blocks.
    ///
    /// # Errors
    /// When the record can't be removed.
    pub fn remove(&self) -> Result<(), RecordError> {
        let mut record = self.record();
        if let Some(known) = &*record {
            self.directory.remove(&known.id)?;
            *record = None;
        }
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut MachineRecord)) -> Result<(), RecordError> {
        let mut record = self.record();
        let Some(known) = &mut *record else { return Ok(()) };
        let mut next = known.clone();
        change(&mut next);
        self.directory.write(&next)?;
        *known = next;
        Ok(())
    }

    fn record(&self) -> MutexGuard<'_, Option<MachineRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for MachineLedger {
    fn note(&self, made: Made) -> io::Result<()> {
        self.write(|record| record.note(made)).map_err(|error| match error {
            RecordError::DiskFull { .. } => io::Error::new(io::ErrorKind::StorageFull, error),
            error => io::Error::other(error),
        })
    }
}
