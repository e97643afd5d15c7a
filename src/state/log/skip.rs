//! Finds the next place in a stream at which a secret may begin, for the automaton to look at.
//!
//! With few forms, aho-corasick's vectorised search compares the first bytes of all of them at once. With more than it takes
//! (some sixty), a grid does: whatever begins at `at` covers `window` bytes, and so one of the blocks of four bytes that end
//! at every `stride`-th byte. A block that is in no form, as is almost every block of a log, proves `stride` places clean by
//! one look into a table that stays in the nearest cache, and the looks do not wait for each other.

use aho_corasick::packed::{Config, MatchKind, Searcher};

/// Longer windows would take in more blocks, which would be found more often by chance.
const MAX_WINDOW: usize = 16;

const MAX_BLOCK: usize = 4;

/// Of the bits of a table: 32 KiB.
const TABLE_BITS: u32 = 18;

/// A set of short byte strings of one length, which may say yes where no is right.
struct Blocks {
    /// Bytes of a block: 3 or 4.
    length: usize,
    bits: Vec<u64>,
}

impl Blocks {
    fn new(length: usize) -> Self {
        Self { length, bits: vec![0; (1 << TABLE_BITS) / 64] }
    }

    fn insert(&mut self, block: &[u8]) {
        let bit = self.bit(block);
        self.bits[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether the block that `bytes` begins with may be in the set; `bytes` are no shorter than a block.
    #[inline]
    fn may_contain(&self, bytes: &[u8]) -> bool {
        let bit = self.bit(bytes);
        self.bits[bit / 64] >> (bit % 64) & 1 == 1
    }

    #[inline]
    fn bit(&self, bytes: &[u8]) -> usize {
        let block = match bytes.first_chunk() {
            Some(block) if self.length == MAX_BLOCK => u32::from_le_bytes(*block),
            _ => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]),
        };
        // Multiplicative hashing (Knuth, volume 3, 6.4): the upper bits depend on all of the block's.
        (block.wrapping_mul(0x9e37_79b1) >> (u32::BITS - TABLE_BITS)) as usize
    }
}

/// Where forms may begin.
pub(super) struct Skip {
    /// None where the CPU has no suitable instructions, or with too many forms.
    packed: Option<Searcher>,
    /// How forms begin.
    beginnings: Blocks,
    /// Every block of the first `window` bytes of every form.
    within: Blocks,
    window: usize,
}

impl Skip {
    /// For `patterns`, each of three bytes or more.
    pub(super) fn new(patterns: &[Vec<u8>]) -> Self {
        let shortest = patterns.iter().map(Vec::len).min().unwrap_or(0).max(3);
        let (window, block) = (shortest.min(MAX_WINDOW), shortest.min(MAX_BLOCK));
        let (mut beginnings, mut within) = (Blocks::new(block), Blocks::new(block));
        for pattern in patterns {
            beginnings.insert(pattern);
            pattern[..window].windows(block).for_each(|block| within.insert(block));
        }
        let mut prefixes: Vec<_> = patterns.iter().map(|pattern| &pattern[..block]).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let kind = MatchKind::LeftmostFirst;
        let packed = Config::new().match_kind(kind).builder().extend(prefixes).build();
        Self { packed, beginnings, within, window }
    }

    /// The first index at or after `from` where a form may begin. Too close to the end to tell counts as "may".
    pub(super) fn next(&self, bytes: &[u8], from: usize) -> usize {
        let undecided = from.max((bytes.len() + 1).saturating_sub(self.beginnings.length));
        if from >= undecided {
            return from;
        }
        let found = match &self.packed {
            Some(packed) => packed.find(&bytes[from..]).map(|found| from + found.start()),
            None => self.on_grid(bytes, from, undecided),
        };
        found.map_or(undecided, |found| found.min(undecided))
    }

    /// Whether a form may begin at one of the last `count` bytes before `index`.
    pub(super) fn may_have_begun(&self, bytes: &[u8], index: usize, count: usize) -> bool {
        let Some(first) = index.checked_sub(count) else { return true };
        (first..index).any(|at| {
            let rest = &bytes[at..];
            rest.len() < self.beginnings.length || self.beginnings.may_contain(rest)
        })
    }

    fn on_grid(&self, bytes: &[u8], from: usize, undecided: usize) -> Option<usize> {
        let begins = |at: &usize| self.beginnings.may_contain(&bytes[*at..]);
        let stride = self.window - self.within.length + 1;
        let mut at = from;
        // The block at `at + stride - 1` lies within whatever begins at one of the `stride` places from `at` on.
        while let Some(block) = bytes.get(at + stride - 1..).filter(|rest| rest.len() >= self.within.length) {
            if self.within.may_contain(block)
                && let Some(found) = (at..at + stride).find(begins)
            {
                return Some(found);
            }
            at += stride;
        }
        (at..undecided).find(begins)
    }
}
