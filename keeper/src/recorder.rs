//! Writes records and drains output. Both tolerate a full disk: a machine must end well even when nothing can be
//! written about it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use creel_keeper::{ConsoleSizes, ConsoleWriter};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

const TEMPORARY: &str = ".record";

/// One read of a pipe.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;

/// Reads of one pipe before other events get their turn.
const CHUNKS_A_TURN: u32 = 8;

/// More than the largest pipe that an unprivileged user can make (1 MiB).
const MAX_REMAINDER_BYTES: usize = 2 * 1024 * 1024;

/// Writes `record` beside its place and renames it there.
pub(crate) fn write_record(directory: BorrowedFd<'_>, name: &str, record: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(record)?;
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(directory, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?;
    let written = io::Write::write_all(&mut std::fs::File::from(file), &json);
    let renamed = written.and_then(|()| Ok(renameat(directory, TEMPORARY, directory, name)?));
    if renamed.is_err() {
        let _ = unlinkat(directory, TEMPORARY, AtFlags::empty());
    }
    renamed
}

/// Nanoseconds since the epoch.
pub(crate) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The reading end of a pipe, emptied into a bounded file.
#[derive(Debug)]
pub(crate) struct Drain {
    /// None after the end of the stream.
    pipe: Option<OwnedFd>,
    /// None when the file could not be made; the pipe is emptied all the same.
    writer: Option<ConsoleWriter>,
    total: u64,
}

impl Drain {
    /// Makes the pipe and the file; returns the writing end.
    pub(crate) fn create(
        directory: BorrowedFd<'_>,
        name: &str,
        sizes: ConsoleSizes,
    ) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the two ends of a pipe have flags of their own, and a writer may expect to block.
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        let writer = ConsoleWriter::create(directory, name, sizes).ok();
        Ok((Self { pipe: Some(read), writer, total: 0 }, write))
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Takes what is there, up to a bound.
    pub(crate) fn take_turn(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        for _ in 0..CHUNKS_A_TURN {
            if self.take_chunk(buffer) == 0 {
                return;
            }
        }
    }

    /// Empties a pipe whose writers are dead. Should one live, this ends where the pipe is empty for a moment.
    pub(crate) fn take_remainder(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        let mut taken = 0;
        while taken < MAX_REMAINDER_BYTES {
            match self.take_chunk(buffer) {
                0 => return,
                bytes => taken += bytes,
            }
        }
    }

    fn take_chunk(&mut self, buffer: &mut [u8; CHUNK_BYTES]) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        match rustix::io::read(pipe, &mut buffer[..]) {
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(0) | Err(_) => {
                self.pipe = None;
                0
            }
            Ok(bytes) => {
                self.total += bytes as u64;
                if let Some(writer) = &mut self.writer {
                    writer.append(&buffer[..bytes]);
                }
                bytes
            }
        }
    }
}
