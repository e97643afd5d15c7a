//! The one writer of a workflow's log. What `append` acknowledges has been handed to write(2): it survives the
//! daemon's death by whatever signal, though not a power cut.
//!
//! Everything here blocks, for as long as the page cache lets a write wait.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::file::{self, StreamOffsets};
use super::follow::Follower;
use super::frame::{Control, FrameHead, FrameKind, Stream, encode};
use super::mask::{Mask, MaskError, Masker};
use super::parts::Parts;
use super::segments::{Limits, Offsets, Segments};
use crate::host::tmpfile::anonymous_file;

/// Why the log can't be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no space left for the log in `{}`; free some, or lower `logs.max_step`", path.display())]
    DiskFull {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to {action} the log `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a log that this version of creel can read", path.display())]
    NotALog { path: PathBuf },
    #[error(
        "the agent sent {stream:?} of step {step} from offset {got}, but {expected} comes next; bytes are missing"
    )]
    Gap { step: i32, stream: Stream, expected: u64, got: u64 },
    #[error("the log of the workflow is sealed; nothing can be added to it")]
    Sealed,
}

/// Output that this process has written to logs, of all stores.
static BYTES_STORED: AtomicU64 = AtomicU64::new(0);

/// How many bytes of output this process has stored in all its logs, as they are after masking.
pub fn bytes_stored() -> u64 {
    BYTES_STORED.load(Ordering::Relaxed)
}

/// What of a stream is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Raw bytes, counted at the source, that need not be sent again.
    pub raw: u64,
    /// Bytes stored, after masking.
    pub stored: u64,
}

/// The log of one workflow. Clones share it; followers end once it is sealed, or the last clone and appender are gone.
#[derive(Clone)]
pub struct LogStore {
    writer: Arc<Writer>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("path", &self.writer.log.path).finish_non_exhaustive()
    }
}

/// What the writer and the followers share.
pub(super) struct Log {
    pub(super) file: File,
    /// The file's, or its directory's if it has no name.
    pub(super) path: PathBuf,
    index: Mutex<Segments>,
}

impl Log {
    pub(super) fn new(file: File, path: &Path, segments: Segments) -> Self {
        Self { file, path: path.to_owned(), index: Mutex::new(segments) }
    }

    /// Held for a look-up, never for a write: followers are never kept waiting by a slow disk.
    pub(super) fn index(&self) -> MutexGuard<'_, Segments> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn error(&self, action: &'static str, source: io::Error) -> LogError {
        io_error(action, &self.path, source)
    }
}

struct Writer {
    log: Arc<Log>,
    mask: Mutex<Mask>,
    progress: watch::Sender<()>,
    pen: Mutex<Pen>,
}

/// Held by whoever writes: one record after the other.
struct Pen {
    /// What goes before a record's payload, kept for its memory.
    frame: Vec<u8>,
    offsets: StreamOffsets,
}

impl LogStore {
    /// Begins a log in the new file `path` (mode 0600), masking with `mask`.
    pub fn create(path: &Path, limits: Limits, mask: Mask) -> Result<Self, LogError> {
        let file = file::create(path).map_err(|error| io_error("create", path, error))?;
        Self::begin(file, path, limits, mask)
    }

    /// Begins a log in `file`, new and empty, which messages call `path`.
    ///
    /// # Errors
    /// When its header can't be written.
    pub fn create_in(file: File, path: &Path, limits: Limits, mask: Mask) -> Result<Self, LogError> {
        Self::begin(file, path, limits, mask)
    }

    /// Begins a log in a file without a name in `directory`: nothing is left behind.
    pub fn anonymous(directory: &Path, limits: Limits, mask: Mask) -> Result<Self, LogError> {
        let file = anonymous_file(directory).map_err(|error| io_error("create", directory, error))?;
        Self::begin(file, directory, limits, mask)
    }

    /// Goes on with the log in `path` that an earlier process left; a record torn at its end is dropped.
    pub fn open(path: &Path, limits: Limits, mask: Mask) -> Result<Self, LogError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|error| io_error("open", path, error))?;
        let recovered = file::recover(&file, limits).map_err(|error| io_error("read", path, error))?;
        let (segments, offsets) = recovered.ok_or_else(|| LogError::NotALog { path: path.to_owned() })?;
        Ok(Self::with(Log::new(file, path, segments), mask, offsets))
    }

    fn begin(file: File, path: &Path, limits: Limits, mask: Mask) -> Result<Self, LogError> {
        let segment_bytes = limits.segment_bytes();
        let log = Log::new(file, path, Segments::new(limits, segment_bytes));
        file::write_header(&log.file, segment_bytes).map_err(|error| log.error("write", error))?;
        Ok(Self::with(log, mask, StreamOffsets::new()))
    }

    fn with(log: Log, mask: Mask, offsets: StreamOffsets) -> Self {
        let pen = Mutex::new(Pen { frame: Vec::new(), offsets });
        let (mask, progress) = (Mutex::new(mask), watch::Sender::new(()));
        let writer = Writer { log: Arc::new(log), mask, progress, pen };
        Self { writer: Arc::new(writer) }
    }

    /// Masks these secrets too, in what appenders made from now on and marks added from now on say.
    ///
    /// # Errors
    /// When there are too many bytes of them.
    pub fn mask_also<S: AsRef<[u8]>>(&self, secrets: impl IntoIterator<Item = S>) -> Result<(), MaskError> {
        let secrets: Vec<S> = secrets.into_iter().collect();
        let mut mask = self.writer.mask.lock().unwrap_or_else(PoisonError::into_inner);
        *mask = mask.also(&secrets)?;
        Ok(())
    }

    /// Drops the mask and the secrets in it: for a log that is sealed.
    pub fn forget_secrets(&self) {
        *self.writer.mask.lock().unwrap_or_else(PoisonError::into_inner) = Mask::none();
    }

    /// The mask in force.
    pub fn mask(&self) -> Mask {
        self.writer.mask()
    }

    /// The way to write one stream of one step, from where the log stands. One at a time for each stream.
    pub fn appender(&self, step: i32, stream: Stream) -> Appender {
        let acknowledged = self.acknowledged(step, stream);
        let masker = Masker::new(self.writer.mask(), acknowledged.raw);
        let pending = Parts::new(self.writer.log.index().max_payload(), acknowledged.raw);
        Appender { store: self.clone(), step, stream, masker, pending, acknowledged }
    }

    /// How far a stream is stored: where its source has to go on after a restart.
    pub fn acknowledged(&self, step: i32, stream: Stream) -> Acknowledged {
        let offsets = self.writer.pen().offsets.get(&(step, stream)).copied().unwrap_or_default();
        Acknowledged { raw: offsets.raw, stored: offsets.stored }
    }

    /// Adds a mark; its texts are masked too.
    pub fn control(&self, step: i32, control: &Control) -> Result<(), LogError> {
        let mask = self.writer.mask();
        let masked = |text: &str| String::from_utf8_lossy(&mask.apply(text.as_bytes())).into_owned();
        let longest = self.writer.log.index().max_payload() / 8;
        // A JSON string takes up to six bytes for one, and there are two that a workflow's author chooses.
        let cut = |mut text: String, longest: usize| {
            let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text
        };
        let control = Control {
            step_status: control.step_status,
            step_kind: cut(masked(&control.step_kind), 64),
            step_command: cut(masked(&control.step_command), longest / 2),
            content: cut(masked(&control.content), longest / 2),
        };
        let json =
            serde_json::to_vec(&control).map_err(|error| self.writer.log.error("write", error.into()))?;
        self.writer.write(step, FrameKind::Control, 0, &json)
    }

    /// A follower that begins with record `from` (0: all there is) and goes on live.
    pub fn follow(&self, from: u64) -> Follower {
        Follower::live(self.writer.log.clone(), self.writer.progress.subscribe(), from)
    }

    /// The number that the next record gets.
    pub fn next_sequence(&self) -> u64 {
        self.writer.log.index().next_sequence()
    }

    /// Ends the log: followers end after its last record. Idempotent.
    pub fn seal(&self) -> Result<(), LogError> {
        let _pen = self.writer.pen();
        let written = file::write_seal(&self.writer.log.file);
        self.writer.log.index().sealed = true;
        self.writer.progress.send_replace(());
        written.map_err(|error| self.writer.log.error("seal", error))
    }
}

impl Writer {
    fn mask(&self) -> Mask {
        self.mask.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pen(&self) -> MutexGuard<'_, Pen> {
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, step: i32, kind: FrameKind, raw_offset: u64, payload: &[u8]) -> Result<(), LogError> {
        let mut pen = self.pen();
        let pen = &mut *pen;
        let now = [Stream::Stdout, Stream::Stderr]
            .map(|stream| pen.offsets.get(&(step, stream)).copied().unwrap_or_default());
        let (segment, at, sequence) = {
            let mut index = self.log.index();
            if index.sealed {
                return Err(LogError::Sealed);
            }
            let segment = index.place(step, payload.len(), now);
            (segment, index.file_offset(&segment), index.next_sequence())
        };
        pen.frame.clear();
        if segment.records == 0 {
            file::encode_segment(&segment, &mut pen.frame);
        }
        let offset = match kind {
            FrameKind::Data(stream) => now[stream.lane()].stored,
            FrameKind::Control => 0,
        };
        let head = FrameHead { kind, sequence, time: Timestamp::now(), offset, raw_offset };
        let tail = encode(head, payload.len(), &mut pen.frame);
        let at = if segment.records == 0 { at } else { at + segment.used };
        file::write_parts(&self.log.file, [&pen.frame, payload, &tail], at)
            .map_err(|error| self.log.error("write", error))?;

        let mut output = 0;
        if let FrameKind::Data(stream) = kind {
            output = payload.len();
            BYTES_STORED.fetch_add(output as u64, Ordering::Relaxed);
            let stored = offset + output as u64;
            pen.offsets.insert((step, stream), Offsets { stored, raw: raw_offset });
        }
        self.log.index().commit(payload.len(), output);
        self.progress.send_replace(());
        Ok(())
    }
}

/// Writes one stream of one step.
#[derive(Debug)]
pub struct Appender {
    store: LogStore,
    step: i32,
    stream: Stream,
    masker: Masker,
    /// Masked, but not yet stored: only after an error is there any.
    pending: Parts,
    acknowledged: Acknowledged,
}

impl Appender {
    /// The raw offset from which bytes are new.
    pub fn next(&self) -> u64 {
        self.masker.next()
    }

    /// Stores `bytes`, which begin at `raw_offset` of the source; what came before already is dropped. What is still
    /// held back for the mask is not acknowledged. After an error, the same call may be made again.
    pub fn append(&mut self, raw_offset: u64, bytes: &[u8]) -> Result<Acknowledged, LogError> {
        let expected = self.next();
        let Some(seen) = expected.checked_sub(raw_offset) else {
            return Err(LogError::Gap { step: self.step, stream: self.stream, expected, got: raw_offset });
        };
        let new = usize::try_from(seen).ok().and_then(|seen| bytes.get(seen..)).unwrap_or_default();
        let raw = self.masker.push(new, &mut self.pending);
        self.store_pending(raw)
    }

    /// Stores what is held back: the stream is at its end, and all of it is acknowledged.
    pub fn finish(&mut self) -> Result<Acknowledged, LogError> {
        let raw = self.masker.flush(&mut self.pending);
        self.store_pending(raw)
    }

    fn store_pending(&mut self, raw: u64) -> Result<Acknowledged, LogError> {
        self.pending.end(raw);
        while let Some((part, raw)) = self.pending.first() {
            self.store.writer.write(self.step, FrameKind::Data(self.stream), raw, part)?;
            self.acknowledged = Acknowledged { raw, stored: self.acknowledged.stored + part.len() as u64 };
            self.pending.pop();
        }
        Ok(self.acknowledged)
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> LogError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::DiskFull { path, source },
        _ => LogError::Io { action, path, source },
    }
}
