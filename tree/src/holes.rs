//! Where a file has data, as its file system says (lseek(2), SEEK_DATA and SEEK_HOLE).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::sparse::{BLOCK_BYTES, Map, Segment};

/// Holes of files with more parts than that are archived as zeroes.
const MAX_PARTS: usize = 1 << 16;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// stat(2) counts blocks in this unit.
const STAT_BLOCK: u64 = 512;

/// The parts of a file of `size` bytes; `None` when it has no holes, or its file system does not tell.
pub(crate) fn map(file: &File, size: u64, blocks: u64) -> Option<Map> {
    if blocks.saturating_mul(STAT_BLOCK) >= size {
        return None;
    }
    find(file, size).ok().filter(|map| map.stored() < size)
}

fn find(file: &File, size: u64) -> rustix::io::Result<Map> {
    let mut map = Map { segments: Vec::new(), size };
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = match map.segments.len() {
            MAX_PARTS => size,
            _ => rustix::fs::seek(file, SeekFrom::Hole(start))?,
        };
        if start >= size {
            // It has grown.
            break;
        }
        at = end.max(start + 1);
        add(&mut map, start, end.min(size));
    }
    Ok(map)
}

/// Parts begin and end at multiples of a block (but for the file's end), as the format wants it.
fn add(map: &mut Map, start: u64, end: u64) {
    let start = start / BLOCK * BLOCK;
    let end = end.next_multiple_of(BLOCK).min(map.size);
    match map.segments.last_mut() {
        Some(last) if start <= last.offset + last.length => last.length = end.max(last.offset) - last.offset,
        _ => map.segments.push(Segment { offset: start, length: end - start }),
    }
}

/// The bytes of a file's parts, one behind the other.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    file: &'a File,
    segments: &'a [Segment],
    /// Of the first segment.
    done: u64,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(file: &'a File, map: &'a Map) -> Self {
        Self { file, segments: &map.segments, done: 0 }
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some((segment, rest)) = self.segments.split_first() else { return Ok(0) };
        let left = segment.length - self.done;
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let length = self.file.read_at(&mut into[..room], segment.offset + self.done)?;
        self.done += length as u64;
        if self.done == segment.length {
            (self.segments, self.done) = (rest, 0);
        }
        Ok(length)
    }
}
