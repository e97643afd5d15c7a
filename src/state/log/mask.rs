//! Hides secrets in a byte stream, across whatever borders its chunks have.
//!
//! Every byte that belongs to an occurrence of a masked form is hidden; occurrences that overlap are hidden by one
//! mask. (To replace the longest match and go on behind it would leave the tail of a second secret that begins inside
//! the first.) The result depends on the bytes alone, never on how they were cut.
//!
//! An Aho-Corasick automaton over all forms reads the stream. Its state tells the longest suffix read so far with which
//! some form begins, which is exactly what must be held back. Most output is nowhere near
//! a secret: from the start state a vectorised search for the forms' first bytes skips ahead.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::packed::{MatchKind as PackedKind, Searcher};
use aho_corasick::{Anchored, MatchKind};

use super::forms::{MIN_SECRET_BYTES, forms};

/// What stands in the output where a secret stood.
pub const MASK: &[u8] = b"***";

/// Why a mask can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    #[error("the secrets of the workflow are too large to be masked; make them smaller or fewer")]
    TooLarge(#[source] aho_corasick::BuildError),
}

/// The compiled forms of a workflow's secrets, shared by all its streams.
#[derive(Clone)]
pub struct Mask {
    /// None when there is nothing to hide.
    forms: Option<Arc<Forms>>,
    ignored: usize,
}

impl Mask {
    /// Compiles `secrets`; those shorter than [`MIN_SECRET_BYTES`] are not masked.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S]) -> Result<Self, MaskError> {
        let ignored = secrets.iter().filter(|secret| secret.as_ref().len() < MIN_SECRET_BYTES).count();
        let patterns: Vec<_> = forms(secrets).into_iter().collect();
        let forms = if patterns.is_empty() { None } else { Some(Arc::new(Forms::new(&patterns)?)) };
        Ok(Self { forms, ignored })
    }

    /// A mask that hides nothing.
    pub fn none() -> Self {
        Self { forms: None, ignored: 0 }
    }

    /// How many secrets are too short to be masked; the user should hear of it.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// Masks a whole text at once.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut masker = Masker::new(self.clone(), 0);
        masker.push(text, &mut out);
        masker.flush(&mut out);
        out
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The automaton's own Debug prints the secrets.
        f.debug_struct("Mask").field("active", &self.forms.is_some()).finish_non_exhaustive()
    }
}

struct Forms {
    automaton: NFA,
    start: StateID,
    /// For each state the length of the longest suffix read that begins some form without ending it.
    pending: HashMap<StateID, usize>,
    skip: Skip,
}

impl Forms {
    fn new(patterns: &[Vec<u8>]) -> Result<Self, MaskError> {
        let automaton = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(patterns)
            .map_err(MaskError::TooLarge)?;
        let start = automaton.start_state(Anchored::No).expect("an NFA of this kind has an unanchored start");
        let read = |bytes: &[u8]| {
            bytes.iter().fold(start, |state, byte| automaton.next_state(Anchored::No, state, *byte))
        };

        let mut pending = HashMap::from([(start, 0)]);
        for pattern in patterns {
            let mut state = start;
            for (depth, byte) in pattern.iter().enumerate() {
                pending.insert(state, depth);
                state = automaton.next_state(Anchored::No, state, *byte);
            }
        }
        // A form that begins no longer one waits for nothing itself, only for what its own end may begin; shorter forms
        // first, as that end may be one of them.
        let mut by_length: Vec<_> = patterns.iter().collect();
        by_length.sort_by_key(|pattern| pattern.len());
        for pattern in by_length {
            let of_end = pending[&read(&pattern[1..])];
            pending.entry(read(pattern)).or_insert(of_end);
        }
        Ok(Self { automaton, start, pending, skip: Skip::new(patterns) })
    }

    /// The length of the longest form that ends in `state`.
    fn longest_match(&self, state: StateID) -> usize {
        let matches = 0..self.automaton.match_len(state);
        let lengths =
            matches.map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)));
        lengths.max().unwrap_or(0)
    }
}

/// Finds the next place at which a form may begin.
struct Skip {
    /// None where the CPU has no suitable instructions, or with too many forms.
    packed: Option<Searcher>,
    prefix: usize,
    /// A bit for each pair of first bytes: the fallback.
    pairs: Vec<u64>,
}

impl Skip {
    fn new(patterns: &[Vec<u8>]) -> Self {
        let shortest = patterns.iter().map(Vec::len).min().unwrap_or(0);
        let prefix = shortest.min(4);
        let mut prefixes: Vec<_> = patterns.iter().map(|pattern| &pattern[..prefix]).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut pairs = vec![0; (1 << 16) / 64];
        for prefix in &prefixes {
            let pair = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
            pairs[pair / 64] |= 1 << (pair % 64);
        }
        let packed = aho_corasick::packed::Config::new()
            .match_kind(PackedKind::LeftmostFirst)
            .builder()
            .extend(prefixes)
            .build();
        Self { packed, prefix, pairs }
    }

    /// The first index at or after `from` where a form may begin. Too close to the end to tell counts as "may".
    fn next(&self, bytes: &[u8], from: usize) -> usize {
        let undecided = from.max((bytes.len() + 1).saturating_sub(self.prefix));
        if from >= undecided {
            return from;
        }
        let found = match &self.packed {
            Some(packed) => packed.find(&bytes[from..]).map(|found| found.start()),
            None => bytes[from..].windows(2).position(|pair| {
                let pair = usize::from(u16::from_be_bytes([pair[0], pair[1]]));
                self.pairs[pair / 64] >> (pair % 64) & 1 == 1
            }),
        };
        found.map_or(undecided, |found| (from + found).min(undecided))
    }
}

/// Hides the secrets of one stream. Offsets are raw: counted in bytes pushed.
pub struct Masker {
    mask: Mask,
    state: Option<StateID>,
    /// All before this raw offset is out.
    written: u64,
    /// The raw bytes from `written` on.
    held: Vec<u8>,
    /// Occurrences not yet wholly out; starts and ends both ascend.
    hidden: VecDeque<(u64, u64)>,
    /// The end of the last occurrence whose mask is out; one that overlaps it gets no mask of its own.
    masked_until: u64,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Held bytes may be the beginning of a secret.
        f.debug_struct("Masker")
            .field("written", &self.written)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Masker {
    /// A masker for a stream whose next byte has the raw offset `raw_offset`.
    pub fn new(mask: Mask, raw_offset: u64) -> Self {
        let state = mask.forms.as_ref().map(|forms| forms.start);
        let hidden = VecDeque::new();
        Self { mask, state, written: raw_offset, held: Vec::new(), hidden, masked_until: raw_offset }
    }

    /// The raw offset up to which output is out. A new masker that is given the stream from here on hides all that
    /// this one would have hidden: the offset never lies where a secret would be cut.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The raw offset of the next byte to be pushed.
    pub fn next(&self) -> u64 {
        self.written + self.held.len() as u64
    }

    /// Reads `bytes`, appends to `out` what can be decided, and returns [`written`](Self::written). At most twice the
    /// longest form is held back.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> u64 {
        let (Some(forms), Some(mut state)) = (self.mask.forms.clone(), self.state) else {
            out.extend_from_slice(bytes);
            self.written += bytes.len() as u64;
            return self.written;
        };
        let base = self.next();
        let mut index = 0;
        while index < bytes.len() {
            if state == forms.start {
                index = forms.skip.next(bytes, index);
            }
            while let Some(byte) = bytes.get(index) {
                state = forms.automaton.next_state(Anchored::No, state, *byte);
                index += 1;
                if state == forms.start {
                    break;
                }
                if forms.automaton.is_match(state) {
                    let end = base + index as u64;
                    self.hide(end - forms.longest_match(state) as u64, end);
                }
            }
        }
        self.state = Some(state);
        // No form that is still to be completed begins before this.
        let settled = base + bytes.len() as u64 - forms.pending[&state] as u64;
        self.write_until(self.uncut(settled), bytes, out)
    }

    /// Appends to `out` all that is held back: the stream is at its end.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> u64 {
        self.state = self.mask.forms.as_ref().map(|forms| forms.start);
        self.write_until(self.next(), &[], out)
    }

    fn hide(&mut self, start: u64, end: u64) {
        while self.hidden.back().is_some_and(|(inner, _)| *inner >= start) {
            self.hidden.pop_back();
        }
        self.hidden.push_back((start, end));
    }

    /// `settled`, or if an occurrence covers it, the start of the last such: whoever reads from there finds that
    /// occurrence and all after it, and so hides the same bytes. Going back to the start of the whole overlapping run
    /// would be as right, but a guest that prints `aaaa…` could then hold the offset still for ever.
    fn uncut(&self, settled: u64) -> u64 {
        match self.hidden.iter().rev().find(|(start, _)| *start <= settled) {
            Some((start, end)) if settled < *end => *start,
            _ => settled,
        }
    }

    fn write_until(&mut self, end: u64, bytes: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut at = self.written.max(self.masked_until);
        while let Some(&(start, hidden_end)) = self.hidden.front().filter(|(start, _)| *start < end) {
            if start >= self.masked_until {
                self.copy(at, start, bytes, out);
                out.extend_from_slice(MASK);
            }
            self.masked_until = hidden_end;
            at = hidden_end;
            self.hidden.pop_front();
        }
        self.copy(at, end, bytes, out);

        let advance = usize::try_from(end - self.written).expect("what was in memory has a length in memory");
        if let Some(consumed) = advance.checked_sub(self.held.len()) {
            self.held.clear();
            self.held.extend_from_slice(&bytes[consumed..]);
        } else {
            self.held.drain(..advance);
            self.held.extend_from_slice(bytes);
        }
        self.written = end;
        end
    }

    /// Appends the raw bytes `from..to`, which lie in `held` followed by `bytes`.
    fn copy(&self, from: u64, to: u64, bytes: &[u8], out: &mut Vec<u8>) {
        if from >= to {
            return;
        }
        let index = |offset: u64| usize::try_from(offset - self.written).expect("offsets here are in memory");
        let (from, to, held) = (index(from), index(to), self.held.len());
        out.extend_from_slice(&self.held[from.min(held)..to.min(held)]);
        out.extend_from_slice(&bytes[from.saturating_sub(held)..to.saturating_sub(held)]);
    }
}
