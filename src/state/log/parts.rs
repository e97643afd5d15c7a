//! Masked bytes on their way to the store, cut into parts that each fit into one record.
//!
//! Each part knows up to which raw offset it stands for the source's bytes, so that a daemon which is killed between two
//! parts of one append finds in the log what it has to ask for again: nothing twice, nothing missing. A cut therefore lies
//! where a new masker may begin, never within what a mask hides.

use std::collections::VecDeque;

use super::mask::{MASK, MaskedOutput};

/// What is masked but not yet stored.
#[derive(Debug)]
pub(super) struct Parts {
    /// Of one part, in bytes.
    longest: usize,
    bytes: Vec<u8>,
    /// Of those, how many are taken.
    taken: usize,
    ended: VecDeque<End>,
    /// Bytes of the part that has not ended yet.
    open: usize,
    /// Where the last part ended.
    raw: u64,
}

#[derive(Debug)]
struct End {
    bytes: usize,
    raw: u64,
}

impl Parts {
    /// Of a stream that is stored up to `raw`. `longest` is no shorter than a mask.
    pub(super) fn new(longest: usize, raw: u64) -> Self {
        let longest = longest.max(MASK.len());
        Self { longest, bytes: Vec::new(), taken: 0, ended: VecDeque::new(), open: 0, raw }
    }

    /// All that was given so far stands for the raw bytes before `raw`.
    pub(super) fn end(&mut self, raw: u64) {
        // Bytes that overlap what is masked already bring no output, but count.
        if self.open > 0 || raw > self.raw {
            self.ended.push_back(End { bytes: self.open, raw });
            self.open = 0;
            self.raw = raw;
        }
    }

    /// The first part, and the raw offset that is acknowledged with it.
    pub(super) fn first(&self) -> Option<(&[u8], u64)> {
        self.ended.front().map(|end| (&self.bytes[self.taken..self.taken + end.bytes], end.raw))
    }

    /// Forgets the first part, which is stored.
    pub(super) fn pop(&mut self) {
        if let Some(end) = self.ended.pop_front() {
            self.taken += end.bytes;
        }
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
    }
}

impl MaskedOutput for Parts {
    fn plain(&mut self, mut raw_offset: u64, mut bytes: &[u8]) {
        while self.open + bytes.len() > self.longest {
            let (fits, rest) = bytes.split_at(self.longest - self.open);
            self.bytes.extend_from_slice(fits);
            self.open += fits.len();
            raw_offset += fits.len() as u64;
            self.end(raw_offset);
            bytes = rest;
        }
        self.bytes.extend_from_slice(bytes);
        self.open += bytes.len();
    }

    fn mask(&mut self, raw_offset: u64) {
        if self.open + MASK.len() > self.longest {
            self.end(raw_offset);
        }
        self.bytes.extend_from_slice(MASK);
        self.open += MASK.len();
    }
}
