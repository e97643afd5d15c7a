//! The directory of all runs, and that of one, by their descriptors: what was checked is what is used.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use creel_keeper::{is_still, remove_directory};
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, mkdirat, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::error::{RecordError, failed};
use super::record::{Record, VERSION};
use crate::runtime::MachineId;
use crate::state::durable::{self, Failed, sync_directory};
use crate::state::own::{self, MAX_RECORD_BYTES, check_owner};

const RUNS: &str = "runs";
const RECORD: &str = "record.json";
const NEW_RECORD: &str = "record.json.new";
const LOG: &str = "log";
const PART: &str = ".part-";

/// A verdict more than the record had before.
const RESERVE_BYTES: u64 = 4096;

/// How often a directory that a cleaner took for an abandoned one is made again.
const TRIES: u32 = 100;

/// `<state dir>/runs`.
#[derive(Debug)]
pub(super) struct RunsDirectory {
    path: PathBuf,
    fd: OwnedFd,
}

/// `<state dir>/runs/<id>`.
#[derive(Debug)]
pub(super) struct RunDirectory {
    pub(super) path: PathBuf,
    fd: OwnedFd,
}

pub(super) fn runs_path(state_dir: &Path) -> PathBuf {
    state_dir.join(RUNS)
}

impl RunsDirectory {
    /// Makes it and its parents where they are missing, and opens it.
    pub(super) fn make(state_dir: &Path) -> Result<Self, RecordError> {
        let (path, fd) = own::make(state_dir, RUNS)?;
        Ok(Self { path, fd })
    }

    /// Opens it; `None` when there is none.
    pub(super) fn open(state_dir: &Path) -> Result<Option<Self>, RecordError> {
        Ok(own::open(state_dir, RUNS)?.map(|(path, fd)| Self { path, fd }))
    }

    /// Two at once would each count what the other is about to remove. `None`: somebody else is at it.
    pub(super) fn lock_for_pruning(&self) -> Option<OwnedFd> {
        let fd = openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .ok()?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => None,
            _ => Some(fd),
        }
    }

    /// The runs that have a directory here, and the names of those half made or half removed.
    pub(super) fn names(&self) -> Result<(Vec<MachineId>, Vec<String>), RecordError> {
        let (mut ids, mut parts) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(&self.fd).map_err(failed("list", &self.path))? {
            let entry = entry.map_err(failed("list", &self.path))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if let Some(id) = MachineId::parse(name) {
                ids.push(id);
            } else if name
                .strip_prefix(PART)
                .and_then(|rest| MachineId::parse(rest.split('-').next()?))
                .is_some()
            {
                parts.push(name.to_owned());
            }
        }
        Ok((ids, parts))
    }

    pub(super) fn path_of(&self, id: &MachineId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// The directory of a run; `None` when there is none.
    pub(super) fn run(&self, id: &MachineId) -> Result<Option<RunDirectory>, RecordError> {
        self.open_directory(id.as_str())
    }

    fn open_directory(&self, name: &str) -> Result<Option<RunDirectory>, RecordError> {
        let path = self.path.join(name);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(RecordError::WrongKind { path }),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let found = rustix::fs::fstat(&fd).map_err(failed("inspect", &path))?;
        check_owner(&path, found.st_uid)?;
        Ok(Some(RunDirectory { path, fd }))
    }

    /// A new directory for a run, locked, under a name that is not yet the run's.
    pub(super) fn begin(&self, id: &MachineId) -> Result<(String, RunDirectory), RecordError> {
        let mut last = Errno::EXIST;
        for attempt in 0..TRIES {
            let name = format!("{PART}{id}-{attempt}");
            let path = self.path.join(&name);
            match mkdirat(&self.fd, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(failed("make", &path)(error)),
            }
            // Between the two steps, a cleaner may take it for one that was given up.
            let Some(directory) = self.open_directory(&name)? else { continue };
            match flock(&directory.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_still(self.fd.as_fd(), &name, directory.fd.as_fd()) == Ok(true) => {
                    return Ok((name, directory));
                }
                Ok(()) => {}
                Err(error) => last = error,
            }
        }
        Err(failed("make a directory in", &self.path)(last))
    }

    /// Gives a directory that is complete its run's name.
    pub(super) fn complete(&self, part: &str, id: &MachineId) -> Result<(), RecordError> {
        match renameat(&self.fd, part, &self.fd, id.as_str()) {
            Ok(()) => {}
            // Another's is never empty, so rename(2) does not replace it.
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Err(RecordError::Exists { id: id.to_string() }),
            Err(error) => return Err(failed("name", &self.path_of(id))(error)),
        }
        sync_directory(self.fd.as_fd()).map_err(failed("sync", &self.path))
    }

    /// Removes a run's directory, whose lock is held here. It loses its name first, so that nobody meets half a record.
    pub(super) fn remove_run(&self, id: &MachineId, directory: &RunDirectory) -> Result<(), RecordError> {
        let path = self.path_of(id);
        if !is_still(self.fd.as_fd(), id.as_str(), directory.fd.as_fd()).map_err(failed("remove", &path))? {
            return Ok(());
        }
        // An abandoned one of this name would be in the way, and is not empty: the next number.
        let part = (0..TRIES)
            .map(|number| format!("{PART}{id}-gone{number}"))
            .find(|part| renameat(&self.fd, id.as_str(), &self.fd, part).is_ok());
        let name = part.as_deref().unwrap_or(id.as_str());
        self.remove(name, directory)
    }

    /// Removes what was left half made or half removed, unless somebody is at it.
    pub(super) fn remove_part(&self, name: &str) -> Result<(), RecordError> {
        let Some(directory) = self.open_directory(name)? else { return Ok(()) };
        match flock(&directory.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.remove(name, &directory),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn remove(&self, name: &str, directory: &RunDirectory) -> Result<(), RecordError> {
        remove_directory(self.fd.as_fd(), name, directory.fd.as_fd())
            .map_err(failed("remove", &self.path.join(name)))
    }
}

impl RunDirectory {
    /// Whether somebody holds its lock. What can't be told counts as yes.
    pub(super) fn is_living(&self) -> bool {
        match flock(&self.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&self.fd, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Locks it, as long as this lives; false if somebody else has.
    pub(super) fn lock(&self) -> bool {
        flock(&self.fd, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Resolves when nobody holds the lock any more. A thread waits for it, which ends no earlier.
    pub(super) fn released(self) -> io::Result<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new().name("run's lock".to_owned()).spawn(move || {
            let _ = rustix::io::retry_on_intr(|| flock(&self.fd, FlockOperation::LockShared));
            let _ = sender.send(());
        })?;
        Ok(receiver)
    }

    /// Reads the record, which should be that of `id`.
    pub(super) fn read(&self, id: &MachineId) -> Result<Record, RecordError> {
        let (path, file) = own::open_file(self.fd.as_fd(), &self.path, RECORD)?;
        let record: Record = own::read_versioned(&path, file, VERSION)?;
        if record.id != *id {
            return Err(RecordError::WrongId { path, found: record.id.to_string() });
        }
        Ok(record)
    }

    /// Replaces the record as a whole; see [`durable::replace`].
    pub(super) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let (path, new) = (self.path.join(RECORD), self.path.join(NEW_RECORD));
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| RecordError::Unreadable { path: path.clone(), source })?;
        // What nobody could read, retention could neither judge nor remove.
        if text.len() as u64 > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong { path, bytes: text.len() as u64 });
        }
        durable::replace(self.fd.as_fd(), RECORD, NEW_RECORD, &text).map_err(|error| match error {
            Failed::Write(error) => failed("write", &new)(error),
            Failed::Replace(error) => failed("replace", &path)(error),
            Failed::Sync(error) => failed("sync", &self.path)(error),
        })?;
        self.reserve(text.len() as u64);
        Ok(())
    }

    /// Takes room for the next record while there is some: what a run ends with can be written down although its own log
    /// has filled the disk. File systems that can't do without it.
    fn reserve(&self, bytes: u64) {
        if let Ok(file) = durable::open_new(self.fd.as_fd(), NEW_RECORD) {
            let _ = fallocate(&file, FallocateFlags::empty(), 0, 2 * bytes + RESERVE_BYTES);
        }
    }

    /// Gives the room back.
    pub(super) fn release(&self) {
        let _ = unlinkat(&self.fd, NEW_RECORD, AtFlags::empty());
    }

    /// A new file for the log.
    pub(super) fn create_log(&self) -> Result<File, RecordError> {
        let path = self.log_path();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, LOG, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create", &path))?;
        Ok(fd.into())
    }

    /// The log, for reading.
    pub(super) fn open_log(&self) -> Result<(PathBuf, File), RecordError> {
        own::open_file(self.fd.as_fd(), &self.path, LOG)
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// What it takes on the disk, in bytes.
    pub(super) fn size(&self) -> u64 {
        let blocks = |name| {
            let found = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            u64::try_from(found.st_blocks).ok()
        };
        // st_blocks counts 512 bytes (stat(3type)).
        [RECORD, NEW_RECORD, LOG].into_iter().filter_map(blocks).sum::<u64>() * 512
    }

    /// When its log was last written to.
    pub(super) fn last_written(&self) -> Option<jiff::Timestamp> {
        let found = rustix::fs::statat(&self.fd, LOG, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        jiff::Timestamp::from_second(found.st_mtime).ok()
    }
}
