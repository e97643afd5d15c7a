//! Where a sparse file has data: as a list, and as archives write it.
//!
//! Written is GNU's pax format 1.0 ("Storing Sparse Files", tar manual, appendix D.4): the list as decimal numbers, one a
//! line, in front of the data and filled up to a block. Read is also the old GNU format, with the list in headers.

use std::io::{self, Read};

use super::reader::FormatError;

/// Of tar.
pub(crate) const BLOCK_BYTES: usize = 512;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Of one file, 4 MiB in memory. What is written never has as many; see `holes`.
pub(crate) const MAX_SEGMENTS: usize = 1 << 18;

/// A part of a file that has data. All else of it reads as zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// A whole file: segments in order, without overlap, and its length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Map {
    pub segments: Vec<Segment>,
    pub size: u64,
}

impl Map {
    /// Takes the next segment of an archive's list.
    pub(crate) fn push(&mut self, segment: Segment) -> Result<(), FormatError> {
        let end = self.segments.last().map_or(0, |last| last.offset + last.length);
        let last_is_whole = self.segments.last().is_none_or(|last| last.length % BLOCK == 0);
        match segment.offset.checked_add(segment.length) {
            Some(segment_end) if segment.offset >= end && i64::try_from(segment_end).is_ok() => {}
            _ => return Err(FormatError::SparseMap("its parts overlap or lie outside of the file")),
        }
        if segment.length == 0 {
            // Only tells the file's end.
            return Ok(());
        }
        if !last_is_whole {
            return Err(FormatError::SparseMap(
                "a part that is not the last one is no multiple of 512 bytes",
            ));
        }
        if self.segments.len() == MAX_SEGMENTS {
            return Err(FormatError::SparseMap("it has too many parts"));
        }
        self.segments.push(segment);
        Ok(())
    }

    /// How much of it is in the archive.
    pub(crate) fn stored(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Whether the segments fit the file and the data that the archive has for them.
    pub(crate) fn check(&self, stored: u64) -> Result<(), FormatError> {
        if self.segments.last().is_some_and(|last| last.offset + last.length > self.size) {
            return Err(FormatError::SparseMap("its parts overlap or lie outside of the file"));
        }
        if self.stored() != stored {
            return Err(FormatError::SparseMap("it does not fit the data"));
        }
        Ok(())
    }

    /// In pax format 1.0, filled up to a block.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        use std::fmt::Write as _;
        let last_end = self.segments.last().map_or(0, |last| last.offset + last.length);
        let ends_in_hole = last_end < self.size || self.segments.is_empty();
        let mut text = format!("{}\n", self.segments.len() + usize::from(ends_in_hole));
        let end = Segment { offset: self.size, length: 0 };
        for Segment { offset, length } in self.segments.iter().chain(ends_in_hole.then_some(&end)) {
            // Writing to a string does not fail.
            let _ = write!(text, "{offset}\n{length}\n");
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    /// Reads the list in pax format 1.0. Returns also how many bytes it took, a multiple of the block.
    pub(crate) fn from_text(input: &mut impl Read, size: u64) -> Result<(Self, u64), MapError> {
        let mut lines = Numbers { input, block: [0; BLOCK_BYTES], next: BLOCK_BYTES, taken: 0 };
        let mut map = Self { segments: Vec::new(), size };
        let count = lines.number()?;
        for _ in 0..count {
            let segment = Segment { offset: lines.number()?, length: lines.number()? };
            // Bounds the list: only segments of length 0 are not counted, and those end it.
            let is_end = segment.length == 0;
            map.push(segment)?;
            if is_end {
                break;
            }
        }
        Ok((map, lines.taken))
    }
}

/// What ends the reading of a list.
#[derive(Debug)]
pub(crate) enum MapError {
    Format(FormatError),
    Read(io::Error),
}

impl From<FormatError> for MapError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

/// Decimal numbers, one a line, read a block at a time.
struct Numbers<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK_BYTES],
    next: usize,
    taken: u64,
}

impl<R: Read> Numbers<'_, R> {
    fn byte(&mut self) -> Result<u8, MapError> {
        if self.next == BLOCK_BYTES {
            self.input.read_exact(&mut self.block).map_err(MapError::Read)?;
            self.next = 0;
            self.taken += BLOCK;
        }
        self.next += 1;
        Ok(self.block[self.next - 1])
    }

    fn number(&mut self) -> Result<u64, MapError> {
        let broken = || FormatError::SparseMap("it is not a list of numbers");
        let mut number: Option<u64> = None;
        loop {
            match self.byte()? {
                b'\n' => return Ok(number.ok_or_else(broken)?),
                digit @ b'0'..=b'9' => {
                    let shifted = number.unwrap_or(0).checked_mul(10);
                    number = Some(
                        shifted
                            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                            .ok_or_else(broken)?,
                    );
                }
                _ => return Err(broken().into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_survives_its_text(parts in proptest::collection::vec((0..9u64, 1..9u64), 0..200), tail in 0..9u64) {
            let mut map = Map::default();
            for (gap, length) in parts {
                let offset = map.size + gap * BLOCK;
                map.push(Segment { offset, length: length * BLOCK }).unwrap();
                map.size = offset + length * BLOCK;
            }
            map.size += tail;
            let text = map.to_text();
            prop_assert_eq!(text.len() % BLOCK_BYTES, 0);
            let (read, taken) = Map::from_text(&mut &text[..], map.size).map_err(|_| TestCaseError::fail("unread"))?;
            prop_assert_eq!(taken, text.len() as u64);
            prop_assert_eq!(read, map);
        }

        #[test]
        fn any_text_is_taken(text in "[0-9\n\\x00a]{0,600}", size in any::<u64>()) {
            let mut block = text.into_bytes();
            block.resize(block.len().next_multiple_of(BLOCK_BYTES), 0);
            if let Ok((map, _)) = Map::from_text(&mut &block[..], size) {
                prop_assert!(map.segments.len() <= MAX_SEGMENTS);
            }
        }
    }
}
